//! Websockets to upstream: the same addresses, TLS roots and headers as requests, a connection of their own.
//!
//! They feed no breaker: a gateway that knows no websockets says nothing of evaluation. Whoever opens one paces
//! itself.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::header::{
    CONNECTION, DATE, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    USER_AGENT,
};
use http::{Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::connect::{Wire, dial};
use super::error::{Phase, UpstreamError};
use super::exchange::OUR_USER_AGENT;
use super::headers::clean_request;
use super::{Origin, Shared};
use crate::metrics::{Operation, Outcome};

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// A websocket to upstream.
pub type Socket = WebSocketStream<SocketIo>;

/// An open websocket.
#[derive(Debug)]
pub struct Opened {
    /// The socket.
    pub socket: Socket,
    /// The clock of whoever answered.
    pub date: Option<SystemTime>,
}

/// Why there is no websocket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No connection, or none in time.
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    /// Something else than an upgrade.
    #[error("upstream answered {} instead of an upgrade", status.as_u16())]
    Refused {
        /// Its status.
        status: StatusCode,
        /// The clock of whoever answered.
        date: Option<SystemTime>,
    },
    /// What came is no websocket handshake.
    #[error("not a websocket handshake: {0}")]
    Handshake(#[source] Box<tungstenite::Error>),
}

impl SocketError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Upstream(error) => error.outcome(),
            Self::Refused { status, .. } => match status.as_u16() {
                401 | 403 => Outcome::Rejected,
                429 => Outcome::Throttled,
                300..=399 => Outcome::Redirect,
                400..=499 => Outcome::ClientError,
                500..=599 => Outcome::ServerError,
                _ => Outcome::Protocol,
            },
            Self::Handshake(_) => Outcome::Protocol,
        }
    }
}

/// Opens websockets.
pub struct Dialer {
    shared: Arc<Shared>,
    /// As for requests, but without HTTP/2, which would be another handshake.
    tls: TlsConnector,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// A dialer with the settings of `shared`.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Self {
        let mut tls = rustls::ClientConfig::clone(&shared.tls);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            shared: Arc::clone(shared),
            tls: TlsConnector::from(Arc::new(tls)),
        }
    }

    /// Opens a websocket to `target`, a path with its query, below the base of `origin`. Messages of more than
    /// `max_message` bytes end it.
    ///
    /// # Errors
    /// When it is not open by `deadline`. The text holds neither path nor query, which may be secret.
    pub async fn open(
        &self,
        origin: &Arc<Origin>,
        target: &Uri,
        headers: HeaderMap,
        max_message: usize,
        deadline: Instant,
    ) -> Result<Opened, SocketError> {
        let began = Instant::now();
        origin.resolver().touch(began);
        let opening = pin!(self.opening(origin, target, headers, max_message));
        let opened = match timeout_at(deadline, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(UpstreamError::Timeout(Phase::Connect).into()),
        };
        let outcome = opened
            .as_ref()
            .map_or_else(SocketError::outcome, |_| Outcome::Success);
        if let Err(SocketError::Upstream(error)) = &opened
            && origin.is_news(outcome)
        {
            self.shared.observer.failed(origin, error);
        }
        origin.note(outcome);
        self.shared
            .observer
            .exchanged(origin, Operation::Stream, outcome, began.elapsed());
        opened
    }

    async fn opening(
        &self,
        origin: &Arc<Origin>,
        target: &Uri,
        headers: HeaderMap,
        max_message: usize,
    ) -> Result<Opened, SocketError> {
        let request = handshake(origin, target, headers)?;
        let io = match dial(origin, &self.tls, self.shared.settings.connect_timeout).await? {
            Wire::Plain(stream) => SocketIo::Plain(stream),
            Wire::Tls { stream, .. } => SocketIo::Tls(stream),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        match client_async_with_config(request, io, Some(config)).await {
            Ok((socket, response)) => Ok(Opened {
                socket,
                date: date(response.headers()),
            }),
            Err(tungstenite::Error::Http(response)) => Err(SocketError::Refused {
                status: response.status(),
                date: date(response.headers()),
            }),
            Err(tungstenite::Error::Io(error)) => Err(UpstreamError::Connect(Arc::new(error)).into()),
            Err(other) => Err(SocketError::Handshake(Box::new(other))),
        }
    }
}

/// The request that asks for the upgrade.
fn handshake(origin: &Origin, target: &Uri, mut headers: HeaderMap) -> Result<Request<()>, UpstreamError> {
    clean_request(&mut headers);
    headers.entry(USER_AGENT).or_insert(OUR_USER_AGENT);
    headers.insert(HOST, origin.host_header().clone());
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let key = HeaderValue::from_str(&generate_key()).map_err(|_| UpstreamError::Unsendable)?;
    headers.insert(SEC_WEBSOCKET_KEY, key);
    let scheme = if origin.server_name().is_some() {
        "wss"
    } else {
        "ws"
    };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(origin.host())
        .path_and_query(origin.target(target)?)
        .build()
        .map_err(|_| UpstreamError::Unsendable)?;
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The clock of whoever sent these headers.
#[must_use]
pub fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

/// The connection under a websocket.
#[derive(Debug)]
pub enum SocketIo {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for SocketIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for SocketIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
