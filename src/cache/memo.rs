//! The memo: from raw request parts to the stored response, per worker, without decoding anything.
//!
//! Invariants: parts are compared byte for byte, so the hash may be a fast one and two different requests
//! never meet in one slot; a slot holds its entry weakly, so what the store evicts is freed; expiry and epoch
//! are read from the entry itself on every use; bytes are bounded, the least recently useful slots go first.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Weak};

use crate::key::Key;

use super::Stored;

/// Bytes a slot costs beyond its parts: the slot, its place in the table and the ring, the entry's shell.
const SLOT_OVERHEAD: usize = 192;

/// Every how many uses of a slot the store is told of one.
const TOUCH_EVERY: u32 = 64;

/// One worker's memo.
#[derive(Debug)]
pub struct Memo {
    slots: HashMap<u64, Slot, PassThrough>,
    /// Slots in the order of the second-chance sweep.
    ring: Vec<u64>,
    hand: usize,
    seed: foldhash::fast::RandomState,
    bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    raw: Box<[u8]>,
    key: Key,
    stored: Weak<Stored>,
    uses: u32,
    used: bool,
}

/// What the memo found.
#[derive(Debug)]
pub struct Found {
    /// The entry.
    pub stored: Arc<Stored>,
    /// Its key.
    pub key: Key,
    /// Whether the store should be told of this use.
    pub touch: bool,
}

impl Memo {
    /// A memo of at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            slots: HashMap::default(),
            ring: Vec::new(),
            hand: 0,
            seed: foldhash::fast::RandomState::default(),
            bytes: 0,
            max_bytes,
        }
    }

    /// The entry that these raw parts led to last time, if the store still holds it.
    #[inline]
    pub fn find(&mut self, raw: &[u8]) -> Option<Found> {
        let slot = self.slots.get_mut(&hash(&self.seed, raw))?;
        if *slot.raw != *raw {
            return None;
        }
        let stored = slot.stored.upgrade()?;
        slot.used = true;
        slot.uses = slot.uses.wrapping_add(1);
        Some(Found {
            stored,
            key: slot.key,
            touch: slot.uses % TOUCH_EVERY == 0,
        })
    }

    /// Remembers that `raw` leads to `stored`. A slot with the same hash is replaced.
    pub fn learn(&mut self, raw: &[u8], key: Key, stored: &Arc<Stored>) {
        let cost = raw.len() + SLOT_OVERHEAD;
        if cost > self.max_bytes {
            return;
        }
        let hash = hash(&self.seed, raw);
        if let Some(slot) = self.slots.get_mut(&hash) {
            self.bytes = self.bytes + raw.len() - slot.raw.len();
            if *slot.raw != *raw {
                slot.raw = Box::from(raw);
            }
            slot.key = key;
            slot.stored = Arc::downgrade(stored);
        } else {
            let slot = Slot {
                raw: Box::from(raw),
                key,
                stored: Arc::downgrade(stored),
                uses: 0,
                used: false,
            };
            self.slots.insert(hash, slot);
            self.ring.push(hash);
            self.bytes += cost;
        }
        while self.bytes > self.max_bytes {
            self.evict_one();
        }
    }

    /// Drops the next slot in the ring that was not used since the hand last passed it, dead ones at once.
    fn evict_one(&mut self) {
        // Two rounds are enough: the first one clears every mark.
        for _ in 0..self.ring.len() * 2 + 1 {
            if self.hand >= self.ring.len() {
                self.hand = 0;
            }
            let Some(&hash) = self.ring.get(self.hand) else {
                break;
            };
            match self.slots.get_mut(&hash) {
                Some(slot) if slot.used && slot.stored.strong_count() > 0 => {
                    slot.used = false;
                    self.hand += 1;
                }
                _ => {
                    if let Some(slot) = self.slots.remove(&hash) {
                        self.bytes -= slot.raw.len() + SLOT_OVERHEAD;
                    }
                    self.ring.swap_remove(self.hand);
                    return;
                }
            }
        }
        self.slots.clear();
        self.ring.clear();
        self.bytes = 0;
    }

    /// Slots held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[inline]
fn hash(seed: &foldhash::fast::RandomState, raw: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write(raw);
    hasher.finish()
}

/// The keys of the table are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct PassThrough;

#[derive(Debug, Default)]
struct Identity(u64);

impl std::hash::BuildHasher for PassThrough {
    type Hasher = Identity;

    fn build_hasher(&self) -> Identity {
        Identity(0)
    }
}

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
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

    fn stored(body: &'static str) -> Arc<Stored> {
        let deployment = Arc::new(Deployment::new(0, DeploymentKey::new(b"k").unwrap(), false));
        let now = Instant::now();
        Arc::new(Stored {
            body: Bytes::from_static(body.as_bytes()),
            content_type: HeaderValue::from_static("application/json"),
            etag: None,
            asked_at: now,
            fresh_until: now + Duration::from_secs(60),
            epoch: 0,
            deployment,
            route: crate::metrics::Route::VardataV2,
            definitions: None,
            marks: crate::cache::stored::Marks::default(),
            held: None,
        })
    }

    fn key() -> Key {
        Keyer::random().unwrap().key(&Encoding::default())
    }

    #[test]
    fn slots_lead_to_their_own_entry_only() {
        let mut memo = Memo::new(100_000);
        let entries: Vec<_> = (0..100).map(|_| stored("x")).collect();
        for (at, entry) in entries.iter().enumerate() {
            memo.learn(format!("request {at}").as_bytes(), key(), entry);
        }
        for (at, entry) in entries.iter().enumerate() {
            let found = memo.find(format!("request {at}").as_bytes()).unwrap();
            assert!(Arc::ptr_eq(&found.stored, entry));
        }
        assert!(memo.find(b"request 100").is_none());
    }

    #[test]
    fn equal_hashes_of_different_parts_never_meet() {
        let mut memo = Memo::new(100_000);
        let entry = stored("x");
        memo.learn(b"one", key(), &entry);
        // What a collision looks like: the slot of this hash holds other parts.
        let collided = hash(&memo.seed, b"two");
        let mut slot = memo.slots.remove(&hash(&memo.seed, b"one")).unwrap();
        slot.used = true;
        memo.slots.insert(collided, slot);
        assert!(memo.find(b"two").is_none());
    }

    #[test]
    fn an_entry_the_store_dropped_is_gone() {
        let mut memo = Memo::new(100_000);
        let entry = stored("x");
        memo.learn(b"one", key(), &entry);
        drop(entry);
        assert!(memo.find(b"one").is_none());
    }

    #[test]
    fn bytes_are_bounded_and_used_slots_stay() {
        let mut memo = Memo::new(50 * (8 + SLOT_OVERHEAD));
        let entry = stored("x");
        memo.learn(b"favorite", key(), &entry);
        for at in 0..10_000 {
            assert!(memo.find(b"favorite").is_some(), "{at}");
            memo.learn(format!("{at:08}").as_bytes(), key(), &entry);
            assert!(memo.bytes() <= 50 * (8 + SLOT_OVERHEAD));
            assert_eq!(memo.slots.len(), memo.ring.len());
        }
        assert_eq!(memo.len(), 50);
    }

    #[test]
    fn one_use_in_64_is_told() {
        let mut memo = Memo::new(100_000);
        let entry = stored("x");
        memo.learn(b"one", key(), &entry);
        let told = (0..640).filter(|_| memo.find(b"one").unwrap().touch).count();
        assert_eq!(told, 10);
    }
}
