//! Sets of texts, for looking up only: the values of a condition and the members that selectors name.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use super::property::{List, boolean_word};
use crate::evaluate::quick_map::QuickHasher;

/// Up to this many words are compared one by one.
const FEW: usize = 8;

/// The `values` of a condition: a set.
#[derive(Debug)]
pub(super) struct Values {
    words: Box<[Box<str>]>,
    /// Filled for sets that are not small.
    index: HashSet<Box<str>, BuildHasherDefault<QuickHasher>>,
    has_true: bool,
    has_false: bool,
    /// How many words are no boolean ones.
    plain: usize,
}

impl Values {
    /// The set of `words`; repeated ones collapse.
    pub(super) fn new(words: impl IntoIterator<Item = Box<str>>) -> Self {
        let mut kept: Vec<Box<str>> = words.into_iter().collect();
        let mut index = HashSet::default();
        if kept.len() <= FEW {
            let mut distinct = Vec::with_capacity(kept.len());
            for word in kept {
                if !distinct.contains(&word) {
                    distinct.push(word);
                }
            }
            kept = distinct;
        } else {
            kept.retain(|word| index.insert(word.clone()));
        }
        let words = kept.into_boxed_slice();
        let has = |boolean| words.iter().any(|word| boolean_word(word) == Some(boolean));
        let plain = words.iter().filter(|word| boolean_word(word).is_none()).count();
        Self {
            has_true: has(true),
            has_false: has(false),
            plain,
            index,
            words,
        }
    }

    /// The distinct words, in the order of the configuration.
    pub(super) fn words(&self) -> &[Box<str>] {
        &self.words
    }

    /// Whether `text` is one of the words, exactly.
    pub(super) fn contains(&self, text: &str) -> bool {
        if self.index.is_empty() {
            self.words.iter().any(|word| **word == *text)
        } else {
            self.index.contains(text)
        }
    }

    /// The rule of `is`: boolean words match each other ignoring case, everything else exactly.
    pub(super) fn is(&self, text: &str) -> bool {
        if self.has_true || self.has_false {
            match boolean_word(text) {
                Some(true) => return self.has_true,
                Some(false) => return self.has_false,
                None => {}
            }
        }
        self.contains(text)
    }

    /// Whether `list` and these are the same set of exact texts.
    pub(super) fn equal(&self, list: &List<'_>) -> bool {
        list.elements.len() == self.words.len() && list.elements.iter().all(|element| self.contains(element))
    }

    /// Whether every word is in `list` (by the rule of `is`), which has at least as many elements.
    pub(super) fn all_in(&self, list: &List<'_>) -> bool {
        list.elements.len() >= self.words.len()
            && (list.has_true || !self.has_true)
            && (list.has_false || !self.has_false)
            && self.plain_in(list).count() == self.plain
    }

    /// Whether some word is in `list` (by the rule of `is`).
    pub(super) fn any_in(&self, list: &List<'_>) -> bool {
        (list.has_true && self.has_true)
            || (list.has_false && self.has_false)
            || self.plain_in(list).next().is_some()
    }

    fn plain_in<'l>(&'l self, list: &'l List<'_>) -> impl Iterator<Item = &'l str> {
        let is_plain = |element: &&str| boolean_word(element).is_none() && self.contains(element);
        list.elements.iter().map(|element| &**element).filter(is_plain)
    }
}
