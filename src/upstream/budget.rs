//! The retry budget: retries as a share of requests, so that an outage is not answered with twice the load.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::lock;

/// Seconds of the past that count.
const WINDOW: Duration = Duration::from_secs(10);

/// Retries within a window that are always there, so that a lone request may have one.
const FLOOR: f64 = 3.0;

/// Counts requests and retries over the last ten seconds.
#[derive(Debug)]
pub(super) struct RetryBudget {
    ratio: f64,
    seconds: Mutex<VecDeque<Second>>,
}

#[derive(Debug)]
struct Second {
    begun_at: Instant,
    requests: u32,
    retries: u32,
}

impl RetryBudget {
    /// Retries up to `ratio` of the requests; 0 = no retry at all.
    pub(super) const fn new(ratio: f64) -> Self {
        Self {
            ratio,
            seconds: Mutex::new(VecDeque::new()),
        }
    }

    /// Notes a request at `now`.
    pub(super) fn request(&self, now: Instant) {
        let mut seconds = lock(&self.seconds);
        let second = current(&mut seconds, now);
        second.requests = second.requests.saturating_add(1);
    }

    /// Takes a retry out of the budget; false if there is none left.
    pub(super) fn take(&self, now: Instant) -> bool {
        if self.ratio <= 0.0 {
            return false;
        }
        let mut seconds = lock(&self.seconds);
        current(&mut seconds, now);
        let requests: f64 = seconds.iter().map(|second| f64::from(second.requests)).sum();
        let retries: f64 = seconds.iter().map(|second| f64::from(second.retries)).sum();
        if retries + 1.0 > FLOOR.max(requests * self.ratio) {
            return false;
        }
        let second = current(&mut seconds, now);
        second.retries = second.retries.saturating_add(1);
        true
    }
}

/// The second that `now` is in, with everything out of the window gone.
fn current(seconds: &mut VecDeque<Second>, now: Instant) -> &mut Second {
    let begun = seconds.back().map(|second| second.begun_at);
    if begun.is_none_or(|begun_at| now.saturating_duration_since(begun_at) >= Duration::from_secs(1)) {
        seconds.push_back(Second {
            begun_at: now,
            requests: 0,
            retries: 0,
        });
        while seconds
            .front()
            .is_some_and(|first| now.saturating_duration_since(first.begun_at) >= WINDOW)
        {
            seconds.pop_front();
        }
    }
    let last = seconds.len().saturating_sub(1);
    &mut seconds[last]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &RetryBudget, now: Instant) -> usize {
        (0..1_000).take_while(|_| budget.take(now)).count()
    }

    #[test]
    fn a_lone_request_may_retry() {
        let now = Instant::now();
        let budget = RetryBudget::new(0.1);
        budget.request(now);
        assert_eq!(taken(&budget, now), 3);
    }

    #[test]
    fn many_requests_give_a_tenth() {
        let now = Instant::now();
        let budget = RetryBudget::new(0.1);
        (0..500).for_each(|_| budget.request(now));
        assert_eq!(taken(&budget, now), 50);
    }

    #[test]
    fn the_window_slides() {
        let now = Instant::now();
        let budget = RetryBudget::new(0.1);
        (0..500).for_each(|_| budget.request(now));
        assert_eq!(taken(&budget, now), 50);
        assert_eq!(taken(&budget, now + Duration::from_secs(9)), 0);
        assert_eq!(taken(&budget, now + Duration::from_secs(10)), 3);
        assert!(lock(&budget.seconds).len() <= 11);
    }

    #[test]
    fn no_budget_means_no_retry() {
        let budget = RetryBudget::new(0.0);
        assert!(!budget.take(Instant::now()));
    }
}
