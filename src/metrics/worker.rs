//! What a data worker counts: its own cells, written by its thread alone, summed at scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::cells::{
    AGE, AgeHistogram, BYTES, BytesHistogram, Count, EVALUATION, EvaluationHistogram, LATENCY,
    LatencyHistogram, nanoseconds,
};
use super::labels::{
    CacheName, CacheResult, Closed, Code, Engine, Evaluation, FlagResult, Method, Rejection, Route, Source,
    Trigger,
};

const ROUTES: usize = Route::ALL.len();
const METHODS: usize = Method::ALL.len();
const CODES: usize = Code::ALL.len();
const SOURCES: usize = Source::ALL.len();

/// The counters of one data worker. Only the worker's own thread may write them: each is a plain load and
/// store. Every tuple of labels has a cell; which of them are exposed is decided at scrape.
#[derive(Debug)]
#[repr(align(128))] // Two cache lines: processors fetch them in pairs, and neighbours must not share them.
pub struct WorkerMetrics {
    requests: [[[Count; CODES]; METHODS]; ROUTES],
    /// Also counts the responses: each has one duration.
    durations: [[LatencyHistogram; SOURCES]; ROUTES],
    request_bodies: [BytesHistogram; ROUTES],
    response_bodies: [BytesHistogram; ROUTES],
    started: Count,
    rejections: [Count; Rejection::ALL.len()],
    connections_opened: Count,
    connections_closed: Count,
    connections_rejected: [Count; Closed::ALL.len()],
    cache: [[Count; CacheResult::ALL.len()]; CacheName::ALL.len()],
    stale_age: [AgeHistogram; CacheName::ALL.len()],
    engines: [EngineMetrics; Engine::ALL.len()],
    lag: LatencyHistogram,
    epoch: Instant,
    /// Milliseconds from `epoch` to the last heartbeat.
    beat_at: AtomicU64,
}

/// How the flags of one evaluation came out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EvaluatedFlags {
    /// Flags with a variant other than default and off.
    pub variant: u64,
    /// Flags that are off.
    pub off: u64,
    /// Flags with their default variant, or none.
    pub default: u64,
    /// Flags that could not be computed.
    pub failed: u64,
    /// Flags of the above that cannot be computed here as upstream would (design 5).
    pub unfaithful: u64,
}

/// What one worker computed with one engine.
#[derive(Debug, Default)]
pub(super) struct EngineMetrics {
    pub(super) evaluations: [[Count; Evaluation::ALL.len()]; Trigger::ALL.len()],
    pub(super) duration: EvaluationHistogram,
    pub(super) flags: [Count; FlagResult::ALL.len()],
    pub(super) unfaithful_flags: Count,
}

impl WorkerMetrics {
    pub(super) fn new() -> Self {
        Self {
            requests: Default::default(),
            durations: Default::default(),
            request_bodies: Default::default(),
            response_bodies: Default::default(),
            started: Count::default(),
            rejections: Default::default(),
            connections_opened: Count::default(),
            connections_closed: Count::default(),
            connections_rejected: Default::default(),
            cache: Default::default(),
            stale_age: Default::default(),
            engines: Default::default(),
            lag: LatencyHistogram::default(),
            epoch: Instant::now(),
            beat_at: AtomicU64::new(0),
        }
    }

    /// A request head has arrived. Each one is followed by exactly one [`Self::answered`], also when its client
    /// goes away ([`Code::C499`]): the difference is the number of requests in flight.
    #[inline]
    pub fn started(&self) {
        self.started.bump();
    }

    /// A response has been handed to the socket, `took` after the request head was complete, with
    /// `body_bytes` of body.
    #[inline]
    pub fn answered(
        &self,
        route: Route,
        method: Method,
        code: Code,
        source: Source,
        took: Duration,
        body_bytes: u64,
    ) {
        self.requests[route.index()][method.index()][code.index()].bump();
        self.durations[route.index()][source.index()].bump(&LATENCY, nanoseconds(took));
        self.response_bodies[route.index()].bump(&BYTES, body_bytes);
    }

    /// A request brought a body of `bytes`; not called for requests without one.
    #[inline]
    pub fn request_body(&self, route: Route, bytes: u64) {
        self.request_bodies[route.index()].bump(&BYTES, bytes);
    }

    /// A request was turned away; beside [`Self::answered`], not in its place.
    pub fn rejected(&self, reason: Rejection) {
        self.rejections[reason.index()].bump();
    }

    /// A data connection was accepted.
    pub fn connection_opened(&self) {
        self.connections_opened.bump();
    }

    /// An accepted data connection is gone, for whatever reason.
    pub fn connection_closed(&self) {
        self.connections_closed.bump();
    }

    /// A data connection was closed by flagside; beside opened and closed if it had been accepted.
    pub fn connection_rejected(&self, reason: Closed) {
        self.connections_rejected[reason.index()].bump();
    }

    /// A cache took a request.
    #[inline]
    pub fn cache(&self, cache: CacheName, result: CacheResult) {
        self.cache[cache.index()][result.index()].bump();
    }

    /// A stored response was used `past` the end of its freshness.
    pub fn stale_used(&self, cache: CacheName, past: Duration) {
        let past_ms = u64::try_from(past.as_millis()).unwrap_or(u64::MAX);
        self.stale_age[cache.index()].bump(&AGE, past_ms);
    }

    /// An answer was computed here, or failed to be.
    pub fn evaluated(
        &self,
        engine: Engine,
        trigger: Trigger,
        result: Evaluation,
        took: Duration,
        flags: EvaluatedFlags,
    ) {
        let engine = &self.engines[engine.index()];
        engine.evaluations[trigger.index()][result.index()].bump();
        engine.duration.bump(&EVALUATION, nanoseconds(took));
        for (result, flags) in [
            (FlagResult::Variant, flags.variant),
            (FlagResult::Off, flags.off),
            (FlagResult::Default, flags.default),
            (FlagResult::Failed, flags.failed),
        ] {
            engine.flags[result.index()].bump_by(flags);
        }
        engine.unfaithful_flags.bump_by(flags.unfaithful);
    }

    /// The worker is alive; a timer that should have fired `lag` ago has fired.
    pub fn beat(&self, lag: Duration) {
        self.lag.bump(&LATENCY, nanoseconds(lag));
        let at = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat_at.store(at, Relaxed);
    }

    /// Time since the last heartbeat; since the start of the process if there was none.
    #[must_use]
    pub fn heartbeat_age(&self) -> Duration {
        self.epoch
            .elapsed()
            .saturating_sub(Duration::from_millis(self.beat_at.load(Relaxed)))
    }

    pub(super) fn requests(&self, route: Route, method: Method, code: Code) -> u64 {
        self.requests[route.index()][method.index()][code.index()].get()
    }

    pub(super) const fn duration(&self, route: Route, source: Source) -> &LatencyHistogram {
        &self.durations[route.index()][source.index()]
    }

    pub(super) const fn request_bodies(&self, route: Route) -> &BytesHistogram {
        &self.request_bodies[route.index()]
    }

    pub(super) const fn response_bodies(&self, route: Route) -> &BytesHistogram {
        &self.response_bodies[route.index()]
    }

    pub(super) fn in_flight(&self) -> u64 {
        let answered: u64 = self.requests.iter().flatten().flatten().map(Count::get).sum();
        self.started.get().saturating_sub(answered)
    }

    pub(super) fn rejections(&self, reason: Rejection) -> u64 {
        self.rejections[reason.index()].get()
    }

    pub(super) fn connections_total(&self) -> u64 {
        self.connections_opened.get()
    }

    pub(super) fn connections(&self) -> u64 {
        // Closed is read first: a connection that closes in between must not make the gauge negative.
        let closed = self.connections_closed.get();
        self.connections_opened.get().saturating_sub(closed)
    }

    pub(super) fn connections_rejected(&self, reason: Closed) -> u64 {
        self.connections_rejected[reason.index()].get()
    }

    pub(super) fn cache_requests(&self, cache: CacheName, result: CacheResult) -> u64 {
        self.cache[cache.index()][result.index()].get()
    }

    pub(super) const fn stale_age(&self, cache: CacheName) -> &AgeHistogram {
        &self.stale_age[cache.index()]
    }

    pub(super) const fn engine(&self, engine: Engine) -> &EngineMetrics {
        &self.engines[engine.index()]
    }

    pub(super) const fn lag(&self) -> &LatencyHistogram {
        &self.lag
    }
}
