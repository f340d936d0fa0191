//! A brake for log lines that one fault could repeat without end.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a count lasts.
const WINDOW: Duration = Duration::from_secs(10);

/// Lets a few lines of one kind through in ten seconds and counts the others. One of these per kind of line:
///
/// ```
/// use std::time::Instant;
/// let lost = flagside::telemetry::Suppress::new(5);
/// if let Some(suppressed) = lost.allow(Instant::now()) {
///     tracing::warn!(suppressed, "an upstream cannot be reached");
/// }
/// ```
#[derive(Debug)]
pub struct Suppress {
    lines: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Begin of the window; none before the first line.
    since: Option<Instant>,
    let_through: u32,
    suppressed: u64,
}

impl Suppress {
    /// Lets `lines` through in every ten seconds.
    #[must_use]
    pub const fn new(lines: u32) -> Self {
        Self {
            lines,
            state: Mutex::new(State {
                since: None,
                let_through: 0,
                suppressed: 0,
            }),
        }
    }

    /// Whether a line may be written now; with it, how many were suppressed since the last that was.
    #[must_use]
    pub fn allow(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= WINDOW)
        {
            state.since = Some(now);
            state.let_through = 0;
        }
        if state.let_through < self.lines {
            state.let_through += 1;
            return Some(std::mem::take(&mut state.suppressed));
        }
        state.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lets_some_through_and_the_next_one_says_what_was_left_out() {
        let start = Instant::now();
        let suppress = Suppress::new(2);
        for (at_ms, wanted) in [
            (0, Some(0)),
            (1, Some(0)),
            (2, None),
            (9_999, None),
            (10_000, Some(2)),
            (10_001, Some(0)),
            (10_002, None),
            (60_000, Some(1)),
        ] {
            assert_eq!(
                suppress.allow(start + Duration::from_millis(at_ms)),
                wanted,
                "{at_ms} ms"
            );
        }
    }

    #[test]
    fn none_at_all_is_possible() {
        assert_eq!(Suppress::new(0).allow(Instant::now()), None);
    }
}
