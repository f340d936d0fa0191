//! Cache keys: 128 bits of a keyed hash, with a random key per process. The same process's fingerprints, too.

use std::fmt;
use std::hash::Hasher as _;

use siphasher::sip128::{Hash128, Hasher128 as _, SipHasher13};

use super::fingerprint::{Fingerprint, Secret};

/// The cache key of a question.
///
/// A collision would hand one user another's variants, so it is 128 bits wide and keyed with bytes
/// that nobody outside the process knows: collisions cannot be searched for.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key([u64; 2]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.0;
        write!(f, "{high:016x}{low:016x}")
    }
}

impl Key {
    /// Lower 64 bits, for choosing a shard.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    pub const fn shard(self) -> usize {
        self.0[0] as usize
    }
}

/// Makes keys and fingerprints; one per process.
#[derive(Clone)]
pub struct Keyer {
    seed: [u8; 16],
    secret: Secret,
}

impl fmt::Debug for Keyer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyer(***)")
    }
}

impl Keyer {
    /// A keyer with a seed of its own from the system's random numbers.
    ///
    /// # Errors
    /// When the system has no random numbers to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed)?;
        Ok(Self {
            seed,
            secret: Secret::random()?,
        })
    }

    /// The key of an unambiguous encoding (see [`Encoding`]).
    #[must_use]
    pub fn key(&self, encoding: &Encoding) -> Key {
        let Hash128 { h1, h2 } = self.siphash(&encoding.0);
        Key([h1, h2])
    }

    /// The fingerprint of raw parts. Very long ones have their `SipHash` for one: 128 bits, as a key.
    #[inline]
    #[must_use]
    pub fn fingerprint(&self, raw: &[u8]) -> Fingerprint {
        self.secret
            .fingerprint(raw)
            .unwrap_or_else(|| Fingerprint::from_hash(self.siphash(raw).as_u128()))
    }

    fn siphash(&self, bytes: &[u8]) -> Hash128 {
        let mut hasher = SipHasher13::new_with_key(&self.seed);
        hasher.write(bytes);
        hasher.finish128()
    }
}

/// Parts of a question one after the other, each with its length in front, so that no two lists of
/// parts have the same bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Encoding(Vec<u8>);

impl Encoding {
    /// An empty encoding with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Appends one part.
    pub fn part(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_le_bytes());
        self.0.extend_from_slice(part);
    }

    /// Appends a part that may be absent; absent and empty differ.
    pub fn optional(&mut self, part: Option<&[u8]>) {
        match part {
            Some(part) => {
                self.0.push(1);
                self.part(part);
            }
            None => self.0.push(0),
        }
    }

    /// Appends a list of parts with their number in front.
    pub fn list<'p>(&mut self, parts: impl ExactSizeIterator<Item = &'p [u8]>) {
        self.number(parts.len() as u64);
        for part in parts {
            self.part(part);
        }
    }

    /// Appends a number.
    pub fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::LENGTH_MAX;
    use super::*;

    fn list(parts: &[&str]) -> Encoding {
        let mut encoding = Encoding::default();
        encoding.list(parts.iter().map(|part| part.as_bytes()));
        encoding
    }

    #[test]
    fn different_lists_of_parts_have_different_encodings() {
        assert_ne!(list(&["ab", "c"]), list(&["a", "bc"]));
        assert_ne!(list(&["", "a"]), list(&["a", ""]));
        assert_ne!(list(&[]), list(&[""]));
        let [mut absent, mut empty] = [Encoding::default(), Encoding::default()];
        absent.optional(None);
        empty.optional(Some(b""));
        assert_ne!(absent, empty);
    }

    #[test]
    fn keys_depend_on_the_process() {
        let [one, two] = [Keyer::random().unwrap(), Keyer::random().unwrap()];
        assert_eq!(one.key(&list(&["a"])), one.key(&list(&["a"])));
        assert_ne!(one.key(&list(&["a"])), two.key(&list(&["a"])));
        assert!(!format!("{one:?}").contains(|digit: char| digit.is_ascii_digit()));
    }

    #[test]
    fn texts_of_every_length_have_fingerprints() {
        let keyer = Keyer::random().unwrap();
        for length in [
            LENGTH_MAX - 1,
            LENGTH_MAX,
            LENGTH_MAX + 1,
            LENGTH_MAX + 16,
            100 * LENGTH_MAX,
        ] {
            let text = vec![b'x'; length];
            let mut other = text.clone();
            other[length - 1] = b'y';
            let [one, same] = [(); 2].map(|()| keyer.fingerprint(&text));
            assert_eq!(one, same, "{length}");
            assert_ne!(one, keyer.fingerprint(&other), "{length}");
            assert_ne!(one, keyer.fingerprint(&text[1..]), "{length}");
        }
    }
}
