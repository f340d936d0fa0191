//! Text messages on their way to a client, from memory that many share.
//!
//! The websocket library copies each message into a buffer of the connection's own, which then keeps its size; thousands
//! of clients that are told everything would keep everything, each. So data go past it: a server's frame is a
//! head of at most ten bytes and the message as it is.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use futures_util::SinkExt as _;

use super::sweep::Pulse;

/// A final text frame.
const TEXT: u8 = 0x81;

/// Sends `message` as one text frame. The library's own output is flushed before, and it writes nothing while this
/// goes on: nothing else holds the socket.
pub(super) async fn send_text<Io>(
    socket: &mut WebSocketStream<Io>,
    message: Bytes,
    pulse: &Pulse,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    pulse.sending(true);
    socket.flush().await.map_err(io::Error::other)?;
    let mut unsent = head(message.len()).chain(message);
    let io = socket.get_mut();
    while unsent.has_remaining() {
        let mut slices = [io::IoSlice::new(&[]); 2];
        let n = unsent.chunks_vectored(&mut slices);
        let slices = slices.get(..n).unwrap_or_default();
        let sent = poll_fn(|cx| Pin::new(&mut *io).poll_write_vectored(cx, slices)).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        unsent.advance(sent);
        pulse.sending(true);
    }
    poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await?;
    pulse.sending(false);
    Ok(())
}

/// The head of an unmasked frame (RFC 6455, 5.2).
fn head(length: usize) -> Bytes {
    let mut head = Vec::with_capacity(10);
    head.push(TEXT);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => head.push(short),
        (_, Ok(middle)) => {
            head.push(126);
            head.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    Bytes::from(head)
}

#[cfg(test)]
mod tests {
    use super::super::Sweep;
    use super::*;
    use futures_util::StreamExt as _;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[tokio::test]
    async fn messages_of_every_length_arrive_as_they_are() {
        let (ours, theirs) = tokio::io::duplex(1000);
        let mut server = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let pulse = Sweep::default().watch();
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 300_000] {
            let text = "x".repeat(length);
            let sending = send_text(&mut server, Bytes::from(text.clone()), &pulse);
            let (sent, received) = tokio::join!(sending, client.next());
            sent.unwrap();
            assert_eq!(received.unwrap().unwrap(), Message::text(text), "{length}");
        }
    }
}
