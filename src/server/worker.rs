//! A data worker: one thread, one single-threaded runtime, its own listeners.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use crate::api::{Proxy, Worker};
use crate::config;
use crate::metrics::{Closed, WorkerMetrics};
use crate::task::{self, Stop};
use crate::upstream::{self, Client};

use super::Connections;
use super::connection::{TICK, Watches};

/// Pause after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long connections without a request are kept once no new ones are accepted: whoever is about to ask on one
/// is answered, and told that it closes.
const LINGER: Duration = Duration::from_millis(500);

/// How often it is looked whether all connections have ended.
const FINISH_POLL: Duration = Duration::from_millis(5);

/// Connections that are still taken from a listener that closes.
const LAST_ACCEPTED_MAX: u32 = 1024;

/// What a worker is made of.
#[derive(Debug)]
pub struct Setup {
    /// Its number, from 0.
    pub number: usize,
    /// Its listeners.
    pub listeners: Vec<std::net::TcpListener>,
    /// Shared by all workers.
    pub proxy: Arc<Proxy>,
    /// Shared by all clients.
    pub upstream: Arc<upstream::Shared>,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Connections of all workers.
    pub connections: Arc<Connections>,
    /// Listener settings.
    pub listen: config::Listen,
    /// Bytes of its memo.
    pub memo_bytes: usize,
    /// Told first: unready, answers close their connections, still accepting.
    pub draining: Stop,
    /// Told next: no new connections, finish what there is.
    pub closing: Stop,
    /// How long that may take.
    pub drain_timeout: Duration,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Connections cut off because their requests took longer than the drain timeout.
    pub cut_off: usize,
}

/// Starts a worker.
///
/// # Errors
/// When there is no thread or runtime to be had.
pub fn start(setup: Setup) -> io::Result<JoinHandle<Ended>> {
    let name = format!("flagside-{}", setup.number);
    std::thread::Builder::new().name(name).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(setup)),
            Err(error) => {
                tracing::error!("a data worker has no runtime: {error}");
                Ended { cut_off: 0 }
            }
        }
    })
}

async fn run(setup: Setup) -> Ended {
    let client = Client::new(&setup.upstream);
    let worker = Rc::new(Worker::new(
        setup.proxy,
        client,
        Arc::clone(&setup.metrics),
        setup.draining.clone(),
        setup.memo_bytes,
    ));
    let watches = Rc::new(Watches::new(&setup.listen));
    let accepting: Vec<_> = setup
        .listeners
        .into_iter()
        .filter_map(|listener| {
            let listener = TcpListener::from_std(listener)
                .inspect_err(|error| tracing::error!("a listener cannot be used: {error}"))
                .ok()?;
            Some(task::spawn_local(accept(
                listener,
                Rc::clone(&worker),
                Rc::clone(&watches),
                Arc::clone(&setup.connections),
                setup.closing.clone(),
            )))
        })
        .collect();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due = Instant::now() + TICK;
    let mut finishing_since = None;
    let mut dismissed = false;
    loop {
        tokio::select! {
            () = setup.draining.requested(), if finishing_since.is_none() && !watches.is_finishing() => watches.finish(),
            () = setup.closing.requested(), if finishing_since.is_none() => {
                finishing_since = Some(Instant::now());
                watches.finish();
            }
            () = tokio::time::sleep(FINISH_POLL), if finishing_since.is_some() => {}
            _ = ticks.tick() => {
                let now = Instant::now();
                setup.metrics.beat(now.saturating_duration_since(due));
                due = now + TICK;
                worker.client.close_idle(tokio::time::Instant::now());
                for _ in 0..watches.tick() {
                    setup.metrics.connection_rejected(Closed::Idle);
                }
            }
        }
        if let Some(since) = finishing_since {
            if watches.open() == 0 || since.elapsed() >= setup.drain_timeout {
                break;
            }
            if !dismissed && since.elapsed() >= LINGER.min(setup.drain_timeout / 2) {
                dismissed = true;
                watches.dismiss();
            }
        }
    }
    for task in accepting {
        task.abort();
    }
    Ended {
        cut_off: watches.open(),
    }
}

/// Serves what comes to `listener` until told to close it.
async fn accept(
    listener: TcpListener,
    worker: Rc<Worker>,
    watches: Rc<Watches>,
    connections: Arc<Connections>,
    closing: Stop,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = closing.requested() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => serve(stream, &worker, &watches, &connections),
            Err(error) => {
                tracing::debug!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // What the system has completed already would be reset.
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..LAST_ACCEPTED_MAX {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            serve(stream, &worker, &watches, &connections);
        }
    }
}

/// Serves one connection in a task of its own, if there is room for it.
fn serve(stream: TcpStream, worker: &Rc<Worker>, watches: &Rc<Watches>, connections: &Arc<Connections>) {
    if !connections.enter() {
        worker.metrics.connection_rejected(Closed::Limit);
        return;
    }
    let _ = stream.set_nodelay(true);
    worker.metrics.connection_opened();
    let place = Place {
        connections: Arc::clone(connections),
        worker: Rc::clone(worker),
    };
    let watches = Rc::clone(watches);
    task::detach(async move {
        if let Some(upgraded) = watches.serve(stream, Rc::clone(&place.worker)).await {
            task::detach(async move {
                watches.stream(upgraded).await;
                drop(place);
            });
        }
    });
}

/// A connection's place among all; given back however it ends.
struct Place {
    connections: Arc<Connections>,
    worker: Rc<Worker>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.leave();
        self.worker.metrics.connection_closed();
    }
}
