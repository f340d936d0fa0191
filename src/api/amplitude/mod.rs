//! Amplitude's part of the ladder: how its questions are asked upstream, judged, and answered here.
//!
//! This is the seam between the vendors: the ladder knows none of it.

mod local;
mod upstream;

use std::sync::Arc;

use http::StatusCode;

use crate::cache::Stored;

use super::answer::Relayed;

pub use local::local;
pub use upstream::{Judged, ask, fetch, judge, prove};

/// What a fetch brought.
#[derive(Clone, Debug)]
pub enum Landed {
    /// An answer. `kept`: it is in the cache.
    Stored {
        /// The response.
        entry: Arc<Stored>,
        /// Whether the store took it.
        kept: bool,
    },
    /// A verdict, or an answer that may not be stored.
    Relayed(Arc<Relayed>),
    /// Upstream rejected the key after the fetch began.
    Revoked,
    /// No answer, or none that can be trusted.
    Failed {
        /// Upstream's status, if it had one.
        status: Option<StatusCode>,
    },
}
