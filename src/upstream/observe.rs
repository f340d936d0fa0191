//! Where metrics and logs hang on.

use std::time::Duration;

use super::{BreakerState, Gate, Origin, UpstreamError};
use crate::metrics::{Operation, Outcome};

/// Told about everything that happens to upstreams, on the thread it happens on. Implementations are
/// quick, never block and never call back into the upstream side.
pub trait Observer: Send + Sync {
    /// One attempt ended: `took` from its start to the last byte of the answer, or to the head of a
    /// relayed one. A request sent again because a kept connection turned out closed is one attempt; a
    /// retry is another. Attempts refused by a breaker or a full gate come here too, with no time.
    fn exchanged(&self, origin: &Origin, operation: Operation, outcome: Outcome, took: Duration);

    /// An attempt failed in a way that is news: the origin has answered since the last failure of this kind, or
    /// there was none. Refused and aborted attempts are not told.
    fn failed(&self, origin: &Origin, error: &UpstreamError);

    /// A failed attempt is about to be repeated.
    fn retried(&self, origin: &Origin, operation: Operation);

    /// The breaker of an origin changed its state.
    fn breaker(&self, origin: &Origin, state: BreakerState);

    /// The breaker of one operation of an environment changed its state.
    fn gate_breaker(&self, gate: &Gate, operation: Operation, state: BreakerState);
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn exchanged(&self, _: &Origin, _: Operation, _: Outcome, _: Duration) {}
    fn failed(&self, _: &Origin, _: &UpstreamError) {}
    fn retried(&self, _: &Origin, _: Operation) {}
    fn breaker(&self, _: &Origin, _: BreakerState) {}
    fn gate_breaker(&self, _: &Gate, _: Operation, _: BreakerState) {}
}
