//! Request ids for requests that bring none: UUID version 7 (OPS 10.2).

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// A new id: 48 bits of milliseconds since 1970, then random.
#[must_use]
pub fn fresh() -> HeaderValue {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut bytes = [0u8; 16];
    // Without random numbers the id is merely less unique.
    let _ = getrandom::fill(&mut bytes[6..]);
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
