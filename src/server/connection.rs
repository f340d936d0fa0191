//! One data connection: HTTP/1.1 or HTTP/2 with prior knowledge, watched by a coarse sweep instead of a
//! timer per request.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::api::answer::AnswerBody;
use crate::api::{Responding, Worker};
use crate::config;

/// Ticks of the worker's sweep: coarse time, cheap to read.
pub type Ticks = u32;
/// Length of a tick.
pub const TICK: Duration = Duration::from_millis(250);

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
    first: Cell<bool>,
    end: Cell<End>,
    waker: RefCell<Option<Waker>>,
    clock: Rc<Cell<Ticks>>,
}

/// How the connection is to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Open,
    /// After the requests at hand.
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
            first: Cell::new(true),
            end: Cell::new(End::Open),
            waker: RefCell::default(),
            clock: Rc::clone(clock),
        }
    }

    fn read(&self, bytes: &[u8]) {
        if self.first.replace(false) && bytes.starts_with(b"PRI ") {
            self.http2.set(true);
        }
        if self.busy.get() == 0 && !self.reading.get() && !self.http2.get() {
            self.reading.set(true);
            self.since.set(self.clock.get());
        }
    }

    fn request(&self) {
        self.reading.set(false);
        self.busy.set(self.busy.get() + 1);
    }

    fn answered(&self) {
        self.busy.set(self.busy.get().saturating_sub(1));
        self.since.set(self.clock.get());
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        if polled.is_ready() && !self.reading.get() {
            self.since.set(self.clock.get());
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
        let limit = if self.reading.get() { limits.header } else { limits.idle };
        let over = self.busy.get() == 0 && past > limit && self.end.get() != End::Now;
        if over {
            self.end(End::Now);
        }
        over
    }
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    header: Ticks,
    idle: Ticks,
}

/// All connections of one worker.
#[derive(Debug)]
pub struct Watches {
    clock: Rc<Cell<Ticks>>,
    all: RefCell<Vec<Weak<Watch>>>,
    limits: Limits,
    builder: auto::Builder<LocalExecutor>,
    finishing: Cell<bool>,
}

impl Watches {
    /// No connections yet.
    #[must_use]
    pub fn new(settings: &config::Listen) -> Self {
        let mut builder = auto::Builder::new(LocalExecutor);
        builder
            .http1()
            .keep_alive(true)
            .half_close(false)
            .max_headers(128)
            .max_buf_size(settings.max_headers.max(8192))
            .pipeline_flush(true);
        builder
            .http2()
            .max_concurrent_streams(256)
            .max_header_list_size(u32::try_from(settings.max_headers).unwrap_or(u32::MAX));
        let limits = Limits { header: ticks(settings.header_timeout), idle: ticks(settings.idle_timeout) };
        Self { clock: Rc::default(), all: RefCell::default(), limits, builder, finishing: Cell::new(false) }
    }

    /// Serves one connection to its end.
    pub async fn serve(&self, stream: TcpStream, worker: Rc<Worker>) {
        let watch = Rc::new(Watch::new(&self.clock));
        self.all.borrow_mut().push(Rc::downgrade(&watch));
        if self.finishing.get() {
            watch.end.set(End::Graceful);
        }
        let io = TokioIo::new(WatchedStream { stream, watch: Rc::clone(&watch) });
        let service = WatchedService { worker, watch: Rc::clone(&watch) };
        let connection = self.builder.serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let mut told = false;
        std::future::poll_fn(|cx| {
            match watch.end.get() {
                End::Now => return Poll::Ready(()),
                // One that has sent nothing yet is told once it has: its first request is answered.
                End::Graceful if !told && !watch.first.get() => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                End::Graceful | End::Open => {}
            }
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() {
                let mut waker = watch.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|own| own.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
            }
            polled.map(|_| ())
        })
        .await;
    }

    /// One tick: closes what has been silent for too long, forgets what is gone. Returns how many it closed.
    pub fn tick(&self) -> usize {
        let now = self.clock.get().wrapping_add(1);
        self.clock.set(now);
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

    /// Ends every connection after the requests at hand.
    pub fn finish(&self) {
        self.finishing.set(true);
        let all: Vec<_> = self.all.borrow().iter().filter_map(Weak::upgrade).collect();
        for watch in all {
            watch.end(End::Graceful);
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
        self.all.borrow().iter().filter(|watch| watch.strong_count() > 0).count()
    }
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
        WatchedResponding { responding: self.worker.respond(request), watch: Rc::clone(&self.watch) }
    }
}

struct WatchedResponding {
    responding: Responding,
    watch: Rc<Watch>,
}

impl Future for WatchedResponding {
    type Output = <Responding as Future>::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.responding).poll(cx)
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
    watch: Rc<Watch>,
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            self.watch.read(new);
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch.wrote(&polled);
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
        self.watch.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
