//! Numbers as the JVM reads and prints them (AE 4 and 5).

use std::borrow::Cow;

/// The text form of a number literal.
///
/// An integer, also one with an exponent, that fits 64 bits signed gives its decimal digits; any other
/// number the nearest double as Java prints it. Literals that only Kotlin's lenient reader accepts
/// (`01`, `.5`, `1d`, `NaN`) follow the same rules.
pub(super) fn number_text(literal: &str) -> Cow<'_, str> {
    if is_plain_integer(literal) {
        return Cow::Borrowed(literal);
    }
    match integer(literal) {
        Some(integer) => Cow::Owned(integer.to_string()),
        None => Cow::Owned(double_text(parse_double(literal).unwrap_or(f64::NAN))),
    }
}

/// Whether a token that is no JSON counts as a number for Kotlin's lenient reader.
pub(super) fn is_number(token: &str) -> bool {
    integer(token).is_some() || parse_double(token).is_some()
}

/// Whether the literal is already the text of a 64-bit integer.
fn is_plain_integer(literal: &str) -> bool {
    let digits = literal.strip_prefix('-').unwrap_or(literal).as_bytes();
    let leads = match digits.first() {
        Some(b'1'..=b'9') => true,
        Some(b'0') => literal == "0",
        _ => false,
    };
    leads && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit)
}

/// The value of a literal without a point that is integral and fits 64 bits signed.
pub(super) fn integer(literal: &str) -> Option<i64> {
    // `parse` would accept a plus sign.
    if literal.starts_with('+') {
        return None;
    }
    if let Ok(integer) = literal.parse() {
        return Some(integer);
    }
    let (mantissa, exponent) = literal.split_once(['e', 'E'])?;
    let mantissa: i64 = mantissa.parse().ok()?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if mantissa == 0 {
        return Some(0);
    }
    // Kotlin multiplies doubles here, so that more than 53 bits are rounded; powers to 18 are exact.
    let exponent: i32 = exponent
        .parse()
        .ok()
        .filter(|exponent| (-18..=18).contains(exponent))?;
    #[allow(clippy::cast_precision_loss, reason = "the rounding is Kotlin's")]
    let value = mantissa as f64 * 10f64.powi(exponent);
    let fits = value != 0.0 && value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0;
    #[allow(clippy::cast_possible_truncation, reason = "integral and below 2^63")]
    fits.then_some(value as i64)
}

/// A double as `Double.toString` prints it: the shortest digits that round-trip.
pub(super) fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let size = value.abs();
    if size.is_infinite() {
        return format!("{sign}Infinity");
    }
    if size == 0.0 {
        return format!("{sign}0.0");
    }
    let (digits, exponent) = shortest_digits(size);
    let shift = exponent.unsigned_abs() as usize;
    if (1e-3..1e7).contains(&size) {
        if exponent < 0 {
            return format!("{sign}0.{}{digits}", "0".repeat(shift - 1));
        }
        let whole = shift + 1;
        return if digits.len() <= whole {
            format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len()))
        } else {
            format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
        };
    }
    let fraction = if digits.len() > 1 { &digits[1..] } else { "0" };
    format!("{sign}{}.{fraction}E{exponent}", &digits[..1])
}

/// The decimal digits of a positive finite double and the exponent of the first one.
fn shortest_digits(size: f64) -> (String, i32) {
    let mut text = format!("{size:e}");
    if !text.contains('.') {
        // Java prints two digits at least and takes the nearest such number: `4.9E-324`.
        let longer = format!("{size:.1e}");
        if longer.parse() == Ok(size) {
            text = longer;
        }
    }
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = mantissa.chars().filter(|&digit| digit != '.').collect();
    let kept = digits.trim_end_matches('0').len().max(1);
    (digits[..kept].to_owned(), exponent.parse().unwrap_or(0))
}

/// Reads a double with Java's grammar: white space up to U+0020 around, sign, decimal or hexadecimal
/// digits, an optional suffix `d D f F`, `NaN`, `Infinity`.
pub(super) fn parse_double(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c| c <= ' ');
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let size = match unsigned.as_bytes().first()? {
        b'N' => return (unsigned == "NaN").then_some(f64::NAN),
        b'I' => (unsigned == "Infinity").then_some(f64::INFINITY)?,
        b'0'..=b'9' | b'.' => {
            let number = unsigned.strip_suffix(['d', 'D', 'f', 'F']);
            match unsigned
                .strip_prefix("0x")
                .or_else(|| unsigned.strip_prefix("0X"))
            {
                Some(hexadecimal) => parse_hexadecimal(hexadecimal)?,
                None => parse_decimal(number.unwrap_or(unsigned))?,
            }
        }
        _ => return None,
    };
    Some(if negative { -size } else { size })
}

/// Digits with an optional point and exponent. Rust's own grammar is the same once words are excluded.
fn parse_decimal(text: &str) -> Option<f64> {
    let allowed = |byte: u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    if !text.bytes().all(allowed) || text.starts_with(['+', '-']) {
        return None;
    }
    text.parse().ok()
}

/// What follows `0x`: hexadecimal digits with an optional point, and a mandatory binary exponent.
fn parse_hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let exponent = exponent.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(exponent);
    let exponent = parse_exponent(exponent)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // The value is `bits * 2^scale`, and a little more if a digit beyond 64 bits was not zero.
    let (mut bits, mut scale, mut sticky) = (0u64, exponent, false);
    for (digits, is_fraction) in [(whole, false), (fraction, true)] {
        for digit in digits.bytes() {
            let digit = u64::from(char::from(digit).to_digit(16)?);
            if bits >> 60 == 0 {
                bits = bits << 4 | digit;
                scale -= if is_fraction { 4 } else { 0 };
            } else {
                sticky |= digit != 0;
                scale += if is_fraction { 0 } else { 4 };
            }
        }
    }
    Some(scaled(bits, scale, sticky))
}

/// A signed exponent; beyond what can matter it stays at the limit.
fn parse_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse().unwrap_or(i64::MAX).min(1 << 40);
    Some(if negative { -size } else { size })
}

/// `bits * 2^scale` rounded to the nearest double, ties to even; `sticky` says that the true value is a
/// little larger.
fn scaled(bits: u64, scale: i64, sticky: bool) -> f64 {
    if bits == 0 {
        return 0.0;
    }
    let shift = i64::from(bits.leading_zeros());
    let bits = bits << shift;
    // The value is 1.xxx * 2^exponent.
    let exponent = scale - shift + 63;
    if exponent > 1023 {
        return f64::INFINITY;
    }
    // 53 bits stay for normal numbers, fewer for subnormal ones.
    let kept = if exponent >= -1022 {
        53
    } else {
        53 + (exponent + 1022)
    };
    if kept < 0 {
        return 0.0;
    }
    let dropped = 64 - kept;
    let (mut mantissa, rest) = match dropped {
        64 => (0, bits),
        _ => (bits >> dropped, bits << kept),
    };
    const HALF: u64 = 1 << 63;
    if rest > HALF || rest == HALF && (sticky || mantissa & 1 == 1) {
        mantissa += 1;
    }
    // A carry out of the mantissa moves the exponent by itself, up to infinity.
    let biased = u64::try_from(exponent.max(-1023) + 1023).unwrap_or(0);
    let implicit = if exponent >= -1022 { 1 << 52 } else { 0 };
    f64::from_bits((biased << 52) + (mantissa - implicit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_have_the_text_of_the_jvm() {
        for (literal, wanted) in [
            ("0", "0"),
            ("-0", "0"),
            ("1e3", "1000"),
            ("1E+3", "1000"),
            ("1000e-2", "10"),
            ("-12e1", "-120"),
            ("0e5", "0"),
            ("15e-1", "1.5"),
            ("1.0", "1.0"),
            ("1.0e3", "1000.0"),
            ("100.0", "100.0"),
            ("-0.0", "-0.0"),
            ("0.5", "0.5"),
            ("0.001", "0.001"),
            ("0.0001", "1.0E-4"),
            ("0.00012345", "1.2345E-4"),
            ("1234567.5", "1234567.5"),
            ("12345678.9", "1.23456789E7"),
            ("10000000.0", "1.0E7"),
            ("9999999.0", "9999999.0"),
            ("1e21", "1.0E21"),
            ("1e18", "1000000000000000000"),
            ("1e19", "1.0E19"),
            ("9007199254740993", "9007199254740993"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "9.223372036854776E18"),
            ("18446744073709551616", "1.8446744073709552E19"),
            ("5e-324", "4.9E-324"),
            ("1e-400", "0.0"),
            ("1e400", "Infinity"),
            ("-1e400", "-Infinity"),
            ("1.7976931348623157e308", "1.7976931348623157E308"),
            ("01", "1"),
            ("+1", "1.0"),
            (".5", "0.5"),
            ("1d", "1.0"),
            ("NaN", "NaN"),
        ] {
            assert_eq!(number_text(literal), wanted, "{literal}");
        }
    }

    #[test]
    fn doubles_are_read_with_the_grammar_of_java() {
        for (text, wanted) in [
            ("1", Some(1.0)),
            (" \t1.5\n\u{1}", Some(1.5)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("+5", Some(5.0)),
            ("-5e-1", Some(-0.5)),
            ("1e3f", Some(1000.0)),
            ("1D", Some(1.0)),
            ("1e400", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("0x1p3", Some(8.0)),
            ("0X.8P1d", Some(1.0)),
            ("0x1.8p-1f", Some(0.75)),
            ("0x1.p0", Some(1.0)),
            ("0xfp0", Some(15.0)),
            ("0x1.fffffffffffff8p1023", Some(f64::INFINITY)),
            ("0x1.fffffffffffff7p1023", Some(f64::MAX)),
            ("0x1p-1074", Some(5e-324)),
            ("0x1p-1075", Some(0.0)),
            ("0x1.00000000000000001p-1075", Some(5e-324)),
            ("0x0.0000000000001p-1022", Some(5e-324)),
            ("0x1.0000000000000800000000001p0", Some(1.0000000000000002)),
            ("0x1.00000000000008p0", Some(1.0)),
            ("0x1p99999999999999999999", Some(f64::INFINITY)),
            ("", None),
            (" ", None),
            (".", None),
            ("e5", None),
            ("1e", None),
            ("1e+", None),
            ("+-1", None),
            ("--1", None),
            ("1_000", None),
            ("1,000", None),
            ("0x10", None),
            ("0x.p1", None),
            ("0xp1", None),
            ("0x1p", None),
            ("inf", None),
            ("infinity", None),
            ("nan", None),
            ("NaNf", None),
            ("1dd", None),
            ("d", None),
            ("1 2", None),
            ("\u{a0}1", None),
            ("١", None),
        ] {
            assert_eq!(parse_double(text), wanted, "{text:?}");
        }
        for text in ["NaN", "-NaN", "+NaN"] {
            assert!(
                parse_double(text).is_some_and(|n| n.is_nan() && n.is_sign_positive()),
                "{text}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn printed_doubles_read_back(bits: u64) {
            let value = f64::from_bits(bits);
            let back = parse_double(&double_text(value)).unwrap();
            proptest::prop_assert!(back == value || value.is_nan() && back.is_nan());
        }

        #[test]
        fn hexadecimal_doubles_are_exact(mantissa in 0u64..1 << 53, exponent in -1074i32..900) {
            let text = format!("0x{mantissa:x}p{exponent}");
            let half = exponent / 2;
            #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
            let wanted = mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half);
            proptest::prop_assert_eq!(parse_double(&text), Some(wanted));
        }
    }
}
