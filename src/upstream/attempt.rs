//! One attempt: admitted by both breakers, reported once, whatever becomes of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::breaker::{Admission, BreakerState};
use super::error::{Blame, Phase, UpstreamError};
use super::{Gate, Observer, Origin};
use crate::metrics::{Operation, Outcome};

/// An attempt under way. Dropped before [`Attempt::answered`] or [`Attempt::failed`], it counts as
/// cancelled and gives its probes back.
pub(super) struct Attempt<'a> {
    pub(super) origin: &'a Origin,
    gate: &'a Gate,
    operation: Operation,
    observer: &'a dyn Observer,
    started_at: Instant,
    /// Of the origin's breaker and of the gate's; gone once reported.
    admissions: Option<(Admission, Admission)>,
}

impl<'a> Attempt<'a> {
    /// Asks both breakers; `None`: one of them says not now.
    pub(super) fn begin(
        origin: &'a Origin,
        gate: &'a Gate,
        operation: Operation,
        observer: &'a dyn Observer,
        now: Instant,
    ) -> Option<Self> {
        let to_gate = gate.breaker(operation).admit(now)?;
        let Some(to_origin) = origin.breaker.admit(now) else {
            gate.breaker(operation).abandoned(to_gate);
            return None;
        };
        if to_gate.is_probe() {
            observer.gate_breaker(gate, operation, BreakerState::HalfOpen);
        }
        if to_origin.is_probe() {
            observer.breaker(origin, BreakerState::HalfOpen);
        }
        origin.in_flight.fetch_add(1, Ordering::Relaxed);
        let admissions = Some((to_origin, to_gate));
        Some(Self {
            origin,
            gate,
            operation,
            observer,
            started_at: now,
            admissions,
        })
    }

    /// How long it has been going on at `now`.
    pub(super) fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started_at)
    }

    /// Upstream answered with `status`.
    pub(super) fn answered(mut self, status: StatusCode, now: Instant) {
        let gateway = matches!(status.as_u16(), 502..=504);
        let origin = if gateway {
            Verdict::Failed
        } else {
            Verdict::Succeeded
        };
        let gate = match status.is_server_error() {
            true if gateway => Verdict::Nothing,
            true => Verdict::Failed,
            false => Verdict::Succeeded,
        };
        self.settle(outcome(status), origin, gate, now);
    }

    /// Upstream gave no whole answer.
    pub(super) fn failed(mut self, error: &UpstreamError, now: Instant) {
        let origin = match error.blame() {
            Blame::Origin => Verdict::Failed,
            Blame::Answer => Verdict::Succeeded,
            Blame::Nobody => Verdict::Nothing,
        };
        self.tell(error);
        self.settle(error.outcome(), origin, Verdict::Nothing, now);
    }

    /// A relayed request got no whole answer. That it came late says nothing of the origin: the client's own
    /// body, or a path that is slow by nature, may be the reason.
    pub(super) fn relay_failed(mut self, error: &UpstreamError, now: Instant) {
        if matches!(error, UpstreamError::Timeout(Phase::Head)) {
            self.tell(error);
            self.settle(error.outcome(), Verdict::Nothing, Verdict::Nothing, now);
        } else {
            self.failed(error, now);
        }
    }

    fn tell(&self, error: &UpstreamError) {
        if error.blame() != Blame::Nobody && self.origin.is_news(error.outcome()) {
            self.observer.failed(self.origin, error);
        }
    }

    fn settle(&mut self, outcome: Outcome, origin: Verdict, gate: Verdict, now: Instant) {
        let Some((to_origin, to_gate)) = self.admissions.take() else {
            return;
        };
        self.origin.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.origin.note(outcome);
        self.observer
            .exchanged(self.origin, self.operation, outcome, self.took(now));
        if let Some(state) = origin.tell(&self.origin.breaker, to_origin) {
            self.observer.breaker(self.origin, state);
        }
        if let Some(state) = gate.tell(self.gate.breaker(self.operation), to_gate) {
            self.observer.gate_breaker(self.gate, self.operation, state);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.admissions.is_some() {
            self.settle(
                Outcome::Cancelled,
                Verdict::Nothing,
                Verdict::Nothing,
                Instant::now(),
            );
        }
    }
}

/// Reports an attempt that was not made, and hands its reason on.
pub(super) fn refuse(
    origin: &Origin,
    operation: Operation,
    observer: &dyn Observer,
    error: UpstreamError,
) -> UpstreamError {
    observer.exchanged(origin, operation, error.outcome(), Duration::ZERO);
    error
}

/// What an attempt says to one breaker.
#[derive(Clone, Copy)]
enum Verdict {
    Succeeded,
    Failed,
    Nothing,
}

impl Verdict {
    fn tell(self, breaker: &super::Breaker, admission: Admission) -> Option<BreakerState> {
        match self {
            Self::Succeeded => breaker.succeeded(admission),
            Self::Failed => breaker.failed(admission, Instant::now()),
            Self::Nothing => breaker.abandoned(admission),
        }
    }
}

/// The `outcome` label of an answer.
fn outcome(status: StatusCode) -> Outcome {
    match status.as_u16() {
        429 => Outcome::Throttled,
        401 | 403 => Outcome::Rejected,
        200..=299 => Outcome::Success,
        300..=399 => Outcome::Redirect,
        400..=499 => Outcome::ClientError,
        500..=599 => Outcome::ServerError,
        _ => Outcome::Protocol,
    }
}
