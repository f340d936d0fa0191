//! Where a key falls in a split (FB 5.6).

use md5::{Digest, Md5};

/// How much of the top of a range may be missing from one for it to hold everybody.
const TOLERANCE: f64 = 1e-5;

/// Where a key falls: `0.0..=1.0`, of the MD5 of its UTF-8.
///
/// The first four bytes of the hash, as a little-endian signed integer, divided by its least value.
pub(super) fn position(key: &[u8]) -> f64 {
    let hash = Md5::digest(key);
    let first = [hash[0], hash[1], hash[2], hash[3]];
    (f64::from(i32::from_le_bytes(first)) / f64::from(i32::MIN)).abs()
}

/// Whether a range, both ends inclusive, holds a position that is only computed if it counts.
#[allow(clippy::float_cmp, reason = "FeatBit compares exactly")]
pub(super) fn holds([min, max]: [f64; 2], position: impl FnOnce() -> f64) -> bool {
    if min == 0.0 && 1.0 - max < TOLERANCE {
        return true;
    }
    if min == 0.0 && max == 0.0 {
        return false;
    }
    let position = position();
    min <= position && position <= max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_inclusive_and_nearly_everybody_is_everybody() {
        let never = || -> f64 { panic!("the position does not count") };
        assert!(holds([0.0, 1.0], never));
        assert!(holds([0.0, 0.999_991], never));
        assert!(!holds([0.0, 0.0], never));
        assert!(holds([-0.0, 1.5], never));
        assert!(!holds([0.0, 0.99], || 0.995));
        assert!(holds([0.2, 0.5], || 0.5) && holds([0.5, 0.7], || 0.5));
        assert!(!holds([f64::NAN, 1.0], || 0.5));
    }
}
