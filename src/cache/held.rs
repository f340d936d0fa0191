//! What the store holds of each kind, counted as entries come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::{CacheMetrics, CacheName, Eviction};

use super::{Stored, name_of, weight};

/// The entries of all kinds. An entry that is held knows it and says when it goes: when the last one who could
/// still read it has let go, which is when its memory is free.
#[derive(Debug)]
pub struct Held {
    kinds: [Kind; CacheName::ALL.len()],
    /// Age at which the store drops an entry.
    lifetime: Duration,
    metrics: Arc<CacheMetrics>,
}

/// The entries of one kind.
#[derive(Debug, Default)]
struct Kind {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Held {
    /// Nothing yet; entries are dropped at the age of `lifetime`.
    pub(super) fn new(lifetime: Duration, metrics: Arc<CacheMetrics>) -> Self {
        Self {
            kinds: Default::default(),
            lifetime,
            metrics,
        }
    }

    /// `stored` goes into the store.
    pub(super) fn enter(self: &Arc<Self>, stored: &mut Stored) {
        let kind = self.kind(name_of(stored.route));
        kind.entries.fetch_add(1, Ordering::Relaxed);
        kind.bytes.fetch_add(weight(stored), Ordering::Relaxed);
        stored.held = Some(Arc::clone(self));
    }

    /// `stored` is gone from it.
    pub(super) fn leave(&self, stored: &Stored) {
        let name = name_of(stored.route);
        let kind = self.kind(name);
        kind.entries.fetch_sub(1, Ordering::Relaxed);
        kind.bytes.fetch_sub(weight(stored), Ordering::Relaxed);
        let cause = if stored.is_superseded() {
            Eviction::Replaced
        } else if Instant::now().saturating_duration_since(stored.asked_at) >= self.lifetime {
            Eviction::Expired
        } else {
            Eviction::Size
        };
        self.metrics.evicted(name, cause);
    }

    /// Entries of one kind, and what they weigh.
    pub(super) fn reading(&self, name: CacheName) -> (u64, u64) {
        let kind = self.kind(name);
        (
            kind.entries.load(Ordering::Relaxed),
            kind.bytes.load(Ordering::Relaxed),
        )
    }

    fn kind(&self, name: CacheName) -> &Kind {
        &self.kinds[name.index()]
    }
}
