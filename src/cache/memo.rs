//! The memo: from the fingerprint of raw request parts to the stored response, per worker, without decoding anything.
//!
//! Invariants: a slot answers for one fingerprint, all of whose bits are compared, so that two different requests meet
//! in none (see [`Fingerprint`]); a slot holds its entry weakly, so what the store evicts is freed but for its shell;
//! expiry and epoch are read from the entry itself on every use; bytes are bounded, the least recently useful slots go
//! first (second chance, in the order of the slots).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use crate::key::{Fingerprint, Key};

use super::Stored;

/// Bytes that a slot costs at most: itself (64), its share of the table when that has just grown (78), and the shell of an
/// entry that the store has dropped (128).
const SLOT_BYTES: usize = 272;

/// Every how many uses of a slot the store is told of one.
const TOUCH_EVERY: u32 = 64;

/// One worker's memo.
pub struct Memo {
    /// Where in `slots` the slot of each place is.
    table: HashMap<u64, u32, PassThrough>,
    slots: Vec<Slot>,
    /// The slot that goes next, unless it was used since it was last looked at.
    hand: usize,
    n_max: usize,
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("len", &self.len())
            .field("n_max", &self.n_max)
            .finish_non_exhaustive()
    }
}

struct Slot {
    fingerprint: Fingerprint,
    key: Key,
    stored: Weak<Stored>,
    uses: u32,
    used: bool,
}

/// A line of the processor's cache.
const _: () = assert!(size_of::<Slot>() <= 64);

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
            table: HashMap::default(),
            slots: Vec::new(),
            hand: 0,
            n_max: (max_bytes / SLOT_BYTES).min(u32::MAX as usize),
        }
    }

    /// The entry that these raw parts led to last time, if the store still holds it.
    #[inline]
    pub fn find(&mut self, parts: Fingerprint) -> Option<Found> {
        let at = *self.table.get(&parts.place())?;
        let slot = self.slots.get_mut(at as usize)?;
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
        let slot = Slot {
            fingerprint: parts,
            key,
            stored: Arc::downgrade(stored),
            uses: 0,
            used: false,
        };
        let place = parts.place();
        if let Some(known) = self
            .table
            .get(&place)
            .and_then(|at| self.slots.get_mut(*at as usize))
        {
            *known = slot;
            return;
        }
        let at = if self.slots.len() < self.n_max {
            if self.slots.len() == self.slots.capacity() {
                // Doubled, but never beyond what it may hold.
                let room = self.slots.len().max(4).min(self.n_max - self.slots.len());
                self.slots.reserve_exact(room);
            }
            self.slots.push(slot);
            self.slots.len() - 1
        } else if let Some(at) = self.least_useful() {
            let gone = std::mem::replace(&mut self.slots[at], slot);
            self.table.remove(&gone.fingerprint.place());
            at
        } else {
            return;
        };
        #[allow(clippy::cast_possible_truncation, reason = "there are fewer slots than that")]
        self.table.insert(place, at as u32);
    }

    /// The next slot whose entry is gone or was not used since the hand last passed it; `None` if there is no slot.
    fn least_useful(&mut self) -> Option<usize> {
        // Two rounds are enough: the first one clears every mark.
        for _ in 0..=2 * self.slots.len() {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len().max(1);
            let slot = self.slots.get_mut(at)?;
            if !slot.used || slot.stored.strong_count() == 0 {
                return Some(at);
            }
            slot.used = false;
        }
        None
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
        let [entry, other] = ["x", "y"].map(stored);
        memo.learn(texts.of("one"), key(), &entry);
        // What a collision looks like: the slot at this place is that of another request.
        memo.table.insert(texts.of("two").place(), 0);
        assert!(memo.find(texts.of("two")).is_none());
        memo.learn(texts.of("two"), key(), &other);
        let found = memo.find(texts.of("two")).unwrap();
        assert!(Arc::ptr_eq(&found.stored, &other));
        assert!(memo.find(texts.of("one")).is_none());
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
        assert_eq!((memo.len(), memo.table.len()), (1, 1));
    }

    #[test]
    fn slots_are_bounded_and_used_ones_stay() {
        let (texts, mut memo) = (Texts::new(), Memo::new(50 * SLOT_BYTES));
        let entry = stored("x");
        memo.learn(texts.of("favorite"), key(), &entry);
        for at in 0..10_000 {
            assert!(memo.find(texts.of("favorite")).is_some(), "{at}");
            memo.learn(texts.of(&format!("{at:08}")), key(), &entry);
            assert!(memo.len() <= 50);
            assert_eq!(memo.slots.len(), memo.table.len());
        }
        assert_eq!(memo.len(), 50);
        assert!(memo.find(texts.of("00009999")).is_some());
    }

    #[test]
    fn those_whose_entries_are_gone_go_first() {
        let (texts, mut memo) = (Texts::new(), Memo::new(3 * SLOT_BYTES));
        let [entry, gone] = ["x", "y"].map(stored);
        for (text, entry) in [("one", &entry), ("gone", &gone), ("two", &entry)] {
            memo.learn(texts.of(text), key(), entry);
            assert!(memo.find(texts.of(text)).is_some());
        }
        drop(gone);
        memo.learn(texts.of("three"), key(), &entry);
        for text in ["one", "two", "three"] {
            assert!(memo.find(texts.of(text)).is_some(), "{text}");
        }
    }

    /// What is allocated, with the entries' shells, is what is allowed, however slots come and go.
    #[test]
    fn bytes_are_bounded() {
        let entry = stored("x");
        // A table is never larger for its slots than with one slot more than fit into half of it.
        for n_max in [449, 897, 1_793, 3_585] {
            let (texts, mut memo) = (Texts::new(), Memo::new(n_max * SLOT_BYTES));
            let mut most = 0;
            for at in 0..5 * n_max {
                memo.learn(texts.of(&at.to_string()), key(), &entry);
                let buckets = (memo.table.capacity() * 8 / 7).next_power_of_two();
                most = most.max(buckets * (size_of::<(u64, u32)>() + 1));
            }
            let shells = memo.len() * (size_of::<Stored>() + 2 * size_of::<usize>());
            let bytes = memo.slots.capacity() * size_of::<Slot>() + most + shells;
            assert!(bytes <= n_max * SLOT_BYTES, "{n_max}: {bytes} bytes");
        }
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
