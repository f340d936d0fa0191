//! Hashes of flag definitions that do not depend on white space or on the order of members.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

/// A 128-bit hash of parts, stable between processes; the length of each part is hashed with it.
#[derive(Debug)]
pub(in crate::evaluate) struct Hash128(SipHasher24);

impl Hash128 {
    /// The hash of nothing yet. The key is fixed: the hash tells versions apart and keeps no secret.
    pub(in crate::evaluate) fn new() -> Self {
        Self(SipHasher24::new_with_keys(
            0x666c_6167_7369_6465,
            0x6465_6669_6e65_6421,
        ))
    }

    pub(in crate::evaluate) fn part(&mut self, bytes: &[u8]) {
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
    }

    pub(in crate::evaluate) fn finish(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}
