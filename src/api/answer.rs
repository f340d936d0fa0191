//! Answers and how they become responses: body, `Cache-Status` (RFC 9211), `Age`, CORS, request id.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, VARY,
};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::cache::{Lifetimes, Stored};
use crate::metrics::Source;
use crate::task::Stop;
use crate::upstream::RelayBody;

pub use crate::cache::label::{JSON, JSON_UTF8};

/// `Cache-Status` (RFC 9211)
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// `X-Request-Id`
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// One URL serves all users, so no cache between us and the client may keep a thing.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store");
/// Flags depend on the deployment alone; browsers may keep and validate them.
pub(super) const NO_CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// An answered question, not yet a response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200, or upstream's verdict.
    pub status: StatusCode,
    /// Content type, where there is one.
    pub content_type: Option<HeaderValue>,
    /// Body.
    pub body: Bytes,
    /// Strong validator; flags only.
    pub etag: Option<HeaderValue>,
    /// Seconds since upstream was asked for it; stored responses only.
    pub age: Option<u64>,
    /// Where it came from.
    pub source: Source,
    /// How the cache took part.
    pub cache_status: HeaderValue,
}

impl Answer {
    /// A stored response, answered for `source` at `now`.
    #[must_use]
    pub fn stored(stored: &Arc<Stored>, lifetimes: &Lifetimes, source: Source, now: Instant) -> Self {
        let ttl = stored.ttl(lifetimes, now);
        let cache_status = match source {
            Source::Hit => text(&format!("flagside; hit; ttl={ttl}")),
            other => text(&format!("flagside; hit; ttl={ttl}; detail={}", other.as_str())),
        };
        Self {
            age: Some(stored.age(now)),
            cache_status,
            ..Self::fetched(stored, source, true)
        }
    }

    /// What upstream has just said, for the request that asked or one that waited with it.
    #[must_use]
    pub fn fetched(stored: &Arc<Stored>, source: Source, kept: bool) -> Self {
        let cache_status = match (source, kept) {
            (Source::Coalesced, _) => "flagside; fwd=uri-miss; collapsed",
            (_, true) => "flagside; fwd=uri-miss; stored",
            (_, false) => "flagside; fwd=uri-miss",
        };
        Self {
            status: StatusCode::OK,
            content_type: Some(stored.content_type.value().clone()),
            body: stored.sent(),
            etag: stored.etag.as_deref().cloned(),
            age: None,
            source,
            cache_status: HeaderValue::from_static(cache_status),
        }
    }

    /// Computed here; `upstream` is what it said instead, where it said something.
    #[must_use]
    pub fn local(body: Bytes, etag: Option<HeaderValue>, upstream: Option<StatusCode>) -> Self {
        let cache_status = match upstream {
            Some(status) => text(&format!(
                "flagside; fwd=miss; fwd-status={}; detail=local",
                status.as_u16()
            )),
            None => HeaderValue::from_static("flagside; fwd=miss; detail=local"),
        };
        let content_type = Some(JSON);
        Self {
            status: StatusCode::OK,
            content_type,
            body,
            etag,
            age: None,
            source: Source::Local,
            cache_status,
        }
    }

    /// The 401 that upstream gave a moment ago, repeated without asking again.
    #[must_use]
    pub fn rejected(relayed: &Relayed) -> Self {
        let cache_status = HeaderValue::from_static("flagside; hit; detail=rejected_key");
        Self {
            cache_status,
            ..Self::relayed(relayed, Source::None)
        }
    }

    /// What upstream said, passed on without being stored.
    #[must_use]
    pub fn relayed(relayed: &Relayed, source: Source) -> Self {
        let forward = if source == Source::Passthrough {
            "bypass"
        } else {
            "uri-miss"
        };
        let collapsed = if source == Source::Coalesced {
            "; collapsed"
        } else {
            ""
        };
        let status = relayed.status;
        Self {
            status,
            content_type: relayed.content_type.clone(),
            body: relayed.body.clone(),
            etag: None,
            age: None,
            source,
            cache_status: text(&format!(
                "flagside; fwd={forward}; fwd-status={}{collapsed}",
                status.as_u16()
            )),
        }
    }

    /// The response. `304` where the client already has this very flag set.
    #[must_use]
    pub fn into_response(self, noted: &Wished, flags: bool) -> Response<AnswerBody> {
        let matched = match (&self.etag, &noted.if_none_match) {
            (Some(etag), Some(wanted)) => matches_etag(wanted.as_bytes(), etag),
            _ => false,
        };
        let mut response = if matched {
            status_only(StatusCode::NOT_MODIFIED)
        } else {
            let mut response = Response::new(AnswerBody::full(self.body));
            *response.status_mut() = self.status;
            response
        };
        let headers = response.headers_mut();
        headers.reserve(6);
        if let (false, Some(content_type)) = (matched, self.content_type) {
            headers.insert(CONTENT_TYPE, content_type);
        }
        headers.insert(CACHE_STATUS, self.cache_status);
        headers.insert(CACHE_CONTROL, if flags { NO_CACHE } else { NO_STORE });
        if let Some(age) = self.age {
            headers.insert(AGE, HeaderValue::from(age));
        }
        if let Some(etag) = self.etag {
            headers.insert(ETAG, etag);
        }
        response
    }
}

/// A response of upstream that is passed on as it is.
#[derive(Clone, Debug)]
pub struct Relayed {
    /// Status.
    pub status: StatusCode,
    /// Content type.
    pub content_type: Option<HeaderValue>,
    /// Body.
    pub body: Bytes,
}

pub(super) fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("flagside"))
}

/// A response without body.
#[must_use]
pub fn status_only(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Whether `If-None-Match: wanted` names `etag` (weak comparison, RFC 9110, 13.1.2).
#[must_use]
pub fn matches_etag(wanted: &[u8], etag: &HeaderValue) -> bool {
    wanted
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|one| one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == etag.as_bytes())
}

/// What a request wishes of its response beside the answer. Owned, for requests that wait.
#[derive(Clone, Debug, Default)]
pub struct Wished {
    /// `Origin`
    pub origin: Option<HeaderValue>,
    /// `If-None-Match`
    pub if_none_match: Option<HeaderValue>,
    /// `X-Request-Id`, if it is a valid one.
    pub request_id: Option<HeaderValue>,
}

/// Whether a request id may be echoed and forwarded: 1 to 128 of `[A-Za-z0-9._-]` (OPS 10.2).
#[must_use]
pub fn is_request_id(value: impl AsRef<[u8]>) -> bool {
    let bytes = value.as_ref();
    (1..=128).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Who may call from a browser (API 3.9).
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Arc<[HeaderValue]>,
}

impl Cors {
    /// `origins` that may call; none = all.
    #[must_use]
    pub fn new(origins: &[String]) -> Self {
        Self {
            origins: origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok())
                .collect(),
        }
    }

    /// Whether origins are listed at all.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Whether every origin may call.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.origins.is_empty()
    }

    /// Whether a browser at `origin` may call.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.is_empty() || self.origins.contains(origin)
    }

    /// Marks a response as readable by the page that asked, if it may.
    pub fn mark<B>(&self, response: &mut Response<B>, origin: &[u8]) {
        let headers = response.headers_mut();
        if self.origins.is_empty() {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return;
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
        // What upstream allows is for its own pages' sake: here the list decides.
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        if let Some(listed) = self.origins.iter().find(|listed| listed.as_bytes() == origin) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, listed.clone());
        }
    }
}

/// Body of a response: whole, or a stream relayed from upstream.
#[derive(Debug)]
pub enum AnswerBody {
    /// In memory; `None` once it was handed over.
    Full(Option<Bytes>),
    /// From upstream, as it comes.
    Stream(RelayBody),
    /// Events from upstream, until upstream or the proxy ends them.
    Events(Box<Events>),
}

/// Server-sent events relayed from upstream. When the proxy drains they end, with a comment if no event is
/// half sent, so that the client reconnects elsewhere (OPS 7.3).
pub struct Events {
    body: RelayBody,
    stop: Pin<Box<dyn Future<Output = ()>>>,
    place: Place,
    ended: bool,
}

/// Where a stream of events stands: line ends at the end of what has passed, two at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place(usize);

impl Place {
    /// Between events: nothing has passed yet, or a blank line.
    const BETWEEN: Self = Self(2);

    fn pass(&mut self, bytes: &[u8]) {
        let is_text = |byte: &u8| !matches!(byte, b'\n' | b'\r');
        let (before, tail) = match bytes.iter().rposition(is_text) {
            Some(last) => (0, bytes.get(last..).unwrap_or_default()),
            None => (self.0, bytes),
        };
        let line_ends = tail.iter().filter(|byte| **byte == b'\n').count();
        self.0 = (before + line_ends).min(2);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// Relays `body` until it ends or `stop` is requested.
    #[must_use]
    pub fn new(body: RelayBody, stop: Stop) -> Self {
        Self {
            body,
            stop: Box::pin(async move { stop.requested().await }),
            place: Place::BETWEEN,
            ended: false,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, <RelayBody as Body>::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.stop.as_mut().poll(cx).is_ready() {
            self.ended = true;
            // In the middle of an event a comment would become part of it.
            let comment = Bytes::from_static(b": draining\n\n");
            return Poll::Ready((self.place == Place::BETWEEN).then(|| Ok(Frame::data(comment))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.place.pass(bytes);
        }
        polled
    }
}

impl AnswerBody {
    /// A body in memory.
    #[must_use]
    pub fn full(body: Bytes) -> Self {
        Self::Full(Some(body).filter(|body| !body.is_empty()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = <RelayBody as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Full(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
            Self::Events(events) => events.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_none(),
            Self::Stream(body) => body.is_end_stream(),
            Self::Events(events) => events.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(body) => body.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_over_at_a_blank_line_however_the_pieces_fall() {
        for (pieces, between) in [
            (&[][..], true),
            (&["data: 1\n\n"], true),
            (&["data: 1\n"], false),
            (&["data: 1\n", "\n"], true),
            (&["data: 1\r\n\r\n"], true),
            (&["data: 1\r\n\r", "\n"], true),
            (&["data: 1\n\nda"], false),
            (&["data: 1\n\n", "d", "ata: 2\n", "\n\n"], true),
            (&["", "data: 1\n\n", ""], true),
        ] {
            let mut place = Place::BETWEEN;
            for piece in pieces {
                place.pass(piece.as_bytes());
            }
            assert_eq!(place == Place::BETWEEN, between, "{pieces:?}");
        }
    }

    #[test]
    fn only_listed_origins_may_read_what_upstream_lets_everybody_read() {
        let cors = Cors::new(&["https://shop.example".to_owned()]);
        for (origin, wanted) in [
            ("https://shop.example", Some("https://shop.example")),
            ("https://other.example", None),
        ] {
            let mut response = Response::new(());
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            cors.mark(&mut response, origin.as_bytes());
            let allowed = response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(allowed.map(|value| value.to_str().unwrap()), wanted, "{origin}");
        }
    }
}
