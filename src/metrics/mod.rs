//! Metrics: every family, declared once.

pub mod labels;

pub use labels::{Outcome, Operation, Route, Source};
