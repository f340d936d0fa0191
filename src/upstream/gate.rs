//! What bounds one environment's use of upstream.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, BreakerState};
use super::budget::RetryBudget;
use super::lock;
use crate::config;
use crate::metrics::Operation;

/// The bounds of one environment: requests under way, retries, and a breaker per operation for answers of
/// 5xx that do not say the origin is gone (500, 501, 505 and up: one broken flag makes a FeatBit server
/// answer 500 for ever, and the other environments of that server must not suffer).
///
/// Per operation, so that nobody who calls odd paths through the proxy can open the breaker of evaluation.
#[derive(Debug)]
pub struct Gate {
    name: Box<str>,
    max_in_flight: usize,
    /// Under way, by [`Lane`].
    in_flight: [AtomicUsize; 2],
    pub(super) budget: RetryBudget,
    /// Until when upstream wants to be left alone.
    paused_until: Mutex<Option<Instant>>,
    is_paused: AtomicBool,
    breakers: [Breaker; Operation::ALL.len()],
}

/// Buffered exchanges and relays are counted apart: slow readers of relayed bodies must not use up the
/// slots of evaluation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    Exchange = 0,
    Relay = 1,
}

/// One request under way; dropped, it makes room for another.
#[derive(Debug)]
pub(super) struct Slot {
    gate: Arc<Gate>,
    lane: Lane,
}

impl Gate {
    /// The gate of the environment `name`.
    #[must_use]
    pub fn new(name: &str, settings: &config::Upstream) -> Arc<Self> {
        let random = RandomState::new();
        Arc::new(Self {
            name: name.into(),
            max_in_flight: settings.max_in_flight,
            in_flight: [AtomicUsize::new(0), AtomicUsize::new(0)],
            budget: RetryBudget::new(settings.retry_budget),
            paused_until: Mutex::default(),
            is_paused: AtomicBool::new(false),
            breakers: Operation::ALL.map(|operation| {
                Breaker::new(
                    settings.circuit_failures,
                    settings.circuit_open_for,
                    random.hash_one(operation),
                )
            }),
        })
    }

    /// Name of the environment.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Requests under way, relayed streams not counted.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
            .iter()
            .map(|lane| lane.load(Ordering::Relaxed))
            .sum()
    }

    /// State of the breaker of `operation`.
    #[must_use]
    pub fn breaker_state(&self, operation: Operation) -> BreakerState {
        self.breaker(operation).state()
    }

    /// The breaker of `operation`.
    pub(super) const fn breaker(&self, operation: Operation) -> &Breaker {
        &self.breakers[operation.index()]
    }

    /// Upstream wants no request for so long: nobody gets a slot until then.
    pub fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut paused_until = lock(&self.paused_until);
        *paused_until = Some(paused_until.map_or(until, |before| before.max(until)));
        self.is_paused.store(true, Ordering::Release);
    }

    fn is_paused(&self, now: Instant) -> bool {
        if !self.is_paused.load(Ordering::Acquire) {
            return false;
        }
        let mut paused_until = lock(&self.paused_until);
        if paused_until.is_some_and(|until| now < until) {
            return true;
        }
        *paused_until = None;
        self.is_paused.store(false, Ordering::Release);
        false
    }

    /// Takes a slot, if there is one; never waits. The request counts towards the retry budget.
    pub(super) fn enter(self: &Arc<Self>, lane: Lane, now: Instant) -> Option<Slot> {
        if self.is_paused(now) {
            return None;
        }
        let counter = &self.in_flight[lane as usize];
        if counter.fetch_add(1, Ordering::Relaxed) >= self.max_in_flight {
            counter.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.budget.request(now);
        Some(Slot {
            gate: Arc::clone(self),
            lane,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.in_flight[self.lane as usize].fetch_sub(1, Ordering::Relaxed);
    }
}
