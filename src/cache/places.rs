//! Which slot is at which place: an index that is one line of the processor's cache away, whatever it holds.
//!
//! Open addressing with linear probing. A bucket holds a place and a slot's number; nothing is left behind by what is
//! removed, so that an index never grows for churn: it has less than 2.7 buckets of 8 bytes per slot.

use std::fmt;

/// A bucket without a slot; no slot has this number.
const EMPTY: u64 = u64::MAX;
/// Buckets of the smallest index.
const BUCKETS_MIN: usize = 16;

/// Slots by place. Several may be at the same place.
#[derive(Default)]
pub(super) struct Places {
    /// A power of two of them, of which at least a quarter is empty; none at all before the first slot.
    buckets: Vec<u64>,
    len: usize,
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Places {
    /// The slot at `place` that `is_it`.
    #[inline]
    pub(super) fn find(&self, place: u32, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let mask = self.buckets.len().checked_sub(1)?;
        let mut at = place as usize & mask;
        loop {
            let bucket = *self.buckets.get(at)?;
            if bucket == EMPTY {
                return None;
            }
            if place_of(bucket) == place && is_it(slot_of(bucket)) {
                return Some(slot_of(bucket));
            }
            at = (at + 1) & mask;
        }
    }

    /// Puts a slot at a place. Its number is below 2^32 - 1.
    pub(super) fn insert(&mut self, place: u32, slot: usize) {
        if (self.len + 1) * 4 > self.buckets.len() * 3 {
            let room = (self.buckets.len() * 2).max(BUCKETS_MIN);
            let before = std::mem::replace(&mut self.buckets, vec![EMPTY; room]);
            for bucket in before.into_iter().filter(|bucket| *bucket != EMPTY) {
                self.put(bucket);
            }
        }
        self.put(u64::from(place) << 32 | slot as u64);
        self.len += 1;
    }

    fn put(&mut self, bucket: u64) {
        let mask = self.buckets.len() - 1;
        let mut at = place_of(bucket) as usize & mask;
        while self.buckets[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.buckets[at] = bucket;
    }

    /// Takes a slot from its place, if it is there.
    pub(super) fn remove(&mut self, place: u32, slot: usize) {
        let Some(mask) = self.buckets.len().checked_sub(1) else {
            return;
        };
        let wanted = u64::from(place) << 32 | slot as u64;
        let mut hole = place as usize & mask;
        while self.buckets[hole] != wanted {
            if self.buckets[hole] == EMPTY {
                return;
            }
            hole = (hole + 1) & mask;
        }
        // What was pushed behind it moves up, unless that would be before its own place.
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let bucket = self.buckets[next];
            if bucket == EMPTY {
                break;
            }
            let home = place_of(bucket) as usize & mask;
            let [from_home, from_hole] = [home, hole].map(|before| next.wrapping_sub(before) & mask);
            if from_home >= from_hole {
                self.buckets[hole] = bucket;
                hole = next;
            }
        }
        self.buckets[hole] = EMPTY;
        self.len -= 1;
    }

    /// Bytes that are allocated.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<u64>()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the upper half is what is wanted")]
const fn place_of(bucket: u64) -> u32 {
    (bucket >> 32) as u32
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
const fn slot_of(bucket: u64) -> usize {
    bucket as u32 as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Places that share their low bits, so that slots push each other on, also around the end.
        #[test]
        fn slots_are_found_where_they_were_put(
            steps in prop::collection::vec((any::<bool>(), 0..40usize, prop::sample::select(&[0, 1, 2, 14, 15, 31, 47][..])), 0..400),
        ) {
            let mut places = Places::default();
            let mut model = BTreeSet::new();
            for (adds, slot, place) in steps {
                if !adds {
                    places.remove(place, slot);
                    model.remove(&(place, slot));
                } else if model.insert((place, slot)) {
                    places.insert(place, slot);
                }
                prop_assert_eq!(places.len, model.len());
                let there = places.buckets.iter().filter(|bucket| **bucket != EMPTY).count();
                prop_assert_eq!(there, model.len());
            }
            for place in [0, 1, 2, 14, 15, 31, 47, 63] {
                for slot in 0..40 {
                    let found = places.find(place, |at| at == slot);
                    prop_assert_eq!(found.is_some(), model.contains(&(place, slot)), "{} {}", place, slot);
                }
            }
        }
    }

    #[test]
    fn an_empty_index_has_nothing() {
        let mut places = Places::default();
        places.remove(1, 1);
        assert_eq!(places.find(1, |_| true), None);
        assert_eq!(places.bytes(), 0);
    }
}
