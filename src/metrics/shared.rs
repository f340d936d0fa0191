//! What any thread counts: upstreams, syncs, caches as a whole, the admin listener, log lines. These are rare
//! next to requests, so one set of atomics serves all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::cells::{Count, LATENCY, LatencyHistogram, Moment, nanoseconds};
use super::labels::{
    CacheName, Closed, EventDrop, Eviction, LogLevel, Operation, Outcome, Refresh, StreamEnd, StreamKind,
    SyncSource, TraceResult,
};

/// The counters of one upstream.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    requests: [[Count; Outcome::ALL.len()]; Operation::ALL.len()],
    durations: [LatencyHistogram; Operation::ALL.len()],
    retries: [Count; Operation::ALL.len()],
    succeeded_at: Moment,
    /// Whether the last attempt failed.
    down: AtomicBool,
}

impl UpstreamMetrics {
    /// An attempt that had begun is over, `took` after it began.
    pub fn ended(&self, operation: Operation, outcome: Outcome, took: Duration) {
        self.requests[operation.index()][outcome.index()].add();
        self.durations[operation.index()].add(&LATENCY, nanoseconds(took));
        match outcome {
            Outcome::Success => {
                self.succeeded_at.mark(SystemTime::now());
                self.down.store(false, Relaxed);
            }
            Outcome::Redirect | Outcome::ClientError | Outcome::Rejected | Outcome::Throttled => {
                self.down.store(false, Relaxed);
            }
            Outcome::ServerError
            | Outcome::Dns
            | Outcome::Connect
            | Outcome::Tls
            | Outcome::Timeout
            | Outcome::Reset
            | Outcome::Protocol => self.down.store(true, Relaxed),
            Outcome::CircuitOpen | Outcome::Cancelled => {}
        }
    }

    /// A request was not tried at all, because the breaker is open or nothing was free.
    pub fn not_tried(&self, operation: Operation, outcome: Outcome) {
        self.requests[operation.index()][outcome.index()].add();
    }

    /// An attempt after the first one is about to begin.
    pub fn retried(&self, operation: Operation) {
        self.retries[operation.index()].add();
    }

    pub(super) fn requests(&self, operation: Operation, outcome: Outcome) -> u64 {
        self.requests[operation.index()][outcome.index()].get()
    }

    pub(super) const fn duration(&self, operation: Operation) -> &LatencyHistogram {
        &self.durations[operation.index()]
    }

    pub(super) fn retries(&self, operation: Operation) -> u64 {
        self.retries[operation.index()].get()
    }

    pub(super) fn succeeded_at(&self) -> f64 {
        self.succeeded_at.seconds()
    }

    /// Whether the last attempt that came to an end got an answer; true before the first.
    pub(super) fn is_up(&self) -> bool {
        !self.down.load(Relaxed)
    }
}

/// The counters of one environment's syncs.
#[derive(Debug, Default)]
pub struct SyncMetrics {
    runs: [[Count; Refresh::ALL.len()]; SyncSource::ALL.len()],
    durations: [LatencyHistogram; SyncSource::ALL.len()],
    succeeded_at: [Moment; SyncSource::ALL.len()],
    changed_at: [Moment; SyncSource::ALL.len()],
    streams_opened: Count,
    streams_closed: Count,
    reconnects: Count,
    refusals: Count,
    clock_corrections: Count,
}

impl SyncMetrics {
    /// The data were found to be current without a sync: a stream is alive.
    pub fn confirmed(&self, source: SyncSource) {
        self.confirm(source, SystemTime::now());
    }

    /// FeatBit's data come in two ways, one at a time: what either confirms is current for both, or the one at rest
    /// would look stale.
    fn confirm(&self, source: SyncSource, now: SystemTime) {
        match source {
            SyncSource::Flags => self.succeeded_at[source.index()].mark(now),
            SyncSource::FbStream | SyncSource::FbPoll => {
                for either in [SyncSource::FbStream, SyncSource::FbPoll] {
                    self.succeeded_at[either.index()].mark(now);
                }
            }
        }
    }

    /// A stream to upstream is open and brought data.
    pub fn stream_opened(&self) {
        self.streams_opened.add();
    }

    /// A stream that was open has ended.
    pub fn stream_closed(&self) {
        self.streams_closed.add();
    }

    /// A stream is about to be opened again.
    pub fn reconnecting(&self) {
        self.reconnects.add();
    }

    /// Upstream refused a stream for good (FeatBit's close code 4003).
    pub fn refused(&self) {
        self.refusals.add();
    }

    /// The clock of upstream turned out to differ from ours, and is reckoned with from now on.
    pub fn clock_corrected(&self) {
        self.clock_corrections.add();
    }

    /// Streams to upstream that are open.
    #[must_use]
    pub fn streams(&self) -> u64 {
        let closed = self.streams_closed.get();
        self.streams_opened.get().saturating_sub(closed)
    }

    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects.get()
    }

    pub(super) fn refusals(&self) -> u64 {
        self.refusals.get()
    }

    pub(super) fn clock_corrections(&self) -> u64 {
        self.clock_corrections.get()
    }

    /// A sync of one deployment is over, `took` after it began.
    pub fn ended(&self, source: SyncSource, result: Refresh, took: Duration) {
        let now = SystemTime::now();
        self.runs[source.index()][result.index()].add();
        self.durations[source.index()].add(&LATENCY, nanoseconds(took));
        if result != Refresh::Failed {
            self.confirm(source, now);
        }
        if result == Refresh::Changed {
            self.changed_at[source.index()].mark(now);
        }
    }

    pub(super) fn runs(&self, source: SyncSource, result: Refresh) -> u64 {
        self.runs[source.index()][result.index()].get()
    }

    pub(super) const fn duration(&self, source: SyncSource) -> &LatencyHistogram {
        &self.durations[source.index()]
    }

    pub(super) fn succeeded_at(&self, source: SyncSource) -> f64 {
        self.succeeded_at[source.index()].seconds()
    }

    pub(super) fn changed_at(&self, source: SyncSource) -> f64 {
        self.changed_at[source.index()].seconds()
    }
}

/// What happens to the caches beside requests.
#[derive(Debug, Default)]
pub struct CacheMetrics {
    evictions: [[Count; Eviction::ALL.len()]; CacheName::ALL.len()],
    refreshes: [[Count; Refresh::ALL.len()]; CacheName::ALL.len()],
}

impl CacheMetrics {
    /// An entry left a cache.
    pub fn evicted(&self, cache: CacheName, cause: Eviction) {
        self.evictions[cache.index()][cause.index()].add();
    }

    /// A background refresh of an entry is over.
    pub fn refreshed(&self, cache: CacheName, result: Refresh) {
        self.refreshes[cache.index()][result.index()].add();
    }

    pub(crate) fn evictions(&self, cache: CacheName, cause: Eviction) -> u64 {
        self.evictions[cache.index()][cause.index()].get()
    }

    pub(super) fn refreshes(&self, cache: CacheName, result: Refresh) -> u64 {
        self.refreshes[cache.index()][result.index()].get()
    }
}

/// The counters of one kind of forwarded event.
#[derive(Debug, Default)]
pub struct EventMetrics {
    received: Count,
    sent: Count,
    dropped: [Count; EventDrop::ALL.len()],
    waiting: AtomicU64,
    capacity: AtomicU64,
    /// When the oldest one that waits came, in milliseconds since 1970; 0 = none waits.
    oldest_at: AtomicU64,
}

impl EventMetrics {
    /// `n` events came from applications.
    pub fn received(&self, n: u64) {
        self.received.add_by(n);
    }

    /// `n` events were delivered.
    pub fn sent(&self, n: u64) {
        self.sent.add_by(n);
    }

    /// `n` events were given up.
    pub fn dropped(&self, reason: EventDrop, n: u64) {
        self.dropped[reason.index()].add_by(n);
    }

    /// As many may wait.
    pub fn set_capacity(&self, n: u64) {
        self.capacity.store(n, Relaxed);
    }

    /// As many wait now, the oldest since `oldest` (none if nothing waits).
    pub fn set_waiting(&self, n: u64, oldest: Option<SystemTime>) {
        self.waiting.store(n, Relaxed);
        let since = oldest.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default());
        let millis = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.oldest_at.store(millis, Relaxed);
    }

    /// Events delivered so far.
    #[must_use]
    pub fn sent_total(&self) -> u64 {
        self.sent.get()
    }

    /// Events given up so far, for one reason.
    #[must_use]
    pub fn dropped_total(&self, reason: EventDrop) -> u64 {
        self.dropped[reason.index()].get()
    }

    pub(super) fn received_total(&self) -> u64 {
        self.received.get()
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Relaxed)
    }

    pub(super) fn oldest_age(&self, now: SystemTime) -> Duration {
        match self.oldest_at.load(Relaxed) {
            0 => Duration::ZERO,
            millis => now
                .duration_since(UNIX_EPOCH + Duration::from_millis(millis))
                .unwrap_or_default(),
        }
    }
}

/// The streams that are served to SDKs.
#[derive(Debug, Default)]
pub struct StreamMetrics {
    opened: [Count; StreamKind::ALL.len()],
    closed: [Count; StreamKind::ALL.len()],
    ended: [Count; StreamEnd::ALL.len()],
    messages: Count,
}

impl StreamMetrics {
    /// A stream is served.
    pub fn opened(&self, kind: StreamKind) {
        self.opened[kind.index()].add();
    }

    /// A stream that was served has ended.
    pub fn closed(&self, kind: StreamKind, end: StreamEnd) {
        self.closed[kind.index()].add();
        self.ended[end.index()].add();
    }

    /// A stream was turned away.
    pub fn turned_away(&self, end: StreamEnd) {
        self.ended[end.index()].add();
    }

    /// A message with data was sent.
    pub fn message(&self) {
        self.messages.add();
    }

    pub(super) fn open(&self, kind: StreamKind) -> u64 {
        let closed = self.closed[kind.index()].get();
        self.opened[kind.index()].get().saturating_sub(closed)
    }

    pub(super) fn opened_total(&self, kind: StreamKind) -> u64 {
        self.opened[kind.index()].get()
    }

    pub(super) fn ended(&self, end: StreamEnd) -> u64 {
        self.ended[end.index()].get()
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages.get()
    }
}

/// The connections of a listener that has no worker of its own.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    opened: Count,
    closed: Count,
    rejected: [Count; Closed::ALL.len()],
}

impl ListenerMetrics {
    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.opened.add();
    }

    /// An accepted connection is gone, for whatever reason.
    pub fn connection_closed(&self) {
        self.closed.add();
    }

    /// A connection was closed by flagside.
    pub fn connection_rejected(&self, reason: Closed) {
        self.rejected[reason.index()].add();
    }

    pub(super) fn connections(&self) -> u64 {
        let closed = self.closed.get();
        self.opened.get().saturating_sub(closed)
    }

    pub(super) fn connections_total(&self) -> u64 {
        self.opened.get()
    }

    pub(super) fn connections_rejected(&self, reason: Closed) -> u64 {
        self.rejected[reason.index()].get()
    }
}

/// Log lines written and dropped, by level.
#[derive(Debug, Default)]
pub struct LogMetrics {
    written: [Count; LogLevel::ALL.len()],
    dropped: [Count; LogLevel::ALL.len()],
}

impl LogMetrics {
    /// A line was handed to the writer.
    pub fn written(&self, level: LogLevel) {
        self.written[level.index()].add();
    }

    /// A line was lost, because the writer could not keep up.
    pub fn dropped(&self, level: LogLevel) {
        self.dropped[level.index()].add();
    }

    /// Lines handed to the writer.
    #[must_use]
    pub fn written_total(&self, level: LogLevel) -> u64 {
        self.written[level.index()].get()
    }

    /// Lines lost.
    #[must_use]
    pub fn dropped_total(&self, level: LogLevel) -> u64 {
        self.dropped[level.index()].get()
    }
}

/// Background tasks that panicked.
#[derive(Debug, Default)]
pub struct TaskMetrics(Count);

impl TaskMetrics {
    /// A task panicked.
    pub fn panicked(&self) {
        self.0.add();
    }

    /// Tasks that panicked so far.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.0.get()
    }
}

/// Spans, by what became of them.
#[derive(Debug, Default)]
pub struct TraceMetrics([Count; TraceResult::ALL.len()]);

impl TraceMetrics {
    /// This became of `spans` spans.
    pub fn add(&self, result: TraceResult, spans: u64) {
        self.0[result.index()].add_by(spans);
    }

    /// How many so far.
    #[must_use]
    pub fn count(&self, result: TraceResult) -> u64 {
        self.0[result.index()].get()
    }
}
