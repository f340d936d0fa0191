//! From an origin to a byte stream: addresses, TCP, TLS.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Origin;
use super::error::UpstreamError;

/// How long one address is tried alone before the next one joins (RFC 8305 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// A connection on which HTTP can be spoken.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        http2: bool,
    },
}

/// Connects to `origin`. `timeout` only sets the pace over several addresses; the caller bounds the whole.
///
/// # Errors
///
/// `Dns`, `Connect` or `Tls`.
pub(super) async fn dial(
    origin: &Origin,
    tls: &TlsConnector,
    timeout: Duration,
) -> Result<Wire, UpstreamError> {
    let addresses = origin
        .resolver()
        .addresses(Instant::now())
        .await
        .map_err(UpstreamError::Dns)?;
    let stream = race(&addresses, pace(addresses.len(), timeout))
        .await
        .map_err(|error| UpstreamError::Connect(Arc::new(error)))?;
    tune(&stream);
    match origin.server_name() {
        None => Ok(Wire::Plain(stream)),
        Some(name) => handshake(tls, name.clone(), stream).await,
    }
}

async fn handshake(
    tls: &TlsConnector,
    name: ServerName<'static>,
    stream: TcpStream,
) -> Result<Wire, UpstreamError> {
    let stream = tls
        .connect(name, stream)
        .await
        .map_err(|error| UpstreamError::Tls(Arc::new(error)))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Wire::Tls {
        stream: Box::new(stream),
        http2,
    })
}

/// Options that make a connection quick and its death noticed. A kernel that refuses one costs nothing
/// but that.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE / 3),
    );
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

/// Time between two addresses: every one of them gets its turn within `timeout`.
fn pace(addresses: usize, timeout: Duration) -> Duration {
    let turns = u32::try_from(addresses).unwrap_or(u32::MAX).saturating_add(1);
    STAGGER.min(timeout / turns)
}

/// Tries the addresses in order: the next one starts when the one before failed or `stagger` has passed;
/// the first connection wins, and the others are dropped.
async fn race(addresses: &[SocketAddr], stagger: Duration) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect(only).await;
    }
    type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;
    let mut untried = addresses.iter().copied();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut failure = io::Error::other("no address to connect to");
    let mut next_at = pin!(sleep_until(Instant::now()));
    let mut next_now = true;
    poll_fn(|context| {
        loop {
            let mut index = 0;
            while let Some(attempt) = attempts.get_mut(index) {
                match attempt.as_mut().poll(context) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        failure = error;
                        next_now = true;
                        drop(attempts.swap_remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            if !next_now && next_at.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let Some(address) = untried.next() else {
                if attempts.is_empty() {
                    return Poll::Ready(Err(std::mem::replace(
                        &mut failure,
                        io::Error::other("polled again"),
                    )));
                }
                return Poll::Pending;
            };
            next_now = false;
            next_at.as_mut().reset(Instant::now() + stagger);
            attempts.push(Box::pin(TcpStream::connect(address)));
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// An address that refuses.
    async fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let addresses = [refusing().await, refusing().await, good];
        // No pause is waited for: it would be an hour.
        let stream = race(&addresses, Duration::from_secs(3_600)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn an_address_that_never_answers_is_overtaken() {
        // A listener whose backlog is full swallows further connections without an answer.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        socket.listen(0).unwrap();
        let silent = socket.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(silent)).await
        {
            filling.push(stream.unwrap());
            assert!(filling.len() < 64, "the backlog is never full");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let stream = race(&[silent, good], Duration::from_millis(20)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn when_every_address_fails_the_last_failure_is_told() {
        let addresses = [refusing().await, refusing().await];
        let error = race(&addresses, STAGGER).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(&[], STAGGER).await.is_err());
    }

    #[test]
    fn every_address_gets_its_turn() {
        let second = Duration::from_secs(1);
        assert_eq!(pace(1, second), STAGGER);
        assert_eq!(pace(2, second), STAGGER);
        assert_eq!(pace(9, second), Duration::from_millis(100));
    }
}
