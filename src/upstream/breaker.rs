//! The circuit breaker: closed, open, half-open.
//!
//! Pure: time comes in as a parameter. Closed, it costs one atomic load to be admitted and one to succeed;
//! consecutive failures open it, and after `open_for` (give or take a tenth, so that instances do not come
//! back in step) one probe at a time is let through. A probe that succeeds closes it, one that fails opens
//! it again, one that is abandoned makes room for the next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::lock;

/// State of a [`Breaker`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BreakerState {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open,
    /// One probe is under way, nothing else passes.
    HalfOpen,
}

impl BreakerState {
    /// Every state, in index order.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The `state` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Leave to make one attempt. It goes back to its breaker exactly once: as a success, a failure or
/// abandoned; a probe that is lost keeps the breaker half-open for ever.
#[derive(Debug)]
#[must_use = "an admission that is not given back blocks further probes"]
pub struct Admission {
    probe: bool,
}

impl Admission {
    /// Whether the attempt decides if an open breaker closes.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.probe
    }
}

/// Keeps requests from an upstream that has failed several times in a row.
#[derive(Debug)]
pub struct Breaker {
    threshold: u32,
    open_for: Duration,
    /// Consecutive failures while closed.
    failures: AtomicU32,
    /// Open or half-open; changed only under `trip`.
    tripped: AtomicBool,
    trip: Mutex<Trip>,
}

#[derive(Debug)]
struct Trip {
    /// No probe before this.
    until: Option<Instant>,
    probing: bool,
    /// State of the jitter's generator.
    random: u64,
}

impl Breaker {
    /// A closed breaker that opens after `threshold` consecutive failures (0 = never) for `open_for`.
    /// `seed` varies the jitter from one instance to the next.
    #[must_use]
    pub const fn new(threshold: u32, open_for: Duration, seed: u64) -> Self {
        Self {
            threshold,
            open_for,
            failures: AtomicU32::new(0),
            tripped: AtomicBool::new(false),
            trip: Mutex::new(Trip {
                until: None,
                probing: false,
                random: seed,
            }),
        }
    }

    /// Asks to make an attempt at `now`; `None`: not now.
    pub fn admit(&self, now: Instant) -> Option<Admission> {
        if !self.tripped.load(Ordering::Acquire) {
            return Some(Admission { probe: false });
        }
        let mut trip = lock(&self.trip);
        if !self.tripped.load(Ordering::Acquire) {
            return Some(Admission { probe: false });
        }
        if trip.probing || trip.until.is_some_and(|until| now < until) {
            return None;
        }
        trip.probing = true;
        Some(Admission { probe: true })
    }

    /// The attempt went well. Returns the state if it changed.
    #[allow(clippy::needless_pass_by_value, reason = "an admission is used once")]
    pub fn succeeded(&self, admission: Admission) -> Option<BreakerState> {
        if !admission.probe {
            // Read first: workers share this line, and in good times nobody writes it.
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
            return None;
        }
        let mut trip = lock(&self.trip);
        trip.probing = false;
        self.failures.store(0, Ordering::Relaxed);
        self.tripped.store(false, Ordering::Release);
        Some(BreakerState::Closed)
    }

    /// The attempt failed at `now`. Returns the state if it changed.
    ///
    /// A failure of an attempt from before the breaker opened neither prolongs nor decides anything.
    #[allow(clippy::needless_pass_by_value, reason = "an admission is used once")]
    pub fn failed(&self, admission: Admission, now: Instant) -> Option<BreakerState> {
        if !admission.probe {
            if self.threshold == 0 || self.tripped.load(Ordering::Acquire) {
                return None;
            }
            let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if failures < self.threshold {
                return None;
            }
        }
        let mut trip = lock(&self.trip);
        if !admission.probe && self.tripped.load(Ordering::Acquire) {
            return None;
        }
        trip.probing = false;
        let pause = self.open_for.mul_f64(trip.jitter());
        trip.until = now.checked_add(pause);
        self.tripped.store(true, Ordering::Release);
        Some(BreakerState::Open)
    }

    /// The attempt was given up, or said nothing about upstream. Returns the state if it changed.
    #[allow(clippy::needless_pass_by_value, reason = "an admission is used once")]
    pub fn abandoned(&self, admission: Admission) -> Option<BreakerState> {
        if !admission.probe {
            return None;
        }
        lock(&self.trip).probing = false;
        Some(BreakerState::Open)
    }

    /// The state now. Open lasts until a request comes that may probe.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        if !self.tripped.load(Ordering::Acquire) {
            BreakerState::Closed
        } else if lock(&self.trip).probing {
            BreakerState::HalfOpen
        } else {
            BreakerState::Open
        }
    }
}

impl Trip {
    /// A factor from 0.9 to 1.1 (a step of `splitmix64`).
    fn jitter(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [first, second, ..] = (mixed ^ (mixed >> 31)).to_be_bytes();
        0.9 + 0.2 * f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(5);
    /// Later than any jitter.
    const PAST: Duration = Duration::from_millis(5_501);

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(3, OPEN_FOR, 7);
        for _ in 0..2 {
            assert_eq!(breaker.failed(breaker.admit(now).unwrap(), now), None);
        }
        assert_eq!(
            breaker.failed(breaker.admit(now).unwrap(), now),
            Some(BreakerState::Open)
        );
        breaker
    }

    #[test]
    fn only_consecutive_failures_open_it() {
        let now = Instant::now();
        let breaker = Breaker::new(3, OPEN_FOR, 1);
        for _ in 0..10 {
            for _ in 0..2 {
                assert_eq!(breaker.failed(breaker.admit(now).unwrap(), now), None);
            }
            assert_eq!(breaker.succeeded(breaker.admit(now).unwrap()), None);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn open_lets_nothing_through_until_its_time_and_then_one_probe() {
        let now = Instant::now();
        let breaker = opened(now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.admit(now + Duration::from_millis(4_499)).is_none());

        let probe = breaker.admit(now + PAST).unwrap();
        assert!(probe.is_probe());
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit(now + PAST).is_none(), "a second probe");

        assert_eq!(breaker.succeeded(probe), Some(BreakerState::Closed));
        assert!(!breaker.admit(now + PAST).unwrap().is_probe());
    }

    #[test]
    fn a_failed_probe_opens_it_again_for_the_whole_time() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + PAST;
        assert_eq!(
            breaker.failed(breaker.admit(later).unwrap(), later),
            Some(BreakerState::Open)
        );
        assert!(breaker.admit(later + Duration::from_millis(4_499)).is_none());
        assert!(breaker.admit(later + PAST).is_some());
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let now = Instant::now();
        let breaker = opened(now);
        let probe = breaker.admit(now + PAST).unwrap();
        assert_eq!(breaker.abandoned(probe), Some(BreakerState::Open));
        assert!(breaker.admit(now + PAST).unwrap().is_probe());
    }

    #[test]
    fn attempts_from_before_it_opened_change_nothing() {
        let now = Instant::now();
        let breaker = Breaker::new(1, OPEN_FOR, 3);
        let (late_failure, late_success) = (breaker.admit(now).unwrap(), breaker.admit(now).unwrap());
        assert_eq!(
            breaker.failed(breaker.admit(now).unwrap(), now),
            Some(BreakerState::Open)
        );

        let later = now + Duration::from_secs(4);
        assert_eq!(breaker.failed(late_failure, later), None);
        assert_eq!(breaker.succeeded(late_success), None);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(
            breaker.admit(now + PAST).is_some(),
            "a late failure prolonged the pause"
        );
    }

    #[test]
    fn a_threshold_of_zero_never_opens() {
        let now = Instant::now();
        let breaker = Breaker::new(0, OPEN_FOR, 3);
        for _ in 0..100 {
            assert_eq!(breaker.failed(breaker.admit(now).unwrap(), now), None);
        }
    }

    #[test]
    fn the_pause_varies_by_a_tenth_at_most() {
        let mut trip = Trip {
            until: None,
            probing: false,
            random: 42,
        };
        let factors: Vec<f64> = (0..1_000).map(|_| trip.jitter()).collect();
        assert!(factors.iter().all(|factor| (0.9..=1.1).contains(factor)));
        let spread =
            factors.iter().copied().fold(0.0, f64::max) - factors.iter().copied().fold(2.0, f64::min);
        assert!(spread > 0.15, "{spread}");
    }
}
