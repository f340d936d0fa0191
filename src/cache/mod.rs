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

use moka::notification::RemovalCause;

use crate::config;
use crate::key::Key;
use crate::metrics::{CacheMetrics, CacheName, CacheReading, Eviction, Route};

pub use flight::{Flight, Flights, Joined};
pub use memo::Memo;
pub use stored::{Freshness, Lifetimes, Stored};

/// Bytes that an entry costs beyond what it holds: the entry, its place in the store's tables and queues.
const ENTRY_OVERHEAD: usize = 480;

/// All stored responses, shared between workers.
#[derive(Debug)]
pub struct Cache {
    entries: moka::sync::Cache<Key, Arc<Stored>, foldhash::fast::RandomState>,
    max_bytes: u64,
    max_entry: usize,
    flags: Arc<Share>,
}

/// The part of the entries that belongs to flags routes.
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
        let flags = Arc::new(Share::default());
        let share = Arc::clone(&flags);
        let entries = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, stored: &Arc<Stored>| u32::try_from(weight(stored)).unwrap_or(u32::MAX))
            .time_to_live(settings.fresh_for + settings.max_stale.max(settings.stale_error))
            .eviction_listener(move |_, stored: Arc<Stored>, cause| {
                let name = name_of(stored.route);
                if name == CacheName::Flags {
                    share.entries.fetch_sub(1, Ordering::Relaxed);
                    share.bytes.fetch_sub(weight(&stored), Ordering::Relaxed);
                }
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
            flags,
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

    /// Stores a response, unless it is larger than an entry may be. Says whether it did.
    pub fn put(&self, key: Key, stored: Arc<Stored>) -> bool {
        let fits = stored.bytes() <= self.max_entry;
        if fits {
            if name_of(stored.route) == CacheName::Flags {
                self.flags.entries.fetch_add(1, Ordering::Relaxed);
                self.flags.bytes.fetch_add(weight(&stored), Ordering::Relaxed);
            }
            let before = self.entries.get(&key);
            self.entries.insert(key, stored);
            if let Some(before) = before {
                before.superseded.store(true, Ordering::Release);
            }
        }
        fits
    }

    /// What is held of one kind. Does the store's deferred work first, so it is not for the request path.
    #[must_use]
    pub fn reading(&self, name: CacheName) -> CacheReading {
        self.entries.run_pending_tasks();
        let flags = CacheReading {
            entries: self.flags.entries.load(Ordering::Relaxed),
            weight_bytes: self.flags.bytes.load(Ordering::Relaxed),
            max_weight_bytes: self.max_bytes,
        };
        match name {
            CacheName::Flags => flags,
            CacheName::Vardata => CacheReading {
                entries: self.entries.entry_count().saturating_sub(flags.entries),
                weight_bytes: self.entries.weighted_size().saturating_sub(flags.weight_bytes),
                max_weight_bytes: self.max_bytes,
            },
            CacheName::Negative => CacheReading::default(),
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
        _ => CacheName::Vardata,
    }
}

/// The memos' part of the cache budget.
#[must_use]
pub const fn memo_bytes(max_bytes: u64) -> u64 {
    max_bytes / 4
}
