//! Versions as Amplitude compares them (AE 5): `MAJOR.MINOR` or `MAJOR.MINOR.PATCH[-PRE][+BUILD]`.

use std::cmp::Ordering;
use std::ops::Range;

/// A version; the pre-release stays in the text that it was read from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Version {
    numbers: [u32; 3],
    pre_release: Option<Range<usize>>,
}

impl Version {
    /// Reads a whole text; `None` if it is no version.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, at) = number(text, 0)?;
        let (minor, at) = number(text, after_point(text, at)?)?;
        let mut numbers = [major?, minor?, 0];
        if at == text.len() {
            return Some(Self {
                numbers,
                pre_release: None,
            });
        }
        let (patch, at) = number(text, after_point(text, at)?)?;
        // Kotlin: a patch that does not fit counts as 0, where the others are no version.
        numbers[2] = patch.unwrap_or(0);
        let (rest, build) = match text[at..].split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (&text[at..], None),
        };
        if build.is_some_and(|build| !build.split('.').all(is_identifier)) {
            return None;
        }
        let pre_release = match rest.strip_prefix('-') {
            Some(pre) => {
                let valid = |part: &str| is_identifier(part) && !has_leading_zero(part);
                pre.split('.')
                    .all(valid)
                    .then_some(Some(at + 1..at + rest.len()))?
            }
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Self { numbers, pre_release })
    }

    /// Orders by numbers, then a pre-release before none, then pre-releases as plain text; the texts are
    /// those that the versions were read from.
    pub(super) fn compare(&self, text: &str, other: &Self, other_text: &str) -> Ordering {
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| match (&self.pre_release, &other.pre_release) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                // Both are ASCII, where bytes order as UTF-16 does.
                (Some(a), Some(b)) => text[a.clone()].cmp(&other_text[b.clone()]),
            })
    }
}

/// The ASCII digits at `at` as a number (inner `None`: beyond 31 bits) and where they end.
fn number(text: &str, at: usize) -> Option<(Option<u32>, usize)> {
    let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return None;
    }
    let value = text[at..at + digits]
        .parse()
        .ok()
        .filter(|value| *value <= 0x7fff_ffff);
    Some((value, at + digits))
}

fn after_point(text: &str, at: usize) -> Option<usize> {
    (text.as_bytes().get(at) == Some(&b'.')).then_some(at + 1)
}

fn is_identifier(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A number such as `01`; `0`, `0a` and `-1` are none.
fn has_leading_zero(part: &str) -> bool {
    part.len() > 1 && part.starts_with('0') && part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for (text, valid) in [
            ("1.2", true),
            ("1.2.3", true),
            ("01.002.0003", true),
            ("1.2.3-alpha", true),
            ("1.2.3-alpha.1-x.0", true),
            ("1.2.3--", true),
            ("1.2.3-0a", true),
            ("1.2.3+build.01", true),
            ("1.2.3-a+b-c", true),
            ("1.2.99999999999", true),
            ("2147483647.0", true),
            ("2147483648.0", false),
            ("0.2147483648", false),
            ("1", false),
            ("1.", false),
            ("", false),
            ("v1.2.3", false),
            (" 1.2.3", false),
            ("1.2.3 ", false),
            ("1.2.3.4", false),
            ("1.10.", false),
            ("1.2-alpha", false),
            ("1.2+build", false),
            ("1.2.3_4", false),
            ("1.2.3-", false),
            ("1.2.3-a..b", false),
            ("1.2.3-01", false),
            ("1.2.3-a.00", false),
            ("1.2.3+", false),
            ("1.2.3+a+b", false),
            ("1.2.3-é", false),
            ("١.٢", false),
        ] {
            assert_eq!(Version::parse(text).is_some(), valid, "{text:?}");
        }
    }

    #[test]
    fn order() {
        for (a, b, wanted) in [
            ("1.2", "1.2.0", Ordering::Equal),
            ("1.9.0", "1.10.0", Ordering::Less),
            ("1.2.3+a", "1.2.3+b", Ordering::Equal),
            ("1.2.3-a", "1.2.3", Ordering::Less),
            ("1.2.3", "1.2.3-a", Ordering::Greater),
            ("1.2.3-a1.23", "1.2.3-a1.5", Ordering::Less),
            ("1.2.3-beta.10", "1.2.3-beta.2", Ordering::Less),
            ("1.2.99999999999", "1.2.0", Ordering::Equal),
        ] {
            let (left, right) = (Version::parse(a).unwrap(), Version::parse(b).unwrap());
            assert_eq!(left.compare(a, &right, b), wanted, "{a} {b}");
        }
    }
}
