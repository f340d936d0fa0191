//! The times of flags: ISO 8601 text to milliseconds since 1970.

const MS_PER_DAY: i64 = 86_400_000;

/// Milliseconds since 1970 of a text such as `2024-11-05T23:49:01.753422Z`; fractions of a millisecond are
/// cut off.
///
/// The fraction may have any number of digits or be left out, as may the seconds; the zone is `Z`, an
/// offset such as `+01:00`, or missing, which means `Z`.
pub(super) fn parse_ms(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let days = parse_date(date)?;
    let (clock, offset_ms) = split_zone(time)?;
    let clock_ms = parse_clock(clock)?;
    Some(days * MS_PER_DAY + clock_ms - offset_ms)
}

fn parse_date(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let mut part = |digits| number(parts.next()?, digits);
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || year < 1 || !(1..=month_days).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at the end; 719468 days lie between their zero and 1970.
    let shifted_year = if month < 3 { year - 1 } else { year };
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    Some(
        shifted_year * 365 + shifted_year / 4 - shifted_year / 100 + shifted_year / 400 + day_of_year
            - 719_468,
    )
}

/// The time of day, and how far its zone is ahead.
fn split_zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = time.find(['+', '-']) else {
        return Some((time, 0));
    };
    let (clock, offset) = time.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = match offset[1..].split_once(':') {
        Some((hours, minutes)) => (number(hours, 2)?, number(minutes, 2)?),
        None if offset.len() == 3 => (number(&offset[1..], 2)?, 0),
        None => (number(offset.get(1..3)?, 2)?, number(offset.get(3..)?, 2)?),
    };
    (hours <= 14 && minutes < 60).then_some((clock, sign * (hours * 60 + minutes) * 60_000))
}

fn parse_clock(clock: &str) -> Option<i64> {
    let mut parts = clock.split(':');
    let hours = number(parts.next()?, 2)?;
    let minutes = number(parts.next()?, 2)?;
    let (seconds, ms) = match parts.next() {
        None => (0, 0),
        Some(text) => match text.split_once('.') {
            None => (number(text, 2)?, 0),
            Some((seconds, fraction)) => (number(seconds, 2)?, parse_fraction(fraction)?),
        },
    };
    let valid = parts.next().is_none() && hours < 24 && minutes < 60 && seconds < 60;
    valid.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000 + ms)
}

/// Whole milliseconds of the digits after the point.
fn parse_fraction(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let places = digits.bytes().chain(std::iter::repeat(b'0')).take(3);
    Some(places.fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0')))
}

/// A number of exactly this many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let valid = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| {
        text.bytes()
            .fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_milliseconds() {
        for (text, wanted) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59.9999Z", Some(-1)),
            ("0001-01-01T00:00:00", Some(-62_135_596_800_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2024-11-05T23:49:01.753422Z", Some(1_730_850_541_753)),
            ("2024-11-05T23:49:01.7539999999Z", Some(1_730_850_541_753)),
            ("2024-11-05T23:49:01.7Z", Some(1_730_850_541_700)),
            ("2024-11-06T00:49:01.753+01:00", Some(1_730_850_541_753)),
            ("2024-11-05T18:19:01.753-0530", Some(1_730_850_541_753)),
            ("2024-11-05 23:49:01.753", Some(1_730_850_541_753)),
            ("2024-11-05T23:49Z", Some(1_730_850_540_000)),
            ("9999-12-31T23:59:59.9999999Z", Some(253_402_300_799_999)),
            ("2023-02-29T00:00:00Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-11-05T24:00:00Z", None),
            ("2024-11-05T23:49:01.Z", None),
            ("2024-11-05", None),
            ("2024-11-05T", None),
            ("2024-11-05T23:49:01+", None),
            ("2024-11-05T23:49:01+é", None),
            ("", None),
        ] {
            assert_eq!(parse_ms(text), wanted, "{text}");
        }
    }
}
