//! Metrics: every family, declared once, on a registry that is made per process start.
//!
//! Requests are counted in cells that belong to one worker each ([`WorkerMetrics`]); rarer things in
//! shared ones. A scrape adds them up and asks [`Readings`] for what is a state and not a count. Nothing
//! is looked up by label, ever, and no label value comes from a request: the tuples that can occur are declared
//! in `routes`, so that the first scrape already has every series the last one will have.
//!
//! Never in a label: user, device, flag key, path, key material, peer.

mod cells;
mod expose;
mod family;
mod injector;
pub mod labels;
mod process;
pub mod reference;
mod routes;
mod shared;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Registry, TextEncoder};

use cells::{LATENCY, Totals};

pub use injector::InjectorMetrics;
pub use labels::{
    CacheName, CacheResult, Circuit, Closed, Code, Degraded, Engine, Evaluation, EventDrop, EventKind,
    Eviction, FlagResult, Listener, LogLevel, Method, Operation, Outcome, Refresh, Rejection, Route, Source,
    StreamEnd, StreamKind, SyncSource, TraceResult, Trigger,
};
pub use shared::{
    CacheMetrics, EventMetrics, ListenerMetrics, LogMetrics, StreamMetrics, SyncMetrics, TaskMetrics,
    TraceMetrics, UpstreamMetrics,
};
pub use worker::{EvaluatedFlags, WorkerMetrics};

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Environments and upstreams that are named in labels; the rest is counted together as `other`.
const NAMED_MAX: usize = 64;
/// Upstreams with series of their own for every operation; more would not fit the budget of 6,000 series.
const DETAILED_MAX: usize = 8;

/// What the metrics of a process are about.
#[derive(Debug, Default)]
pub struct Setup {
    /// Version of flagside.
    pub version: String,
    /// Source revision it was built from; empty = unknown.
    pub revision: String,
    /// Names of the environments, in the order of their indices.
    pub environments: Vec<String>,
    /// Indices of those that are FeatBit's.
    pub featbit_environments: Vec<usize>,
    /// The upstreams, in the order of their indices.
    pub upstreams: Vec<UpstreamSetup>,
    /// Data workers; 0 is taken as 1.
    pub workers: usize,
    /// Counts of log lines, which begin before there are metrics.
    pub logs: Arc<LogMetrics>,
}

/// An upstream and what it is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpstreamSetup {
    /// Its configured name.
    pub name: String,
    /// What it can be asked for; empty = anything.
    pub operations: Vec<Operation>,
}

/// States that are read at scrape. Called from the admin thread: implementations must not block for long.
pub trait Readings: Send + Sync {
    /// The size of a cache.
    fn cache(&self, cache: CacheName) -> CacheReading;
    /// The upstream with this index.
    fn upstream(&self, upstream: usize) -> UpstreamReading;
    /// The environment with this index.
    fn environment(&self, environment: usize) -> EnvironmentReading;
    /// Whether answers may be worse than usual for this reason.
    fn degraded(&self, reason: Degraded) -> bool;
}

/// The size of a cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheReading {
    /// Entries.
    pub entries: u64,
    /// Their weight in bytes.
    pub weight_bytes: u64,
    /// The weight they may have.
    pub max_weight_bytes: u64,
}

/// What goes on with an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UpstreamReading {
    /// Its breaker.
    pub circuit: Circuit,
    /// Attempts under way.
    pub in_flight: u64,
    /// Open connections, idle ones included.
    pub connections: u64,
}

impl Default for UpstreamReading {
    fn default() -> Self {
        Self {
            circuit: Circuit::Closed,
            in_flight: 0,
            connections: 0,
        }
    }
}

/// The flags of an environment, over all its deployments.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EnvironmentReading {
    /// Flags in use.
    pub flags: u64,
    /// FeatBit's segments in use.
    pub segments: u64,
    /// Flags that could not be compiled.
    pub bad_flags: u64,
}

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    parts: Arc<Parts>,
}

/// The cells behind the families.
struct Parts {
    version: String,
    revision: String,
    started_at: SystemTime,
    workers: Vec<Arc<WorkerMetrics>>,
    admin: Arc<ListenerMetrics>,
    cache: Arc<CacheMetrics>,
    upstreams: Vec<Upstream>,
    environments: Vec<Arc<SyncMetrics>>,
    /// The engines of the configured backends.
    engines: Vec<Engine>,
    /// Environments by label.
    environment_labels: Vec<Group>,
    /// Environments by label and by what syncs them.
    sync_labels: Vec<(SyncSource, Group)>,
    /// FeatBit's environments by label.
    featbit_labels: Vec<Group>,
    events: [Arc<EventMetrics>; EventKind::ALL.len()],
    streams: Arc<StreamMetrics>,
    /// Upstreams by label: up to [`NAMED_MAX`] names, and up to [`DETAILED_MAX`].
    upstream_labels: Vec<Group>,
    detailed_upstream_labels: Vec<Group>,
    logs: Arc<LogMetrics>,
    tasks: Arc<TaskMetrics>,
    traces: Arc<TraceMetrics>,
    readings: OnceLock<Box<dyn Readings>>,
}

/// The engines that `n` environments need, of which so many are FeatBit's.
fn engines(n: usize, n_featbit: usize) -> Vec<Engine> {
    let needed = |engine: &Engine| match engine {
        Engine::Amplitude => n > n_featbit || n == 0,
        Engine::Featbit => n_featbit > 0,
    };
    Engine::ALL.into_iter().filter(needed).collect()
}

impl Parts {
    fn engines(&self) -> impl Iterator<Item = Engine> + '_ {
        self.engines.iter().copied()
    }

    /// Whether requests can come by `route`: its backend is configured.
    fn serves(&self, route: Route) -> bool {
        routes::engine(route).is_none_or(|engine| self.engines.contains(&engine))
    }

    /// The caches of the configured backends.
    fn caches(&self) -> impl Iterator<Item = CacheName> + '_ {
        CacheName::ALL.into_iter().filter(|cache| match cache {
            CacheName::Vardata | CacheName::Flags => self.engines.contains(&Engine::Amplitude),
            CacheName::Fb => self.engines.contains(&Engine::Featbit),
            CacheName::Negative => true,
        })
    }
}

struct Upstream {
    operations: Vec<Operation>,
    cells: Arc<UpstreamMetrics>,
}

/// A label value and the indices that are counted under it.
#[derive(Debug, Eq, PartialEq)]
struct Group {
    label: String,
    members: Vec<usize>,
}

impl Metrics {
    /// Declares every family, all at zero.
    #[must_use]
    pub fn new(setup: Setup) -> Arc<Self> {
        let environments: Vec<&str> = setup.environments.iter().map(String::as_str).collect();
        let upstreams: Vec<&str> = setup
            .upstreams
            .iter()
            .map(|upstream| upstream.name.as_str())
            .collect();
        let parts = Arc::new(Parts {
            started_at: SystemTime::now(),
            workers: (0..setup.workers.max(1))
                .map(|_| Arc::new(WorkerMetrics::new()))
                .collect(),
            admin: Arc::default(),
            cache: Arc::default(),
            sync_labels: sync_labels(&environments, &setup.featbit_environments),
            featbit_labels: groups_of(&environments, NAMED_MAX, |at| {
                setup.featbit_environments.contains(&at)
            }),
            events: std::array::from_fn(|_| Arc::default()),
            streams: Arc::default(),
            engines: engines(environments.len(), setup.featbit_environments.len()),
            environment_labels: groups(&environments, NAMED_MAX),
            environments: environments.iter().map(|_| Arc::default()).collect(),
            upstream_labels: groups(&upstreams, NAMED_MAX),
            detailed_upstream_labels: groups(&upstreams, DETAILED_MAX),
            upstreams: setup.upstreams.iter().map(Upstream::new).collect(),
            version: setup.version,
            revision: setup.revision,
            logs: setup.logs,
            tasks: Arc::default(),
            traces: Arc::default(),
            readings: OnceLock::new(),
        });
        let registry = Registry::new();
        expose::declare_all(&registry, &parts);
        Arc::new(Self { registry, parts })
    }

    /// The cells of data worker `n`, for its thread alone. Past the number of workers it starts again at the first.
    #[must_use]
    pub fn worker(&self, n: usize) -> Arc<WorkerMetrics> {
        Arc::clone(&self.parts.workers[n % self.parts.workers.len()])
    }

    /// The cells of the upstream with this index; cells that nobody reads if there is none.
    #[must_use]
    pub fn upstream(&self, index: usize) -> Arc<UpstreamMetrics> {
        self.parts
            .upstreams
            .get(index)
            .map(|upstream| Arc::clone(&upstream.cells))
            .unwrap_or_default()
    }

    /// The cells of the syncs of the environment with this index; cells that nobody reads if there is none.
    #[must_use]
    pub fn sync(&self, environment: usize) -> Arc<SyncMetrics> {
        self.parts
            .environments
            .get(environment)
            .map(Arc::clone)
            .unwrap_or_default()
    }

    /// The cells of what happens to caches beside requests.
    #[must_use]
    pub fn cache(&self) -> Arc<CacheMetrics> {
        Arc::clone(&self.parts.cache)
    }

    /// The cells of one kind of forwarded event.
    #[must_use]
    pub fn events(&self, kind: EventKind) -> Arc<EventMetrics> {
        Arc::clone(&self.parts.events[kind.index()])
    }

    /// The cells of the streams that are served.
    #[must_use]
    pub fn streams(&self) -> Arc<StreamMetrics> {
        Arc::clone(&self.parts.streams)
    }

    /// The cells of the admin listener.
    #[must_use]
    pub fn admin(&self) -> Arc<ListenerMetrics> {
        Arc::clone(&self.parts.admin)
    }

    /// The cells of background tasks.
    #[must_use]
    pub fn tasks(&self) -> Arc<TaskMetrics> {
        Arc::clone(&self.parts.tasks)
    }

    /// The cells of exported traces.
    #[must_use]
    pub fn traces(&self) -> Arc<TraceMetrics> {
        Arc::clone(&self.parts.traces)
    }

    /// Where states are read from. Only the first call counts; until then they read as nothing, closed, well.
    pub fn observe(&self, readings: Box<dyn Readings>) {
        if self.parts.readings.set(readings).is_err() {
            tracing::debug!("metrics already have their readings");
        }
    }

    /// Time since each worker's last heartbeat.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<Duration> {
        self.parts
            .workers
            .iter()
            .map(|worker| worker.heartbeat_age())
            .collect()
    }

    /// Hits, stale answers included, as a share of the requests that could have been hits; none before the first.
    #[must_use]
    pub fn hit_ratio(&self, cache: CacheName) -> Option<f64> {
        let sum = |result| -> u64 {
            self.parts
                .workers
                .iter()
                .map(|worker| worker.cache_requests(cache, result))
                .sum()
        };
        let hits: u64 = [
            CacheResult::Hit,
            CacheResult::Stale,
            CacheResult::Revalidated,
            CacheResult::Coalesced,
        ]
        .map(sum)
        .into_iter()
        .sum();
        let all = hits + sum(CacheResult::Miss);
        (all > 0).then(|| hits as f64 / all as f64)
    }

    /// Median and 99th percentile of how long an upstream took, over all operations but streams; none before
    /// the first attempt.
    #[must_use]
    pub fn upstream_latency(&self, index: usize) -> Option<(Duration, Duration)> {
        let upstream = self.parts.upstreams.get(index)?;
        let mut totals = Totals::new(&LATENCY);
        for operation in Operation::ALL
            .into_iter()
            .filter(|operation| *operation != Operation::Stream)
        {
            totals.add(&LATENCY, upstream.cells.duration(operation));
        }
        let quantile = |share| totals.quantile(share).map(Duration::from_secs_f64);
        Some((quantile(0.5)?, quantile(0.99)?))
    }

    /// When an upstream last answered 2xx; none = never.
    #[must_use]
    pub fn upstream_succeeded_at(&self, index: usize) -> Option<SystemTime> {
        let seconds = self.parts.upstreams.get(index)?.cells.succeeded_at();
        (seconds > 0.0).then(|| UNIX_EPOCH + Duration::from_secs_f64(seconds))
    }

    /// The exposition, Prometheus text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(128 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(error = %error, "metrics could not be written");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("workers", &self.parts.workers.len())
            .finish_non_exhaustive()
    }
}

impl expose::Process for Parts {
    fn version(&self) -> &str {
        &self.version
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn started_at(&self) -> SystemTime {
        self.started_at
    }

    fn logs(&self) -> &LogMetrics {
        &self.logs
    }

    fn tasks(&self) -> &TaskMetrics {
        &self.tasks
    }
}

impl Parts {
    fn cache_reading(&self, cache: CacheName) -> CacheReading {
        self.readings
            .get()
            .map(|readings| readings.cache(cache))
            .unwrap_or_default()
    }

    fn upstream_reading(&self, upstream: usize) -> UpstreamReading {
        self.readings
            .get()
            .map(|readings| readings.upstream(upstream))
            .unwrap_or_default()
    }

    fn environment_reading(&self, environment: usize) -> EnvironmentReading {
        self.readings
            .get()
            .map(|readings| readings.environment(environment))
            .unwrap_or_default()
    }

    fn degraded(&self, reason: Degraded) -> bool {
        self.readings
            .get()
            .is_some_and(|readings| readings.degraded(reason))
    }
}

impl Upstream {
    fn new(setup: &UpstreamSetup) -> Self {
        let mut operations = setup.operations.clone();
        if operations.is_empty() {
            operations.extend(Operation::ALL);
        }
        Self {
            operations,
            cells: Arc::default(),
        }
    }

    /// Where an operation is counted: under itself if it is declared, else with what is passed through or, if
    /// that is not declared either, with the last one that is.
    fn counted_under(&self, operation: Operation) -> Operation {
        [operation, Operation::Passthrough]
            .into_iter()
            .find(|candidate| self.operations.contains(candidate))
            .or_else(|| self.operations.last().copied())
            .unwrap_or(operation)
    }
}

/// Indices by label: the first `max` names stand for themselves, the rest together for `other`.
fn groups(names: &[&str], max: usize) -> Vec<Group> {
    groups_of(names, max, |_| true)
}

/// The same of those indices that are `wanted`.
fn groups_of(names: &[&str], max: usize, wanted: impl Fn(usize) -> bool) -> Vec<Group> {
    let mut by_label: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, name) in names.iter().enumerate().filter(|(index, _)| wanted(*index)) {
        by_label
            .entry(if index < max { name } else { "other" })
            .or_default()
            .push(index);
    }
    by_label
        .into_iter()
        .map(|(label, members)| Group {
            label: label.to_owned(),
            members,
        })
        .collect()
}

/// Environments by label, for every way in which one of them is synced.
fn sync_labels(names: &[&str], featbit: &[usize]) -> Vec<(SyncSource, Group)> {
    let of = |source: SyncSource| {
        let is_featbit = source != SyncSource::Flags;
        groups_of(names, NAMED_MAX, move |at| featbit.contains(&at) == is_featbit)
            .into_iter()
            .map(move |group| (source, group))
    };
    SyncSource::ALL.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests;
