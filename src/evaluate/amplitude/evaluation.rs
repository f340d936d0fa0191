//! What an evaluation found, as numbers, and how it is written (AE 8 and 9, API 3.6).

use super::set::{Choice, FlagSet};
use crate::evaluate::json::Document;

/// The variants of a user, by flag, in the order of evaluation.
#[derive(Debug)]
pub struct Evaluation<'s> {
    set: &'s FlagSet,
    pub(super) outcomes: Vec<Outcome>,
    /// The texts of substitutes, one after the other.
    substitutes: Vec<u8>,
    pub(super) unfaithful: u32,
    pub(super) patterns_given_up: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) flag: u32,
    pub(super) answer: Answer,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Choice(u32),
    /// Where a substitute stands.
    Substitute(usize, usize),
}

/// One flag of an evaluation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Counted<'e> {
    /// The key of the flag.
    pub flag: &'e str,
    /// The key of its variant; empty for a substitute without one.
    pub variant: std::borrow::Cow<'e, str>,
    /// The variant is the flag's default (`off`).
    pub is_default: bool,
    /// The variant is a substitute.
    pub is_substitute: bool,
}

impl<'s> Evaluation<'s> {
    pub(super) fn new(set: &'s FlagSet, flags: usize) -> Self {
        let outcomes = Vec::with_capacity(flags);
        Self {
            set,
            outcomes,
            substitutes: Vec::new(),
            unfaithful: 0,
            patterns_given_up: 0,
        }
    }

    /// Keeps the text of a substitute.
    pub(super) fn substitute(&mut self, text: &[u8]) -> Answer {
        let start = self.substitutes.len();
        self.substitutes.extend_from_slice(text);
        Answer::Substitute(start, self.substitutes.len())
    }

    /// How many flags have a variant.
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether no flag has a variant.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// How many flags read what only the cloud knows, whether they were substituted or not.
    pub fn unfaithful(&self) -> u32 {
        self.unfaithful
    }

    /// How many matches of regular expressions were given up because of a limit.
    pub fn patterns_given_up(&self) -> u32 {
        self.patterns_given_up
    }

    /// Appends the version 2 answer: every flag that has a variant, defaults included.
    pub fn write_v2(&self, out: &mut Vec<u8>) {
        self.write(out, |_| true, false);
    }

    /// Appends the version 1 answer: without default and undeployed variants, and with `expKey`.
    /// Substitutes are in it as they are.
    pub fn write_v1(&self, out: &mut Vec<u8>) {
        self.write(out, |choice| choice.in_v1, true);
    }

    fn write(&self, out: &mut Vec<u8>, wanted: impl Fn(&Choice) -> bool, v1: bool) {
        out.reserve(self.outcomes.len() * 192 + self.substitutes.len() + 2);
        let written = &*self.set.written;
        out.push(b'{');
        let start = out.len();
        for outcome in &self.outcomes {
            match outcome.answer {
                Answer::Choice(choice) => {
                    let choice = &self.set.choices[choice as usize];
                    if !wanted(choice) {
                        continue;
                    }
                    if out.len() > start {
                        out.push(b',');
                    }
                    out.extend_from_slice(&written[choice.head.clone()]);
                    if v1 {
                        out.extend_from_slice(&written[choice.v1_extra.start..choice.tail.end]);
                    } else {
                        out.extend_from_slice(&written[choice.tail.clone()]);
                    }
                }
                Answer::Substitute(from, to) => {
                    if out.len() > start {
                        out.push(b',');
                    }
                    out.extend_from_slice(&written[self.set.flags[outcome.flag as usize].name.clone()]);
                    out.extend_from_slice(&self.substitutes[from..to]);
                }
            }
        }
        out.push(b'}');
    }

    /// The flags with their variants, in the order of evaluation: what is counted and tracked.
    pub fn counted(&self) -> impl Iterator<Item = Counted<'_>> {
        self.outcomes.iter().map(|outcome| {
            let flag = &*self.set.flags[outcome.flag as usize].key;
            match outcome.answer {
                Answer::Choice(choice) => {
                    let choice = &self.set.choices[choice as usize];
                    let variant = (&*choice.variant_key).into();
                    Counted {
                        flag,
                        variant,
                        is_default: choice.is_default,
                        is_substitute: false,
                    }
                }
                Answer::Substitute(from, to) => {
                    let (variant, is_default) = read_substitute(&self.substitutes[from..to]);
                    Counted {
                        flag,
                        variant: variant.into(),
                        is_default,
                        is_substitute: true,
                    }
                }
            }
        })
    }
}

/// The key of a substitute's variant, and whether it is a default.
fn read_substitute(text: &[u8]) -> (String, bool) {
    let Ok(document) = Document::parse(text, 128) else {
        return (String::new(), false);
    };
    let root = document.root();
    let key = root.get("key").and_then(|key| key.as_str()).unwrap_or_default();
    let default = root.get("metadata").and_then(|metadata| metadata.get("default"));
    (
        key.to_owned(),
        default.and_then(|default| default.as_bool()) == Some(true),
    )
}
