//! The seam between the vendors: what the ladder asks of each, and nothing else of the ladder names one.
//!
//! A vendor has a form of questions ([`crate::key::question`]), a way to ask its upstream and to judge what comes, an
//! engine with the data it works on, and a way to prove a key. Storing, coalescing, clocks and the order of
//! stand-ins are the ladder's.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;

use crate::cache::Stored;
use crate::config::Backend;

use super::answer::Answer;
use super::ladder::{Climb, Landed};
use super::{amplitude, featbit};

/// Asks upstream and stores what it answers.
pub(super) async fn fetch(climb: &Rc<Climb>) -> Landed {
    match climb.environment.backend {
        Backend::Amplitude => amplitude::fetch(climb).await,
        Backend::Featbit => featbit::question::fetch(climb).await,
    }
}

/// An answer computed here, if there is data to compute it from. `stored` helps where computing alone would not be
/// faithful; `upstream` is what upstream said instead of an answer.
pub(super) fn local(
    climb: &Climb,
    stored: Option<&Arc<Stored>>,
    upstream: Option<StatusCode>,
) -> Option<Answer> {
    match climb.environment.backend {
        Backend::Amplitude => amplitude::local(climb, stored, upstream),
        Backend::Featbit => featbit::question::local(climb, upstream),
    }
}

/// Whether what is computed here depends on nothing but the data and the request: then it comes before anything
/// stored (design 5).
pub(super) fn computes_exactly(climb: &Climb) -> bool {
    climb.environment.backend == Backend::Featbit
}

/// Gets the data of a key once, which also proves the key.
pub(super) async fn prove(climb: &Rc<Climb>) -> Landed {
    match climb.environment.backend {
        Backend::Amplitude => amplitude::prove(climb).await,
        Backend::Featbit => featbit::question::prove(climb).await,
    }
}

/// Whether nothing was synced yet that could answer, and a sync would change that.
pub(super) fn awaits_sync(climb: &Climb) -> bool {
    match climb.environment.backend {
        Backend::Amplitude => amplitude::awaits_sync(climb),
        Backend::Featbit => featbit::question::awaits_sync(climb),
    }
}

/// Whether a flags file answers for this key although upstream has said nothing of it.
pub(super) fn is_covered(climb: &Climb) -> bool {
    match climb.environment.backend {
        Backend::Amplitude => climb.environment.bootstrap.is_some(),
        Backend::Featbit => featbit::question::is_covered(climb),
    }
}
