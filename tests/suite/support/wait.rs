//! Bounded waiting for something that can be observed.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen; far beyond what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks every 5 ms until `look` brings a value; panics with `what` when [`PATIENCE`] is over.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "did not happen within {PATIENCE:?}: {what}"
        );
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Looks every 5 ms for all of `span` and panics with `what` as soon as `look` says no.
///
/// For the claim that something does *not* happen, which has no event to wait for.
pub fn holds_for(span: Duration, what: &str, mut look: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < span {
        assert!(look(), "did not hold: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}
