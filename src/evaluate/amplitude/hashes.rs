//! What tells versions of flags apart, whatever they are spelled like and in whichever order they come.

use super::compile::DEPTH_MAX;
use super::entries::{dependencies, key};
use super::order::Order;
use super::set::Entry;
use crate::evaluate::canonical::Hash128;
use crate::evaluate::json::Elementwise;
use crate::evaluate::quick_map::WordMap;

/// Hashes of a flag set.
///
/// They cost as much as reading the text once more. Evaluation needs none of them, so they are made when somebody asks: a
/// flags file is compared with nothing.
#[derive(Debug)]
pub(super) struct Hashes {
    /// Over all flags, sorted by key, and over what has no key.
    pub(super) revision: u128,
    /// Per entry over the flag and everything that it depends on.
    pub(super) definitions: Vec<u128>,
}

/// The flags by entry.
struct Read {
    /// Hashes of canonical texts.
    canonical: Vec<u128>,
    dependencies: Vec<Box<[Box<str>]>>,
    /// Hashes of the elements without key.
    nameless: Vec<u128>,
}

impl Hashes {
    /// Those of a set with this text and these entries.
    pub(super) fn of(text: &str, entries: &[Entry]) -> Self {
        let places: WordMap<u32> = entries.iter().map(|entry| entry.key.clone()).zip(0..).collect();
        let read = Read::new(text, &places);
        let definitions = read.definitions(&places);
        Self {
            definitions,
            revision: read.revision(entries),
        }
    }
}

impl Read {
    fn new(text: &str, places: &WordMap<u32>) -> Self {
        let mut read = Self {
            canonical: vec![0; places.len()],
            dependencies: vec![Box::default(); places.len()],
            nameless: Vec::new(),
        };
        let mut canonical_text = Vec::new();
        // The text was read without fault before.
        let Ok(Some(mut elements)) = Elementwise::new(text, DEPTH_MAX) else {
            return read;
        };
        while let Ok(Some(element)) = elements.next() {
            let flag = element.root();
            canonical_text.clear();
            flag.write_sorted(&mut canonical_text);
            let mut hash = Hash128::new();
            hash.part(&canonical_text);
            match key(flag).and_then(|key| places.get(key)) {
                // The last one of a key holds.
                Some(place) => {
                    read.canonical[*place as usize] = hash.finish();
                    read.dependencies[*place as usize] = dependencies(flag);
                }
                None => read.nameless.push(hash.finish()),
            }
        }
        read
    }

    fn definitions(&self, places: &WordMap<u32>) -> Vec<u128> {
        let order = Order::new(places, self.dependencies.iter().map(|names| &**names));
        let mut known = vec![0_u128; self.canonical.len()];
        // Dependencies come first; a flag on a cycle is never evaluated, so that its own hash will do.
        let cyclic = (0..).take(known.len()).filter(|place| order.is_cyclic(*place));
        for place in order.all().iter().copied().chain(cyclic) {
            let mut hash = Hash128::new();
            hash.part(&self.canonical[place as usize].to_le_bytes());
            for name in &self.dependencies[place as usize] {
                hash.part(name.as_bytes());
                let definition = places.get(name).map_or(0, |place| known[*place as usize]);
                hash.part(&definition.to_le_bytes());
            }
            known[place as usize] = hash.finish();
        }
        known
    }

    fn revision(mut self, entries: &[Entry]) -> u128 {
        let mut sorted: Vec<(&str, u128)> = entries
            .iter()
            .map(|entry| &*entry.key)
            .zip(self.canonical)
            .collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        let mut hash = Hash128::new();
        for (key, canonical) in sorted {
            hash.part(key.as_bytes());
            hash.part(&canonical.to_le_bytes());
        }
        self.nameless.sort_unstable();
        for canonical in self.nameless {
            hash.part(&canonical.to_le_bytes());
        }
        hash.finish()
    }
}
