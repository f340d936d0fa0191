//! Hashes of flag definitions that do not depend on white space or on the order of members.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::evaluate::json::{Kind, Value, write_string};

/// Appends a value with the members of every object sorted by name, number literals verbatim.
pub(in crate::evaluate) fn write_canonical(value: Value<'_>, out: &mut Vec<u8>) {
    match value.kind() {
        Kind::Object => {
            let mut members: Vec<_> = value.members().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_canonical(value, out);
            }
            out.push(b'}');
        }
        Kind::Array => {
            out.push(b'[');
            for (at, element) in value.elements().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_canonical(element, out);
            }
            out.push(b']');
        }
        Kind::Null | Kind::Bool | Kind::Number | Kind::String => value.write_compact(out),
    }
}

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
