//! Keys that upstream rejected with a 401.
//!
//! For a short while the same 401 is answered without asking (API 6.3); the mark itself stays until upstream
//! accepts the key, or until as many other keys were rejected as the table holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;

use crate::config;
use crate::key::DeploymentKey;

/// Upstream's 401 for one key.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// When it came.
    pub at: Instant,
    /// Its place in the order of events, see [`super::Deployments::begin`].
    pub sequence: u64,
    /// Content type, as it came.
    pub content_type: HeaderValue,
    /// Body, as it came.
    pub body: Bytes,
}

/// Largest 401 body that is kept; a longer one is answered without body.
const BODY_BYTES_MAX: usize = 4096;

/// The rejected keys of all environments, least recently rejected out first.
#[derive(Debug)]
pub struct Rejections {
    marks: moka::sync::Cache<(usize, DeploymentKey), Arc<Rejection>, foldhash::fast::RandomState>,
    /// Whether there was ever one: where all keys are good, nobody looks for bad ones.
    any: AtomicBool,
    answered_for: Duration,
}

impl Rejections {
    /// An empty table.
    #[must_use]
    pub fn new(settings: &config::Keys) -> Self {
        let marks = moka::sync::Cache::builder()
            .max_capacity(settings.negative_entries as u64)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            marks,
            any: AtomicBool::new(false),
            answered_for: settings.negative_ttl,
        }
    }

    /// Marks `key` of `environment` as rejected.
    pub fn mark(&self, environment: usize, key: DeploymentKey, mut rejection: Rejection) {
        if rejection.body.len() > BODY_BYTES_MAX {
            rejection.body = Bytes::new();
        }
        self.marks.insert((environment, key), Arc::new(rejection));
        self.any.store(true, Ordering::Release);
    }

    /// The mark of a key, of whatever age.
    #[must_use]
    pub fn of(&self, environment: usize, key: &DeploymentKey) -> Option<Arc<Rejection>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.marks.get(&(environment, key.clone()))
    }

    /// The 401 that may be answered without asking upstream again.
    #[must_use]
    pub fn answer(&self, environment: usize, key: &DeploymentKey, now: Instant) -> Option<Arc<Rejection>> {
        let rejection = self.of(environment, key)?;
        (now.saturating_duration_since(rejection.at) < self.answered_for).then_some(rejection)
    }

    /// Takes the mark away: upstream accepted the key.
    pub fn clear(&self, environment: usize, key: &DeploymentKey) {
        self.marks.invalidate(&(environment, key.clone()));
    }

    /// Keys marked, about.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.marks.entry_count()
    }
}
