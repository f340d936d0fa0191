//! Amplitude's part of the ladder: how its questions are asked upstream, judged, and answered here.

mod local;
mod upstream;

pub use local::{awaits_sync, local};
pub use upstream::{ask, fetch, prove};
