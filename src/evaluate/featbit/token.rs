//! Tokens of streaming connections: a secret with a time hidden in it.
//!
//! Layout: three letters for the position, two for the length, then the secret with the time, in letters,
//! inserted at that position. Source: FB 2.2.

/// Letters for the digits 0 to 9.
const LETTERS: &[u8; 10] = b"QBWSPHDXZU";

/// Characters of a secret.
const SECRET_CHARS: usize = 44;

/// The token of `secret` for the time `unix_ms`, which goes in before character `start` of the secret.
///
/// `start` should be random and is moved into `2..length` of the secret; the secret is ASCII.
pub fn encode(secret: &str, unix_ms: u64, start: usize) -> String {
    let secret = secret.trim_end_matches('=');
    let mut start = start
        .clamp(2, secret.len().saturating_sub(1).max(2))
        .min(secret.len());
    while !secret.is_char_boundary(start) {
        start -= 1;
    }
    let time = letters(&unix_ms.to_string());
    let (before, after) = secret.split_at(start);
    let position = letters(&format!("{start:03}"));
    let length = letters(&format!("{:02}", time.len()));
    [&position, &length, before, &time, after].concat()
}

/// The secret of a token and its time in milliseconds since 1970; `None`: it is malformed.
///
/// The secret has 44 characters; whether it belongs to an environment is not looked at, nor its age.
pub fn decode(token: &str) -> Option<(String, i64)> {
    if !token.is_ascii() {
        return None;
    }
    let (position, rest) = token.split_at_checked(3)?;
    let (length, payload) = rest.split_at_checked(2)?;
    let start: usize = digits(position)?.parse().ok()?;
    let length: usize = digits(length)?.parse().ok()?;
    let (before, rest) = payload.split_at_checked(start)?;
    let (time, after) = rest.split_at_checked(length)?;
    let unix_ms = digits(time)?.parse().ok()?;
    let mut secret = [before, after].concat();
    while secret.len() % 4 != 0 {
        secret.push('=');
    }
    (secret.len() == SECRET_CHARS).then_some((secret, unix_ms))
}

fn letters(digits: &str) -> String {
    let letter = |digit: u8| char::from(LETTERS[usize::from(digit - b'0')]);
    digits.bytes().map(letter).collect()
}

fn digits(letters: &str) -> Option<String> {
    let digit = |letter: u8| {
        let digit = LETTERS.iter().position(|&known| known == letter)?;
        char::from_digit(u32::try_from(digit).ok()?, 10)
    };
    letters.bytes().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_out_of_range_are_moved_into_it() {
        let secret = "gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w";
        for start in [0, 1, 2, 43, 44, usize::MAX] {
            let token = encode(secret, 1_666_018_247_603, start);
            assert_eq!(
                decode(&token),
                Some((secret.to_owned(), 1_666_018_247_603)),
                "{token}"
            );
        }
        assert_eq!(encode("", 0, 5), "QQQQBQ");
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for token in [
            "",
            "QQ",
            "QQQQ",
            "QQQQQ",
            "QQSQB",
            "ääääää",
            "QQWQQgpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w",
        ] {
            assert_eq!(decode(token), None, "{token}");
        }
    }
}
