//! One stream, from its opening to its end (FB 6.1).

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::Settings;
use crate::evaluate::featbit::DataSync;
use crate::evaluate::json::{Document, Kind};

/// Close code of a stream that upstream refuses for good.
pub(super) const REFUSED: u16 = 4003;
/// How long upstream may take to take a message of ours.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Nesting of a message.
const DEPTH_MAX: usize = 64;
/// Keeps the connection, and proves that upstream is there.
const PING: &str = r#"{"messageType":"ping","data":{}}"#;

/// How a stream ended. None of these is final.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// Close code 4003: bad token, secret or kind of secret.
    #[error("upstream refused it (close code 4003)")]
    Refused,
    /// Upstream closed it, with this code if it gave one.
    #[error("upstream closed it (code {})", code.map_or_else(|| "none".to_owned(), |code| code.to_string()))]
    Closed {
        /// The code.
        code: Option<u16>,
    },
    /// Nothing came for too long.
    #[error("upstream went silent")]
    Silent,
    /// The connection broke, or what came was no websocket traffic.
    #[error("the connection broke: {0}")]
    Broken(#[source] Box<tungstenite::Error>),
    /// A message that should have brought data could not be read.
    #[error("a message could not be read: {0}")]
    Unreadable(String),
    /// We end it: the process stops, or the secret was rejected.
    #[error("it is not wanted any more")]
    Unwanted,
}

impl From<tungstenite::Error> for End {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed { code: None }
            }
            other => Self::Broken(Box::new(other)),
        }
    }
}

/// What a stream is for: it takes messages, and says what to ask for.
pub(super) trait Sink {
    /// The time of the last change that is held; 0 to be told everything.
    fn since_ms(&self) -> i64;
    /// Takes a message on. It was asked for `took` ago, if it was asked for.
    fn take(&mut self, message: &DataSync, took: Option<Duration>);
    /// Upstream answered a ping: what it brought is current.
    fn confirm(&self);
    /// Whether the stream is still wanted.
    fn is_wanted(&self) -> bool;
    /// Until the next sync of everything.
    fn resync_in(&self) -> Duration;
}

/// Runs a stream to its end. Says how it ended and whether it brought data.
pub(super) async fn run<Io, S>(
    mut socket: WebSocketStream<Io>,
    sink: &mut S,
    settings: &Settings,
) -> (End, bool)
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Sink,
{
    let mut session = Session {
        sink,
        settings,
        heard_at: Instant::now(),
        asked_at: None,
        synced: false,
    };
    let end = match session.serve(&mut socket).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let synced = session.synced;
    if matches!(end, End::Unwanted | End::Silent | End::Unreadable(_)) {
        // Politeness, not more.
        let _ = timeout(Duration::from_millis(200), socket.close(None)).await;
    }
    (end, synced)
}

struct Session<'a, S> {
    sink: &'a mut S,
    settings: &'a Settings,
    heard_at: Instant,
    /// When data was asked for that has not come.
    asked_at: Option<Instant>,
    synced: bool,
}

impl<S: Sink> Session<'_, S> {
    async fn serve<Io>(&mut self, socket: &mut WebSocketStream<Io>) -> Result<std::convert::Infallible, End>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let since = self.sink.since_ms();
        self.ask(socket, since).await?;
        let mut ping_at = Instant::now() + self.settings.ping_interval;
        let resync_in = match since {
            0 => self.settings.resync_interval,
            _ => self.sink.resync_in(),
        };
        let mut resync_at = Instant::now() + resync_in;
        loop {
            if !self.sink.is_wanted() {
                return Err(End::Unwanted);
            }
            let silent_at = self.heard_at + 2 * self.settings.ping_interval;
            let data_by = self.asked_at.map(|at| at + self.settings.first_sync);
            let wake_at = [Some(ping_at), Some(resync_at), Some(silent_at), data_by]
                .into_iter()
                .flatten()
                .fold(silent_at, Instant::min);
            tokio::select! {
                biased;
                message = socket.next() => self.heard(message)?,
                () = sleep_until(wake_at) => {
                    let now = Instant::now();
                    if now >= silent_at || data_by.is_some_and(|by| now >= by) {
                        return Err(End::Silent);
                    }
                    if now >= ping_at {
                        send(socket, PING.to_owned()).await?;
                        ping_at = now + self.settings.ping_interval;
                    }
                    if now >= resync_at {
                        self.ask(socket, 0).await?;
                        // At least a ping apart, whatever becomes of it.
                        resync_at = now + self.settings.resync_interval.max(self.settings.ping_interval);
                    }
                }
            }
        }
    }

    async fn ask<Io>(&mut self, socket: &mut WebSocketStream<Io>, since_ms: i64) -> Result<(), End>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let question = format!(r#"{{"messageType":"data-sync","data":{{"timestamp":{since_ms}}}}}"#);
        send(socket, question).await?;
        self.asked_at = Some(Instant::now());
        Ok(())
    }

    fn heard(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Result<(), End> {
        let message = match message {
            None => return Err(End::Closed { code: None }),
            Some(message) => message?,
        };
        self.heard_at = Instant::now();
        match message {
            Message::Text(text) => self.read(text.as_bytes()),
            Message::Close(frame) => Err(match frame.map(|frame| u16::from(frame.code)) {
                Some(REFUSED) => End::Refused,
                code => End::Closed { code },
            }),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    /// Reads a message. What is none of ours to understand is passed over.
    fn read(&mut self, text: &[u8]) -> Result<(), End> {
        let document =
            Document::parse(text, DEPTH_MAX).map_err(|error| End::Unreadable(error.to_string()))?;
        let root = document.root();
        let is_data = root.kind() == Kind::Object
            && root
                .get("messageType")
                .and_then(|kind| kind.as_str())
                .is_some_and(|kind| kind.eq_ignore_ascii_case("data-sync"));
        if !is_data {
            if self.synced {
                self.sink.confirm();
            }
            return Ok(());
        }
        let message = DataSync::from_json(root).map_err(|error| End::Unreadable(error.to_string()))?;
        let took = self.asked_at.take().map(|asked_at| asked_at.elapsed());
        self.sink.take(&message, took);
        self.synced = true;
        Ok(())
    }
}

async fn send<Io>(socket: &mut WebSocketStream<Io>, text: String) -> Result<(), End>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(SEND_TIMEOUT, socket.send(Message::text(text))).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(End::Silent),
    }
}

/// Finds out whether upstream keeps a stream open that was just opened: it does if it answers a ping.
pub(super) async fn is_admitted<Io>(mut socket: WebSocketStream<Io>, within: Duration) -> Result<bool, End>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let asking = async {
        // A refusal may come before the ping has gone out.
        let sent = send(&mut socket, PING.to_owned()).await;
        loop {
            match socket.next().await {
                None => return sent.and(Err(End::Closed { code: None })),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(Message::Text(_))) => return Ok(true),
                Some(Ok(Message::Close(frame))) => {
                    return match frame.map(|frame| u16::from(frame.code)) {
                        Some(REFUSED) => Ok(false),
                        code => Err(End::Closed { code }),
                    };
                }
                Some(Ok(_)) => {}
            }
        }
    };
    let admitted = timeout(within, asking).await.unwrap_or(Err(End::Silent));
    if matches!(admitted, Ok(true)) {
        let _ = timeout(Duration::from_millis(200), socket.close(None)).await;
    }
    admitted
}
