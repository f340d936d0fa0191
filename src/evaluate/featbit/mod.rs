//! FeatBit's evaluation: flags, segments and a user become variations, as FeatBit's server does it.
//!
//! [`DataSync`] reads the messages that carry flags and segments and compiles them one by one;
//! [`DataSet`] holds those of an environment and evaluates them for a [`Request`]. Neither does I/O or
//! fails: what cannot be evaluated is left out and reported.
//!
//! Invariants: the result depends on nothing but the data set and the request; no input, however hostile,
//! overflows the stack or runs without bound.
//!
//! Source: FeatBit's evaluation server (FB), whose own answers are in `tests/vectors/featbit`.

mod client;
mod compile;
mod condition;
mod evaluation;
mod flag;
mod number;
mod pattern;
mod request;
mod rollout;
mod run;
pub mod secret;
mod set;
mod sync;
mod texts;
mod time;
pub mod token;
mod user;

#[cfg(test)]
mod tests;

pub use self::condition::Undecided;
pub use self::evaluation::{Evaluation, Outcome, Reasons, Unevaluable};
pub use self::flag::{Flag, Segment};
pub use self::request::{Request, RequestFault};
pub use self::run::{Cause, Event, Membership, Observer, Sample};
pub use self::secret::EnvironmentId;
pub use self::set::{Applied, DataSet, Problem, data_sync};
pub use self::sync::{DataSync, DataSyncError, Extent, Rejected};
pub use self::user::EndUser;
