//! What happens upstream, for metrics and logs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{BaseUrl, Bases, Config};
use crate::metrics::{Metrics, Operation, Outcome, UpstreamMetrics, UpstreamSetup};
use crate::telemetry::Suppress;
use crate::upstream::{BreakerState, Gate, Observer, Origin, UpstreamError};

/// Index and name of every distinct upstream base.
pub(super) type Names = HashMap<Arc<BaseUrl>, (usize, String)>;

/// The distinct upstream bases of a configuration. One is named after the environment and the role that
/// it has first: `eu` for the evaluation host of `eu`, `eu_flags` for its flags host.
pub(super) fn upstreams(config: &Config) -> (Vec<UpstreamSetup>, Names) {
    let mut setups: Vec<UpstreamSetup> = Vec::new();
    let mut names = Names::new();
    for environment in &config.environments {
        let Some(urls) = &environment.urls else { continue };
        let all = &[Operation::Evaluate, Operation::Flags, Operation::Passthrough][..];
        let roles = match urls {
            Bases::Amplitude(urls) => vec![
                (&urls.eval, "", all),
                (&urls.flags, "_flags", &[Operation::Flags]),
                (&urls.stream, "_stream", &[Operation::Stream]),
                (&urls.cohort, "_cohort", &[Operation::Cohort]),
            ],
            Bases::Featbit(urls) => vec![
                (&urls.evaluate, "", all),
                (&urls.stream, "_stream", &[Operation::Stream]),
                (&urls.event, "_event", &[Operation::Events]),
            ],
        };
        for (base, suffix, operations) in roles {
            let next = setups.len();
            let (index, _) = names.entry(Arc::clone(base)).or_insert_with(|| {
                let name = format!("{}{suffix}", environment.name);
                setups.push(UpstreamSetup {
                    name: name.clone(),
                    operations: Vec::new(),
                });
                (next, name)
            });
            if let Some(setup) = setups.get_mut(*index) {
                for operation in operations {
                    if !setup.operations.contains(operation) {
                        setup.operations.push(*operation);
                    }
                }
            }
        }
    }
    (setups, names)
}

/// Lines about failures in ten seconds: an upstream that fails now and then brings news every time.
const FAILURE_LINES: u32 = 3;

/// Counts exchanges, and logs new failures and changes of breakers.
pub(super) struct UpstreamObserver {
    cells: HashMap<Arc<BaseUrl>, Arc<UpstreamMetrics>, foldhash::fast::RandomState>,
    failures: Suppress,
}

impl UpstreamObserver {
    pub(super) fn new(names: &Names, metrics: &Metrics) -> Self {
        let cells = names
            .iter()
            .map(|(base, (index, _))| (Arc::clone(base), metrics.upstream(*index)))
            .collect();
        Self {
            cells,
            failures: Suppress::new(FAILURE_LINES),
        }
    }
}

impl Observer for UpstreamObserver {
    fn exchanged(&self, origin: &Origin, operation: Operation, outcome: Outcome, took: Duration) {
        let Some(cells) = self.cells.get(origin.base()) else {
            return;
        };
        // A full gate is told as a cancelled attempt that took no time.
        if outcome == Outcome::CircuitOpen || (outcome == Outcome::Cancelled && took.is_zero()) {
            cells.not_tried(operation, outcome);
        } else {
            cells.ended(operation, outcome, took);
        }
    }

    fn failed(&self, origin: &Origin, error: &UpstreamError) {
        let Some(suppressed) = self.failures.allow(Instant::now()) else {
            return;
        };
        let remedy = match error {
            UpstreamError::Dns(_) | UpstreamError::Connect(_) => "; check its URL and the network",
            UpstreamError::Tls(_) => {
                "; if its certificate comes from an authority of your own, name that in upstream.ca_file"
            }
            _ => "",
        };
        tracing::warn!(
            upstream.host = origin.host(),
            suppressed,
            "upstream fails: {error}{remedy}"
        );
    }

    fn retried(&self, origin: &Origin, operation: Operation) {
        if let Some(cells) = self.cells.get(origin.base()) {
            cells.retried(operation);
        }
    }

    fn breaker(&self, origin: &Origin, state: BreakerState) {
        match state {
            BreakerState::Open => tracing::warn!(
                upstream.host = origin.host(),
                "upstream keeps failing: asking it is paused"
            ),
            BreakerState::HalfOpen => {
                tracing::debug!(upstream.host = origin.host(), "upstream is tried again")
            }
            BreakerState::Closed => tracing::info!(upstream.host = origin.host(), "upstream answers again"),
        }
    }

    fn gate_breaker(&self, gate: &Gate, operation: Operation, state: BreakerState) {
        let (environment, operation) = (gate.name(), operation.as_str());
        match state {
            BreakerState::Open => tracing::warn!(
                environment,
                operation,
                "upstream answers 5xx: asking it is paused"
            ),
            BreakerState::HalfOpen => tracing::debug!(environment, operation, "upstream is tried again"),
            BreakerState::Closed => tracing::info!(environment, operation, "upstream answers again"),
        }
    }
}
