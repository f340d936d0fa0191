//! The elements of the flags array: which flag has which key, what it means and what it depends on.

use std::ops::Range;

use super::compile::position;
use super::order::Order;
use super::set::{Entry, Problem, ProblemKind};
use super::spec::text;
use crate::evaluate::canonical::Hash128;
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
    /// Hashes of the elements without key.
    nameless: Vec<u128>,
    problems: Vec<Problem>,
    canonical: Vec<u8>,
}

/// An element of the array with a key.
pub(super) struct RawEntry {
    pub(super) key: Box<str>,
    /// Its place in the text of the set.
    pub(super) text: Range<usize>,
    /// The hash of its definition.
    canonical: u128,
    dependencies: Box<[Box<str>]>,
}

impl Entries {
    /// Adds the next element, whose key is returned if it has one.
    pub(super) fn add<'d>(&mut self, flag: Value<'d>) -> Option<&'d str> {
        let number = self.n_elements;
        self.n_elements += 1;
        self.canonical.clear();
        flag.write_sorted(&mut self.canonical);
        let mut hash = Hash128::new();
        hash.part(&self.canonical);
        let canonical = hash.finish();
        let [key, dependencies] = flag.pick(["key", "dependencies"]);
        let Some(key) = key.and_then(text) else {
            let detail = "it is no object with a text as `key`; it is not evaluated".to_owned();
            self.problem(&format!("[{number}]"), ProblemKind::Malformed, detail);
            self.nameless.push(canonical);
            return None;
        };
        let names = dependencies
            .into_iter()
            .flat_map(Value::elements)
            .filter_map(text);
        let entry = RawEntry {
            key: key.into(),
            text: flag.span(),
            canonical,
            dependencies: names.map(Box::from).collect(),
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

    /// The order of all entries, by their places.
    pub(super) fn order(&self) -> Order {
        Order::new(&self.places, self.all.iter().map(|entry| &*entry.dependencies))
    }

    /// The order of some, numbered by `index`.
    pub(super) fn order_of<'k>(&self, keys: impl Iterator<Item = &'k str>, index: &WordMap<u32>) -> Order {
        let dependencies = |key: &str| self.place(key).map(|place| &*self.all[place].dependencies);
        Order::new(index, keys.map(|key| dependencies(key).unwrap_or_default()))
    }

    /// Per entry the hash of the flag and of everything that it depends on.
    pub(super) fn definitions(&self, order: &Order) -> Vec<u128> {
        let mut known = vec![0; self.all.len()];
        // Dependencies come first; a flag on a cycle is never evaluated, so that its own hash will do.
        let cyclic = (0..self.all.len())
            .map(position)
            .filter(|place| order.is_cyclic(*place));
        for place in order.all().iter().copied().chain(cyclic) {
            let entry = &self.all[place as usize];
            let mut hash = Hash128::new();
            hash.part(&entry.canonical.to_le_bytes());
            for name in &entry.dependencies {
                hash.part(name.as_bytes());
                let definition: u128 = self.place(name).map_or(0, |place| known[place]);
                hash.part(&definition.to_le_bytes());
            }
            known[place as usize] = hash.finish();
        }
        known
    }

    /// The hash of all flags, sorted by key, and of what has no key.
    pub(super) fn revision(&mut self) -> u128 {
        let mut sorted: Vec<&RawEntry> = self.all.iter().collect();
        sorted.sort_unstable_by_key(|entry| &*entry.key);
        let mut hash = Hash128::new();
        for entry in sorted {
            hash.part(entry.key.as_bytes());
            hash.part(&entry.canonical.to_le_bytes());
        }
        self.nameless.sort_unstable();
        for canonical in &self.nameless {
            hash.part(&canonical.to_le_bytes());
        }
        hash.finish()
    }

    /// What a set keeps of the entries, and what is wrong with elements.
    pub(super) fn finish(self, definitions: &[u128]) -> (Vec<Entry>, Vec<Problem>) {
        let entry = |(entry, definition): (RawEntry, &u128)| Entry {
            key: entry.key,
            text: entry.text,
            definition: *definition,
        };
        let entries = self.all.into_iter().zip(definitions).map(entry);
        (entries.collect(), self.problems)
    }
}
