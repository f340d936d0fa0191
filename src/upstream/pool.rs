//! Connections of one client to one origin.
//!
//! A request takes an idle connection, the newest first, or waits for the next that is opened or comes
//! free. Opening goes on when the one who asked leaves, so nothing of a handshake is lost. As long as it
//! is not known that upstream speaks HTTP/1.1 only one connection is opened at a time: if it turns out to
//! be HTTP/2, all share it.
//!
//! Invariant: a connection in `idle` has no request on it. One whose answer was not read to its end is
//! closed, never kept.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::connect::{Wire, dial};
use super::direct::{Direct, Stream};
use super::error::{Phase, UpstreamError};
use super::exchange::OutBody;
use super::{Origin, lock};

/// Idle connections older than this are not used: most servers and balancers close at 60 s, and a request
/// must not meet that.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// How long connections beyond the number that is kept wait for another request, and how many times that
/// number they may be.
const SPARE_FOR: Duration = Duration::from_secs(1);
const SPARE_FACTOR: usize = 4;

/// Age at which a connection is replaced, so that a changed name is followed in the end.
const AGE_MAX: Duration = Duration::from_secs(300);

/// Bytes of a response head.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The same for HTTP/2, whose length is a 32-bit number.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;

/// An HTTP/2 connection with streams is asked this often whether it is alive, and given this long.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of one client to `origin`.
pub(super) struct Pool {
    origin: Arc<Origin>,
    tls: TlsConnector,
    connect_timeout: Duration,
    max_idle: usize,
    state: Mutex<State>,
}

struct State {
    /// Longest idle first.
    idle: VecDeque<(Connection, Instant)>,
    /// The HTTP/2 connection that all share.
    shared: Option<Connection>,
    /// Who waits for a connection, longest first.
    waiting: VecDeque<oneshot::Sender<Result<Lease, UpstreamError>>>,
    /// Connections being opened.
    opening: usize,
    /// Whether each waiter gets a connection of its own: upstream is known to speak HTTP/1.1.
    one_each: bool,
    /// Number of the next connection.
    next_id: u64,
}

struct Connection {
    sender: Sender,
    id: u64,
    opened_at: Instant,
}

enum Sender {
    /// For whole requests and answers; for others the HTTP library takes it over.
    Direct(Box<Direct>),
    Http1(http1::SendRequest<OutBody>),
    Http2(http2::SendRequest<OutBody>),
}

/// What a request gets: a connection, or a place in the queue for one.
pub(super) enum Checkout {
    Ready(Lease),
    Wait(oneshot::Receiver<Result<Lease, UpstreamError>>),
}

/// A connection in use. Dropped, it goes back if it can take another request, and is closed if not.
pub(super) struct Lease {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    reused: bool,
}

/// A request that got no response.
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    /// The request, if it never left.
    pub(super) unsent: Option<Request<OutBody>>,
}

impl Pool {
    pub(super) fn new(
        origin: &Arc<Origin>,
        tls: TlsConnector,
        connect_timeout: Duration,
        max_idle: usize,
    ) -> Arc<Self> {
        let state = State {
            idle: VecDeque::new(),
            shared: None,
            waiting: VecDeque::new(),
            opening: 0,
            one_each: origin.server_name().is_none(),
            next_id: 0,
        };
        Arc::new(Self {
            origin: Arc::clone(origin),
            tls,
            connect_timeout,
            max_idle,
            state: Mutex::new(state),
        })
    }

    /// Takes a connection. With `fresh`, idle ones are left alone: one of them just turned out dead.
    pub(super) fn checkout(self: &Arc<Self>, fresh: bool, now: Instant) -> Checkout {
        let mut state = lock(&self.state);
        if let Some(connection) = state.share(now) {
            return Checkout::Ready(self.lease(connection, true));
        }
        if !fresh && let Some(connection) = state.take_idle(now) {
            return Checkout::Ready(self.lease(connection, true));
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.retain(|waiter| !waiter.is_closed());
        state.waiting.push_back(sender);
        self.open_wanted(&mut state);
        Checkout::Wait(receiver)
    }

    /// Closes connections that have been idle for long, and those beyond what is kept.
    pub(super) fn close_idle(&self, now: Instant) {
        let mut state = lock(&self.state);
        while state.idle.len() > self.max_idle
            && let Some((_, idle_at)) = state.idle.front()
            && now.saturating_duration_since(*idle_at) >= SPARE_FOR
        {
            state.idle.pop_front();
        }
        state.idle.retain_mut(|(connection, idle_at)| {
            now.saturating_duration_since(*idle_at) < IDLE_MAX && connection.is_ready()
        });
    }

    fn lease(self: &Arc<Self>, connection: Connection, reused: bool) -> Lease {
        Lease {
            pool: Arc::clone(self),
            connection: Some(connection),
            reused,
        }
    }

    /// Opens as many connections as are wanted and not yet being opened.
    fn open_wanted(self: &Arc<Self>, state: &mut MutexGuard<'_, State>) {
        let wanted = if state.one_each {
            state.waiting.len()
        } else {
            state.waiting.len().min(1)
        };
        while state.opening < wanted {
            state.opening += 1;
            let pool = Arc::clone(self);
            TokioExecutor::new().execute(async move { pool.open_one().await });
        }
    }

    /// Opens a connection and hands it to whoever waits.
    async fn open_one(self: Arc<Self>) {
        let opened = match timeout(self.connect_timeout, self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(UpstreamError::Timeout(Phase::Connect)),
        };
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.opening = state.opening.saturating_sub(1);
        match opened {
            Ok(sender) => {
                let id = state.next_id;
                state.next_id = state.next_id.wrapping_add(1);
                let connection = Connection {
                    sender,
                    id,
                    opened_at: now,
                };
                state.one_each = !matches!(connection.sender, Sender::Http2(_));
                if let Some(copy) = connection.copy() {
                    state.shared = Some(copy);
                    while let Some(waiter) = state.waiting.pop_front() {
                        let Some(copy) = connection.copy() else { break };
                        // The one who waited may have left; a copy that nobody takes needs no care.
                        drop(waiter.send(Ok(self.lease(copy, false))));
                    }
                } else {
                    self.hand_out(&mut state, connection, false, now);
                    self.open_wanted(&mut state);
                }
            }
            Err(error) => {
                // With a connection for each, as many may go on waiting as are still being opened.
                let hopeful = if state.one_each { state.opening } else { 0 };
                while state.waiting.len() > hopeful {
                    let Some(waiter) = state.waiting.pop_front() else {
                        break;
                    };
                    // The one who waited may have left.
                    drop(waiter.send(Err(error.clone())));
                }
            }
        }
    }

    /// Gives a connection without a request on it to the first who waits, or keeps it idle.
    fn hand_out(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        mut connection: Connection,
        reused: bool,
        now: Instant,
    ) {
        while let Some(waiter) = state.waiting.pop_front() {
            match waiter.send(Ok(self.lease(connection, reused))) {
                Err(Ok(mut unused)) => match unused.connection.take() {
                    Some(back) => connection = back,
                    None => return,
                },
                Ok(()) | Err(Err(_)) => return,
            }
        }
        if self.max_idle == 0 {
            return;
        }
        // A burst hands back more than are kept: closing them at once would mean opening them again.
        let spare = state
            .idle
            .front()
            .map(|(_, idle_at)| now.saturating_duration_since(*idle_at));
        if state.idle.len() >= self.max_idle && spare.is_some_and(|spare| spare >= SPARE_FOR)
            || state.idle.len() >= self.max_idle.saturating_mul(SPARE_FACTOR)
        {
            state.idle.pop_front();
        }
        state.idle.push_back((connection, now));
    }

    fn put_back(self: &Arc<Self>, mut connection: Connection) {
        let now = Instant::now();
        if connection.is_usable(now) {
            self.hand_out(&mut lock(&self.state), connection, true, now);
        }
    }

    async fn open(&self) -> Result<Sender, UpstreamError> {
        match dial(&self.origin, &self.tls, self.connect_timeout).await? {
            Wire::Plain(stream) => Ok(self.direct(Stream::Plain(stream))),
            Wire::Tls { stream, http2: false } => Ok(self.direct(Stream::Tls(stream))),
            Wire::Tls { stream, http2: true } => self.speak_http2(TokioIo::new(*stream)).await,
        }
    }

    fn direct(&self, stream: Stream) -> Sender {
        Sender::Direct(Box::new(Direct::new(stream, Open::new(&self.origin))))
    }

    async fn speak_http1<T>(&self, stream: T, open: Open) -> Result<Sender, UpstreamError>
    where
        T: Read + Write + Send + Unpin + 'static,
    {
        let (sender, driver) = http1::Builder::new()
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(stream)
            .await
            .map_err(UpstreamError::before_head)?;
        drive(driver, open);
        Ok(Sender::Http1(sender))
    }

    async fn speak_http2<T>(&self, stream: T) -> Result<Sender, UpstreamError>
    where
        T: Read + Write + Send + Unpin + 'static,
    {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .handshake(stream)
            .await
            .map_err(UpstreamError::before_head)?;
        drive(driver, Open::new(&self.origin));
        Ok(Sender::Http2(sender))
    }
}

/// Counts a connection while it is there.
pub(super) struct Open(Arc<Origin>);

impl Open {
    pub(super) fn new(origin: &Arc<Origin>) -> Self {
        origin.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(origin))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs a connection until it is closed: when upstream closes it, or when nothing holds its sender.
fn drive(driver: impl Future<Output = hyper::Result<()>> + Send + 'static, open: Open) {
    TokioExecutor::new().execute(async move {
        // How it ended is told to the request that was on it, if any.
        drop(driver.await);
        drop(open);
    });
}

impl State {
    /// The shared connection, if there is one that works.
    fn share(&mut self, now: Instant) -> Option<Connection> {
        let shared = self.shared.take_if(|shared| !shared.is_usable(now));
        drop(shared);
        self.shared.as_ref()?.copy()
    }

    fn take_idle(&mut self, now: Instant) -> Option<Connection> {
        while let Some((mut connection, idle_at)) = self.idle.pop_back() {
            if now.saturating_duration_since(idle_at) >= IDLE_MAX {
                // The others have been idle even longer.
                self.idle.clear();
                return None;
            }
            if connection.is_usable(now) {
                return Some(connection);
            }
        }
        None
    }
}

impl Connection {
    /// A second handle on an HTTP/2 connection.
    fn copy(&self) -> Option<Self> {
        match &self.sender {
            Sender::Direct(_) | Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self {
                sender: Sender::Http2(sender.clone()),
                id: self.id,
                opened_at: self.opened_at,
            }),
        }
    }

    fn is_ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Direct(direct) => direct.is_ready(),
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => sender.is_ready(),
        }
    }

    /// Whether it can take a request and is not too old for it.
    fn is_usable(&mut self, now: Instant) -> bool {
        self.is_ready() && now.saturating_duration_since(self.opened_at) < AGE_MAX
    }
}

impl Lease {
    /// Whether requests went over this connection before.
    pub(super) const fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) const fn is_http2(&self) -> bool {
        matches!(
            &self.connection,
            Some(Connection {
                sender: Sender::Http2(_),
                ..
            })
        )
    }

    /// Whether the failure of a request means that the connection is gone. Of an HTTP/2 connection it may
    /// have ended one stream alone.
    pub(super) fn is_broken(&self) -> bool {
        match &self.connection {
            Some(Connection {
                sender: Sender::Http2(sender),
                ..
            }) => !sender.is_ready(),
            _ => true,
        }
    }

    /// The connection, if whole answers are read from it here.
    pub(super) fn direct(&mut self) -> Option<&mut Direct> {
        match &mut self.connection.as_mut()?.sender {
            Sender::Direct(direct) => Some(direct),
            Sender::Http1(_) | Sender::Http2(_) => None,
        }
    }

    /// Hands the connection to the HTTP library, which can stream.
    ///
    /// # Errors
    ///
    /// When the library does not take it.
    pub(super) async fn prepare(&mut self) -> Result<(), UpstreamError> {
        let Some(connection) = self
            .connection
            .take_if(|it| matches!(it.sender, Sender::Direct(_)))
        else {
            return Ok(());
        };
        let Connection {
            sender,
            id,
            opened_at,
        } = connection;
        let sender = match sender {
            Sender::Direct(direct) => match direct.into_parts() {
                (Stream::Plain(stream), open) => self.pool.speak_http1(TokioIo::new(stream), open).await?,
                (Stream::Tls(stream), open) => self.pool.speak_http1(TokioIo::new(*stream), open).await?,
            },
            sender => sender,
        };
        self.connection = Some(Connection {
            sender,
            id,
            opened_at,
        });
        Ok(())
    }

    /// Sends `request` and waits for the head of its response.
    ///
    /// # Errors
    ///
    /// With the request, if none of it was sent.
    pub(super) async fn send(&mut self, request: Request<OutBody>) -> Result<Response<Incoming>, Unanswered> {
        let sent = match self.connection.as_mut().map(|connection| &mut connection.sender) {
            Some(Sender::Http1(sender)) => sender.try_send_request(request).await,
            Some(Sender::Http2(sender)) => sender.try_send_request(request).await,
            // `prepare` came first; only `finish` and `discard` take the connection out, and both consume the lease.
            Some(Sender::Direct(_)) | None => std::future::pending().await,
        };
        sent.map_err(|mut refused| {
            let unsent = refused.take_message();
            Unanswered {
                error: refused.into_error(),
                unsent,
            }
        })
    }

    /// The answer was read to its end: the connection goes back as soon as it can take another request.
    pub(super) fn finish(mut self) {
        let Some(Connection {
            sender: Sender::Http1(sender),
            ..
        }) = &self.connection
        else {
            return;
        };
        if sender.is_ready() || sender.is_closed() {
            return;
        }
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let pool = Arc::clone(&self.pool);
        TokioExecutor::new().execute(async move {
            if let Sender::Http1(sender) = &mut connection.sender
                && sender.ready().await.is_ok()
            {
                pool.put_back(connection);
            }
        });
    }

    /// The connection is not to be trusted: no further request gets it.
    pub(super) fn discard(mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let mut state = lock(&self.pool.state);
        let retired = state.shared.take_if(|shared| shared.id == connection.id);
        drop(state);
        drop((connection, retired));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && !matches!(connection.sender, Sender::Http2(_))
        {
            self.pool.put_back(connection);
        }
    }
}
