//! Compiled flags and segments.

use std::fmt;
use std::ops::Range;

use super::condition::{Condition, SegmentCondition};
use super::secret::EnvironmentId;
use super::texts::Texts;

/// A flag as it was synced, compiled once for all evaluations.
///
/// Invariants: every number in here (of a variation or a place in `written`) is in range.
pub struct Flag {
    pub(super) item: Item,
    pub(super) key: Box<str>,
    /// JSON that answers are put together from.
    pub(super) written: Box<str>,
    /// In `written`: the key and the type, each with its quotes, and the list of variations as client
    /// answers show it.
    pub(super) key_json: Span,
    pub(super) type_json: Span,
    pub(super) options_json: Span,
    pub(super) variations: Box<[Variation]>,
    pub(super) tags: Texts,
    pub(super) is_archived: bool,
    pub(super) is_enabled: bool,
    /// Everybody who is targeted or falls in a split counts for experiments.
    pub(super) includes_all: bool,
    pub(super) disabled: Choice,
    pub(super) targets: Box<[Target]>,
    pub(super) rules: Box<[Rule]>,
    /// `None`: the flag has no fallthrough.
    pub(super) fallthrough: Option<Split>,
}

/// A segment as it was synced, compiled once for all evaluations.
pub struct Segment {
    pub(super) item: Item,
    pub(super) excluded: Texts,
    pub(super) included: Texts,
    /// Any of the rules, all conditions of a rule.
    pub(super) rules: Box<[Box<[Condition]>]>,
}

/// What flags and segments have in common.
pub(super) struct Item {
    pub(super) id: Box<str>,
    pub(super) environment: Option<EnvironmentId>,
    pub(super) updated_ms: i64,
    /// The JSON as it came.
    pub(super) raw: Box<str>,
    /// Hash over what evaluation reads.
    pub(super) definition: u128,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A variation: where its id and its value stand in [`Flag::written`], as JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variation {
    pub(super) id_json: Span,
    pub(super) value_json: Span,
}

/// What a user gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Choice {
    /// The variation with this number.
    Variation(u32),
    /// Null: an id that no variation has.
    Missing,
    /// Empty texts: no entry of a split holds.
    Empty,
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) users: Texts,
    pub(super) choice: Choice,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// In [`Flag::written`], as JSON.
    pub(super) name_json: Span,
    pub(super) conditions: Box<[RuleCondition]>,
    pub(super) split: Split,
}

/// A condition of a flag's rule; those of segments are ordinary ones only.
#[derive(Debug)]
pub(super) enum RuleCondition {
    Ordinary(Condition),
    Segments(SegmentCondition),
}

/// How users are divided among variations.
#[derive(Debug)]
pub(super) struct Split {
    /// What decides the place of a user.
    pub(super) by: super::condition::Property,
    /// Users of this split count for experiments.
    pub(super) in_experiment: bool,
    pub(super) entries: Box<[Entry]>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// `None`: fewer than two numbers.
    pub(super) range: Option<[f64; 2]>,
    pub(super) choice: Choice,
    /// How much of the range counts for experiments.
    pub(super) experiment: f64,
}

impl Flag {
    /// Its id, unique in the environment; usually a GUID.
    pub fn id(&self) -> &str {
        &self.item.id
    }

    /// Its key, by which applications know it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// When it was changed last, in milliseconds since 1970.
    pub fn updated_ms(&self) -> i64 {
        self.item.updated_ms
    }

    /// The JSON object as it came, byte for byte.
    pub fn raw(&self) -> &str {
        &self.item.raw
    }

    /// Whether it is archived: its answer is null for everybody.
    pub fn is_archived(&self) -> bool {
        self.is_archived
    }

    /// The ids of the segments that its rules name, in their order, repeated ones too.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let conditions = self.rules.iter().flat_map(|rule| &rule.conditions);
        conditions
            .filter_map(|condition| match condition {
                RuleCondition::Segments(segments) => segments.ids.as_ref().ok(),
                RuleCondition::Ordinary(_) => None,
            })
            .flat_map(|ids| ids.iter().flatten().map(|id| &**id))
    }

    /// A part of what answers are put together from.
    pub(super) fn json(&self, span: Span) -> &str {
        &self.written[span.range()]
    }
}

impl Segment {
    /// Its id, unique in the environment; usually a GUID.
    pub fn id(&self) -> &str {
        &self.item.id
    }

    /// When it was changed last, in milliseconds since 1970.
    pub fn updated_ms(&self) -> i64 {
        self.item.updated_ms
    }

    /// The JSON object as it came, byte for byte.
    pub fn raw(&self) -> &str {
        &self.item.raw
    }
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flag")
            .field("key", &self.key)
            .field("updated_ms", &self.item.updated_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("id", &self.item.id)
            .field("updated_ms", &self.item.updated_ms)
            .finish_non_exhaustive()
    }
}
