//! The state of the process as `/status` of the admin listener shows it (OPS 7.4).
//!
//! Of upstream URLs only the host, of keys only a fingerprint. Times are RFC 3339; null = never or unknown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::metrics::{CacheName, CacheReading, Circuit, Degraded, Listener, Outcome};
use crate::telemetry::timestamp;

/// Everything `/status` shows.
#[derive(Clone, Debug)]
pub struct Status {
    /// Version of flagside.
    pub version: String,
    /// Source revision; empty = unknown.
    pub revision: String,
    /// `sidecar` or `shared`.
    pub mode: &'static str,
    /// Start of the process.
    pub started_at: SystemTime,
    /// Time since then.
    pub uptime: Duration,
    /// Data worker threads.
    pub workers: usize,
    /// Bytes the process may use; none = no limit known.
    pub memory_limit: Option<u64>,
    /// Where in its life the process is.
    pub state: State,
    /// Why it is degraded.
    pub degraded: Vec<Degraded>,
    /// Where the configuration came from, first read first.
    pub config_files: Vec<PathBuf>,
    /// When it was read.
    pub config_loaded_at: SystemTime,
    /// Bound addresses.
    pub listeners: Vec<(Listener, SocketAddr)>,
    /// The upstreams, in the order of the configuration.
    pub upstreams: Vec<UpstreamStatus>,
    /// The environments, in the order of the configuration.
    pub environments: Vec<EnvironmentStatus>,
    /// The caches.
    pub caches: Vec<CacheStatus>,
}

/// Where in its life the process is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Not ready yet.
    Starting,
    /// All is well.
    Ready,
    /// Ready, but answers may be worse than usual.
    Degraded,
    /// Stopping.
    Draining,
}

/// An upstream.
#[derive(Clone, Debug)]
pub struct UpstreamStatus {
    /// Configured name.
    pub name: String,
    /// Host of its base URL, with the port if it is not the scheme's.
    pub host: String,
    /// Its breaker.
    pub circuit: Circuit,
    /// When it last answered 2xx.
    pub last_success: Option<SystemTime>,
    /// How its last failure ended.
    pub last_error: Option<Outcome>,
    /// Median and 99th percentile of its answer times since the start.
    pub latency: Option<(Duration, Duration)>,
}

/// An environment.
#[derive(Clone, Debug)]
pub struct EnvironmentStatus {
    /// Configured name.
    pub name: String,
    /// `amplitude` or `featbit`.
    pub backend: &'static str,
    /// Whether a stream from upstream is open.
    pub stream: bool,
    /// Its deployments that are known, one for each key.
    pub deployments: Vec<DeploymentStatus>,
}

/// The flags of one deployment key.
#[derive(Clone, Debug)]
pub struct DeploymentStatus {
    /// First 8 hex digits of the key's SHA-256.
    pub key_fingerprint: String,
    /// Flags in use.
    pub flags: usize,
    /// FeatBit's segments in use.
    pub segments: usize,
    /// Where they are from.
    pub origin: Origin,
    /// When they were last found current.
    pub last_sync: Option<SystemTime>,
    /// When they last changed.
    pub last_change: Option<SystemTime>,
    /// Flags that could not be compiled: key and reason.
    pub bad_flags: Vec<(String, String)>,
}

/// Where flags are from.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// There are none.
    None,
    /// The configured file.
    Bootstrap,
    /// The last sync.
    Upstream,
}

/// A cache.
#[derive(Clone, Debug)]
pub struct CacheStatus {
    /// Which one.
    pub name: CacheName,
    /// Its size.
    pub reading: CacheReading,
    /// Hits as a share of look-ups; none before the first.
    pub hit_ratio: Option<f64>,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
        }
    }
}

impl Origin {
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bootstrap => "bootstrap",
            Self::Upstream => "upstream",
        }
    }
}

impl Status {
    /// The JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let reasons: Vec<&str> = self.degraded.iter().map(|reason| reason.as_str()).collect();
        let source: Vec<String> = self
            .config_files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let listeners = self
            .listeners
            .iter()
            .map(|(name, address)| json!({"name": name.as_str(), "address": address.to_string()}));
        json!({
            "version": self.version,
            "revision": self.revision,
            "mode": self.mode,
            "started_at": timestamp(self.started_at),
            "uptime_s": self.uptime.as_secs(),
            "pid": std::process::id(),
            "workers": self.workers,
            "memory_limit_bytes": self.memory_limit,
            "state": self.state.as_str(),
            "degraded_reasons": reasons,
            "config": {"source": source, "loaded_at": timestamp(self.config_loaded_at)},
            "listeners": listeners.collect::<Vec<_>>(),
            "upstreams": self.upstreams.iter().map(UpstreamStatus::to_json).collect::<Vec<_>>(),
            "environments": self.environments.iter().map(EnvironmentStatus::to_json).collect::<Vec<_>>(),
            "cache": self.caches.iter().map(CacheStatus::to_json).collect::<Vec<_>>(),
        })
    }
}

impl UpstreamStatus {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "url_host": self.host,
            "circuit": self.circuit.as_str(),
            "last_success": self.last_success.map(timestamp),
            "last_error": self.last_error.map(Outcome::as_str),
            "p50_ms": self.latency.map(|(median, _)| milliseconds(median)),
            "p99_ms": self.latency.map(|(_, most)| milliseconds(most)),
        })
    }
}

impl EnvironmentStatus {
    /// The environment as a whole is as old as the oldest of its deployments.
    fn to_json(&self) -> Value {
        let all = &self.deployments;
        let synced: Option<Vec<SystemTime>> = all.iter().map(|deployment| deployment.last_sync).collect();
        let last_sync = synced.and_then(|times| times.into_iter().min());
        let origin = all
            .iter()
            .map(|deployment| deployment.origin)
            .min()
            .unwrap_or(Origin::None);
        json!({
            "name": self.name,
            "backend": self.backend,
            "key_fingerprint": all.first().map(|deployment| deployment.key_fingerprint.as_str()),
            "flags": all.iter().map(|deployment| deployment.flags).sum::<usize>(),
            "segments": all.iter().map(|deployment| deployment.segments).sum::<usize>(),
            "origin": origin.as_str(),
            "last_sync": last_sync.map(timestamp),
            "last_change": all.iter().filter_map(|deployment| deployment.last_change).max().map(timestamp),
            "age_s": age(last_sync),
            "stream": self.stream,
            "deployments": all.iter().map(DeploymentStatus::to_json).collect::<Vec<_>>(),
        })
    }
}

impl DeploymentStatus {
    fn to_json(&self) -> Value {
        let bad = self
            .bad_flags
            .iter()
            .map(|(key, reason)| json!({"key": key, "reason": reason}));
        json!({
            "key_fingerprint": self.key_fingerprint,
            "flags": self.flags,
            "segments": self.segments,
            "origin": self.origin.as_str(),
            "last_sync": self.last_sync.map(timestamp),
            "last_change": self.last_change.map(timestamp),
            "age_s": age(self.last_sync),
            "bad_flags": bad.collect::<Vec<_>>(),
        })
    }
}

impl CacheStatus {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name.as_str(),
            "entries": self.reading.entries,
            "weight_bytes": self.reading.weight_bytes,
            "max_bytes": self.reading.max_weight_bytes,
            "hit_ratio": self.hit_ratio,
        })
    }
}

/// Whole seconds since `then`; a clock that went backwards gives 0.
fn age(then: Option<SystemTime>) -> Option<u64> {
    then.map(|then| {
        SystemTime::now()
            .duration_since(then)
            .unwrap_or_default()
            .as_secs()
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
