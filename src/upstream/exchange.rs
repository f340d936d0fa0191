//! A request on its way out over the HTTP library: cleaned once, built for each connection it is tried on.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::Origin;
use super::ask::{Ask, may_be_sent};
use super::error::UpstreamError;
use super::headers::clean_request;
use super::pool::Lease;

/// Any error, as hyper wants those of bodies.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that is streamed to upstream.
type Stream = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// Who we are, unless the client says who it is.
pub(super) const OUR_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("flagside/", env!("CARGO_PKG_VERSION")));

/// What is accepted where an answer is kept or read: no content coding.
const PLAIN: HeaderValue = HeaderValue::from_static("identity");

/// A request to an origin.
pub(super) struct Outgoing {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    body: OutBody,
    /// Whether it may be sent again although upstream may have seen it.
    repeatable: bool,
}

/// The body of a request to upstream.
pub(super) enum OutBody {
    /// All of it; empty once read.
    Whole(Bytes),
    /// As it comes from the client.
    Streamed(Stream),
}

impl Outgoing {
    /// A request whose body is there as a whole; no content coding is accepted in its answer.
    ///
    /// # Errors
    ///
    /// `Unsendable`.
    pub(super) fn whole(origin: &Origin, ask: &Ask<'_>, idempotent: bool) -> Result<Self, UpstreamError> {
        let mut outgoing = Self::new(origin, ask.to_request()?.map(OutBody::Whole), idempotent)?;
        outgoing.headers.insert(ACCEPT_ENCODING, PLAIN);
        Ok(outgoing)
    }

    /// A request whose body is passed on as it comes.
    ///
    /// # Errors
    ///
    /// `Unsendable`.
    pub(super) fn streamed<B>(origin: &Origin, request: Request<B>) -> Result<Self, UpstreamError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let empty = request.body().is_end_stream();
        let repeatable = empty && request.method().is_idempotent();
        let body = |body: B| {
            if empty {
                OutBody::Whole(Bytes::new())
            } else {
                OutBody::Streamed(Box::pin(Streamed { body: Box::pin(body) }))
            }
        };
        Self::new(origin, request.map(body), repeatable)
    }

    fn new(origin: &Origin, request: Request<OutBody>, repeatable: bool) -> Result<Self, UpstreamError> {
        if !may_be_sent(request.method()) {
            return Err(UpstreamError::Unsendable);
        }
        let target = origin.target(request.uri())?;
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        clean_request(&mut headers);
        headers.entry(USER_AGENT).or_insert(OUR_USER_AGENT);
        Ok(Self {
            method: parts.method,
            target,
            headers,
            body,
            repeatable,
        })
    }

    /// Whether it may be sent again although upstream may have seen it.
    pub(super) const fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// The request as it goes over the connection of `lease`. A streamed body goes with it.
    ///
    /// # Errors
    ///
    /// `Unsendable`.
    pub(super) fn build(
        &mut self,
        origin: &Origin,
        lease: &Lease,
    ) -> Result<Request<OutBody>, UpstreamError> {
        let http2 = lease.is_http2();
        let body = match &mut self.body {
            OutBody::Whole(bytes) => OutBody::Whole(bytes.clone()),
            streamed @ OutBody::Streamed(_) => std::mem::replace(streamed, OutBody::Whole(Bytes::new())),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = origin.uri(&self.target, http2)?;
        *request.headers_mut() = self.headers.clone();
        if http2 {
            *request.version_mut() = Version::HTTP_2;
        } else {
            request.headers_mut().insert(HOST, origin.host_header().clone());
        }
        Ok(request)
    }

    /// The headers, without the connection's own.
    #[cfg(test)]
    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Takes the body of a request back that was never sent.
    pub(super) fn restore(&mut self, request: Request<OutBody>) {
        self.body = request.into_body();
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(body) => body.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}

/// A client's body with its error made general and its trailers left out: they are the connection's own.
struct Streamed<B> {
    body: Pin<Box<B>>,
}

impl<B> Body for Streamed<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            return match self.body.as_mut().poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => continue,
                Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
                Poll::Pending => Poll::Pending,
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The future did not end in time.
pub(super) struct Late;

/// Waits for `future` until `until`. `timer` is shared by all waits of an exchange, and set only when a
/// future is not ready at once: an exchange on a kept connection sets it once.
pub(super) fn within<F: Future>(
    mut timer: Pin<&mut Sleep>,
    until: Instant,
    mut future: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, Late>> {
    poll_fn(move |context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(context).map(|()| Err(Late))
    })
}
