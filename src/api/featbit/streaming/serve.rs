//! The life of one stream after its upgrade.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::sweep::{Order, Pulse, Sweep};
use super::wire::send_text;
use super::{Closed, Opening, Streams};
use crate::api::featbit::{Caller, Claim, Featbit};
use crate::evaluate::featbit::{DataSet, EndUser, Extent, data_sync};
use crate::evaluate::json::{Document, Kind, Value};
use crate::metrics::{StreamEnd, StreamKind};
use crate::store::featbit::Held;

/// Bytes of a message of a client.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// What a stream reads at once: clients say little, and there may be thousands.
const READ_BYTES: usize = 512;
/// Nesting of a message, as FeatBit bounds it.
const DEPTH_MAX: usize = 32;
/// The answer to a ping.
const PONG: Bytes = Bytes::from_static(br#"{"messageType":"pong","data":{}}"#);
/// How long a client may take to answer a close.
const CLOSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

impl Opening {
    /// Serves the stream over `io`, of which `read` was read already, to its end. Only for the thread that
    /// `sweep` belongs to.
    pub async fn serve<Io>(self, io: Io, read: Bytes, sweep: &Sweep)
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let mut config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        config.accept_unmasked_frames = false;
        let mut socket =
            WebSocketStream::from_partially_read(io, read.to_vec(), Role::Server, Some(config)).await;
        let featbit = Arc::clone(&self.featbit);
        let streams = &featbit.streams;
        let opened = match streams.enter() {
            None => Err(Closed::Full),
            Some(place) => self.open().await.map(|opened| (place, opened)),
        };
        match opened {
            Err(closed) => {
                streams.metrics.turned_away(closed.end());
                let (code, reason) = closed.code_and_reason();
                close(&mut socket, code, reason).await;
            }
            Ok((_place, opened)) => {
                streams.metrics.opened(opened.kind);
                let closed = Closing {
                    streams,
                    kind: opened.kind,
                    end: StreamEnd::Left,
                };
                Box::pin(run(&mut socket, &featbit, opened, sweep.watch(), closed)).await;
            }
        }
    }

    async fn open(&self) -> Result<Opened, Closed> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let unix_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let (kind, caller) = self.featbit.examine(self, unix_ms)?;
        // What waits for upstream is large and short-lived; a stream that is served should not carry it.
        let held = Box::pin(self.featbit.admit(kind, &caller)).await?;
        Ok(Opened { kind, caller, held })
    }
}

/// A stream that may be served.
struct Opened {
    kind: StreamKind,
    caller: Caller,
    held: Arc<Held>,
}

/// Counts the end of a stream, whatever it is: the client's leaving, if nothing else is noted.
struct Closing<'s> {
    streams: &'s Streams,
    kind: StreamKind,
    end: StreamEnd,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.streams.metrics.closed(self.kind, self.end);
    }
}

async fn run<Io>(
    socket: &mut WebSocketStream<Io>,
    featbit: &Featbit,
    opened: Opened,
    pulse: Rc<Pulse>,
    mut closing: Closing<'_>,
) where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let Opened { kind, caller, held } = opened;
    let changes = held.changes();
    let mut stream = Served {
        audience: match kind {
            // As upstream does it, a server is told of changes even before it asks.
            StreamKind::Server => Audience::Server,
            StreamKind::Client => Audience::Nobody,
        },
        known: held.data().filter(|_| kind == StreamKind::Server),
        asked: None,
        held,
        changes,
        pulse,
        caller,
        featbit,
    };
    let end = match stream.run(socket).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    closing.end = end;
    let (code, reason) = match end {
        StreamEnd::Left | StreamEnd::Slow => return,
        StreamEnd::Silent => (1001, "no sign of life"),
        StreamEnd::Draining => (1001, "going away"),
        StreamEnd::Unavailable => Closed::Unavailable.code_and_reason(),
        StreamEnd::Limit => (1009, "message too large"),
        StreamEnd::Refused => Closed::Refused.code_and_reason(),
        StreamEnd::Protocol => (1002, "protocol error"),
    };
    close(socket, code, reason).await;
}

/// Whom a stream tells what.
enum Audience {
    /// A server SDK: the data.
    Server,
    /// A client SDK that has not said who its user is.
    Nobody,
    /// A client SDK: flags evaluated for this user.
    User(Box<EndUser>),
}

struct Served<'s> {
    audience: Audience,
    /// What the client has been told, or could be told as a patch to what it has.
    known: Option<Arc<DataSet>>,
    /// The client asked for what is newer than this while there was nothing to tell.
    asked: Option<i64>,
    held: Arc<Held>,
    changes: watch::Receiver<u64>,
    pulse: Rc<Pulse>,
    caller: Caller,
    featbit: &'s Featbit,
}

impl Served<'_> {
    async fn run<Io>(
        &mut self,
        socket: &mut WebSocketStream<Io>,
    ) -> Result<std::convert::Infallible, StreamEnd>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            tokio::select! {
                message = socket.next() => {
                    self.pulse.heard();
                    self.heard(socket, message).await?;
                }
                changed = self.changes.changed() => {
                    // The environment itself is gone: it never is.
                    changed.map_err(|_| StreamEnd::Draining)?;
                    self.tell_changes(socket).await?;
                }
                order = self.pulse.order() => match order {
                    Order::None => {}
                    Order::Ask => self.ask(socket).await?,
                    other => return Err(end_of(other)),
                },
            }
        }
    }

    async fn heard<Io>(
        &mut self,
        socket: &mut WebSocketStream<Io>,
        message: Option<Result<Message, Error>>,
    ) -> Result<(), StreamEnd>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        match message {
            None | Some(Ok(Message::Close(_))) => {
                // The library has the answer to a close ready.
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.flush()).await;
                Err(StreamEnd::Left)
            }
            Some(Ok(Message::Text(text))) => self.read(socket, text.as_bytes()).await,
            Some(Ok(_)) => Ok(()),
            Some(Err(Error::Capacity(_))) => Err(StreamEnd::Limit),
            Some(Err(Error::Protocol(_) | Error::Utf8(_))) => Err(StreamEnd::Protocol),
            Some(Err(_)) => Err(StreamEnd::Left),
        }
    }

    /// Reads a message. What cannot be read, or is of no type known, is passed over.
    async fn read<Io>(&mut self, socket: &mut WebSocketStream<Io>, text: &[u8]) -> Result<(), StreamEnd>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let reply = {
            let Ok(document) = Document::parse(text, DEPTH_MAX) else {
                return Ok(());
            };
            let root = document.root();
            let (Some(kind), Some(data)) = (member(root, "messageType"), member(root, "data")) else {
                return Ok(());
            };
            let kind = kind.as_str().unwrap_or_default();
            if kind.eq_ignore_ascii_case("ping") {
                Some(PONG)
            } else if kind.eq_ignore_ascii_case("echo") {
                Some(echo(data))
            } else if kind.eq_ignore_ascii_case("data-sync") {
                self.check_claim()?;
                self.asked(data)
            } else {
                None
            }
        };
        match reply {
            Some(reply) => self.send(socket, reply).await,
            None => Ok(()),
        }
    }

    /// The client asks for data. None: there is nothing to tell it, at least not yet.
    fn asked(&mut self, data: Value<'_>) -> Option<Bytes> {
        if let Audience::Nobody | Audience::User(_) = self.audience {
            // Without a user that can be read nothing is evaluated, as upstream does it.
            let user = EndUser::from_json(member(data, "user")?).ok()?;
            self.audience = Audience::User(Box::new(user));
        }
        let since = member(data, "timestamp")
            .and_then(|value| value.as_number().or(value.as_str())?.parse().ok())
            .unwrap_or(0);
        self.answer(since)
    }

    fn answer(&mut self, since: i64) -> Option<Bytes> {
        let Some(now) = self.held.data() else {
            self.asked = Some(since);
            self.pulse.waiting(true);
            return None;
        };
        self.asked = None;
        self.pulse.waiting(false);
        let message = match (&self.audience, since) {
            (Audience::Server, 0) => self.held.full_message(&now),
            (Audience::Server, _) => now
                .to_data_sync(since)
                .unwrap_or_else(|| data_sync(Extent::Patch, std::iter::empty(), std::iter::empty()))
                .into(),
            (Audience::User(user), _) => now
                .client(user, since)
                .unwrap_or_else(|| now.client_patch(user, []))
                .into(),
            (Audience::Nobody, _) => return None,
        };
        self.known = Some(now);
        self.featbit.streams.metrics.message();
        Some(message)
    }

    async fn tell_changes<Io>(&mut self, socket: &mut WebSocketStream<Io>) -> Result<(), StreamEnd>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        self.changes.mark_unchanged();
        self.check_claim()?;
        let message = match self.asked {
            Some(since) => self.answer(since),
            None => self.changed(),
        };
        match message {
            Some(message) => self.send(socket, message).await,
            None => Ok(()),
        }
    }

    /// What is different from what the client knows, if it concerns it.
    fn changed(&mut self) -> Option<Bytes> {
        let now = self.held.data()?;
        let known = match (&self.audience, self.known.replace(Arc::clone(&now))) {
            (Audience::Nobody, _) => {
                self.known = None;
                return None;
            }
            (_, Some(known)) => known,
            // There was nothing when it came, and it has not asked yet.
            (_, None) => return None,
        };
        let changes = self.held.changes_between(&known, &now);
        let message = match &self.audience {
            Audience::Server => changes.server.clone(),
            Audience::User(user) if changes.is_full => now.client(user, 0).map(Bytes::from),
            Audience::User(user) if !changes.flags.is_empty() => {
                let flags = changes.flags.iter().map(|flag| &**flag);
                Some(now.client_patch(user, flags).into())
            }
            Audience::User(_) | Audience::Nobody => None,
        };
        if message.is_some() {
            self.featbit.streams.metrics.message();
        }
        message
    }

    /// Nothing goes out to a secret that upstream rejected meanwhile.
    fn check_claim(&self) -> Result<(), StreamEnd> {
        match self.featbit.claim(&self.held, &self.caller) {
            Claim::Rejected => Err(StreamEnd::Refused),
            Claim::Good | Claim::Unknown => Ok(()),
        }
    }

    async fn send<Io>(&self, socket: &mut WebSocketStream<Io>, message: Bytes) -> Result<(), StreamEnd>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let sent = tokio::select! {
            sent = send_text(socket, message, &self.pulse) => sent,
            () = self.pulse.lost() => Err(io::ErrorKind::TimedOut.into()),
        };
        match sent {
            Ok(()) => Ok(()),
            // Half a message is out: nothing more can be said on this stream.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(StreamEnd::Slow),
            Err(_) => Err(StreamEnd::Left),
        }
    }

    async fn ask<Io>(&self, socket: &mut WebSocketStream<Io>) -> Result<(), StreamEnd>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        self.pulse.sending(true);
        let asked = tokio::select! {
            asked = socket.send(Message::Ping(Bytes::new())) => asked.map_err(|_| StreamEnd::Left),
            () = self.pulse.lost() => Err(StreamEnd::Slow),
        };
        self.pulse.sending(false);
        asked
    }
}

const fn end_of(order: Order) -> StreamEnd {
    match order {
        Order::EndSlow => StreamEnd::Slow,
        Order::EndWaiting => StreamEnd::Unavailable,
        Order::EndDraining => StreamEnd::Draining,
        Order::EndSilent | Order::None | Order::Ask => StreamEnd::Silent,
    }
}

fn echo(data: Value<'_>) -> Bytes {
    [br#"{"messageType":"echo","data":"#, data.raw(), b"}"]
        .concat()
        .into()
}

/// The member of an object whose name equals `name` in any case; of several the last one.
fn member<'d>(object: Value<'d>, name: &str) -> Option<Value<'d>> {
    if object.kind() != Kind::Object {
        return None;
    }
    object
        .members()
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .last()
        .map(|(_, value)| value)
}

/// Closes a stream and waits a little for the client's part of it, so that the reason arrives.
async fn close<Io>(socket: &mut WebSocketStream<Io>, code: u16, reason: &'static str)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let frame = CloseFrame {
        code: code.into(),
        reason: reason.into(),
    };
    let closing = async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A client that does not answer is left.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, Box::pin(closing)).await;
}
