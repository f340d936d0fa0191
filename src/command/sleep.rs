//! `flagside sleep`: waits, in images that have no shell.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::parse_duration;

/// Waits, then ends with 0. A signal ends it at once.
pub(super) fn run(duration: Duration) -> ExitCode {
    let began = Instant::now();
    while let Some(left) = duration
        .checked_sub(began.elapsed())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
    ExitCode::SUCCESS
}

/// Reads `5`, which means seconds, or a duration with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) if !text.starts_with('+') => Ok(Duration::from_secs(u64::from(seconds))),
        _ => parse_duration(text).map_err(|problem| format!("sleep: {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_are_seconds() {
        for (text, wanted) in [
            ("5", Duration::from_secs(5)),
            ("0", Duration::ZERO),
            ("250ms", Duration::from_millis(250)),
            ("2m", Duration::from_secs(120)),
        ] {
            assert_eq!(duration(text), Ok(wanted), "{text}");
        }
        for text in ["", "-1", "+1", "1.5", "soon", "99999999999"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn it_waits_as_long_as_it_was_told() {
        let began = Instant::now();
        run(Duration::from_millis(30));
        assert!(began.elapsed() >= Duration::from_millis(30));
    }
}
