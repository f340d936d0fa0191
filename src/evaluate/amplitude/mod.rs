//! Amplitude's local evaluation: flags and a user become variants, as Amplitude's Kotlin engine does it.
//!
//! [`FlagSet::compile`] does everything that does not depend on a user: it checks flags, orders them,
//! numbers the distinct selectors and conditions, compiles patterns and writes out every variant that can
//! be an answer. [`FlagSet::evaluate`] then walks the user's JSON once and decides flag by flag with
//! numbers alone. Neither does I/O or fails: what cannot be evaluated is left out and reported.
//!
//! Invariants: the result depends on nothing but the flags, the subject and the [`Host`]; no input,
//! however hostile, overflows the stack or runs without bound.

mod answers;
mod compile;
mod condition;
mod entries;
mod evaluation;
mod hashes;
mod murmur3;
mod number;
mod order;
mod pattern;
mod property;
mod run;
mod selector;
mod set;
mod spec;
mod version;
mod words;

#[cfg(test)]
mod tests;

pub use self::evaluation::{Counted, Evaluation};
pub use self::murmur3::{Bucketed, murmur3};
pub use self::run::{Event, Host, Seen, Substitute};
pub use self::selector::Subject;
pub use self::set::{FlagSet, FlagSetError, FlagText, Problem, ProblemKind};
