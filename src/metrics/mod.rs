//! Metrics: every family, declared once.

pub mod labels;

pub use labels::{Operation, Outcome, Route, Source};
