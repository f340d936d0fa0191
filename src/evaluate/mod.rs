//! The evaluation engines. Pure: no I/O, no clock, no randomness, no logs.
//!
//! [`json`] reads the text of users and flags; [`amplitude`] and [`featbit`] turn them into variants.

pub mod amplitude;
mod canonical;
pub mod featbit;
pub mod json;
mod pattern;
mod quick_map;
