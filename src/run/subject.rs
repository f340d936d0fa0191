//! What the admin listener and the gauges show of the running proxy.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::api::Proxy;
use crate::config::{Backend, Readiness as Rules};
use crate::metrics::{
    CacheName, CacheReading, Circuit, Degraded, EnvironmentReading, Listener, Metrics, Readings,
    UpstreamReading,
};
use crate::server::admin::status::{
    CacheStatus, DeploymentStatus, EnvironmentStatus, Origin as FlagsOrigin, State, Status, UpstreamStatus,
};
use crate::server::admin::{Check, Readiness, Subject};
use crate::store::featbit::Held;
use crate::store::{Deployment, Standing};
use crate::sync::Environment;
use crate::upstream::{BreakerState, Origin};

use super::{Parts, featbit};

/// Failures shorter than this do not make the proxy degraded.
const DEGRADED_AFTER: Duration = Duration::from_secs(60);
/// Syncs older than so many intervals make it so.
const STALE_INTERVALS: u32 = 20;

/// The running proxy, to be looked at.
pub(super) struct ProxySubject {
    state: Arc<Looked>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for ProxySubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxySubject").finish_non_exhaustive()
    }
}

/// What both faces look at: the admin listener's and the gauges'.
struct Looked {
    proxy: Arc<Proxy>,
    /// By metric index.
    origins: Vec<(String, Arc<Origin>)>,
    rules: Rules,
    flags_interval: Duration,
    mode: &'static str,
    workers: usize,
    memory_limit: Option<u64>,
    files: Vec<PathBuf>,
    data: Vec<SocketAddr>,
    admin: OnceLock<Vec<SocketAddr>>,
    started: Instant,
    started_at: SystemTime,
    draining: AtomicBool,
    was_ready: AtomicBool,
}

impl ProxySubject {
    pub(super) fn new(parts: &Parts, data: Vec<SocketAddr>, started: Instant) -> Self {
        let (config, proxy, metrics) = (&parts.config, &parts.proxy, &parts.metrics);
        let by_base: HashMap<_, _> = parts
            .upstream
            .origins()
            .into_iter()
            .map(|origin| (Arc::clone(origin.base()), origin))
            .collect();
        let mut origins: Vec<_> = parts
            .names
            .iter()
            .filter_map(|(base, (index, name))| Some((*index, name.clone(), Arc::clone(by_base.get(base)?))))
            .collect();
        origins.sort_by_key(|(index, ..)| *index);
        let state = Looked {
            proxy: Arc::clone(proxy),
            origins: origins
                .into_iter()
                .map(|(_, name, origin)| (name, origin))
                .collect(),
            rules: config.readiness.clone(),
            flags_interval: config.sync.flags_interval,
            mode: config.mode.as_str(),
            workers: config.workers.get(),
            memory_limit: config.memory_limit,
            files: config.files.clone(),
            data,
            admin: OnceLock::new(),
            started,
            started_at: SystemTime::now(),
            draining: AtomicBool::new(false),
            was_ready: AtomicBool::new(false),
        };
        Self {
            state: Arc::new(state),
            metrics: Arc::clone(metrics),
        }
    }

    /// Where the admin listener was bound.
    pub(super) fn bound(&self, admin: &[SocketAddr]) {
        let _ = self.state.admin.set(admin.to_vec());
    }

    /// From now on the proxy is not ready any more.
    pub(super) fn drain(&self) {
        self.state.draining.store(true, Ordering::Release);
    }

    /// What the gauges read.
    pub(super) fn readings(&self) -> Box<dyn Readings> {
        Box::new(Gauges(Arc::clone(&self.state)))
    }
}

impl Subject for ProxySubject {
    fn heartbeats(&self) -> Vec<Duration> {
        self.metrics.heartbeats()
    }

    fn readiness(&self) -> Readiness {
        self.state.readiness()
    }

    fn status(&self) -> Status {
        let state = &self.state;
        let degraded: Vec<_> = Degraded::ALL
            .into_iter()
            .filter(|reason| state.is_degraded(*reason))
            .collect();
        let life = if state.draining.load(Ordering::Acquire) {
            State::Draining
        } else if !state.readiness().ready {
            State::Starting
        } else if degraded.is_empty() {
            State::Ready
        } else {
            State::Degraded
        };
        let admin = state.admin.get().cloned().unwrap_or_default();
        let data = state.data.iter().map(|address| (Listener::Data, *address));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("FLAGSIDE_REVISION").unwrap_or_default().to_owned(),
            mode: state.mode,
            started_at: state.started_at,
            uptime: state.started.elapsed(),
            workers: state.workers,
            memory_limit: state.memory_limit,
            state: life,
            degraded,
            config_files: state.files.clone(),
            config_loaded_at: state.started_at,
            listeners: data
                .chain(admin.into_iter().map(|address| (Listener::Admin, address)))
                .collect(),
            upstreams: self.upstreams(),
            environments: state
                .proxy
                .environments
                .iter()
                .map(|it| state.environment(it))
                .collect(),
            caches: [CacheName::Vardata, CacheName::Flags]
                .into_iter()
                .map(|name| CacheStatus {
                    name,
                    reading: state.proxy.cache.reading(name),
                    hit_ratio: self.metrics.hit_ratio(name),
                })
                .collect(),
        }
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }
}

impl ProxySubject {
    fn upstreams(&self) -> Vec<UpstreamStatus> {
        let origins = self.state.origins.iter().enumerate();
        origins
            .map(|(index, (name, origin))| UpstreamStatus {
                name: name.clone(),
                host: origin.host().to_owned(),
                circuit: circuit(origin.breaker_state()),
                last_success: self.metrics.upstream_succeeded_at(index),
                last_error: origin.last_failure().map(|(outcome, _)| outcome),
                latency: self.metrics.upstream_latency(index),
            })
            .collect()
    }
}

impl Looked {
    /// OPS 7.2. Latched: once ready, only draining makes it unready again.
    fn readiness(&self) -> Readiness {
        let draining = self.draining.load(Ordering::Acquire);
        let mut checks = vec![
            Check {
                name: "listeners".to_owned(),
                ok: true,
                detail: "bound".to_owned(),
            },
            Check {
                name: "draining".to_owned(),
                ok: !draining,
                detail: if draining { "yes" } else { "no" }.to_owned(),
            },
        ];
        let latched = self.was_ready.load(Ordering::Acquire);
        let over = !self.rules.strict && self.started.elapsed() >= self.rules.deadline;
        let mut all = true;
        for environment in self.proxy.environments.iter() {
            let (ok, detail) = self.has_flags(environment);
            let (ok, detail) = match (ok, latched || over) {
                (false, true) => (true, "no flags yet, but serving"),
                other => (other.0, detail),
            };
            all &= ok;
            checks.push(Check {
                name: format!("environment {}", environment.name),
                ok,
                detail: detail.to_owned(),
            });
        }
        if all && !draining {
            self.was_ready.store(true, Ordering::Release);
        }
        Readiness {
            ready: all && !draining,
            checks,
        }
    }

    fn has_flags(&self, environment: &Environment) -> (bool, &'static str) {
        if environment.backend == Backend::Featbit {
            return featbit::has_data(&self.proxy.featbit, environment);
        }
        let configured: Vec<_> = self
            .proxy
            .deployments
            .all()
            .into_iter()
            .filter(|deployment| deployment.environment == environment.index && deployment.configured)
            .collect();
        if configured
            .iter()
            .any(|deployment| deployment.flags().evaluation().is_some())
        {
            (true, "flags synced")
        } else if environment.bootstrap.is_some() {
            (true, "flags from file")
        } else if configured.is_empty() {
            (true, "keys are learnt from traffic")
        } else {
            (false, "waiting for the first sync")
        }
    }

    fn is_degraded(&self, reason: Degraded) -> bool {
        match reason {
            Degraded::Upstream => self.origins.iter().any(|(_, origin)| {
                let failed = origin.last_failure().map(|(_, at)| at);
                let fails_still = match (failed, origin.last_success()) {
                    (Some(failed), Some(succeeded)) => failed > succeeded,
                    (failed, None) => failed.is_some(),
                    (None, Some(_)) => false,
                };
                let since = origin.last_success().unwrap_or(self.started_at);
                fails_still && since.elapsed().is_ok_and(|silent| silent >= DEGRADED_AFTER)
            }),
            Degraded::Auth => self
                .proxy
                .deployments
                .all()
                .iter()
                .any(|it| it.configured && it.standing() == Standing::Revoked),
            Degraded::Stale => {
                let limit = self.flags_interval * STALE_INTERVALS;
                let running = self.started.elapsed();
                let is_stale = |held: &Arc<Held>| featbit::is_stale(&self.proxy, held, running, limit);
                let of_amplitude = |deployment: &&Arc<Deployment>| {
                    let environment = self.proxy.environments.get(deployment.environment);
                    environment.is_some_and(|it| it.backend == Backend::Amplitude)
                };
                self.proxy.featbit.environments.all().iter().any(is_stale)
                    || self
                        .proxy
                        .deployments
                        .all()
                        .iter()
                        .filter(of_amplitude)
                        .any(|deployment| {
                            let synced = deployment
                                .last_sync()
                                .map_or(self.started.elapsed(), |at| at.elapsed().unwrap_or_default());
                            deployment.in_service() && synced > limit
                        })
            }
        }
    }

    fn environment(&self, environment: &Environment) -> EnvironmentStatus {
        if environment.backend == Backend::Featbit {
            return EnvironmentStatus {
                name: environment.name.to_string(),
                backend: environment.backend.as_str(),
                stream: environment.metrics.streams() > 0,
                deployments: featbit::deployments(&self.proxy, environment),
            };
        }
        let mut deployments: Vec<_> = self
            .proxy
            .deployments
            .all()
            .iter()
            .filter(|deployment| deployment.environment == environment.index)
            .map(|deployment| deployment_status(environment, Some(deployment)))
            .collect();
        if deployments.is_empty() && environment.bootstrap.is_some() {
            deployments.push(deployment_status(environment, None));
        }
        deployments.sort_by(|one, two| one.key_fingerprint.cmp(&two.key_fingerprint));
        EnvironmentStatus {
            name: environment.name.to_string(),
            backend: environment.backend.as_str(),
            stream: false,
            deployments,
        }
    }
}

fn deployment_status(environment: &Environment, deployment: Option<&Arc<Deployment>>) -> DeploymentStatus {
    let synced = deployment.is_some_and(|it| it.flags().evaluation().is_some());
    let data = environment.evaluation_set(deployment.map(Arc::as_ref));
    DeploymentStatus {
        key_fingerprint: deployment.map_or_else(|| "*".to_owned(), |it| fingerprint(it.key.expose())),
        flags: data.as_ref().map_or(0, |data| data.set.len()),
        segments: 0,
        origin: match (&data, synced) {
            (None, _) => FlagsOrigin::None,
            (Some(_), true) => FlagsOrigin::Upstream,
            (Some(_), false) => FlagsOrigin::Bootstrap,
        },
        last_sync: deployment.and_then(|it| it.last_sync()),
        last_change: deployment.and_then(|it| it.last_change()),
        bad_flags: data.map_or_else(Vec::new, |data| {
            data.set
                .problems()
                .iter()
                .map(|problem| (problem.flag.clone(), problem.detail.clone()))
                .collect()
        }),
    }
}

/// First 8 hex digits of the SHA-256 of a key.
pub(super) fn fingerprint(key: &[u8]) -> String {
    Sha256::digest(key)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn circuit(state: BreakerState) -> Circuit {
    match state {
        BreakerState::Closed => Circuit::Closed,
        BreakerState::Open => Circuit::Open,
        BreakerState::HalfOpen => Circuit::HalfOpen,
    }
}

struct Gauges(Arc<Looked>);

impl Readings for Gauges {
    fn cache(&self, cache: CacheName) -> CacheReading {
        match cache {
            CacheName::Negative => CacheReading {
                entries: self.0.proxy.deployments.rejections().entries(),
                ..CacheReading::default()
            },
            stored => self.0.proxy.cache.reading(stored),
        }
    }

    fn upstream(&self, upstream: usize) -> UpstreamReading {
        let Some((_, origin)) = self.0.origins.get(upstream) else {
            return UpstreamReading::default();
        };
        UpstreamReading {
            circuit: circuit(origin.breaker_state()),
            in_flight: origin.in_flight() as u64,
            connections: origin.connections() as u64,
        }
    }

    fn environment(&self, environment: usize) -> EnvironmentReading {
        let Some(environment) = self.0.proxy.environments.get(environment) else {
            return EnvironmentReading::default();
        };
        let status = self.0.environment(environment);
        EnvironmentReading {
            flags: status.deployments.iter().map(|it| it.flags as u64).sum(),
            segments: status.deployments.iter().map(|it| it.segments as u64).sum(),
            bad_flags: status
                .deployments
                .iter()
                .map(|it| it.bad_flags.len() as u64)
                .sum(),
        }
    }

    fn degraded(&self, reason: Degraded) -> bool {
        self.0.is_degraded(reason)
    }
}
