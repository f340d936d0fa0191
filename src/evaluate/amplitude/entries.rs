//! The elements of the flags array: which flag has which key, and what it depends on.

use std::ops::Range;

use super::compile::position;
use super::order::Order;
use super::set::{Entry, Problem, ProblemKind};
use super::spec::text;
use crate::evaluate::json::Value;
use crate::evaluate::quick_map::WordMap;

/// The elements with a key, evaluable or not. Of those with the same key there is only the last, at the first one's
/// place.
#[derive(Default)]
pub(super) struct Entries {
    all: Vec<RawEntry>,
    /// The place of a key.
    places: WordMap<u32>,
    n_elements: usize,
    has_repeated: bool,
    problems: Vec<Problem>,
}

/// An element of the array with a key.
pub(super) struct RawEntry {
    pub(super) key: Box<str>,
    /// Its place in the text of the set.
    pub(super) text: Range<usize>,
    dependencies: Box<[Box<str>]>,
}

/// The key of a flag, if it has one.
pub(super) fn key(flag: Value<'_>) -> Option<&str> {
    flag.get("key").and_then(text)
}

/// The keys that a flag depends on, also if it cannot be evaluated.
pub(super) fn dependencies(flag: Value<'_>) -> Box<[Box<str>]> {
    let list = flag.get("dependencies").into_iter().flat_map(Value::elements);
    list.filter_map(text).map(Box::from).collect()
}

impl Entries {
    /// Adds the next element, whose key is returned if it has one.
    pub(super) fn add<'d>(&mut self, flag: Value<'d>) -> Option<&'d str> {
        let number = self.n_elements;
        self.n_elements += 1;
        let Some(key) = key(flag) else {
            let detail = "it is no object with a text as `key`; it is not evaluated".to_owned();
            self.problem(&format!("[{number}]"), ProblemKind::Malformed, detail);
            return None;
        };
        let entry = RawEntry {
            key: key.into(),
            text: flag.span(),
            dependencies: dependencies(flag),
        };
        match self.place(key) {
            Some(place) => {
                self.all[place] = entry;
                self.has_repeated = true;
                let detail = format!("flag [{number}] has the same key and replaces an earlier one");
                self.problem(key, ProblemKind::Duplicate, detail);
            }
            None => {
                self.places.insert(key.into(), position(self.all.len()));
                self.all.push(entry);
            }
        }
        Some(key)
    }

    fn problem(&mut self, flag: &str, kind: ProblemKind, detail: String) {
        self.problems.push(Problem {
            flag: flag.to_owned(),
            kind,
            detail,
        });
    }

    /// Whether some element replaced an earlier one.
    pub(super) fn has_repeated(&self) -> bool {
        self.has_repeated
    }

    pub(super) fn all(&self) -> &[RawEntry] {
        &self.all
    }

    pub(super) fn place(&self, key: &str) -> Option<usize> {
        self.places.get(key).map(|place| *place as usize)
    }

    /// The order of the flags of some entries, numbered by `index`.
    pub(super) fn order(&self, entries: impl Iterator<Item = u32>, index: &WordMap<u32>) -> Order {
        Order::new(
            index,
            entries.map(|entry| &*self.all[entry as usize].dependencies),
        )
    }

    /// What a set keeps of the entries, and what is wrong with elements.
    pub(super) fn finish(self) -> (Vec<Entry>, Vec<Problem>) {
        let entry = |entry: RawEntry| Entry {
            key: entry.key,
            text: entry.text,
        };
        (self.all.into_iter().map(entry).collect(), self.problems)
    }
}
