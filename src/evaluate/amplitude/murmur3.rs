//! `MurmurHash3` x86 32-bit and what Amplitude makes of it.

/// The hash of `bytes`; multi-byte words and the tail are little-endian.
pub fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let (blocks, tail) = bytes.as_chunks();
    finished(blocks.iter().fold(seed, mixed), tail, bytes.len())
}

fn mixed(hash: u32, block: &[u8; 4]) -> u32 {
    let hash = (hash ^ scrambled(u32::from_le_bytes(*block))).rotate_left(13);
    hash.wrapping_mul(5).wrapping_add(0xe654_6b64)
}

/// Mixes the last up to three bytes and the length in.
fn finished(mut hash: u32, tail: &[u8], length: usize) -> u32 {
    let word = little_endian(tail);
    if word != 0 {
        hash ^= scrambled(word);
    }
    // The length counts modulo 2^32, as in the reference code.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the reference takes the length modulo 2^32"
    )]
    let length = length as u32;
    hash ^= length;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn scrambled(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593)
}

/// Where a user falls in a flag's split.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bucketed {
    /// `MurmurHash3` with seed 0 over the UTF-8 of `salt/value`.
    pub hash: u32,
    /// The hash modulo 100: compared with the ranges of allocations, `0..=99`.
    pub allocation: u32,
    /// The hash divided by 100: compared with the ranges of distributions, `0..=42_949_672`.
    pub distribution: u32,
}

impl Bucketed {
    /// The bucket of `input`, which is the salt, a slash and the text of the property.
    pub fn of(input: &[u8]) -> Self {
        Self::at(murmur3(input, 0))
    }

    fn at(hash: u32) -> Self {
        Self {
            hash,
            allocation: hash % 100,
            distribution: hash / 100,
        }
    }
}

/// A salt with its slash, hashed as far as that goes before the text is known.
#[derive(Debug)]
pub(super) struct Salted {
    hash: u32,
    /// The bytes after the last whole block, the first one lowest.
    pending: u32,
    /// How many these are: 0 to 3.
    pending_bytes: usize,
    length: usize,
}

impl Salted {
    pub(super) fn new(salt: &str) -> Self {
        let bytes = [salt.as_bytes(), b"/"].concat();
        let (blocks, rest) = bytes.as_chunks();
        Self {
            hash: blocks.iter().fold(0, mixed),
            pending: little_endian(rest),
            pending_bytes: rest.len(),
            length: bytes.len(),
        }
    }

    /// The bucket of `salt/text`.
    pub(super) fn bucketed(&self, text: &str) -> Bucketed {
        let bytes = text.as_bytes();
        let length = self.length + bytes.len();
        let Some(start) = bytes.first_chunk() else {
            return self.bucketed_short(bytes);
        };
        let first = self.pending | u32::from_le_bytes(*start) << (8 * self.pending_bytes);
        let (blocks, tail) = bytes[4 - self.pending_bytes..].as_chunks();
        let hash = mixed(self.hash, &first.to_le_bytes());
        Bucketed::at(finished(blocks.iter().fold(hash, mixed), tail, length))
    }

    /// The same for a text that does not fill a block.
    fn bucketed_short(&self, text: &[u8]) -> Bucketed {
        let mut rest = self.pending.to_le_bytes()[..self.pending_bytes].to_vec();
        rest.extend_from_slice(text);
        let (blocks, tail) = rest.as_chunks();
        let length = self.length + text.len();
        Bucketed::at(finished(blocks.iter().fold(self.hash, mixed), tail, length))
    }
}

/// Up to three bytes as a word, the first one lowest.
fn little_endian(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_salt_hashed_before_gives_the_same(salt: String, text: String) {
            let whole = Bucketed::of(format!("{salt}/{text}").as_bytes());
            proptest::prop_assert_eq!(Salted::new(&salt).bucketed(&text), whole);
        }

        #[test]
        fn short_salts_and_texts_too(salt in "[a-c]{0,5}", text in "[a-c]{0,5}") {
            let whole = Bucketed::of(format!("{salt}/{text}").as_bytes());
            proptest::prop_assert_eq!(Salted::new(&salt).bucketed(&text), whole);
        }
    }
}
