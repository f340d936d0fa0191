//! Whole requests and whole answers over HTTP/1.1, without a task between the two ends of a connection.
//!
//! What the HTTP library does for streams (bodies of any size both ways, upgrades, a task per connection that
//! moves bytes while others wait) costs more than the rest of a miss. A question and its answer need none of it:
//! one write, and reads until the answer is whole.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, ETAG, HeaderName, InvalidHeaderValue, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::error::UpstreamError;
use super::framing::{Chunks, Framing, Taken};
use super::pool::{HEAD_BYTES_MAX, Open};

/// Headers of an answer that is read whole; nobody looks at others.
pub(super) static KEPT: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_ENCODING, ETAG, RETRY_AFTER, DATE];

/// Room for reading; most answers fit.
const READ_BYTES: usize = 8 * 1024;

/// A buffer that grew beyond this is not kept.
const KEPT_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Headers of an answer, as the HTTP library bounds them too.
const HEADERS_MAX: usize = 100;

/// The bytes under HTTP.
pub(super) enum Stream {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over it.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that carries one exchange at a time.
pub(super) struct Direct {
    stream: Stream,
    buffer: Vec<u8>,
    /// Whether bytes of an exchange may be under way: such a connection is not used again.
    busy: bool,
    /// Whether upstream keeps the connection open after the answer.
    stays_open: bool,
    open: Open,
}

/// An exchange that brought no head.
pub(super) struct Lost {
    pub(super) error: UpstreamError,
    /// Whether not one byte of the request was sent.
    pub(super) unsent: bool,
    /// Whether the connection ended without one byte of an answer.
    pub(super) closed: bool,
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    framing: Framing,
}

impl Direct {
    pub(super) fn new(stream: Stream, open: Open) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            busy: false,
            stays_open: true,
            open,
        }
    }

    /// Whether a request can be sent: nothing is under way, and upstream has neither closed the connection
    /// nor sent what nobody asked for.
    pub(super) fn is_ready(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut context = Context::from_waker(Waker::noop());
        !self.busy
            && Pin::new(&mut self.stream)
                .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
                .is_pending()
    }

    /// The connection without a request on it, for the HTTP library.
    pub(super) fn into_parts(self) -> (Stream, Open) {
        (self.stream, self.open)
    }

    /// Sends a request and waits for the head of its answer. `request` is its head and body as they go out.
    pub(super) async fn ask(&mut self, method: &Method, request: &[u8]) -> Result<Head, Lost> {
        self.busy = true;
        self.buffer.clear();
        let wrote = self.write(request).await;
        if let Err((error, true)) = wrote {
            return Err(Lost {
                error: UpstreamError::broken(error),
                unsent: true,
                closed: true,
            });
        }
        // Whoever refuses a request before reading all of it says why and closes.
        self.stays_open = wrote.is_ok();
        loop {
            if let Some(head) = self.head(method)? {
                return Ok(head);
            }
            let before = self.buffer.len();
            if before >= HEAD_BYTES_MAX {
                return Err(Lost::malformed("the head of the answer is too long"));
            }
            match self.fill().await {
                Ok(0) => {
                    let error = wrote.err().map_or_else(
                        || io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer was whole"),
                        |(error, _)| error,
                    );
                    return Err(Lost::after(error, before));
                }
                Ok(_) => {}
                Err(error) => return Err(Lost::after(error, before)),
            }
        }
    }

    /// Writes all of it; the error says whether it went wrong before the first byte.
    async fn write(&mut self, request: &[u8]) -> Result<(), (io::Error, bool)> {
        let mut rest = request;
        while !rest.is_empty() {
            match self.stream.write(rest).await {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), rest.len() == request.len())),
                Ok(n) => rest = &rest[n..],
                Err(error) => return Err((error, rest.len() == request.len())),
            }
        }
        self.stream.flush().await.map_err(|error| (error, false))
    }

    /// Reads what there is; the number of bytes, 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// The head that stands at the beginning of the buffer, which then begins after it.
    fn head(&mut self, method: &Method) -> Result<Option<Head>, Lost> {
        loop {
            let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut []);
            let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
                &mut response,
                &self.buffer,
                &mut headers,
            );
            let bytes = match parsed {
                Ok(httparse::Status::Complete(bytes)) => bytes,
                Ok(httparse::Status::Partial) => return Ok(None),
                Err(error) => return Err(Lost::malformed(error)),
            };
            let code = response.code.unwrap_or(0);
            if code == 101 {
                return Err(Lost {
                    error: UpstreamError::Upgraded,
                    unsent: false,
                    closed: false,
                });
            }
            if (100..200).contains(&code) {
                self.buffer.drain(..bytes);
                continue;
            }
            let status = StatusCode::from_u16(code).map_err(Lost::malformed)?;
            let (framing, stays_open) =
                Framing::of(method, status, response.version, response.headers).map_err(Lost::malformed)?;
            self.stays_open &= stays_open;
            let headers = kept(response.headers);
            self.buffer.drain(..bytes);
            return Ok(Some(Head {
                status,
                headers,
                framing,
            }));
        }
    }

    /// Reads the body that follows `head`, of at most `limit` bytes, in memory of its own. Afterwards the
    /// connection can carry another request, if upstream keeps it open.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `Truncated`, `Malformed` or `Reset`.
    pub(super) async fn body(&mut self, head: &Head, limit: usize) -> Result<Bytes, UpstreamError> {
        let body = match head.framing {
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > limit {
                    return Err(UpstreamError::TooLarge { limit });
                }
                self.sized(length).await?
            }
            Framing::Chunked => self.chunked(limit).await?,
            Framing::UntilClose => self.rest(limit).await?,
        };
        if self.stays_open && self.buffer.is_empty() {
            self.busy = false;
        }
        if self.buffer.capacity() > KEPT_BUFFER_BYTES_MAX {
            self.buffer = Vec::new();
        }
        Ok(body)
    }

    async fn sized(&mut self, length: usize) -> Result<Bytes, UpstreamError> {
        while self.buffer.len() < length {
            // At most what is missing and a little: nothing but the next answer can follow.
            if self.fill().await.map_err(UpstreamError::broken)? == 0 {
                return Err(UpstreamError::Truncated);
            }
        }
        let body = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.drain(..length);
        Ok(body)
    }

    async fn chunked(&mut self, limit: usize) -> Result<Bytes, UpstreamError> {
        let mut chunks = Chunks::new(limit);
        loop {
            let (used, taken) = chunks.take(&self.buffer);
            self.buffer.drain(..used);
            match taken {
                Taken::All => return Ok(chunks.into_body()),
                Taken::TooLarge => return Err(UpstreamError::TooLarge { limit }),
                Taken::Malformed => return Err(UpstreamError::Malformed(cause("a chunk has no right form"))),
                Taken::More => {
                    if self.fill().await.map_err(UpstreamError::broken)? == 0 {
                        return Err(UpstreamError::Truncated);
                    }
                }
            }
        }
    }

    async fn rest(&mut self, limit: usize) -> Result<Bytes, UpstreamError> {
        self.stays_open = false;
        loop {
            if self.buffer.len() > limit {
                return Err(UpstreamError::TooLarge { limit });
            }
            match self.fill().await {
                Ok(0) => return Ok(Bytes::copy_from_slice(&std::mem::take(&mut self.buffer))),
                Ok(_) => {}
                Err(error) => return Err(UpstreamError::broken(error)),
            }
        }
    }
}

impl Lost {
    fn after(error: io::Error, n_read: usize) -> Self {
        Self {
            error: UpstreamError::broken(error),
            unsent: false,
            closed: n_read == 0,
        }
    }

    fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            error: UpstreamError::Malformed(cause(error)),
            unsent: false,
            closed: false,
        }
    }
}

fn cause(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Arc<dyn std::error::Error + Send + Sync> {
    Arc::from(error.into())
}

/// The headers that are looked at, in memory of their own.
fn kept(headers: &[httparse::Header<'_>]) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for header in headers {
        // Most are none of them, and their length says so.
        let Some(name) = KEPT
            .iter()
            .find(|name| header.name.len() == name.as_str().len() && **name == *header.name)
        else {
            continue;
        };
        if let Ok(value) = value(header.value) {
            kept.append(name, value);
        }
    }
    kept
}

/// A value in memory of its own; the usual label needs none.
fn value(bytes: &[u8]) -> Result<HeaderValue, InvalidHeaderValue> {
    const JSON: &str = "application/json";
    if bytes == JSON.as_bytes() {
        Ok(HeaderValue::from_static(JSON))
    } else {
        HeaderValue::from_bytes(bytes)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_read(context, into),
            Self::Tls(stream) => pin!(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_write(context, from),
            Self::Tls(stream) => pin!(stream).poll_write(context, from),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_flush(context),
            Self::Tls(stream) => pin!(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_shutdown(context),
            Self::Tls(stream) => pin!(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => pin!(stream).poll_write_vectored(context, from),
            Self::Tls(stream) => pin!(stream).poll_write_vectored(context, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
