//! The evaluation engines. Pure: no I/O, no clock, no randomness, no logs.
//!
//! [`json`] reads the text of users and flags.

pub mod json;
