//! Regular expressions with .NET's meaning, compiled when they are needed first.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::condition::Undecided;
use crate::evaluate::pattern::{Budget, Effort, PATTERN_BYTES_MAX, Pattern, Translated};

/// A pattern of the configuration.
#[derive(Debug)]
pub(super) struct LazyPattern {
    text: Box<str>,
    budget: Arc<Budget>,
    compiled: OnceLock<Result<Pattern, String>>,
}

impl LazyPattern {
    /// Whether the pattern matches somewhere in `text`.
    pub(super) fn is_match(&self, text: &str, effort: &Effort) -> Result<bool, Undecided<'_>> {
        let compiled = self.compiled().as_ref();
        let compiled = compiled.map_err(|why| Undecided::Pattern(why))?;
        compiled.try_match(text, effort).map_err(|_| Undecided::GivenUp)
    }

    /// Why the pattern is invalid, if it is.
    pub(super) fn problem(&self) -> Option<&str> {
        self.compiled().as_ref().err().map(String::as_str)
    }

    fn compiled(&self) -> &Result<Pattern, String> {
        self.compiled.get_or_init(|| {
            if self.text.len() > PATTERN_BYTES_MAX {
                return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
            }
            Pattern::build(
                &Translated {
                    text: self.text.to_string(),
                    backtracks: false,
                },
                &self.budget,
            )
        })
    }
}

/// The patterns of one message, each text once.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    known: HashMap<Box<str>, Arc<LazyPattern>>,
    budget: Arc<Budget>,
}

impl Patterns {
    pub(super) fn of(&mut self, text: &str) -> Arc<LazyPattern> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let pattern = Arc::new(LazyPattern {
            text: text.into(),
            budget: Arc::clone(&self.budget),
            compiled: OnceLock::new(),
        });
        self.known.insert(text.into(), Arc::clone(&pattern));
        pattern
    }
}
