//! `/health/*`: probes in the form of FeatBit's server (FB 7).

use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::latest::made;
use super::{Featbit, Reply, reply};

/// Data that were not found current for longer than this are a reason to say so.
const STALE_AFTER: Duration = Duration::from_secs(180);

impl Featbit {
    /// `GET /health/liveness`.
    #[must_use]
    pub fn liveness() -> Reply {
        made(reply::text(StatusCode::OK, "Healthy"))
    }

    /// `GET /health/readiness`: whether the data of every environment with a configured secret or a bootstrap file are
    /// there. `Degraded` says that some are not, or are old; `Unhealthy`, with a 503, that none are.
    #[must_use]
    pub fn readiness(&self) -> Reply {
        let now = SystemTime::now();
        let (mut needed, mut there, mut current) = (0, 0, 0);
        for held in self.environments.all() {
            let configured = held.all_secrets().iter().any(|secret| {
                let deployment = self.deployments.get(held.environment, &secret.key);
                deployment.is_some_and(|deployment| deployment.configured)
            });
            if !configured && !held.has_bootstrap() {
                continue;
            }
            needed += 1;
            there += usize::from(held.data().is_some());
            let has_upstream = self
                .homes
                .iter()
                .any(|home| home.index == held.environment && home.has_upstream);
            let age = held.last_sync().and_then(|at| now.duration_since(at).ok());
            current += usize::from(!has_upstream || age.is_some_and(|age| age < STALE_AFTER));
        }
        made(match (needed, there, current) {
            (1.., 0, _) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "Unhealthy"),
            _ if there < needed || current < needed => reply::text(StatusCode::OK, "Degraded"),
            _ => reply::text(StatusCode::OK, "Healthy"),
        })
    }
}
