//! `MurmurHash3` x86 32-bit and what Amplitude makes of it.

/// The hash of `bytes`; multi-byte words and the tail are little-endian.
pub fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let mut hash = seed;
    let mut blocks = bytes.chunks_exact(4);
    for block in &mut blocks {
        let mut word = [0; 4];
        word.copy_from_slice(block);
        hash = (hash ^ scrambled(u32::from_le_bytes(word))).rotate_left(13);
        hash = hash.wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let tail = blocks.remainder();
    if !tail.is_empty() {
        let mut word = [0; 4];
        word[..tail.len()].copy_from_slice(tail);
        hash ^= scrambled(u32::from_le_bytes(word));
    }
    // The length counts modulo 2^32, as in the reference code.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the reference takes the length modulo 2^32"
    )]
    let length = bytes.len() as u32;
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
        let hash = murmur3(input, 0);
        Self {
            hash,
            allocation: hash % 100,
            distribution: hash / 100,
        }
    }
}
