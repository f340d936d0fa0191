//! What the fakes of both vendors are apart from their contracts: a server on a port that stays its own while nobody
//! listens, and a state that tests can wait for.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::wait::PATIENCE;

/// A server in a thread of its own; dropping it ends it, and fails the test if it panicked.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _port: Socket,
}

impl Server {
    /// Runs what `serve` makes of the address, a free port of `127.0.0.1`.
    pub fn start<F: Future<Output = ()>>(serve: impl FnOnce(SocketAddr) -> F + Send + 'static) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let port = reserve(any).expect("loopback has a free port");
        let address = port.local_addr().expect("it is bound");
        let address = address.as_socket().expect("it is an IP address");
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(async move {
                tokio::select! {
                    () = serve(address) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
            _port: port,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            thread::panicking() || !matches!(ended, Some(Err(_))),
            "the thread of a fake panicked"
        );
    }
}

/// A socket bound to `address` that does not listen; a second one may be bound beside it.
///
/// A server keeps one for as long as it lives: while its listener is closed, the port belongs to nobody else and
/// connections to it are refused.
fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens on the port of a [`Server`].
pub fn listen(address: SocketAddr, backlog: i32) -> TcpListener {
    let listening = || {
        let socket = reserve(address)?;
        socket.listen(backlog)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    };
    listening().expect("the port is reserved")
}

/// The next connection; never, without a listener.
pub async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return pending().await;
    };
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            return stream;
        }
    }
}

/// What a fake knows.
pub trait Knowledge {
    /// The requests that it saw, a line each.
    fn seen(&self) -> Vec<String>;
}

/// What a fake knows, and the signals between the test and the server's thread.
pub struct Shared<S, T> {
    state: Mutex<S>,
    changed: Condvar,
    /// The signals.
    pub signals: T,
}

impl<S, T> fmt::Debug for Shared<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<S: Knowledge, T> Shared<S, T> {
    /// With this to begin with.
    pub fn new(state: S, signals: T) -> Self {
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            signals,
        }
    }

    /// The state, locked; a test that panicked elsewhere does not matter here.
    pub fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for a change.
    pub fn update<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `reached` is true; panics with `what` and the requests when that takes too long.
    pub fn wait(&self, what: &str, mut reached: impl FnMut(&S) -> bool) {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, |state| !reached(state));
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let seen = state.seen();
        drop(state);
        assert!(
            !timeout.timed_out(),
            "a fake waited in vain for {what}; it saw {seen:#?}"
        );
    }
}
