//! Background tasks: every one has an owner and an end.
//!
//! [`Tasks`] spawns futures on the runtime it was made in, knows which are still running, and drains them: it
//! asks them to stop, waits, and says what was left. A task that panics is logged and counted and takes nothing
//! down with it. [`Stop`] is how anything learns that it should end; it may be awaited on any runtime.
//! This is the one place where tasks are spawned.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::metrics::TaskMetrics;

/// Asks for a stop: the other end of [`Stop`]. Dropping it asks too, so that nothing outlives its owner.
#[derive(Debug, Default)]
pub struct Stopper(Arc<Signal>);

/// Learns of a stop. Cheap to clone and to ask; the answer never turns back to no.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    requested: AtomicBool,
    changed: Notify,
}

impl Stopper {
    /// A stop that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The end to hand out.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop(Arc::clone(&self.0))
    }

    /// Asks for the stop; again is harmless.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.request();
    }
}

impl Stop {
    /// Whether the stop has been asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Waits until the stop is asked for; at once if it has been. Cancel-safe.
    pub async fn requested(&self) {
        // Registered before the flag is read, so that a request in between is not missed.
        let mut changed = pin!(self.0.changed.notified());
        changed.as_mut().enable();
        if !self.is_requested() {
            changed.await;
        }
    }
}

/// Owner of the tasks on one runtime.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    runtime: Handle,
    stopper: Stopper,
    running: Mutex<Running>,
    /// Told when the last task has ended.
    idle: Notify,
    metrics: Arc<TaskMetrics>,
}

#[derive(Default)]
struct Running {
    next_id: u64,
    tasks: HashMap<u64, Task>,
    /// Set by the drain: nothing new begins.
    closed: bool,
}

struct Task {
    name: &'static str,
    /// None for the moment between registration and spawn.
    handle: Option<AbortHandle>,
}

impl Tasks {
    /// No tasks yet, on `runtime`; panics are counted in `metrics`.
    #[must_use]
    pub fn new(runtime: Handle, metrics: Arc<TaskMetrics>) -> Self {
        Self(Arc::new(Inner {
            runtime,
            stopper: Stopper::new(),
            running: Mutex::default(),
            idle: Notify::new(),
            metrics,
        }))
    }

    /// What the tasks are told to stop by.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.0.stopper.stop()
    }

    /// Starts the task that `make` makes of a [`Stop`]. May be called from any thread. Once the drain has begun
    /// nothing new starts: the future is dropped unpolled.
    pub fn spawn<F>(&self, name: &'static str, make: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(entry) = self.register(name) else {
            tracing::debug!(task = name, "a task was not started: stopping");
            return;
        };
        let id = entry.id;
        let future = make(self.stop());
        let handle = self.0.runtime.spawn(run(entry, future));
        // It may be over already.
        if let Some(task) = self.0.running().tasks.get_mut(&id) {
            task.handle = Some(handle.abort_handle());
        }
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.running().tasks.len()
    }

    /// Whether all tasks have ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks all tasks to stop, waits for them no longer than `grace`, aborts the others and gives their names,
    /// sorted, one for each. The runtime's timer must be running where this is awaited.
    pub async fn drain(&self, grace: Duration) -> Vec<&'static str> {
        self.0.running().closed = true;
        self.0.stopper.request();
        // Late is fine: what is left is asked for below.
        let _ = tokio::time::timeout(grace, self.ended()).await;
        let mut left: Vec<&'static str> = Vec::new();
        for task in self.0.running().tasks.values() {
            left.push(task.name);
            if let Some(handle) = &task.handle {
                handle.abort();
            }
        }
        left.sort_unstable();
        left
    }

    async fn ended(&self) {
        loop {
            let mut idle = pin!(self.0.idle.notified());
            idle.as_mut().enable();
            if self.is_empty() {
                return;
            }
            idle.await;
        }
    }

    fn register(&self, name: &'static str) -> Option<Entry> {
        let mut running = self.0.running();
        if running.closed {
            return None;
        }
        let id = running.next_id;
        running.next_id += 1;
        running.tasks.insert(id, Task { name, handle: None });
        drop(running);
        Some(Entry {
            id,
            name,
            owner: Arc::clone(&self.0),
        })
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Running> {
        // No code that can panic runs under this lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("running", &self.len())
            .finish_non_exhaustive()
    }
}

/// A task's place among the running ones; gone when the task is, in whatever way it ended.
struct Entry {
    id: u64,
    name: &'static str,
    owner: Arc<Inner>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.owner.running();
        let ended = running.tasks.remove(&self.id);
        let is_last = running.tasks.is_empty();
        drop(running);
        drop(ended);
        if is_last {
            self.owner.idle.notify_waiters();
        }
    }
}

/// Polls `future` to its end, or to its panic. The future is gone before its entry is.
async fn run(entry: Entry, future: impl Future<Output = ()>) {
    let panicked = {
        let mut future = pin!(future);
        // What the future shares with others is behind locks and atomics, and it is never polled again.
        poll_fn(
            |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
                Ok(polled) => polled.map(|()| false),
                Err(_) => Poll::Ready(true),
            },
        )
        .await
    };
    if panicked {
        entry.owner.metrics.panicked();
        tracing::error!(task = entry.name, "a background task panicked and is gone");
    }
}

/// Runs `future` on this thread's own runtime until it ends. For what a worker does for its connections:
/// it ends with the connection, the fetch or the runtime, whichever comes first.
pub fn detach(future: impl Future<Output = ()> + 'static) {
    drop(spawn_local(future));
}

/// As [`detach`], for tasks that their owner may want to end.
pub fn spawn_local(future: impl Future<Output = ()> + 'static) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_local(future)
}

/// A future that whoever holds it drives, and that goes on by [`detach`] if it is dropped before its end. Driving it
/// where its outcome is awaited saves what a task costs.
pub struct Lasting(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Lasting {
    /// Not begun before it is polled, or dropped.
    #[must_use]
    pub fn new(future: impl Future<Output = ()> + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl fmt::Debug for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lasting")
            .field("has_ended", &self.0.is_none())
            .finish_non_exhaustive()
    }
}

impl Future for Lasting {
    type Output = ();

    /// Ready, also again, once it has ended. A panic ends it and nothing else, as in a task.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(future) = &mut self.0 else {
            return Poll::Ready(());
        };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        if let Ok(Poll::Pending) = polled {
            return Poll::Pending;
        }
        self.0 = None;
        Poll::Ready(())
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            detach(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    fn tasks() -> (Tasks, Arc<TaskMetrics>) {
        let metrics = Arc::new(TaskMetrics::default());
        (Tasks::new(Handle::current(), Arc::clone(&metrics)), metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_tasks_that_stop_when_asked() {
        let (tasks, _) = tasks();
        let (send, done) = oneshot::channel();
        tasks.spawn("polite", |stop| async move {
            stop.requested().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            send.send(()).unwrap();
        });
        assert_eq!(tasks.len(), 1);
        assert!(tasks.drain(Duration::from_secs(3)).await.is_empty());
        done.await.unwrap();
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn drain_aborts_and_names_what_is_left() {
        let (tasks, metrics) = tasks();
        tasks.spawn("b", |_| std::future::pending());
        tasks.spawn("a", |_| std::future::pending());
        tasks.spawn("polite", |stop| async move { stop.requested().await });
        assert_eq!(tasks.drain(Duration::from_secs(1)).await, ["a", "b"]);
        tasks.ended().await;
        assert_eq!(metrics.panics(), 0, "an aborted task has not panicked");
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_harms_no_other_task() {
        let (tasks, metrics) = tasks();
        let (send, done) = oneshot::channel();
        tasks.spawn("bad", |_| async { panic!("on purpose") });
        tasks.spawn("good", |stop| async move {
            stop.requested().await;
            send.send(()).unwrap();
        });
        assert!(tasks.drain(Duration::from_secs(60)).await.is_empty());
        done.await.unwrap();
        assert_eq!(metrics.panics(), 1);
    }

    #[tokio::test]
    async fn nothing_starts_once_the_drain_has_begun() {
        let (tasks, _) = tasks();
        assert!(tasks.drain(Duration::ZERO).await.is_empty());
        let (send, done) = oneshot::channel::<()>();
        tasks.spawn("late", |_| async move {
            let _ = send.send(());
        });
        assert!(done.await.is_err(), "the future was dropped unpolled");
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn tasks_that_end_leave_nothing_behind() {
        let (tasks, _) = tasks();
        for _ in 0..100 {
            tasks.spawn("short", |_| async {});
        }
        tasks.ended().await;
        assert!(tasks.is_empty());
    }

    #[test]
    fn a_stop_crosses_runtimes_and_stays() {
        let stopper = Stopper::new();
        let stop = stopper.stop();
        let (waiting, is_waiting) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async move {
                assert!(!stop.is_requested());
                waiting.send(()).unwrap();
                stop.requested().await;
                assert!(stop.is_requested());
                stop.requested().await;
            });
        });
        is_waiting.recv().unwrap();
        drop(stopper);
        waiter.join().unwrap();
    }

    #[tokio::test]
    async fn what_lasts_goes_on_when_it_is_dropped() {
        let (begin, begun) = oneshot::channel();
        let (send, done) = oneshot::channel();
        let lasting = Lasting::new(async move {
            begun.await.unwrap();
            send.send(()).unwrap();
        });
        LocalSet::new()
            .run_until(async move {
                let mut lasting = lasting;
                let poll = poll_fn(|context| Poll::Ready(Pin::new(&mut lasting).poll(context))).await;
                assert!(poll.is_pending());
                drop(lasting);
                begin.send(()).unwrap();
                done.await.unwrap();
            })
            .await;
    }

    #[tokio::test]
    async fn what_lasts_ends_once() {
        let mut n_sent = 0;
        let (send, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let mut lasting = Lasting::new(async move { send.send(()).unwrap() });
        (&mut lasting).await;
        (&mut lasting).await;
        drop(lasting);
        while sent.recv().await.is_some() {
            n_sent += 1;
        }
        assert_eq!(n_sent, 1);
    }

    #[tokio::test]
    async fn a_panic_ends_what_lasts_and_drops_what_it_holds() {
        let (send, done) = oneshot::channel::<()>();
        let lasting = Lasting::new(async move {
            let _held = send;
            panic!("on purpose");
        });
        lasting.await;
        assert!(done.await.is_err());
    }
}
