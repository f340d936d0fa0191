//! Base64 as SDKs send it: three spellings are in use (API 2.4).

/// Decodes standard and URL-safe alphabets, even mixed, with or without padding, blanks at both ends ignored.
///
/// `None` for any other byte, for padding in the wrong place and for a length that no byte string has.
/// Unused bits of the last character are not looked at, as most decoders do.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let unpadded = text.strip_suffix(b"=").unwrap_or(text);
    let digits = unpadded.strip_suffix(b"=").unwrap_or(unpadded);
    let padding = text.len() - digits.len();
    let tail = digits.len() % 4;
    // Padding, where there is any, must fill the last group of four.
    if tail == 1 || (padding > 0 && tail + padding != 4) {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    let mut groups = digits.chunks_exact(4);
    for group in &mut groups {
        let bits = value(group[0])? << 18 | value(group[1])? << 12 | value(group[2])? << 6 | value(group[3])?;
        let [_, a, b, c] = bits.to_be_bytes();
        out.extend_from_slice(&[a, b, c]);
    }
    match *groups.remainder() {
        [a, b] => {
            let [_, first, ..] = (value(a)? << 18 | value(b)? << 12).to_be_bytes();
            out.push(first);
        }
        [a, b, c] => {
            let [_, first, second, _] = (value(a)? << 18 | value(b)? << 12 | value(c)? << 6).to_be_bytes();
            out.extend_from_slice(&[first, second]);
        }
        _ => {}
    }
    Some(out)
}

/// Encodes with the URL-safe alphabet and no padding, as the Node and JavaScript SDKs do.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = u32::from_be_bytes([0, chunk[0], byte(chunk, 1), byte(chunk, 2)]);
        for position in 0..=chunk.len() {
            let digit = bits >> (18 - 6 * position) & 63;
            out.push(char::from(ALPHABET[digit as usize]));
        }
    }
    out
}

fn byte(chunk: &[u8], at: usize) -> u8 {
    chunk.get(at).copied().unwrap_or(0)
}

fn value(digit: u8) -> Option<u32> {
    match VALUES[usize::from(digit)] {
        64.. => None,
        value => Some(u32::from(value)),
    }
}

/// Value of every byte as a base64 digit; 255 = none.
const VALUES: [u8; 256] = {
    let mut table = [255u8; 256];
    let mut at = 0u8;
    while at < 26 {
        table[(b'A' + at) as usize] = at;
        table[(b'a' + at) as usize] = 26 + at;
        at += 1;
    }
    at = 0;
    while at < 10 {
        table[(b'0' + at) as usize] = 52 + at;
        at += 1;
    }
    table[b'+' as usize] = 62;
    table[b'-' as usize] = 62;
    table[b'/' as usize] = 63;
    table[b'_' as usize] = 63;
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_spellings_of_the_sdks_decode_alike() {
        let user = br#"{"user_id":"u-1","device_id":"d?~>","user_properties":{"plan":"pro"}}"#;
        let standard =
            "eyJ1c2VyX2lkIjoidS0xIiwiZGV2aWNlX2lkIjoiZD9+PiIsInVzZXJfcHJvcGVydGllcyI6eyJwbGFuIjoicHJvIn19";
        for text in [
            standard.to_owned(),
            standard.replace('+', "-"),
            format!(" {standard}\t"),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(&user[..]), "{text}");
        }
        let padded = "eyJ1c2VyX2lkIjoidS0xIiwiZGV2aWNlX2lkIjoiZC0xIn0=";
        assert_eq!(
            decode(padded.as_bytes()),
            decode(padded.trim_end_matches('=').as_bytes())
        );
        assert_eq!(
            decode(b"WyJjaGVja291dCIsInRoZW1lIl0=").as_deref(),
            Some(&br#"["checkout","theme"]"#[..])
        );
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in [
            "a",
            "ab=",
            "abc==",
            "abcde",
            "====",
            "=",
            "a b c d",
            "ab\u{e9}d",
            "ab==cd",
            "abcd=",
            "abcd==",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decode(b""), Some(vec![]));
        assert_eq!(decode(b"  "), Some(vec![]));
    }

    proptest! {
        #[test]
        fn encoding_and_decoding_are_inverse(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
