//! Durations and sizes as people write them: `250ms`, `10s`, `64MiB`.

use std::time::Duration;

use super::fault::Problem;

pub(super) const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

pub(super) const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

const DURATION_FORM: &str = "a number with its unit, such as 250ms, 10s, 5m or 1h";
const SIZE_FORM: &str = "a size such as 64MiB or 64MB";

/// Reads a duration: a whole number and one of `ms s m h d`, such as `250ms`.
///
/// # Errors
///
/// A [`Problem`] for anything else, a number without unit included.
pub fn parse_duration(text: &str) -> Result<Duration, Problem> {
    let text = text.trim();
    let (number, unit) = split(text);
    let fault = |what: &str| Problem::new(what).got(text).expected(DURATION_FORM);
    if number.is_empty() {
        return Err(fault("not a duration"));
    }
    if unit.is_empty() {
        return Err(fault("a duration without unit").meant(Some(format!("{number}s"))));
    }
    let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        let folded = unit.to_ascii_lowercase();
        let meant = match folded.as_str() {
            "ms" | "msec" | "millis" | "milliseconds" => Some("ms"),
            "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
            "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
            "h" | "hr" | "hour" | "hours" => Some("h"),
            "d" | "day" | "days" => Some("d"),
            _ => None,
        };
        return Err(fault("not a duration").meant(meant.map(|unit| format!("{number}{unit}"))));
    };
    if number.contains('.') {
        return Err(fault("not a whole number").meant(smaller_unit(number, *factor)));
    }
    let total = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor));
    total.map(Duration::from_millis).ok_or_else(|| fault("too long"))
}

/// `1.5` of a unit of `factor` milliseconds, as a whole number of milliseconds or seconds.
fn smaller_unit(number: &str, factor: u64) -> Option<String> {
    let (whole, part) = number.split_once('.')?;
    let digits = u32::try_from(part.len()).ok().filter(|n| (1..=6).contains(n))?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let part = part.parse::<u64>().ok()?.checked_mul(factor)?;
    let scale = 10_u64.pow(digits);
    (part % scale == 0 && factor > 1).then(|| format_duration(Duration::from_millis(whole + part / scale)))
}

/// Writes a duration so that [`parse_duration`] reads the same one: in the largest unit that divides it,
/// days from two on.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let total = duration.as_millis();
    if total == 0 {
        return "0s".to_owned();
    }
    let mut best = format!("{total}ms");
    for (unit, factor) in &DURATION_UNITS {
        let count = total / u128::from(*factor);
        if total.is_multiple_of(u128::from(*factor)) && (*unit != "d" || count > 1) {
            best = format!("{count}{unit}");
        }
    }
    best
}

/// Reads a size in bytes: a whole number, and one of `B KiB MiB GiB kB MB GB` unless it is plain bytes.
///
/// # Errors
///
/// A [`Problem`] for anything else.
pub fn parse_size(text: &str) -> Result<u64, Problem> {
    let text = text.trim();
    let (number, unit) = split(text);
    let fault = |what: &str| Problem::new(what).got(text).expected(SIZE_FORM);
    if number.is_empty() || number.contains('.') {
        return Err(fault("not a size"));
    }
    let factor = match unit {
        "" => 1,
        _ => match SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        {
            Some((_, factor)) => *factor,
            None => return Err(fault("not a size").meant(meant_size(number, unit))),
        },
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| fault("too large"))
}

/// The unit behind Kubernetes' and colloquial spellings: `64Mi`, `64M`, `64 mb`.
fn meant_size(number: &str, unit: &str) -> Option<String> {
    let unit = match unit.to_ascii_lowercase().as_str() {
        "k" | "ki" => "KiB",
        "m" | "mi" => "MiB",
        "g" | "gi" => "GiB",
        "bytes" | "byte" => "B",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// Writes a size so that [`parse_size`] reads the same one: in the largest binary unit that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (unit, factor) in SIZE_UNITS[1..4].iter().rev() {
        if bytes != 0 && bytes.is_multiple_of(*factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

/// The leading number of `text` and, without the blanks between, what follows.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.starts_with('.') || number.ends_with('.') || number.matches('.').count() > 1 {
        return ("", text);
    }
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        let form = "expected a number with its unit, such as 250ms, 10s, 5m or 1h";
        for (text, wanted) in [
            (
                "5",
                format!("a duration without unit (got 5); {form}; did you mean 5s?"),
            ),
            ("", format!("not a duration (got \"\"); {form}")),
            ("fast", format!("not a duration (got fast); {form}")),
            (
                "5 sec",
                format!("not a duration (got 5 sec); {form}; did you mean 5s?"),
            ),
            (
                "1.5s",
                format!("not a whole number (got 1.5s); {form}; did you mean 1500ms?"),
            ),
            (
                "0.5h",
                format!("not a whole number (got 0.5h); {form}; did you mean 30m?"),
            ),
            ("0.0005s", format!("not a whole number (got 0.0005s); {form}")),
            ("-5s", format!("not a duration (got -5s); {form}")),
            ("1h30m", format!("not a duration (got 1h30m); {form}")),
            (
                "99999999999999999999s",
                format!("too long (got 99999999999999999999s); {form}"),
            ),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64kb", 64_000),
            ("64MiB", 67_108_864),
            ("64MB", 64_000_000),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        let form = "expected a size such as 64MiB or 64MB";
        for (text, wanted) in [
            (
                "64Mi",
                format!("not a size (got 64Mi); {form}; did you mean 64MiB?"),
            ),
            ("big", format!("not a size (got big); {form}")),
            ("1.5GiB", format!("not a size (got 1.5GiB); {form}")),
            (
                "99999999999GiB",
                format!("too large (got 99999999999GiB); {form}"),
            ),
        ] {
            assert_eq!(parse_size(text).unwrap_err().to_string(), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }

        #[test]
        fn what_is_written_is_read_back(ms in 0_u64..10_000_000_000, bytes: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
            prop_assert_eq!(parse_size(&format_size(bytes)).unwrap(), bytes);
        }
    }
}
