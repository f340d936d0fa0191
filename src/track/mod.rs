//! Events of applications, taken on at once and delivered to upstream in batches.
//!
//! An application's SDK gets its 200 when its events are in the [`Queue`]; what becomes of them is told by metrics.
//! [`fn@deliver`] sends them from the background thread. What an event is, where it goes and how a batch of them is
//! written is a [`Form`]; there is one per kind of event.
//!
//! Invariants: the queue is bounded by number and by bytes, and a full one refuses what is new; events of one
//! lane (one secret) arrive in the order they came; a batch is repeated only when upstream may do better later
//! (408, 425, 429, 5xx, no answer) and is dropped for every other refusal; every event that came is counted
//! exactly once as sent, as dropped or as waiting. No event and no secret reaches a log line.

mod deliver;
pub mod insight;
mod queue;

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;

use crate::metrics::EventKind;
use crate::upstream::{Gate, Origin};

pub use deliver::{Pace, deliver};
pub use insight::{Insights, Lane as InsightLane};
pub use queue::{Batch, Queue, QueueLimits};

/// One kind of event: where it goes and how a batch is written.
pub trait Form: Send + Sync + 'static {
    /// What keeps its order: one secret of one environment. Its `Debug` must not show the secret.
    type Lane: Clone + Eq + Hash + Send + 'static;

    /// The label of its metrics.
    const KIND: EventKind;

    /// The request that delivers `events`, oldest first; none where the lane leads nowhere (any more).
    fn outbound(&self, lane: &Self::Lane, events: &[Bytes]) -> Option<Outbound>;
}

/// A batch on its way out.
#[derive(Debug)]
pub struct Outbound {
    /// Where to.
    pub origin: Arc<Origin>,
    /// What bounds it.
    pub gate: Arc<Gate>,
    /// The request; only path, query, headers and body count.
    pub request: Request<Bytes>,
}
