//! Regular expressions with Java's meaning: patterns are translated and compiled when flags are loaded.
//! Every match is of the whole text.

use std::collections::HashMap;
use std::sync::Arc;

use self::translate::translate;
use crate::evaluate::pattern::{Budget, PATTERN_BYTES_MAX};

pub(super) use crate::evaluate::pattern::{Effort, Pattern};

mod class;
mod escape;
mod translate;

/// Compiles the patterns of a flag set, each text once.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    compiled: HashMap<Box<str>, (Arc<Pattern>, Option<String>)>,
    budget: Budget,
}

impl Patterns {
    /// The compiled pattern, and why it is invalid if it is.
    pub(super) fn compile(&mut self, pattern: &str) -> (Arc<Pattern>, Option<String>) {
        if let Some(known) = self.compiled.get(pattern) {
            return known.clone();
        }
        let compiled = match self.build(pattern) {
            Ok(built) => (Arc::new(built), None),
            Err(why) => (Arc::new(Pattern::Invalid), Some(why)),
        };
        self.compiled.insert(pattern.into(), compiled.clone());
        compiled
    }

    fn build(&self, pattern: &str) -> Result<Pattern, String> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
        }
        Pattern::build(&translate(pattern)?, &self.budget)
    }
}

#[cfg(test)]
mod tests;
