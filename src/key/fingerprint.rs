//! Fingerprints of raw request parts: 256 bits instead of all of their bytes, so that a memo may forget those.
//!
//! A fingerprint is two passes of NH, the universal hash of UMAC (RFC 4418), over words of 64 bits, the second with its
//! secret moved on by one pair (the paper's Toeplitz construction). Two different texts of up to 16 KiB have the same
//! fingerprint with a probability below 2^-126 over the choice of the secret, whatever the texts are: that is a theorem,
//! not a hope in mixing. The secret is random, made once per process, and neither it nor a fingerprint ever leaves the
//! process: nobody can choose texts by it, and all that an answer shows of two fingerprints is that they differ.
//! Longer texts have 128 bits of the keyed hash that cache keys are made with.
//!
//! It is one multiplication per pass and 16 bytes, and needs no memory but the text and the secret, which stays near:
//! comparing with what was kept instead reads as many bytes again from memory that nobody has touched for a while.

use std::fmt;

/// Bytes of the longest text that has a fingerprint by NH: what a connection reads at once.
pub(super) const LENGTH_MAX: usize = 16 * 1024;
/// Bytes of a pair of words, which one multiplication takes.
const PAIR: usize = 16;
/// One pair for the length, one for each of the text, and one that the second pass is ahead.
const PAIRS: usize = 1 + LENGTH_MAX / PAIR + 1;

/// What stands for raw parts in a memo. Equal parts have equal fingerprints, different ones never, but for a chance about
/// as small as that of two cache keys to meet.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Fingerprint([u64; 4]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(***)")
    }
}

impl Fingerprint {
    /// For what is too long for NH: a keyed hash of it.
    pub(super) const fn from_hash(hash: u128) -> Self {
        Self([low(hash), high(hash), 0, 0])
    }

    /// 32 bits for the place in an index: the words of NH alone are not spread evenly.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "both halves are used")]
    pub fn place(self) -> u32 {
        let [a, b, c, d] = self.0;
        let product = u128::from(a ^ c) * u128::from((b ^ d) | 1);
        ((product as u64) ^ ((product >> 64) as u64)) as u32
    }
}

/// The secret of the two passes: pairs of random words.
#[derive(Clone)]
pub(super) struct Secret(Box<[[u64; 2]]>);

impl Secret {
    /// One from the system's random numbers.
    ///
    /// # Errors
    /// When the system has no random numbers to give.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = vec![0; PAIRS * PAIR];
        getrandom::fill(&mut bytes)?;
        let (pairs, _) = bytes.as_chunks();
        Ok(Self(pairs.iter().map(words).collect()))
    }

    /// The fingerprint of a text of at most [`LENGTH_MAX`] bytes; of a longer one `None`.
    #[inline]
    pub(super) fn fingerprint(&self, text: &[u8]) -> Option<Fingerprint> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        let (pairs, rest) = text.as_chunks();
        let n = pairs.len();
        let mut sums = [0; 2];
        // Texts that differ only in zeros at their end differ here.
        add(&mut sums, [text.len() as u64, 0], self.0.first()?, self.0.get(1)?);
        // As many secrets as pairs, or none at all: nothing of the text may be passed over.
        let (own, ahead) = (self.0.get(1..=n)?, self.0.get(2..n + 2)?);
        for ((pair, one), other) in pairs.iter().zip(own).zip(ahead) {
            add(&mut sums, words(pair), one, other);
        }
        if !rest.is_empty() {
            let mut last = [0; PAIR];
            last[..rest.len()].copy_from_slice(rest);
            add(&mut sums, words(&last), self.0.get(n + 1)?, self.0.get(n + 2)?);
        }
        let [one, other] = sums;
        Some(Fingerprint([low(one), high(one), low(other), high(other)]))
    }
}

/// Adds a pair of words to the sums of both passes, each time as `(m + k) (n + l)`: sums modulo 2^64, the product whole.
#[inline]
fn add(sums: &mut [u128; 2], [m, n]: [u64; 2], one: &[u64; 2], other: &[u64; 2]) {
    for (sum, [k, l]) in sums.iter_mut().zip([one, other]) {
        let product = u128::from(m.wrapping_add(*k)) * u128::from(n.wrapping_add(*l));
        *sum = sum.wrapping_add(product);
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves are taken")]
const fn words(pair: &[u8; PAIR]) -> [u64; 2] {
    let both = u128::from_le_bytes(*pair);
    [low(both), high(both)]
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn low(number: u128) -> u64 {
    number as u64
}

const fn high(number: u128) -> u64 {
    (number >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn secret() -> Secret {
        Secret::random().unwrap()
    }

    /// NH as the paper writes it, one word after the other.
    fn reference(secret: &Secret, text: &[u8], ahead: usize) -> u128 {
        let keys: Vec<u64> = secret.0.iter().flatten().skip(2 * ahead).copied().collect();
        let mut message = vec![text.len() as u64, 0];
        let mut padded = text.to_vec();
        padded.resize(text.len().div_ceil(PAIR) * PAIR, 0);
        for word in padded.chunks(8) {
            message.push(u64::from_le_bytes(word.try_into().unwrap()));
        }
        let mut sum = 0u128;
        for at in (0..message.len()).step_by(2) {
            let [one, other] = [0, 1].map(|n| u128::from(message[at + n].wrapping_add(keys[at + n])));
            sum = sum.wrapping_add(one * other);
        }
        sum
    }

    fn assert_nh_twice(text: &[u8]) {
        let secret = secret();
        let Fingerprint([a, b, c, d]) = secret.fingerprint(text).unwrap();
        let whole = |low, high| u128::from(high) << 64 | u128::from(low);
        assert_eq!(whole(a, b), reference(&secret, text, 0), "{}", text.len());
        assert_eq!(whole(c, d), reference(&secret, text, 1), "{}", text.len());
    }

    proptest! {
        #[test]
        fn it_is_nh_twice(text in prop::collection::vec(any::<u8>(), 0..600)) {
            assert_nh_twice(&text);
        }
    }

    proptest! {
        #[test]
        fn equal_texts_and_no_others_have_equal_fingerprints(
            text in prop::collection::vec(any::<u8>(), 0..400),
            cut in any::<prop::sample::Index>(),
            change in any::<u8>(),
        ) {
            let secret = secret();
            let own = secret.fingerprint(&text);
            let elsewhere = [&[change], &*text].concat();
            prop_assert_eq!(own, secret.fingerprint(&elsewhere[1..]));
            let at = cut.index(text.len() + 1);
            let mut changed = text.clone();
            changed.rotate_left(at);
            prop_assert_eq!(changed == text, own == secret.fingerprint(&changed));
            let mut changed = text.clone();
            changed.insert(at, change);
            prop_assert_ne!(own, secret.fingerprint(&changed));
            if let Some(byte) = text.get(at) {
                let mut changed = text.clone();
                changed[at] = change;
                prop_assert_eq!(*byte == change, own == secret.fingerprint(&changed));
                prop_assert_ne!(own, secret.fingerprint(&text[..at]));
            }
        }
    }

    #[test]
    fn near_texts_differ() {
        let secret = secret();
        let mut seen = HashSet::new();
        let mut n_texts = 0;
        // All lengths of zeros, and one bit at each place of the longest.
        for length in 0..=200 {
            seen.insert(secret.fingerprint(&vec![0; length]).unwrap().0);
            n_texts += 1;
        }
        for bit in 0..200 * 8 {
            let mut text = vec![0; 200];
            text[bit / 8] |= 1 << (bit % 8);
            seen.insert(secret.fingerprint(&text).unwrap().0);
            n_texts += 1;
        }
        assert_eq!(seen.len(), n_texts);
    }

    #[test]
    fn places_of_near_texts_are_spread() {
        let secret = secret();
        let mut buckets = [0usize; 64];
        for number in 0..64_000u32 {
            let text = format!("GET /v1/vardata?user_id={number}");
            let place = secret.fingerprint(text.as_bytes()).unwrap().place();
            buckets[usize::try_from(place % 64).unwrap()] += 1;
            buckets[usize::try_from(place >> 26).unwrap()] += 1;
        }
        // 2,000 each; nine standard deviations.
        assert!(buckets.iter().all(|n| (1_600..2_400).contains(n)), "{buckets:?}");
    }

    #[test]
    fn every_byte_of_long_texts_counts() {
        for length in [4_000, LENGTH_MAX - PAIR, LENGTH_MAX - 1, LENGTH_MAX] {
            let text: Vec<u8> = (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect();
            assert_nh_twice(&text);
        }
        let secret = secret();
        let mut text = vec![7; LENGTH_MAX];
        let longest = secret.fingerprint(&text).unwrap();
        for at in (0..LENGTH_MAX).step_by(PAIR / 2) {
            text[at] = 8;
            assert_ne!(longest, secret.fingerprint(&text).unwrap(), "{at}");
            text[at] = 7;
        }
        for more in [1, PAIR, 2 * PAIR] {
            assert_eq!(secret.fingerprint(&vec![7; LENGTH_MAX + more]), None);
        }
    }

    #[test]
    fn a_secret_that_is_too_short_cuts_no_text() {
        let mut secret = secret();
        secret.0 = secret.0.iter().take(4).copied().collect();
        let has = |length: usize| secret.fingerprint(&vec![7; length]).is_some();
        assert_eq!([0, 32, 33, 48].map(has), [true, true, false, false]);
    }

    #[test]
    fn all_words_of_a_secret_differ() {
        let words: HashSet<u64> = secret().0.iter().flatten().copied().collect();
        assert_eq!(words.len(), 2 * PAIRS);
    }

    #[test]
    fn all_of_a_keyed_hash_is_in() {
        let hashes = [0, 1, 1 << 64].map(Fingerprint::from_hash);
        assert!(hashes[0] != hashes[1] && hashes[0] != hashes[2] && hashes[1] != hashes[2]);
    }

    #[test]
    fn it_depends_on_the_secret_and_shows_nothing() {
        let [one, other] = [secret(), secret()].map(|secret| secret.fingerprint(b"text").unwrap());
        assert_ne!(one, other);
        assert_eq!(format!("{one:?}"), "Fingerprint(***)");
    }
}
