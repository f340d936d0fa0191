//! The memo: from the fingerprint of raw request parts to the stored response, per worker, without decoding anything.
//!
//! Invariants: a slot answers for one fingerprint, all of whose bits are compared, so that two different requests meet
//! in none (see [`Fingerprint`]); a slot holds its entry weakly, so what the store evicts is freed; expiry and epoch
//! are read from the entry itself on every use; bytes are bounded, the least recently useful slots go first.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::key::{Fingerprint, Key};

use super::Stored;

/// Bytes a slot costs: itself, its places in the table and the ring while these have grown, the entry's shell.
const SLOT_BYTES: usize = 192;

/// Every how many uses of a slot the store is told of one.
const TOUCH_EVERY: u32 = 64;

/// One worker's memo.
#[derive(Debug)]
pub struct Memo {
    slots: HashMap<u64, Slot, PassThrough>,
    /// Slots in the order of the second-chance sweep.
    ring: Vec<u64>,
    hand: usize,
    n_max: usize,
}

#[derive(Debug)]
struct Slot {
    fingerprint: Fingerprint,
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
            n_max: max_bytes / SLOT_BYTES,
        }
    }

    /// The entry that these raw parts led to last time, if the store still holds it.
    #[inline]
    pub fn find(&mut self, parts: Fingerprint) -> Option<Found> {
        let slot = self.slots.get_mut(&parts.place())?;
        if slot.fingerprint != parts {
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

    /// Remembers that `parts` lead to `stored`. Of fingerprints with the same place the later one has it.
    pub fn learn(&mut self, parts: Fingerprint, key: Key, stored: &Arc<Stored>) {
        let place = parts.place();
        let stored = Arc::downgrade(stored);
        if let Some(slot) = self.slots.get_mut(&place) {
            slot.fingerprint = parts;
            slot.key = key;
            slot.stored = stored;
            return;
        }
        if self.n_max == 0 {
            return;
        }
        while self.slots.len() >= self.n_max {
            self.evict_one();
        }
        let slot = Slot {
            fingerprint: parts,
            key,
            stored,
            uses: 0,
            used: false,
        };
        self.slots.insert(place, slot);
        self.ring.push(place);
    }

    /// Drops the next slot in the ring that was not used since the hand last passed it, dead ones at once.
    fn evict_one(&mut self) {
        // Two rounds are enough: the first one clears every mark.
        for _ in 0..self.ring.len() * 2 + 1 {
            if self.hand >= self.ring.len() {
                self.hand = 0;
            }
            let Some(&place) = self.ring.get(self.hand) else {
                break;
            };
            match self.slots.get_mut(&place) {
                Some(slot) if slot.used && slot.stored.strong_count() > 0 => {
                    slot.used = false;
                    self.hand += 1;
                }
                _ => {
                    self.slots.remove(&place);
                    self.ring.swap_remove(self.hand);
                    return;
                }
            }
        }
        self.slots.clear();
        self.ring.clear();
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
    pub fn bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }
}

/// The keys of the table are spread already.
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
    use std::time::Instant;

    use super::*;
    use crate::key::Keyer;
    use crate::key::hash::Encoding;
    use crate::metrics::Route;

    fn stored(body: &str) -> Arc<Stored> {
        Arc::new(Stored::sample(body, Instant::now(), Route::VardataV2))
    }

    fn key() -> Key {
        Keyer::random().unwrap().key(&Encoding::default())
    }

    /// Fingerprints of one process.
    struct Texts(Keyer);

    impl Texts {
        fn new() -> Self {
            Self(Keyer::random().unwrap())
        }

        fn of(&self, text: &str) -> Fingerprint {
            self.0.fingerprint(text.as_bytes())
        }
    }

    #[test]
    fn slots_lead_to_their_own_entry_only() {
        let (texts, mut memo) = (Texts::new(), Memo::new(100_000));
        let entries: Vec<_> = (0..100).map(|_| stored("x")).collect();
        for (at, entry) in entries.iter().enumerate() {
            memo.learn(texts.of(&format!("request {at}")), key(), entry);
        }
        for (at, entry) in entries.iter().enumerate() {
            let found = memo.find(texts.of(&format!("request {at}"))).unwrap();
            assert!(Arc::ptr_eq(&found.stored, entry));
        }
        assert!(memo.find(texts.of("request 100")).is_none());
    }

    #[test]
    fn fingerprints_at_the_same_place_never_meet() {
        let (texts, mut memo) = (Texts::new(), Memo::new(100_000));
        let entry = stored("x");
        memo.learn(texts.of("one"), key(), &entry);
        // What a collision looks like: the slot at this place is that of another request.
        let slot = memo.slots.remove(&texts.of("one").place()).unwrap();
        memo.slots.insert(texts.of("two").place(), slot);
        assert!(memo.find(texts.of("two")).is_none());
    }

    #[test]
    fn an_entry_the_store_dropped_is_gone() {
        let (texts, mut memo) = (Texts::new(), Memo::new(100_000));
        let entry = stored("x");
        memo.learn(texts.of("one"), key(), &entry);
        drop(entry);
        assert!(memo.find(texts.of("one")).is_none());
    }

    #[test]
    fn what_is_learnt_anew_leads_to_the_newer_entry() {
        let (texts, mut memo) = (Texts::new(), Memo::new(100_000));
        let [one, other] = ["x", "y"].map(stored);
        for entry in [&one, &other] {
            memo.learn(texts.of("one"), key(), entry);
        }
        let found = memo.find(texts.of("one")).unwrap();
        assert!(Arc::ptr_eq(&found.stored, &other));
        assert_eq!((memo.len(), memo.ring.len()), (1, 1));
    }

    #[test]
    fn bytes_are_bounded_and_used_slots_stay() {
        let (texts, mut memo) = (Texts::new(), Memo::new(50 * SLOT_BYTES));
        let entry = stored("x");
        memo.learn(texts.of("favorite"), key(), &entry);
        for at in 0..10_000 {
            assert!(memo.find(texts.of("favorite")).is_some(), "{at}");
            memo.learn(texts.of(&format!("{at:08}")), key(), &entry);
            assert!(memo.bytes() <= 50 * SLOT_BYTES);
            assert_eq!(memo.slots.len(), memo.ring.len());
        }
        assert_eq!(memo.len(), 50);
    }

    #[test]
    fn a_memo_without_room_holds_nothing() {
        let (texts, mut memo) = (Texts::new(), Memo::new(SLOT_BYTES - 1));
        memo.learn(texts.of("one"), key(), &stored("x"));
        assert!(memo.is_empty());
    }

    #[test]
    fn one_use_in_64_is_told() {
        let (texts, mut memo) = (Texts::new(), Memo::new(100_000));
        let entry = stored("x");
        memo.learn(texts.of("one"), key(), &entry);
        let told = (0..640)
            .filter(|_| memo.find(texts.of("one")).unwrap().touch)
            .count();
        assert_eq!(told, 10);
    }
}
