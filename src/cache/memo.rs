//! The memo: from the fingerprint of raw request parts to the stored response, per worker, without decoding anything.
//!
//! Invariants: a slot answers for one fingerprint, all of whose bits are compared, so that two different requests meet
//! in none (see [`Fingerprint`]); a slot holds its entry weakly, so what the store evicts is freed but for its shell;
//! expiry and epoch are read from the entry itself on every use; bytes are bounded, the least recently useful slots go
//! first (second chance, in the order of the slots).

use std::fmt;
use std::sync::{Arc, Weak};

use crate::key::{Fingerprint, Key};

use super::Stored;
use super::places::Places;

/// Bytes that a slot costs at most: itself (64), its share of the index when that has just grown (22), and the shell of an
/// entry that the store has dropped (128).
const SLOT_BYTES: usize = 216;

/// Every how many uses of a slot the store is told of one.
const TOUCH_EVERY: u32 = 64;

/// More slots than memory is for; their numbers have 32 bits.
const N_MAX: usize = 1 << 30;

/// One worker's memo.
pub struct Memo {
    places: Places,
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
            places: Places::default(),
            slots: Vec::new(),
            hand: 0,
            n_max: (max_bytes / SLOT_BYTES).min(N_MAX),
        }
    }

    /// The entry that these raw parts led to last time, if the store still holds it.
    #[inline]
    pub fn find(&mut self, parts: Fingerprint) -> Option<Found> {
        let at = self.at(parts)?;
        let slot = self.slots.get_mut(at)?;
        let stored = slot.stored.upgrade()?;
        slot.used = true;
        slot.uses = slot.uses.wrapping_add(1);
        Some(Found {
            stored,
            key: slot.key,
            touch: slot.uses % TOUCH_EVERY == 0,
        })
    }

    /// The number of the slot for these parts.
    #[inline]
    fn at(&self, parts: Fingerprint) -> Option<usize> {
        let is_it = |at: usize| self.slots.get(at).is_some_and(|slot| slot.fingerprint == parts);
        self.places.find(parts.place(), is_it)
    }

    /// Remembers that `parts` lead to `stored`.
    pub fn learn(&mut self, parts: Fingerprint, key: Key, stored: &Arc<Stored>) {
        let stored = Arc::downgrade(stored);
        if let Some(at) = self.at(parts) {
            let known = &mut self.slots[at];
            known.key = key;
            known.stored = stored;
            // Asked again, though not answered from here.
            known.used = true;
            return;
        }
        let slot = Slot {
            fingerprint: parts,
            key,
            stored,
            uses: 0,
            used: false,
        };
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
            self.places.remove(gone.fingerprint.place(), at);
            at
        } else {
            return;
        };
        self.places.insert(parts.place(), at);
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
        memo.places.insert(texts.of("two").place(), 0);
        assert!(memo.find(texts.of("two")).is_none());
        memo.learn(texts.of("two"), key(), &other);
        for (text, wanted) in [("one", &entry), ("two", &other)] {
            let found = memo.find(texts.of(text)).unwrap();
            assert!(Arc::ptr_eq(&found.stored, wanted), "{text}");
        }
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
        assert_eq!(memo.len(), 1);
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
        // An index is never larger for its slots than with one slot more than three quarters of a power of two.
        for n_max in [97, 769, 1_537, 3_000] {
            let (texts, mut memo) = (Texts::new(), Memo::new(n_max * SLOT_BYTES));
            for at in 0..5 * n_max {
                memo.learn(texts.of(&at.to_string()), key(), &entry);
            }
            let shells = memo.len() * (size_of::<Stored>() + 2 * size_of::<usize>());
            let bytes = memo.slots.capacity() * size_of::<Slot>() + memo.places.bytes() + shells;
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
