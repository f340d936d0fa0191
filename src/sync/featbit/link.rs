//! How a follower reaches upstream, the clock and random numbers.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;

use super::MESSAGE_BYTES_MAX;
use crate::config;
use crate::key::DeploymentKey;
use crate::metrics::{Operation, StreamKind};
use crate::upstream::{
    Ask, Client, Dialer, Gate, Limits, Origin, SocketError, SocketIo, UpstreamError, date, random_unit,
    retry_after,
};

/// Upstream, as a follower sees it; and the clock and chance.
pub trait Link: Send + Sync + 'static {
    /// What websockets run over.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Opens a stream.
    fn open(
        &self,
        kind: StreamKind,
        token: &str,
    ) -> impl Future<Output = Result<Stream<Self::Io>, LinkError>> + Send;

    /// Asks for everything that is newer than `since_ms`.
    fn poll(
        &self,
        key: &DeploymentKey,
        since_ms: i64,
    ) -> impl Future<Output = Result<Polled, LinkError>> + Send;

    /// Milliseconds since 1970.
    fn unix_ms(&self) -> i64;

    /// A random number from 0 to 1.
    fn chance(&self) -> f64;
}

/// An open stream.
#[derive(Debug)]
pub struct Stream<Io> {
    /// The websocket.
    pub socket: WebSocketStream<Io>,
    /// Upstream's clock, to the second, when it was opened.
    pub date: Option<SystemTime>,
}

/// What a poll brought.
#[derive(Debug)]
pub struct Polled {
    /// A `data-sync` message; empty = nothing is newer.
    pub body: Bytes,
    /// Upstream's clock, to the second.
    pub date: Option<SystemTime>,
}

/// Why upstream gave nothing. The text holds neither secrets nor tokens.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// 401: the secret is no good.
    #[error("the secret was rejected (401)")]
    Rejected {
        /// Its content type.
        content_type: Option<HeaderValue>,
        /// Its body.
        body: Bytes,
    },
    /// Another answer than 200.
    #[error("upstream answered {}", status.as_u16())]
    Status {
        /// Its status.
        status: StatusCode,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// No answer.
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    /// No websocket.
    #[error("{0}")]
    Socket(#[from] SocketError),
}

impl LinkError {
    /// How long upstream asks to wait.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The real thing.
#[derive(Debug)]
pub struct UpstreamLink {
    /// Requests.
    pub client: Arc<Client>,
    /// Websockets.
    pub dialer: Arc<Dialer>,
    /// Where polls go.
    pub polls: Arc<Origin>,
    /// Where streams go.
    pub streams: Arc<Origin>,
    /// What bounds them.
    pub gate: Arc<Gate>,
    /// Deadlines and sizes.
    pub settings: config::Upstream,
}

impl Link for UpstreamLink {
    type Io = SocketIo;

    async fn open(&self, kind: StreamKind, token: &str) -> Result<Stream<SocketIo>, LinkError> {
        // Tokens have no character that would have to be escaped, but for `+` and `/` of old secrets.
        let token = token.replace('+', "%2B").replace('/', "%2F");
        let target = format!("/streaming?type={}&token={token}", kind.as_str());
        let target = Uri::try_from(target).map_err(|_| UpstreamError::Unsendable)?;
        let deadline = Instant::now() + self.settings.total_deadline;
        let opened = self
            .dialer
            .open(
                &self.streams,
                &target,
                HeaderMap::new(),
                MESSAGE_BYTES_MAX,
                deadline,
            )
            .await?;
        Ok(Stream {
            socket: opened.socket,
            date: opened.date,
        })
    }

    async fn poll(&self, key: &DeploymentKey, since_ms: i64) -> Result<Polled, LinkError> {
        let mut request = Request::new(Bytes::new());
        let target = format!("/api/public/sdk/server/latest-all?timestamp={since_ms}");
        *request.uri_mut() = Uri::try_from(target).map_err(|_| UpstreamError::Unsendable)?;
        let mut authorization =
            HeaderValue::from_bytes(key.expose()).map_err(|_| UpstreamError::Unsendable)?;
        authorization.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, authorization);
        let limits = Limits {
            deadline: Instant::now() + self.settings.total_deadline,
            max_answer: self.settings.max_flags,
            idempotent: true,
        };
        let response = self
            .client
            .fetch(
                &self.polls,
                &self.gate,
                Operation::Flags,
                &Ask::of(&request),
                limits,
            )
            .await?;
        match response.status() {
            StatusCode::OK => Ok(Polled {
                date: date(response.headers()),
                body: response.into_body(),
            }),
            StatusCode::UNAUTHORIZED => Err(LinkError::Rejected {
                content_type: response.headers().get(CONTENT_TYPE).cloned(),
                body: response.into_body(),
            }),
            status => Err(LinkError::Status {
                status,
                retry_after: retry_after(response.headers(), SystemTime::now()),
            }),
        }
    }

    fn unix_ms(&self) -> i64 {
        unix_ms(SystemTime::now())
    }

    fn chance(&self) -> f64 {
        random_unit()
    }
}

/// Milliseconds since 1970; negative before.
pub(super) fn unix_ms(at: SystemTime) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}
