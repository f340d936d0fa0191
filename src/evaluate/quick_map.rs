//! Maps with a quick hash, for keys that come from flag configurations.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from texts of the flag configuration, looked up with texts of users.
pub(in crate::evaluate) type WordMap<V> = QuickMap<Box<str>, V>;

/// A map with a quick hash.
pub(in crate::evaluate) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<QuickHasher>>;

/// A quick hash. What goes into the maps comes from the flag configuration, so that users cannot choose
/// texts that collide.
#[derive(Debug, Default)]
pub(in crate::evaluate) struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut hash = self.0 ^ bytes.len() as u64;
        let (words, tail) = bytes.as_chunks();
        for word in words {
            hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER);
            hash ^= hash >> 29;
        }
        let word = tail.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 29;
        self.0 = hash;
    }

    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_le_bytes());
    }

    fn write_isize(&mut self, number: isize) {
        self.write(&number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write(&number.to_le_bytes());
    }

    fn write_u8(&mut self, _: u8) {
        // The terminator of a `str`: the length is hashed already.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
