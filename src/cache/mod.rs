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
    evictions: Arc<Evictions>,
}

/// Entries that left the store, by cause.
#[derive(Debug, Default)]
pub struct Evictions {
    /// For want of room.
    pub size: AtomicU64,
    /// Older than anything may be.
    pub expired: AtomicU64,
    /// By a newer answer to the same question.
    pub replaced: AtomicU64,
}

impl Cache {
    /// A store of `settings.max_bytes`, of which the memos of all workers take a quarter.
    #[must_use]
    pub fn new(settings: &config::Cache) -> Self {
        let max_bytes = settings.max_bytes - memo_bytes(settings.max_bytes);
        let evictions = Arc::new(Evictions::default());
        let counted = Arc::clone(&evictions);
        let entries = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, stored: &Arc<Stored>| u32::try_from(stored.bytes() + ENTRY_OVERHEAD).unwrap_or(u32::MAX))
            .time_to_live(settings.fresh_for + settings.max_stale.max(settings.stale_error))
            .eviction_listener(move |_, _, cause| {
                let counter = match cause {
                    RemovalCause::Size => &counted.size,
                    RemovalCause::Expired => &counted.expired,
                    RemovalCause::Replaced | RemovalCause::Explicit => &counted.replaced,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self { entries, max_bytes, max_entry: settings.max_entry, evictions }
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
            self.entries.insert(key, stored);
        }
        fits
    }

    /// Entries held, about.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.entry_count()
    }

    /// Bytes held, about.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.entries.weighted_size()
    }

    /// Bytes that may be held.
    #[must_use]
    pub const fn max_weight(&self) -> u64 {
        self.max_bytes
    }

    /// What left the store so far.
    #[must_use]
    pub fn evictions(&self) -> &Evictions {
        &self.evictions
    }

    /// Does the store's deferred work, so that counts are exact. For tests and scrapes.
    pub fn settle(&self) {
        self.entries.run_pending_tasks();
    }
}

/// The memos' part of the cache budget.
#[must_use]
pub const fn memo_bytes(max_bytes: u64) -> u64 {
    max_bytes / 4
}
