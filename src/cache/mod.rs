//! Stored responses: freshness, the shared store, the memo in front of it, coalescing.
//!
//! Invariants: the store is bounded by weight; what a stored response may be used for is decided by one
//! function, [`Stored::freshness`]; a response carries the epoch of its deployment, so that a flag change or
//! a revocation takes effect everywhere at once without touching a single entry; nothing but status 200,
//! content type and body of an answer is ever kept.

pub mod flight;
pub mod memo;
pub mod stored;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::Entry;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;

use crate::config;
use crate::key::Key;
use crate::metrics::{CacheMetrics, CacheName, CacheReading, Eviction, Route};

pub use flight::{Flight, Flights, Joined};
pub use memo::Memo;
pub use stored::{Freshness, Lifetimes, Marks, Stored};

/// Bytes that an entry costs beyond what it holds: the entry, its place in the store's tables and queues.
const ENTRY_OVERHEAD: usize = 480;

/// All stored responses, shared between workers.
#[derive(Debug)]
pub struct Cache {
    entries: moka::sync::Cache<Key, Arc<Stored>, foldhash::fast::RandomState>,
    max_bytes: u64,
    max_entry: usize,
    shares: Arc<Shares>,
}

/// The entries of each kind.
type Shares = [Share; CacheName::ALL.len()];

/// The entries of one kind.
#[derive(Debug, Default)]
struct Share {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Cache {
    /// A store of `settings.max_bytes`, of which the memos of all workers take a quarter.
    #[must_use]
    pub fn new(settings: &config::Cache, metrics: Arc<CacheMetrics>) -> Self {
        let max_bytes = settings.max_bytes - memo_bytes(settings.max_bytes);
        let shares: Arc<Shares> = Arc::default();
        let left = Arc::clone(&shares);
        let entries = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, stored: &Arc<Stored>| u32::try_from(weight(stored)).unwrap_or(u32::MAX))
            .time_to_live(settings.fresh_for + settings.max_stale.max(settings.stale_error))
            .eviction_listener(move |_, stored: Arc<Stored>, cause| {
                let name = name_of(stored.route);
                let share = &left[name.index()];
                share.entries.fetch_sub(1, Ordering::Relaxed);
                share.bytes.fetch_sub(weight(&stored), Ordering::Relaxed);
                let cause = match cause {
                    RemovalCause::Size => Eviction::Size,
                    RemovalCause::Expired => Eviction::Expired,
                    RemovalCause::Replaced => Eviction::Replaced,
                    RemovalCause::Explicit => Eviction::Purged,
                };
                metrics.evicted(name, cause);
            })
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            entries,
            max_bytes,
            max_entry: settings.max_entry,
            shares,
        }
    }

    /// The stored response of a question, of whatever age.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Arc<Stored>> {
        self.entries.get(&key)
    }

    /// Tells the store that an entry was used without asking it, so that its eviction stays right.
    pub fn touch(&self, key: Key) {
        let _ = self.entries.get(&key);
    }

    /// Stores a response, unless it is larger than an entry may be or the stored one was asked for later: what
    /// comes late never takes the place of something newer. Says whether it did.
    pub fn put(&self, key: Key, stored: Arc<Stored>) -> bool {
        if stored.bytes() > self.max_entry {
            return false;
        }
        let mut kept = false;
        self.entries.entry(key).and_compute_with(|before| {
            let before = before.map(Entry::into_value);
            if before
                .as_ref()
                .is_some_and(|before| before.asked_at > stored.asked_at)
            {
                return Op::Nop;
            }
            kept = true;
            let share = &self.shares[name_of(stored.route).index()];
            share.entries.fetch_add(1, Ordering::Relaxed);
            share.bytes.fetch_add(weight(&stored), Ordering::Relaxed);
            if let Some(before) = before {
                before.supersede();
            }
            Op::Put(stored)
        });
        kept
    }

    /// What is held of one kind. Does the store's deferred work first, so it is not for the request path.
    #[must_use]
    pub fn reading(&self, name: CacheName) -> CacheReading {
        self.entries.run_pending_tasks();
        let share = &self.shares[name.index()];
        CacheReading {
            entries: share.entries.load(Ordering::Relaxed),
            weight_bytes: share.bytes.load(Ordering::Relaxed),
            max_weight_bytes: if name == CacheName::Negative {
                0
            } else {
                self.max_bytes
            },
        }
    }
}

fn weight(stored: &Stored) -> u64 {
    (stored.bytes() + ENTRY_OVERHEAD) as u64
}

/// What the metrics call the cache of a route.
#[must_use]
pub const fn name_of(route: Route) -> CacheName {
    match route {
        Route::FlagsV1 | Route::FlagsV2 => CacheName::Flags,
        Route::FbEvaluate => CacheName::Fb,
        _ => CacheName::Vardata,
    }
}

/// The memos' part of the cache budget.
#[must_use]
pub const fn memo_bytes(max_bytes: u64) -> u64 {
    max_bytes / 4
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;
    use crate::key::hash::Encoding;
    use crate::key::{DeploymentKey, Keyer};
    use crate::store::Deployment;

    const MIB: u64 = 1 << 20;

    fn cache() -> Cache {
        let settings = config::Cache {
            max_bytes: 4 * MIB,
            max_entry: 1024,
            fresh_for: Duration::from_secs(60),
            stale_while_revalidate: Duration::from_secs(600),
            stale_error: Duration::from_secs(3600),
            max_stale: Duration::from_secs(3600),
            ignore_query: Vec::new(),
        };
        Cache::new(&settings, Arc::default())
    }

    fn stored(body: &'static str, asked_at: Instant, route: Route) -> Arc<Stored> {
        let deployment = Deployment::new(0, DeploymentKey::new(b"k").unwrap(), false);
        Arc::new(Stored {
            body: Bytes::from_static(body.as_bytes()),
            content_type: HeaderValue::from_static("application/json"),
            etag: None,
            asked_at,
            fresh_until: asked_at + Duration::from_secs(60),
            epoch: 0,
            deployment: Arc::new(deployment),
            route,
            definitions: None,
            marks: Marks::default(),
        })
    }

    fn key() -> Key {
        Keyer::random().unwrap().key(&Encoding::default())
    }

    #[test]
    fn what_comes_late_does_not_replace_what_is_newer() {
        let (cache, key, start) = (cache(), key(), Instant::now());
        let older = stored("older", start, Route::VardataV2);
        let newer = stored("newer", start + Duration::from_millis(1), Route::VardataV2);
        assert!(cache.put(key, Arc::clone(&newer)));
        assert!(!cache.put(key, Arc::clone(&older)), "it is relayed, not stored");
        assert!(!newer.is_superseded());
        assert_eq!(cache.get(key).unwrap().body, "newer");
    }

    #[test]
    fn what_is_replaced_is_marked() {
        let (cache, key, start) = (cache(), key(), Instant::now());
        let older = stored("older", start, Route::VardataV2);
        let newer = stored("newer", start + Duration::from_millis(1), Route::VardataV2);
        assert!(cache.put(key, Arc::clone(&older)));
        assert!(cache.put(key, Arc::clone(&newer)));
        assert!(older.is_superseded() && !newer.is_superseded());
        assert_eq!(cache.get(key).unwrap().body, "newer");
    }

    #[test]
    fn flags_are_counted_apart_and_once() {
        let (cache, start) = (cache(), Instant::now());
        for number in 0..3 {
            let asked_at = start + Duration::from_millis(number);
            let same = Keyer::random().unwrap().key(&Encoding::default());
            assert!(cache.put(same, stored("[]", asked_at, Route::FlagsV2)));
            assert!(cache.put(same, stored("[1]", asked_at, Route::FlagsV2)));
            assert!(!cache.put(
                same,
                stored("[2]", start - Duration::from_secs(1), Route::FlagsV2)
            ));
            assert!(cache.put(key(), stored("{}", asked_at, Route::VardataV1)));
        }
        assert_eq!(cache.reading(CacheName::Flags).entries, 3);
        assert_eq!(cache.reading(CacheName::Vardata).entries, 3);
    }

    #[test]
    fn what_is_too_large_is_not_stored() {
        let (cache, key) = (cache(), key());
        let large: &'static str = Box::leak("x".repeat(2000).into_boxed_str());
        assert!(!cache.put(key, stored(large, Instant::now(), Route::VardataV2)));
        assert!(cache.get(key).is_none());
    }
}
