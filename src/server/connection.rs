//! One data connection: HTTP/1.1 or HTTP/2 with prior knowledge, watched by a coarse sweep instead of a
//! timer per request.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use crate::api::answer::AnswerBody;
use crate::api::error::RequestError;
use crate::api::featbit::streaming::{Opening, Sweep, take_opening};
use crate::api::{Responding, Worker};
use crate::config;

use super::lane::{Buffers, Lane, Left};

/// Ticks of the worker's sweep: coarse time, cheap to read.
pub type Ticks = u32;
/// Length of a tick.
pub const TICK: Duration = Duration::from_millis(250);

/// How a connection begins that speaks HTTP/2 without being asked.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// How long the lane waits for a body behind its head; then the HTTP library does, with its own clock.
const BODY_TICKS: Ticks = 1;
/// Header lines of a request.
const HEADERS_MAX: usize = 128;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// What a connection is doing, as far as its sweep must know.
#[derive(Debug)]
pub struct Watch {
    /// Requests being answered.
    busy: Cell<u32>,
    /// Whether bytes of a request head have come and no request yet.
    reading: Cell<bool>,
    /// Since when: last answer, first byte of a head, or start.
    since: Cell<Ticks>,
    /// HTTP/2 has frames between requests: only its silence counts.
    http2: Cell<bool>,
    /// The head of a request has been read, its body has not.
    body_awaited: Cell<bool>,
    /// The request at hand is framed in two ways at once.
    ambiguous: Cell<bool>,
    /// What the connection is upgraded to.
    opening: RefCell<Option<Box<Opening>>>,
    end: Cell<End>,
    waker: RefCell<Option<Waker>>,
    clock: Rc<Cell<Ticks>>,
}

/// How the connection is to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Open,
    /// With its next answer, which says so: closing it now could meet a request on its way. HTTP/2 has a
    /// frame for that, so it is told at once.
    Soon,
    /// After the requests at hand; at once where there is none.
    Graceful,
    /// At once.
    Now,
}

impl Watch {
    fn new(clock: &Rc<Cell<Ticks>>) -> Self {
        Self {
            busy: Cell::new(0),
            reading: Cell::new(false),
            since: Cell::new(clock.get()),
            http2: Cell::new(false),
            body_awaited: Cell::new(false),
            ambiguous: Cell::new(false),
            opening: RefCell::default(),
            end: Cell::new(End::Open),
            waker: RefCell::default(),
            clock: Rc::clone(clock),
        }
    }

    /// Bytes have come.
    #[inline]
    pub(super) fn read(&self) {
        if self.busy.get() == 0 && !self.reading.get() && !self.http2.get() {
            self.reading.set(true);
            self.since.set(self.clock.get());
        }
    }

    /// A request was answered on the spot.
    #[inline]
    pub(super) fn hit(&self) {
        self.reading.set(false);
        self.since.set(self.clock.get());
    }

    /// A request is being answered.
    pub(super) fn request(&self) {
        self.reading.set(false);
        self.busy.set(self.busy.get() + 1);
    }

    /// It is answered.
    pub(super) fn answered(&self) {
        self.busy.set(self.busy.get().saturating_sub(1));
        self.since.set(self.clock.get());
    }

    /// Bytes of a response went out.
    pub(super) fn wrote(&self) {
        if !self.reading.get() {
            self.since.set(self.clock.get());
        }
    }

    /// Looks whether `bytes`, read by the HTTP library, begin a request that is framed in two ways.
    fn inspect(&self, bytes: &[u8]) {
        // Methods with a body begin with a P; others pay one comparison.
        if self.busy.get() == 0 && bytes.first() == Some(&b'P') && !self.http2.get() && is_framed_twice(bytes)
        {
            self.ambiguous.set(true);
        }
    }

    /// Whether the connection is to end now: at once, or because it is told to and `is_idle`.
    pub(super) fn must_end(&self, is_idle: bool) -> bool {
        match self.end.get() {
            End::Open | End::Soon => false,
            End::Graceful => is_idle,
            End::Now => true,
        }
    }

    /// Whether responses must say that the connection ends.
    pub(super) fn is_ending(&self) -> bool {
        self.end.get() != End::Open
    }

    /// Lets the sweep wake the task of the connection.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|own| own.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Ends the connection after the requests at hand, or at once.
    fn end(&self, how: End) {
        self.end.set(how);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Closes what has been silent, or slow with its head, for too long. Says whether it did.
    fn sweep(&self, now: Ticks, limits: &Limits) -> bool {
        let past = now.wrapping_sub(self.since.get());
        let limit = if self.reading.get() {
            limits.header
        } else {
            limits.idle
        };
        let over = self.busy.get() == 0 && past > limit && self.end.get() != End::Now;
        if over {
            self.end(End::Now);
        } else if self.is_body_late(now)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
        over
    }

    /// Whether the body of the request being read is awaited, or not any more.
    pub(super) fn await_body(&self, awaited: bool) {
        if awaited {
            self.since.set(self.clock.get());
        }
        self.body_awaited.set(awaited);
    }

    /// Whether a body that should stand right behind its head has not come.
    pub(super) fn lacks_body(&self) -> bool {
        self.is_body_late(self.clock.get())
    }

    fn is_body_late(&self, now: Ticks) -> bool {
        self.body_awaited.get() && now.wrapping_sub(self.since.get()) > BODY_TICKS
    }
}

/// Whether a request head has both `Content-Length` and `Transfer-Encoding`. The HTTP library then trusts the
/// latter and closes the connection, which is safe; but such a request is an attack or a fault, and is told so.
fn is_framed_twice(bytes: &[u8]) -> bool {
    let has = |name: &[u8]| {
        let lines = bytes
            .split(|byte| *byte == b'\n')
            .take_while(|line| !line.trim_ascii().is_empty());
        lines.into_iter().any(|line| {
            line.get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        })
    };
    has(b"transfer-encoding:") && has(b"content-length:")
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    header: Ticks,
    idle: Ticks,
}

/// A connection that is no longer HTTP.
pub struct Upgraded {
    io: WatchedStream,
    /// What was read behind the request.
    read: Bytes,
    opening: Box<Opening>,
}

impl std::fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}

/// All connections of one worker.
#[derive(Debug)]
pub struct Watches {
    clock: Rc<Cell<Ticks>>,
    all: RefCell<Vec<Weak<Watch>>>,
    limits: Limits,
    http1: http1::Builder,
    http2: http2::Builder<LocalExecutor>,
    finishing: Cell<bool>,
    buffers: Buffers,
    /// Streams that connections were upgraded to.
    streams: Sweep,
}

impl Watches {
    /// No connections yet.
    #[must_use]
    pub fn new(settings: &config::Listen) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .keep_alive(true)
            .half_close(false)
            .max_headers(HEADERS_MAX)
            .max_buf_size(settings.max_headers.max(8192));
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(settings.max_headers).unwrap_or(u32::MAX));
        let limits = Limits {
            header: ticks(settings.header_timeout),
            idle: ticks(settings.idle_timeout),
        };
        Self {
            clock: Rc::default(),
            all: RefCell::default(),
            limits,
            http1,
            http2,
            finishing: Cell::new(false),
            buffers: Buffers::default(),
            streams: Sweep::default(),
        }
    }

    /// Serves one connection to its end, or to its upgrade.
    pub async fn serve(&self, stream: TcpStream, worker: Rc<Worker>) -> Option<Upgraded> {
        let watch = Rc::new(Watch::new(&self.clock));
        self.all.borrow_mut().push(Rc::downgrade(&watch));
        if self.finishing.get() {
            watch.end.set(End::Soon);
        }
        let mut stream = stream;
        let unused = match Lane::new(&mut stream, &worker, &watch, &self.buffers).run().await {
            Left::Ended => return None,
            Left::HandedOver(unused) => unused,
        };
        let http2 = unused.starts_with(HTTP2_PREFACE);
        watch.http2.set(http2);
        let io = TokioIo::new(WatchedStream {
            stream,
            unused,
            watch: Rc::clone(&watch),
        });
        let service = WatchedService {
            worker,
            watch: Rc::clone(&watch),
        };
        if http2 {
            let mut connection = std::pin::pin!(self.http2.serve_connection(io, service));
            drive(
                &mut connection,
                &watch,
                |connection, cx| connection.as_mut().poll(cx),
                |connection| connection.as_mut().graceful_shutdown(),
            )
            .await;
            None
        } else {
            self.serve_http1(io, service, watch).await
        }
    }

    /// Serves HTTP/1.1 to its end, or to an upgrade.
    async fn serve_http1(
        &self,
        io: TokioIo<WatchedStream>,
        service: WatchedService,
        watch: Rc<Watch>,
    ) -> Option<Upgraded> {
        let mut connection = self.http1.serve_connection(io, service);
        let ended = drive(
            &mut connection,
            &watch,
            |connection, cx| connection.poll_without_shutdown(cx),
            |connection| Pin::new(connection).graceful_shutdown(),
        )
        .await;
        if !matches!(ended, Some(Ok(()))) {
            return None;
        }
        let parts = connection.into_parts();
        let mut io = parts.io.into_inner();
        let opening = watch.opening.borrow_mut().take();
        let Some(opening) = opening else {
            // The peer has gone, or will notice.
            let _ = io.shutdown().await;
            return None;
        };
        // From now on the streams' own sweep watches it.
        watch.request();
        Some(Upgraded {
            io,
            read: parts.read_buf,
            opening,
        })
    }

    /// Serves an upgraded connection to its end. Apart from [`Self::serve`], so that thousands of streams do
    /// not each hold the room that HTTP needs.
    pub async fn stream(&self, upgraded: Upgraded) {
        let Upgraded { io, read, opening } = upgraded;
        opening.serve(io, read, &self.streams).await;
    }

    /// One tick: closes what has been silent for too long, forgets what is gone. Returns how many it closed.
    pub fn tick(&self) -> usize {
        let now = self.clock.get().wrapping_add(1);
        self.clock.set(now);
        self.streams.tick();
        let mut closed = 0;
        self.all.borrow_mut().retain(|watch| match watch.upgrade() {
            Some(watch) => {
                closed += usize::from(watch.sweep(now, &self.limits));
                true
            }
            None => false,
        });
        closed
    }

    /// Ends every connection with its next answer.
    pub fn finish(&self) {
        self.finishing.set(true);
        self.end_all(End::Soon);
    }

    /// Ends every connection after the requests at hand: those that had none lately are closed.
    pub fn dismiss(&self) {
        self.end_all(End::Graceful);
        self.streams.end_all();
    }

    fn end_all(&self, how: End) {
        let all: Vec<_> = self.all.borrow().iter().filter_map(Weak::upgrade).collect();
        for watch in all.iter().filter(|watch| watch.end.get() != End::Now) {
            watch.end(how);
        }
    }

    /// Whether connections are being ended.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        self.finishing.get()
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.all
            .borrow()
            .iter()
            .filter(|watch| watch.strong_count() > 0)
            .count()
    }
}

/// Polls a connection until it ends or its watch ends it; then there is no result.
async fn drive<C, R>(
    connection: &mut C,
    watch: &Watch,
    poll: impl Fn(&mut C, &mut Context<'_>) -> Poll<R>,
    shut_down: impl Fn(&mut C),
) -> Option<R> {
    let mut told = false;
    std::future::poll_fn(|cx| {
        match watch.end.get() {
            End::Now => return Poll::Ready(None),
            End::Graceful if !told => {
                told = true;
                shut_down(connection);
            }
            End::Soon if !told && watch.http2.get() => {
                told = true;
                shut_down(connection);
            }
            End::Graceful | End::Soon | End::Open => {}
        }
        let polled = poll(connection, cx);
        if polled.is_pending() {
            watch.wait(cx);
        }
        polled.map(Some)
    })
    .await
}

fn ticks(duration: Duration) -> Ticks {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis());
    Ticks::try_from(ticks).unwrap_or(Ticks::MAX / 2)
}

/// Runs HTTP/2 streams on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        crate::task::detach(async move {
            let _ = future.await;
        });
    }
}

struct WatchedService {
    worker: Rc<Worker>,
    watch: Rc<Watch>,
}

impl Service<Request<Incoming>> for WatchedService {
    type Response = Response<AnswerBody>;
    type Error = std::convert::Infallible;
    type Future = WatchedResponding;

    fn call(&self, request: Request<Incoming>) -> WatchedResponding {
        self.watch.request();
        let responding = if self.watch.ambiguous.take() {
            self.worker.refuse(&request, RequestError::BrokenBody)
        } else {
            self.worker.respond(request)
        };
        WatchedResponding {
            responding,
            watch: Rc::clone(&self.watch),
        }
    }
}

struct WatchedResponding {
    responding: Responding,
    watch: Rc<Watch>,
}

impl Future for WatchedResponding {
    type Output = <Responding as Future>::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut polled = Pin::new(&mut self.responding).poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Some(opening) = take_opening(response)
        {
            *self.watch.opening.borrow_mut() = Some(Box::new(opening));
            return polled;
        }
        // A connection that is told to end while its request is read must say so in the response.
        if let Poll::Ready(Ok(response)) = &mut polled
            && self.watch.end.get() != End::Open
            && !self.watch.http2.get()
        {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        polled
    }
}

impl Drop for WatchedResponding {
    fn drop(&mut self) {
        self.watch.answered();
    }
}

/// Tells the watch what passes.
struct WatchedStream {
    stream: TcpStream,
    /// What was read before the HTTP library took over.
    unused: Bytes,
    watch: Rc<Watch>,
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unused.is_empty() {
            let length = self.unused.len().min(buf.remaining());
            let first = self.unused.split_to(length);
            self.watch.read();
            self.watch.inspect(&first);
            buf.put_slice(&first);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            self.watch.read();
            self.watch.inspect(new);
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if polled.is_ready() {
            self.watch.wrote();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if polled.is_ready() {
            self.watch.wrote();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
