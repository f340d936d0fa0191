//! Request ids for requests that bring none: UUID version 7 (OPS 10.2).

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

thread_local! {
    /// State of this thread's random numbers. An id has to be unlike others, not hard to guess.
    static STATE: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    let mut seed = [0; 8];
    // Without random numbers ids are merely less unique.
    let _ = getrandom::fill(&mut seed);
    u64::from_le_bytes(seed)
}

/// The next number of `SplitMix64` (Steele, Lea, Flood 2014).
fn random() -> u64 {
    let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A new id: 48 bits of milliseconds since 1970, then random.
#[must_use]
pub fn fresh() -> HeaderValue {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut bytes = [0u8; 16];
    bytes[8..].copy_from_slice(&random().to_le_bytes());
    bytes[6..8].copy_from_slice(&random().to_le_bytes()[..2]);
    let millis = u64::try_from(since.as_millis()).unwrap_or(0).to_be_bytes();
    bytes[..6].copy_from_slice(&millis[2..]);
    bytes[6] = bytes[6] & 0x0f | 0x70;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [0u8; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text[at] = b'-';
            at += 1;
        }
        for digit in [byte >> 4, byte & 15] {
            text[at] = b"0123456789abcdef"[usize::from(digit)];
            at += 1;
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_uuids_of_version_7_and_differ() {
        let [one, two] = [super::fresh(), super::fresh()];
        assert_ne!(one, two);
        let text = one.to_str().unwrap();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "7");
        assert!("89ab".contains(&text[19..20]));
        assert!(crate::api::answer::is_request_id(&one));
    }
}
