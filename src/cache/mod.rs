//! Stored responses: freshness, the shared store, the memo in front of it, coalescing.
//!
//! Invariants: the store is bounded by weight; what a stored response may be used for is decided by one
//! function, [`Stored::freshness`]; a response carries the epoch of its deployment, so that a flag change or
//! a revocation takes effect everywhere at once without touching a single entry; nothing but status 200,
//! content type and body of an answer is ever kept.

pub mod flight;
mod held;
pub mod label;
pub mod memo;
mod places;
pub mod stored;

use std::sync::{Arc, Mutex, PoisonError};

use crate::config;
use crate::key::Key;
use crate::metrics::{CacheMetrics, CacheName, CacheReading, Refresh, Route};

pub use flight::{Flight, Flights, Joined};
pub use held::Held;
pub use label::Label;
pub use memo::Memo;
pub use stored::{Freshness, Lifetimes, Marks, Stored};

/// Bytes that an entry costs beyond what it holds: the entry, its place in the store's tables and queues (430 measured),
/// and some of what the allocator rounds up.
const ENTRY_OVERHEAD: usize = 480;

/// Locks that order the writers of one key.
const WRITERS: usize = 16;

/// Rounds of deferred work after which nothing is left of it: moka's first, then two epochs until its readers
/// are past what they might still look at.
const SETTLING_ROUNDS: usize = 4;

/// All stored responses, shared between workers.
#[derive(Debug)]
pub struct Cache {
    entries: moka::sync::Cache<Key, Arc<Stored>, foldhash::fast::RandomState>,
    /// Held while a response is stored. The store's own way to compute an entry from the one before, and its
    /// listener for evictions, cost more than all else that a miss does with it.
    writers: [Mutex<()>; WRITERS],
    max_bytes: u64,
    max_entry: usize,
    held: Arc<Held>,
    metrics: Arc<CacheMetrics>,
}

impl Cache {
    /// A store of `settings.max_bytes`, of which the memos of all workers take a quarter.
    #[must_use]
    pub fn new(settings: &config::Cache, metrics: Arc<CacheMetrics>) -> Self {
        let max_bytes = settings.max_bytes - memo_bytes(settings.max_bytes);
        let lifetime = settings.fresh_for + settings.max_stale.max(settings.stale_error);
        let entries = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, stored: &Arc<Stored>| u32::try_from(weight(stored)).unwrap_or(u32::MAX))
            .time_to_live(lifetime)
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            entries,
            writers: Default::default(),
            max_bytes,
            max_entry: settings.max_entry,
            held: Arc::new(Held::new(lifetime, Arc::clone(&metrics))),
            metrics,
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
    /// comes late never takes the place of something newer. Gives it back either way, and says whether it is stored.
    pub fn put(&self, key: Key, mut stored: Stored) -> (Arc<Stored>, bool) {
        if stored.bytes() > self.max_entry {
            return (Arc::new(stored), false);
        }
        // Nothing is half done when a writer dies.
        let _writing = self.writers[key.shard() % WRITERS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Asking whether it is there does not count as a use.
        let before = self
            .entries
            .contains_key(&key)
            .then(|| self.entries.get(&key))
            .flatten();
        if before
            .as_ref()
            .is_some_and(|before| before.asked_at > stored.asked_at)
        {
            return (Arc::new(stored), false);
        }
        self.held.enter(&mut stored);
        let stored = Arc::new(stored);
        self.entries.insert(key, Arc::clone(&stored));
        if let Some(before) = before {
            before.supersede();
        }
        (stored, true)
    }

    /// Counts a refresh in the background of `before`: `after` is what it brought, if it brought an answer.
    pub fn refreshed(&self, before: &Stored, after: Option<&Stored>) {
        let result = match after {
            Some(after) if after.body == before.body => Refresh::Unchanged,
            Some(_) => Refresh::Changed,
            None => Refresh::Failed,
        };
        self.metrics.refreshed(name_of(before.route), result);
    }

    /// What is held of one kind. Does the store's deferred work first, so it is not for the request path.
    #[must_use]
    pub fn reading(&self, name: CacheName) -> CacheReading {
        for _ in 0..SETTLING_ROUNDS {
            self.entries.run_pending_tasks();
        }
        let (entries, weight_bytes) = self.held.reading(name);
        CacheReading {
            entries,
            weight_bytes,
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

    use super::*;
    use crate::key::Keyer;
    use crate::key::hash::Encoding;
    use crate::metrics::Eviction;

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

    fn stored(body: &str, asked_at: Instant, route: Route) -> Stored {
        Stored::sample(body, asked_at, route)
    }

    fn key() -> Key {
        Keyer::random().unwrap().key(&Encoding::default())
    }

    #[test]
    fn what_comes_late_does_not_replace_what_is_newer() {
        let (cache, key, start) = (cache(), key(), Instant::now());
        let older = stored("older", start, Route::VardataV2);
        let newer = stored("newer", start + Duration::from_millis(1), Route::VardataV2);
        let (newer, kept) = cache.put(key, newer);
        assert!(kept);
        let (older, kept) = cache.put(key, older);
        assert!(!kept, "it is relayed, not stored");
        assert_eq!(*older.body, *b"older");
        assert!(!newer.is_superseded());
        assert_eq!(*cache.get(key).unwrap().body, *b"newer");
    }

    #[test]
    fn what_is_replaced_is_marked() {
        let (cache, key, start) = (cache(), key(), Instant::now());
        let older = stored("older", start, Route::VardataV2);
        let newer = stored("newer", start + Duration::from_millis(1), Route::VardataV2);
        let (older, _) = cache.put(key, older);
        let (newer, kept) = cache.put(key, newer);
        assert!(kept && older.is_superseded() && !newer.is_superseded());
        assert_eq!(*cache.get(key).unwrap().body, *b"newer");
    }

    #[tokio::test]
    async fn flags_are_counted_apart_and_once() {
        let (cache, start) = (cache(), Instant::now());
        for number in 0..3 {
            let asked_at = start + Duration::from_millis(number);
            let same = Keyer::random().unwrap().key(&Encoding::default());
            assert!(cache.put(same, stored("[]", asked_at, Route::FlagsV2)).1);
            assert!(cache.put(same, stored("[1]", asked_at, Route::FlagsV2)).1);
            let late = stored("[2]", start - Duration::from_secs(1), Route::FlagsV2);
            assert!(!cache.put(same, late).1);
            assert!(cache.put(key(), stored("{}", asked_at, Route::VardataV1)).1);
        }
        assert_eq!(settled(&cache, CacheName::Flags, 3).await, 3);
        assert_eq!(settled(&cache, CacheName::Vardata, 3).await, 3);
    }

    /// The number of entries once it is `wanted`, or after long: readers of other tests keep what is gone for a while.
    async fn settled(cache: &Cache, name: CacheName, wanted: u64) -> u64 {
        for _ in 0..1000 {
            if cache.reading(name).entries == wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cache.reading(name).entries
    }

    #[tokio::test]
    async fn an_entry_counts_until_nobody_can_read_it() {
        let (cache, key) = (cache(), key());
        let (entry, _) = cache.put(key, stored("{}", Instant::now(), Route::VardataV1));
        let weight = weight(&entry);
        assert_eq!(cache.reading(CacheName::Vardata).weight_bytes, weight);
        cache.entries.invalidate(&key);
        assert!(cache.get(key).is_none());
        assert_eq!(cache.reading(CacheName::Vardata).weight_bytes, weight);
        drop(entry);
        assert_eq!(settled(&cache, CacheName::Vardata, 0).await, 0);
        assert_eq!(cache.reading(CacheName::Vardata).weight_bytes, 0);
    }

    #[test]
    fn what_goes_is_counted_by_its_cause() {
        let metrics: Arc<CacheMetrics> = Arc::default();
        let held = Arc::new(Held::new(Duration::from_secs(60), Arc::clone(&metrics)));
        let now = Instant::now();
        let enter = |asked_at| {
            let mut stored = stored("{}", asked_at, Route::FlagsV2);
            held.enter(&mut stored);
            stored
        };
        let gone = |cause| metrics.evictions(CacheName::Flags, cause);
        drop(enter(now));
        drop(enter(now.checked_sub(Duration::from_secs(60)).unwrap()));
        let replaced = enter(now);
        replaced.supersede();
        drop(replaced);
        drop(stored("never held", now, Route::FlagsV2));
        assert_eq!(
            [Eviction::Size, Eviction::Expired, Eviction::Replaced].map(gone),
            [1, 1, 1]
        );
        assert_eq!(held.reading(CacheName::Flags), (0, 0));
    }

    #[test]
    fn what_is_too_large_is_not_stored() {
        let (cache, key) = (cache(), key());
        for (length, fits) in [(2000, false), (1025, false), (1024, true)] {
            let body = "x".repeat(length);
            let (_, kept) = cache.put(key, stored(&body, Instant::now(), Route::VardataV2));
            assert_eq!(kept, fits, "{length}");
            assert_eq!(cache.get(key).is_some(), fits, "{length}");
            assert_eq!(
                cache.reading(CacheName::Vardata).entries,
                u64::from(fits),
                "{length}"
            );
        }
    }
}
