//! Amplitude's part of the ladder: how its questions are asked upstream, judged, and answered here.
//!
//! This is the seam between the vendors: the ladder knows none of it.

mod local;
mod upstream;

pub use local::local;
pub use upstream::{Judged, ask, fetch, judge, prove};
