//! A request that is there as a whole, as it goes to upstream.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request};

use super::Origin;
use super::error::UpstreamError;
use super::exchange::OUR_USER_AGENT;
use super::headers::crosses_to_upstream;

/// A request body up to this size is written before anything is read. A server that answers without reading
/// it cannot make the two wait for each other: the kernel holds as much.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;

/// A request whose body is there as a whole. Nothing of it is copied before it is written.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Neither CONNECT nor TRACE.
    pub method: &'a Method,
    /// Path and query, without the prefix that the base URL of an origin may have.
    pub target: &'a str,
    /// What goes with it, but for what must not cross a proxy and what the connection needs.
    pub headers: &'a HeaderMap,
    /// `X-Request-Id`, where `headers` has none.
    pub request_id: Option<&'a HeaderValue>,
    /// Body; empty = none.
    pub body: &'a Bytes,
}

impl<'a> Ask<'a> {
    /// `request`; of its URI only path and query count.
    #[must_use]
    pub fn of(request: &'a Request<Bytes>) -> Self {
        let target = request.uri().path_and_query();
        Self {
            method: request.method(),
            target: target.map_or("", |target| target.as_str()),
            headers: request.headers(),
            request_id: None,
            body: request.body(),
        }
    }

    /// Refuses what HTTP does not let be sent to an origin, or would be read as another request there.
    ///
    /// # Errors
    ///
    /// `Unsendable`.
    pub(super) fn check(&self) -> Result<(), UpstreamError> {
        let is_sendable = self.target.starts_with('/')
            && !self
                .target
                .bytes()
                .any(|byte| byte <= b' ' || matches!(byte, b'#' | 0x7f))
            && may_be_sent(self.method);
        is_sendable.then_some(()).ok_or(UpstreamError::Unsendable)
    }

    /// Appends the request as it goes over a connection of HTTP/1.1, body included; no content coding is accepted in
    /// its answer. `false`, with nothing appended: it is for the HTTP library.
    pub(super) fn write(&self, origin: &Origin, out: &mut Vec<u8>) -> bool {
        if self.body.len() > BODY_BYTES_MAX || self.headers.contains_key(CONNECTION) {
            return false;
        }
        let mut part = |part: &[u8]| out.extend_from_slice(part);
        part(self.method.as_str().as_bytes());
        part(b" ");
        part(origin.base().path.as_bytes());
        part(self.target.as_bytes());
        part(b" HTTP/1.1\r\nhost: ");
        part(origin.host_header().as_bytes());
        part(b"\r\naccept-encoding: identity");
        let mut names_agent = false;
        for (name, value) in self.headers {
            if *name == ACCEPT_ENCODING || !crosses_to_upstream(name) {
                continue;
            }
            names_agent |= *name == USER_AGENT;
            part(b"\r\n");
            part(name.as_str().as_bytes());
            part(b": ");
            part(value.as_bytes());
        }
        if let Some(id) = self.request_id {
            part(b"\r\nx-request-id: ");
            part(id.as_bytes());
        }
        if !names_agent {
            part(b"\r\nuser-agent: ");
            part(OUR_USER_AGENT.as_bytes());
        }
        // A method that promises a body says also that it is empty (RFC 9110, 8.6).
        if !self.body.is_empty() || matches!(*self.method, Method::POST | Method::PUT | Method::PATCH) {
            part(b"\r\ncontent-length: ");
            part(itoa::Buffer::new().format(self.body.len()).as_bytes());
        }
        part(b"\r\n\r\n");
        part(self.body);
        true
    }

    /// The request in the library's form.
    ///
    /// # Errors
    ///
    /// `Unsendable`.
    pub(super) fn to_request(&self) -> Result<Request<Bytes>, UpstreamError> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.parse().map_err(|_| UpstreamError::Unsendable)?;
        let mut headers = self.headers.clone();
        if let Some(id) = self.request_id {
            headers.insert("x-request-id", id.clone());
        }
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// CONNECT would make a tunnel, TRACE would show the headers to whoever asks.
pub(super) fn may_be_sent(method: &Method) -> bool {
    !matches!(*method, Method::CONNECT | Method::TRACE)
}
