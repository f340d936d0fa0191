//! Pauses between attempts that are not a request's own: growing, with jitter, and as long as upstream asks for.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// A pause that doubles from `first` to `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub max: Duration,
}

impl Backoff {
    /// The pause after `failures` in a row (0 counts as 1): between half of it and the whole, by `unit`
    /// (0 to 1), so that many who failed together do not come back together.
    #[must_use]
    pub fn pause(&self, failures: u32, unit: f64) -> Duration {
        let doubled = 1u32
            .checked_shl(failures.saturating_sub(1).min(31))
            .unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(doubled).min(self.max);
        whole / 2 + (whole / 2).mul_f64(unit.clamp(0.0, 1.0))
    }
}

/// A random number from 0 to 1; 0.5 where the system has no random numbers: pauses are right without them.
#[must_use]
pub fn random_unit() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

/// How long `Retry-After` asks to wait: seconds, or a date that is compared with `now`. A date in the past is
/// no wait; what cannot be read is none at all.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::time::UNIX_EPOCH;

    #[test]
    fn pauses_double_and_are_bounded() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
        };
        for (failures, unit, millis) in [
            (0, 1.0, 1_000),
            (1, 0.0, 500),
            (1, 1.0, 1_000),
            (3, 0.5, 3_000),
            (7, 1.0, 60_000),
            (40, 0.0, 30_000),
            (u32::MAX, 1.0, 60_000),
            (1, 7.0, 1_000),
        ] {
            let pause = backoff.pause(failures, unit);
            assert_eq!(pause.as_millis(), millis, "{failures} {unit}");
        }
    }

    #[test]
    fn random_numbers_lie_between_0_and_1() {
        assert!((0..1000).all(|_| (0.0..=1.0).contains(&random_unit())));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("120", Some(120)),
            (" 3 ", Some(3)),
            ("0", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            let wanted = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), wanted, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
