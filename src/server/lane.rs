//! The fast lane: whole HTTP/1.1 requests in the forms that SDKs send, read and answered without an HTTP
//! library's generality, so that a hit costs little more than its two system calls.
//!
//! What it takes: GET, HEAD and POST in origin form with one `Host`, no transfer coding, at most one
//! `Content-Length`, nothing to upgrade or to expect, on routes whose answers are whole. Everything else,
//! well-formed or not, is handed with the connection and every byte not yet used to the HTTP library, which then serves the
//! connection to its end. The lane itself never refuses a request and never guesses where one ends.
//!
//! An idle connection holds no buffer: bytes are read into one that all connections of a worker share, and
//! copied only when a request is not complete.

mod head;

use std::cell::RefCell;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::api::answer::AnswerBody;
use crate::api::hit::{COPIED_BYTES_MAX, Rest};
use crate::api::{Arriving, Worker};

use super::connection::Watch;

use head::{Read, read};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// How many pieces a head may come in. Each one is parsed from the beginning; the HTTP library is better with
/// one that drips in.
const PIECES_MAX: u8 = 8;

/// What the connections of one worker share.
#[derive(Debug)]
pub(super) struct Buffers {
    read: RefCell<Vec<u8>>,
    write: RefCell<Vec<u8>>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            read: RefCell::new(vec![0; READ_BYTES]),
            write: RefCell::default(),
        }
    }
}

/// How a connection left the lane.
#[derive(Debug)]
pub(super) enum Left {
    /// It is over.
    Ended,
    /// The HTTP library takes over, with what was read and not used.
    HandedOver(Bytes),
}

/// One connection in the lane.
pub(super) struct Lane<'c> {
    stream: &'c mut TcpStream,
    worker: &'c Rc<Worker>,
    watch: &'c Watch,
    buffers: &'c Buffers,
    /// Bytes of a request that is not complete, or that came behind another.
    kept: Vec<u8>,
    /// Whether `kept` was looked at and found incomplete.
    is_partial: bool,
    /// Pieces of the head in `kept` so far.
    pieces: u8,
    /// Whether the body of the request in `kept` was waited for already.
    waited_for_body: bool,
    keep_alive: bool,
}

/// What is to be done next.
enum Step {
    /// Write what the socket did not take at once.
    Write(Vec<u8>, Bytes),
    /// Ask the long way what came at that time.
    Ask(Box<Request<Arriving>>, Instant),
    HandOver,
    End,
}

impl<'c> Lane<'c> {
    /// A connection at its beginning.
    pub(super) fn new(
        stream: &'c mut TcpStream,
        worker: &'c Rc<Worker>,
        watch: &'c Watch,
        buffers: &'c Buffers,
    ) -> Self {
        Self {
            stream,
            worker,
            watch,
            buffers,
            kept: Vec::new(),
            is_partial: false,
            pieces: 0,
            waited_for_body: false,
            keep_alive: true,
        }
    }

    /// Serves requests until the connection ends or a request is not for the lane.
    pub(super) async fn run(mut self) -> Left {
        while self.keep_alive {
            let done = match std::future::poll_fn(|cx| self.step(cx)).await {
                Step::Write(head, body) => self.write(head, body).await,
                Step::Ask(request, now) => self.ask(request, now).await,
                Step::HandOver => return Left::HandedOver(Bytes::from(std::mem::take(&mut self.kept))),
                Step::End => break,
            };
            if done.is_err() {
                break;
            }
        }
        Left::Ended
    }

    /// Reads and answers for as long as nothing has to be waited for but the next bytes.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            if !self.kept.is_empty() && !self.is_partial {
                let kept = std::mem::take(&mut self.kept);
                if let Some(step) = self.take_first(&kept) {
                    return Poll::Ready(step);
                }
                continue;
            }
            if !self.keep_alive || self.watch.must_end(self.kept.is_empty()) {
                return Poll::Ready(Step::End);
            }
            if self.watch.lacks_body() {
                self.watch.await_body(false);
                return Poll::Ready(Step::HandOver);
            }
            let buffers = self.buffers;
            let mut read = buffers.read.borrow_mut();
            let mut buf = ReadBuf::new(&mut read);
            match Pin::new(&mut *self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                // What is not complete by now never will be: the HTTP library knows what to say to that.
                Poll::Ready(Ok(())) if !self.kept.is_empty() => return Poll::Ready(Step::HandOver),
                Poll::Ready(_) => return Poll::Ready(Step::End),
                Poll::Pending => {
                    self.watch.wait(cx);
                    return Poll::Pending;
                }
            }
            self.watch.read();
            if self.kept.is_empty() {
                let step = self.take_first(buf.filled());
                if let Some(step) = step {
                    return Poll::Ready(step);
                }
            } else {
                self.kept.extend_from_slice(buf.filled());
                self.is_partial = false;
            }
        }
    }

    /// Deals with the first request in `bytes` and keeps what is behind it. `None`: look again.
    fn take_first(&mut self, bytes: &[u8]) -> Option<Step> {
        let buffers = self.buffers;
        let mut out = buffers.write.borrow_mut();
        out.clear();
        let now = Instant::now();
        // What is read while the proxy drains must be told that its connection ends: the long way does.
        let recall = !self.watch.is_ending();
        match read(bytes, self.worker, recall, now, &mut out) {
            Read::Answered {
                used,
                keep_alive,
                rest,
            } => {
                self.keep(bytes, used);
                self.keep_alive = keep_alive;
                self.watch.hit();
                let body = match rest {
                    Rest::Nothing => Bytes::new(),
                    Rest::Body(body) => body,
                };
                self.send(&out, body)
            }
            Read::Asked {
                used,
                keep_alive,
                request,
            } => {
                self.keep(bytes, used);
                self.keep_alive = keep_alive;
                Some(Step::Ask(request, now))
            }
            Read::PartialHead if self.pieces < PIECES_MAX => {
                self.keep(bytes, 0);
                self.is_partial = true;
                self.pieces += 1;
                None
            }
            // SDKs send a small body right behind its head; one that takes longer has its own clock elsewhere.
            Read::PartialBody if !self.waited_for_body => {
                self.keep(bytes, 0);
                self.is_partial = true;
                self.waited_for_body = true;
                self.watch.await_body(true);
                None
            }
            Read::PartialHead | Read::PartialBody | Read::Foreign => {
                self.keep(bytes, 0);
                Some(Step::HandOver)
            }
        }
    }

    fn keep(&mut self, bytes: &[u8], used: usize) {
        self.watch.await_body(false);
        self.is_partial = false;
        if used > 0 {
            self.pieces = 0;
            self.waited_for_body = false;
        }
        let unused = bytes.get(used..).unwrap_or_default();
        if !unused.is_empty() {
            self.kept = unused.to_vec();
        }
    }

    /// Writes what the socket takes at once; the rest is the next step.
    fn send(&mut self, head: &[u8], body: Bytes) -> Option<Step> {
        let sent = if body.is_empty() {
            self.stream.try_write(head)
        } else {
            self.stream
                .try_write_vectored(&[IoSlice::new(head), IoSlice::new(&body)])
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Some(Step::End),
        };
        let unsent_head = head.get(sent..).unwrap_or_default();
        let mut body = body;
        body.advance(sent.saturating_sub(head.len()).min(body.len()));
        let all = unsent_head.is_empty() && body.is_empty();
        (!all).then(|| Step::Write(unsent_head.to_vec(), body))
    }

    async fn write(&mut self, head: Vec<u8>, body: Bytes) -> io::Result<()> {
        let mut unsent = Bytes::from(head).chain(body);
        while unsent.has_remaining() {
            let sent = std::future::poll_fn(|cx| {
                if self.watch.must_end(false) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                let mut slices = [IoSlice::new(&[]); 2];
                let n = unsent.chunks_vectored(&mut slices);
                let slices = slices.get(..n).unwrap_or_default();
                let polled = Pin::new(&mut *self.stream).poll_write_vectored(cx, slices);
                if polled.is_pending() {
                    self.watch.wait(cx);
                }
                polled
            })
            .await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.watch.wrote();
            unsent.advance(sent);
        }
        Ok(())
    }

    /// Takes a request that came at `now` the long way and writes its response.
    async fn ask(&mut self, request: Box<Request<Arriving>>, now: Instant) -> io::Result<()> {
        let is_head = *request.method() == Method::HEAD;
        self.watch.request();
        let busy = Busy(self.watch);
        let response = self.respond(request, now).await;
        drop(busy);
        let mut response = response?;
        if self.watch.is_ending() || !self.keep_alive {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.keep_alive = !response.headers().contains_key(CONNECTION);
        let buffers = self.buffers;
        let sent = {
            let mut head = buffers.write.borrow_mut();
            head.clear();
            let body = self.serialize(response, is_head, &mut head)?;
            self.send(&head, body)
        };
        match sent {
            None => Ok(()),
            Some(Step::Write(head, body)) => self.write(head, body).await,
            Some(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The response, unless the client goes away first.
    async fn respond(
        &mut self,
        request: Box<Request<Arriving>>,
        now: Instant,
    ) -> io::Result<Response<AnswerBody>> {
        let mut response = pin!(self.worker.respond_whole(request, now));
        let mut is_watched = true;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(response) = response.as_mut().poll(cx) {
                return Poll::Ready(Ok(response));
            }
            if self.watch.must_end(false) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.watch.wait(cx);
            if is_watched {
                let mut byte = [0u8; 1];
                match ready!(self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte))) {
                    // The next request is there already: the client has not gone.
                    Ok(1..) => is_watched = false,
                    Ok(0) | Err(_) => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Appends a response; gives its body, if that is too long to be copied behind its head.
    fn serialize(
        &self,
        response: Response<AnswerBody>,
        is_head: bool,
        out: &mut Vec<u8>,
    ) -> io::Result<Bytes> {
        let (parts, body) = response.into_parts();
        // The routes of the lane have whole answers.
        let AnswerBody::Full(body) = body else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let body = body.unwrap_or_default();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(parts.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(parts.status.canonical_reason().unwrap_or("-").as_bytes());
        for (name, value) in &parts.headers {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
        }
        if !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            out.extend_from_slice(b"\r\ncontent-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\ndate: ");
        self.worker.write_date(out);
        out.extend_from_slice(b"\r\n\r\n");
        if is_head {
            return Ok(Bytes::new());
        }
        if body.len() > COPIED_BYTES_MAX {
            return Ok(body);
        }
        out.extend_from_slice(&body);
        Ok(Bytes::new())
    }
}

/// A request that is being answered; given back however that ends.
struct Busy<'w>(&'w Watch);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.answered();
    }
}
