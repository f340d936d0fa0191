//! Numbers as .NET's `double.TryParse` reads them with the invariant culture (FB 5.5).

/// The number that a text stands for; `None`: it stands for none, or for `NaN`, which compares with nothing.
pub(super) fn parse(text: &str) -> Option<f64> {
    match decimal(text) {
        Some(value) => Some(value),
        None => word(text),
    }
}

/// White space, sign, digits with commas, point and digits, exponent, white space, then only U+0000.
fn decimal(text: &str) -> Option<f64> {
    let mut rest = text.trim_start_matches(is_white).as_bytes();
    let mut literal = String::with_capacity(rest.len());
    if let [sign @ (b'+' | b'-'), after @ ..] = rest {
        literal.push(char::from(*sign));
        rest = after;
    }
    let whole = take_digits(&mut rest, &mut literal, true);
    let mut fraction = false;
    if let [b'.', after @ ..] = rest {
        rest = after;
        literal.push('.');
        fraction = take_digits(&mut rest, &mut literal, false);
    }
    if !whole && !fraction {
        return None;
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let mut exponent = String::from("e");
        let mut after = after;
        if let [sign @ (b'+' | b'-'), digits @ ..] = after {
            exponent.push(char::from(*sign));
            after = digits;
        }
        if take_digits(&mut after, &mut exponent, false) {
            literal.push_str(&exponent);
            rest = after;
        }
    }
    while let [byte, after @ ..] = rest
        && is_white(char::from(*byte))
    {
        rest = after;
    }
    if rest.iter().any(|&byte| byte != 0) {
        return None;
    }
    // Correctly rounded; too large is infinite, too small is zero.
    literal.parse().ok()
}

/// Moves digits to `out`, leaving out commas after the first one; whether there were any.
fn take_digits(rest: &mut &[u8], out: &mut String, grouped: bool) -> bool {
    let mut any = false;
    while let [byte, after @ ..] = *rest {
        match byte {
            b'0'..=b'9' => {
                out.push(char::from(*byte));
                any = true;
            }
            b',' if grouped && any => {}
            _ => break,
        }
        *rest = after;
    }
    any
}

fn is_white(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ')
}

fn word(text: &str) -> Option<f64> {
    let word = text.trim();
    let infinity = |word: &str| word.eq_ignore_ascii_case("Infinity");
    match word.strip_prefix('-') {
        Some(unsigned) => infinity(unsigned).then_some(f64::NEG_INFINITY),
        None => infinity(word.strip_prefix('+').unwrap_or(word)).then_some(f64::INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_dotnet_reads_them() {
        for (text, wanted) in [
            ("1,,0", Some(10.0)),
            ("12,34", Some(1234.0)),
            ("1,.5", Some(1.5)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("-.5e-1", Some(-0.05)),
            ("5.,", None),
            ("1e5,0", None),
            ("1e", None),
            ("1e+ 5", None),
            ("+-1", None),
            ("+ 1", None),
            ("1 e5", None),
            ("5 \0\0", Some(5.0)),
            ("5\0", Some(5.0)),
            ("5\0 ", None),
            ("5 \0 ", None),
            ("\u{a0}5", None),
            ("5\u{85}", None),
            ("\u{a0}iNFinity\u{3000}", Some(f64::INFINITY)),
            ("-infinity", Some(f64::NEG_INFINITY)),
            ("--infinity", None),
            ("+-infinity", None),
            ("NaN", None),
            ("1e400", Some(f64::INFINITY)),
            ("-1e400", Some(f64::NEG_INFINITY)),
            ("0e999999999999999999999", Some(0.0)),
            ("1e-999999999999999999999", Some(0.0)),
            ("0x10", None),
            ("1d", None),
            ("", None),
            (" ", None),
            (",", None),
            ("é", None),
        ] {
            assert_eq!(parse(text), wanted, "{text:?}");
        }
    }
}
