//! The tree of a pattern.

use super::class::Set;

/// A part of a pattern.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Set(Set),
    Assertion(Assertion),
    Sequence(Vec<Self>),
    Alternatives(Vec<Self>),
    Capture(Slot, Box<Self>),
    Atomic(Box<Self>),
    LookAround {
        behind: bool,
        negated: bool,
        inner: Box<Self>,
    },
    Reference {
        slot: Slot,
        fold: bool,
    },
    Conditional {
        condition: Condition,
        yes: Box<Self>,
        no: Box<Self>,
    },
    Repetition {
        inner: Box<Self>,
        min: u32,
        max: Option<u32>,
        lazy: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Condition {
    Captured(Slot),
    Matches(Box<Node>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Assertion {
    TextStart,
    LineStart,
    /// At the end, or before a line feed that ends the text.
    TextEnd,
    VeryEnd,
    LineEnd,
    Boundary,
    NoBoundary,
}

/// The number of a group. Several groups may have the same.
pub(super) type Slot = u32;
