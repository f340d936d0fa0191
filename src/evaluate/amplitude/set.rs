//! A compiled flag set.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::condition::Test;
use super::hashes::Hashes;
use super::murmur3::Salted;
use super::order::Order;
use super::property::FixedProperty;
use super::selector::{Paths, Source};
use crate::evaluate::json::{JsonError, Kind};
use crate::evaluate::quick_map::WordMap;

/// The flags of a deployment, compiled once and shared by all evaluations.
///
/// Invariants: keys are unique; every number in here (of a flag, condition, choice or slot) is in range;
/// flags that reach a dependency cycle are never evaluated.
pub struct FlagSet {
    /// The JSON as it came.
    pub(super) text: Arc<String>,
    pub(super) entries: Vec<Entry>,
    pub(super) flags: Vec<Flag>,
    /// The flag of a key.
    pub(super) index: WordMap<u32>,
    pub(super) order: Order,
    pub(super) conditions: Vec<Condition>,
    pub(super) paths: Paths,
    pub(super) results: Vec<ResultSlot>,
    pub(super) choices: Vec<Choice>,
    /// What answers are put together from; see [`Flag::name`] and [`Choice`].
    pub(super) written: Vec<u8>,
    pub(super) problems: Vec<Problem>,
    pub(super) hashes: OnceLock<Box<Hashes>>,
}

impl fmt::Debug for FlagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlagSet")
            .field("flags", &self.flags.len())
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

/// An element of the array with a key, evaluable or not.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    /// Its place in the text of the set.
    pub(super) text: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Flag {
    pub(super) key: Box<str>,
    /// Where `"key":` is written.
    pub(super) name: Range<usize>,
    /// Its place among the entries.
    pub(super) entry: u32,
    /// Its evaluation mode is `remote`: only the cloud has all of its inputs.
    pub(super) is_remote: bool,
    pub(super) segments: Box<[Segment]>,
    /// Its choices are numbered from here.
    pub(super) first_choice: u32,
    /// The result slots that read this flag.
    pub(super) read_by: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Segment {
    /// Conditions by number: any of the groups, all of a group. `None`: matches always.
    pub(super) when: Option<Box<[Box<[u32]>]>>,
    pub(super) bucket: Option<Bucket>,
    /// The choice without bucket, or outside of all of its ranges; `None`: go on with the next segment.
    pub(super) otherwise: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) source: Source,
    pub(super) marks: u8,
    pub(super) salted: Salted,
    pub(super) allocations: Box<[Allocation]>,
}

#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) range: Range<i64>,
    pub(super) distributions: Box<[Distribution]>,
}

#[derive(Debug)]
pub(super) struct Distribution {
    pub(super) range: Range<i64>,
    /// `None`: it names no variant of the flag.
    pub(super) choice: Option<u32>,
}

/// A condition; equal ones of a set are one.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) source: Source,
    pub(super) test: Test,
    /// What makes reading it unfaithful; see [`super::run::marks`].
    pub(super) marks: u8,
    /// The cohorts that it tests.
    pub(super) cohorts: Option<Box<Cohorts>>,
}

#[derive(Debug)]
pub(super) struct Cohorts {
    pub(super) group_type: Box<str>,
    pub(super) ids: Box<[Box<str>]>,
}

/// A selector into the result of another flag.
#[derive(Debug)]
pub(super) struct ResultSlot {
    /// `None`: the set has no such flag.
    pub(super) flag: Option<u32>,
    pub(super) flag_key: Box<str>,
    /// `key`, `value` or `metadata`, and what follows.
    pub(super) path: Box<[Box<str>]>,
    /// What is found, for every choice of that flag.
    pub(super) by_choice: Vec<Option<FixedProperty>>,
}

/// A variant together with the segment that leads to it, as answers show them.
///
/// Places in the set's `written`: `head` is `"flag":{"key":...,"value":...,"payload":...`, `v1_extra` is
/// `,"expKey":...` or empty, `tail` is `,"metadata":{...}}`.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) head: Range<usize>,
    pub(super) v1_extra: Range<usize>,
    pub(super) tail: Range<usize>,
    pub(super) variant_key: Box<str>,
    pub(super) is_default: bool,
    /// It is in version 1 answers: deployed and no default.
    pub(super) in_v1: bool,
}

/// A flag as the configuration gave it.
#[derive(Clone, Copy, Debug)]
pub struct FlagText<'s> {
    /// Its key, unique in the set.
    pub key: &'s str,
    /// The JSON object, byte for byte.
    pub text: &'s str,
    set: &'s FlagSet,
    entry: usize,
}

impl FlagText<'_> {
    /// Hash over the canonical definition of the flag and of everything that it depends on. The first one that is asked for
    /// costs about as much as the set took to read.
    pub fn definition(&self) -> u128 {
        self.set.hashes().definitions[self.entry]
    }
}

/// Something that keeps a flag, or part of it, from being evaluated as its author meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The flag, or its place in the array (`[3]`) if it has no key.
    pub flag: String,
    /// What kind of problem.
    pub kind: ProblemKind,
    /// A sentence for people: what is wrong, where, and what follows from it.
    pub detail: String,
}

/// The kinds of problems; a closed set for metrics.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProblemKind {
    /// The flag's JSON is not that of a flag: it is not evaluated.
    Malformed,
    /// A later flag has the same key: this one is not evaluated.
    Duplicate,
    /// A regular expression does not compile: it matches nothing.
    Pattern,
    /// The flag is on a dependency cycle or depends on one: it is not evaluated.
    Cycle,
    /// The flag's answers would be too large: it is not evaluated.
    TooLarge,
}

impl ProblemKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 5] = [
        Self::Malformed,
        Self::Duplicate,
        Self::Pattern,
        Self::Cycle,
        Self::TooLarge,
    ];

    /// The word for metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Pattern => "pattern",
            Self::Cycle => "cycle",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a text is no flag set at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FlagSetError {
    /// It is no JSON.
    #[error("the flags are no valid JSON ({0}); give the array that /sdk/v2/flags returns")]
    Json(#[from] JsonError),
    /// It is JSON, but no array.
    #[error("the flags must be a JSON array as /sdk/v2/flags returns it, not {}", kind_name(*.0))]
    NotAnArray(Kind),
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Bool => "a boolean",
        Kind::Number => "a number",
        Kind::String => "a string",
        Kind::Array => "an array",
        Kind::Object => "an object",
    }
}

impl FlagSet {
    /// Compiles the JSON array of flags that `/sdk/v2/flags` returns.
    ///
    /// What is wrong with single flags does not fail the set; see [`FlagSet::problems`].
    ///
    /// # Errors
    ///
    /// The text is no JSON array.
    pub fn compile(json: &[u8]) -> Result<Self, FlagSetError> {
        super::compile::compile(json.to_vec())
    }

    /// Like [`FlagSet::compile`], and keeps the text it is given.
    ///
    /// # Errors
    ///
    /// The text is no JSON array.
    pub fn compile_owned(json: Vec<u8>) -> Result<Self, FlagSetError> {
        super::compile::compile(json)
    }

    /// What is wrong with flags of the set.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The flags as they came, evaluable or not, in the order of the configuration. Of flags with the
    /// same key there is only the last, at the first one's position.
    pub fn flags(&self) -> impl Iterator<Item = FlagText<'_>> {
        (0..self.entries.len()).map(|entry| self.flag_text(entry))
    }

    pub(super) fn flag_text(&self, entry: usize) -> FlagText<'_> {
        let Entry { key, text } = &self.entries[entry];
        FlagText {
            key,
            text: &self.text[text.clone()],
            set: self,
            entry,
        }
    }

    fn hashes(&self) -> &Hashes {
        self.hashes
            .get_or_init(|| Box::new(Hashes::of(&self.text, &self.entries)))
    }

    /// The flag with this key, as it came.
    pub fn flag(&self, key: &str) -> Option<FlagText<'_>> {
        self.flags().find(|flag| flag.key == key)
    }

    /// How many flags can be evaluated.
    pub fn len(&self) -> usize {
        self.order.all().len()
    }

    /// Whether no flag can be evaluated.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cohorts that conditions test, as group type (`User` for users) and id, each once, sorted.
    pub fn cohorts(&self) -> BTreeSet<(&str, &str)> {
        let tested = self
            .conditions
            .iter()
            .filter_map(|condition| condition.cohorts.as_deref());
        tested
            .flat_map(|of| of.ids.iter().map(|id| (&*of.group_type, &**id)))
            .collect()
    }

    /// A hash of what the flags say: equal for equal flags in any order, with any white space and order
    /// of members; the same in every process. Like [`FlagText::definition`], it costs something when it is first asked for.
    pub fn revision(&self) -> u128 {
        self.hashes().revision
    }

    /// The JSON array as it came.
    pub fn text(&self) -> &Arc<String> {
        &self.text
    }
}
