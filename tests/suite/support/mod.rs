//! What the tests stand on.
//!
//! [`FakeUpstream`] is Amplitude's cloud on loopback, [`Sidecar`] the program under test, [`Caller`] a client
//! that controls every byte. [`opinion`] is a second, small evaluation engine that shares no code with the
//! program, so that an answer is compared with something that can disagree with it.

pub mod ask;
pub mod caller;
pub mod codec;
mod fake;
pub mod featbit;
pub mod flags;
pub mod malformed;
pub mod metrics;
pub mod near_misses;
pub mod opinion;
pub mod outages;
pub mod sidecar;
pub mod spellings;
pub mod stream;
pub mod upstream;
pub mod wait;

mod selftest;

pub use ask::Ask;
pub use caller::{Caller, Outcome, Response, at_once};
pub use featbit::FakeFeatbit;
pub use sidecar::{Builder, Sidecar};
pub use upstream::{FakeUpstream, Fault, Route};
pub use wait::{eventually, holds_for};
