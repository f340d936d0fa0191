//! What all data workers share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::{Cache, Flights, Lifetimes};
use crate::config::{self, Backend};
use crate::key::hash::Encoding;
use crate::key::{DeploymentKey, Key, Keyer, Routing};
use crate::store::{Accepted, Deployments};
use crate::sync::{Environment, FlagSync};

use crate::trace::Tracer;

use super::answer::{Cors, JSON, Relayed};
use super::featbit::Featbit;
use super::ladder::Landed;

/// The shared state of the proxy; read-mostly, no lock is held across an await.
#[derive(Debug)]
pub struct Proxy {
    /// The environments, by index.
    pub environments: Arc<[Arc<Environment>]>,
    /// Deployment keys, their standing and their flags.
    pub deployments: Arc<Deployments>,
    /// Stored responses.
    pub cache: Cache,
    /// Fetches under way.
    pub flights: Arc<Flights<Landed>>,
    /// Makes cache keys.
    pub keyer: Keyer,
    /// Polls flags.
    pub flag_sync: FlagSync,
    /// How long stored responses may be used.
    pub lifetimes: Lifetimes,
    /// When a stand-in is used.
    pub answer_deadline: Duration,
    /// When a request is given up.
    pub total_deadline: Duration,
    /// Upstream settings.
    pub upstream: config::Upstream,
    /// Bytes of a request head.
    pub max_headers: usize,
    /// Bytes of a request body.
    pub max_body: usize,
    /// Which paths there are.
    pub routing: Routing,
    /// FeatBit's side; empty where no environment is FeatBit's.
    pub featbit: Arc<Featbit>,
    /// Query parameters that are neither keyed nor forwarded.
    pub ignore_query: Vec<String>,
    /// Who may call from a browser.
    pub cors: Cors,
    /// Makes spans; none = traces are not exported.
    pub tracer: Option<Arc<Tracer>>,
}

impl Proxy {
    /// The environment of an Amplitude key: the one that names it, else the only one that may learn it (design 5).
    #[must_use]
    pub fn environment_of(&self, key: &DeploymentKey) -> Option<Arc<Environment>> {
        let of_backend = || {
            let environments = self.environments.iter();
            environments.filter(|it| it.backend == Backend::Amplitude)
        };
        let mut learning = of_backend().filter(|it| it.learn_keys);
        let (first, second) = (learning.next(), learning.next());
        if let (Some(only), None, 1) = (first, second, self.environments.len()) {
            return Some(Arc::clone(only));
        }
        let known = of_backend().find(|it| self.deployments.get(it.index, key).is_some());
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        match (first, second) {
            (Some(only), None) => Some(Arc::clone(only)),
            _ => None,
        }
    }

    /// Upstream answered 200 to a request that `began` then: the key is good, and its flags are followed.
    pub fn accept(&self, environment: &Environment, key: &DeploymentKey, began: u64) -> Accepted {
        let accepted = self.deployments.accept(environment.index, key, began);
        if let Accepted::Yes {
            deployment,
            fresh: true,
        } = &accepted
        {
            tracing::info!(environment = &*environment.name, key = %key.hint(), "deployment key accepted by upstream");
            // FeatBit's data are followed by environment, since somebody asked for them.
            if environment.backend == Backend::Amplitude {
                self.flag_sync.follow(Arc::clone(deployment));
            }
        }
        accepted
    }

    /// Upstream answered 401: the key is out of service.
    pub fn reject(&self, environment: &Environment, key: &DeploymentKey, answer: &Relayed) {
        let content_type = answer.content_type.clone().unwrap_or(JSON);
        let was = self.deployments.reject(
            environment.index,
            key,
            Instant::now(),
            content_type,
            answer.body.clone(),
        );
        if was {
            tracing::warn!(environment = &*environment.name, key = %key.hint(), "deployment key rejected by upstream: out of service until it is accepted again");
        } else {
            tracing::debug!(environment = &*environment.name, key = %key.hint(), "deployment key rejected by upstream");
        }
    }

    /// What coalesces the requests that wait for the first sync of a key.
    #[must_use]
    pub fn sync_key(&self, environment: &Environment, key: &DeploymentKey) -> Key {
        let mut encoding = Encoding::default();
        encoding.part(b"sync");
        encoding.part(environment.name.as_bytes());
        encoding.part(key.expose());
        self.keyer.key(&encoding)
    }
}
