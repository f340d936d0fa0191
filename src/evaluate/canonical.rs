//! Hashes of flag definitions that do not depend on white space or on the order of members.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::evaluate::json::{Kind, Value};

/// Appends a value with the members of every object sorted by name, number literals verbatim.
pub(in crate::evaluate) fn write_canonical(value: Value<'_>, out: &mut Vec<u8>) {
    write(value, out, &mut Vec::new());
}

/// `members` holds those of the objects that are being written, the innermost one's last.
fn write<'d>(value: Value<'d>, out: &mut Vec<u8>, members: &mut Vec<(&'d str, Value<'d>)>) {
    if value.is_without_objects() {
        return value.write_compact(out);
    }
    if value.kind() == Kind::Array {
        out.push(b'[');
        for (at, element) in value.elements().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(element, out, members);
        }
        out.push(b']');
        return;
    }
    let start = members.len();
    members.extend(value.members());
    members[start..].sort_unstable_by_key(|(name, _)| *name);
    out.push(b'{');
    for at in start..members.len() {
        if at > start {
            out.push(b',');
        }
        let (name, value) = members[at];
        if value.is_without_objects() {
            value.write_member(name, out);
        } else {
            value.write_name(name, out);
            write(value, out, members);
        }
    }
    out.push(b'}');
    members.truncate(start);
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
