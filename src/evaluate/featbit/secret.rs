//! Environment secrets: 44 characters, of which the last 22 name the environment.

use std::fmt;

/// Characters of a secret.
pub const SECRET_CHARS: usize = 44;
/// Characters of each of its two halves.
const HALF_CHARS: usize = 22;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The id of an environment, a GUID.
///
/// Text form: 32 lower-case hexadecimal digits in five groups, as `Display` writes it. Never all zero.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EnvironmentId([u8; 16]);

impl EnvironmentId {
    /// Reads the text form, in any case; `None` if it is malformed or all zero.
    pub fn parse(text: &str) -> Option<Self> {
        const GROUP_ENDS: [usize; 4] = [8, 13, 18, 23];
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0; 16];
        let mut digits = 0;
        for (at, &byte) in text.iter().enumerate() {
            if GROUP_ENDS.contains(&at) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())?;
            bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
            digits += 1;
        }
        Self::of_bytes(bytes)
    }

    /// The 16 bytes in the order of the text form.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn of_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The environment that a secret belongs to; `None`: it is no secret.
///
/// Nothing is trimmed, and the first 22 characters are not looked at, as FeatBit's server does it.
/// Source: FB 2.1.
pub fn environment_of(secret: &str) -> Option<EnvironmentId> {
    if secret.chars().map(char::len_utf16).sum::<usize>() != SECRET_CHARS {
        return None;
    }
    let half = secret.as_bytes().last_chunk::<HALF_CHARS>()?;
    decode_half(half).and_then(|bytes| EnvironmentId::of_bytes(swapped(bytes)))
}

/// The secret of an environment; `unique` tells the secrets of one environment apart.
///
/// Upstream makes secrets; this is for tests and for stand-ins of upstream.
pub fn encode(unique: [u8; 16], environment: EnvironmentId) -> String {
    let mut secret = String::with_capacity(SECRET_CHARS);
    for bytes in [unique, swapped(environment.0)] {
        let number = u128::from_be_bytes(bytes);
        for place in 0..HALF_CHARS {
            // 22 characters of 6 bits hold 132 bits: the last one's lowest four are unused.
            let shift = 122_i32 - 6 * i32::try_from(place).unwrap_or(0);
            let bits = if shift < 0 {
                number << -shift
            } else {
                number >> shift
            };
            secret.push(char::from(ALPHABET[(bits & 63) as usize]));
        }
    }
    secret
}

fn decode_half(half: &[u8; HALF_CHARS]) -> Option<[u8; 16]> {
    let mut number: u128 = 0;
    for (place, &byte) in half.iter().enumerate() {
        let byte = match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => other,
        };
        let digit = ALPHABET.iter().position(|&known| known == byte)? as u128;
        // The four unused bits of the last character may be anything.
        number = if place == HALF_CHARS - 1 {
            number << 2 | digit >> 4
        } else {
            number << 6 | digit
        };
    }
    Some(number.to_be_bytes())
}

/// From .NET's order of the bytes of a GUID (the first three groups little-endian) to that of its text,
/// and back.
fn swapped(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_text_form() {
        let id = EnvironmentId::parse("AD99D259-1f50-4ed9-a002-7c65e25487df").unwrap();
        assert_eq!(id.to_string(), "ad99d259-1f50-4ed9-a002-7c65e25487df");
        for wrong in [
            "",
            "ad99d259-1f50-4ed9-a002-7c65e25487d",
            "ad99d259-1f50-4ed9-a0027c65-e25487df",
            "ad99d259 1f50-4ed9-a002-7c65e25487df",
            "gd99d259-1f50-4ed9-a002-7c65e25487df",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert_eq!(EnvironmentId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for seed in 1..=255 {
            let id = EnvironmentId::of_bytes([seed; 16].map(|byte: u8| byte.wrapping_mul(37))).unwrap();
            let secret = encode([seed; 16], id);
            assert_eq!(
                (secret.len(), environment_of(&secret)),
                (44, Some(id)),
                "{secret}"
            );
        }
    }

    #[test]
    fn the_first_half_may_hold_anything() {
        let id = EnvironmentId::parse("8dc61769-5af3-4d9f-8cb3-d7342e24c3eb");
        assert_eq!(environment_of("äöüäöüäöüäöüäöüäöüäöüäaRfGjfNan02Ms9c0LiTD6w"), id);
        assert_eq!(
            environment_of("v3faJy3RCUO8d-EJiVdN6waRfGjfNan02Ms9c0LiTD6ä"),
            None
        );
    }
}
