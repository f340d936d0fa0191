//! Regular expressions with .NET's meaning, compiled when they are needed first. A match may be anywhere
//! in the text.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use super::condition::Undecided;
use crate::evaluate::pattern::{Budget, Effort, PATTERN_BYTES_MAX, Pattern};

mod blocks;
mod class;
mod emit;
mod fold;
mod parse;
#[cfg(test)]
mod tests;
mod tree;
mod units;

/// A pattern of the configuration.
#[derive(Debug)]
pub(super) struct LazyPattern {
    text: Box<str>,
    budget: Arc<Budget>,
    compiled: OnceLock<Result<Compiled, String>>,
}

#[derive(Debug)]
struct Compiled {
    usual: Pattern,
    /// For texts with characters of which Rust and .NET disagree whether they are part of a word; `None`
    /// if that makes no difference.
    exact: Option<OnceLock<Result<Pattern, String>>>,
}

impl LazyPattern {
    /// Whether the pattern matches somewhere in `text`.
    pub(super) fn is_match(&self, text: &str, effort: &Effort) -> Result<bool, Undecided<'_>> {
        let compiled = self.compiled().as_ref().map_err(|why| Undecided::Pattern(why))?;
        let text = units::of_text(text);
        let pattern = match &compiled.exact {
            Some(exact) if has_disputed(&text) => {
                let exact = exact.get_or_init(|| self.build_exact());
                exact.as_ref().map_err(|why| Undecided::Pattern(why))?
            }
            _ => &compiled.usual,
        };
        pattern.try_match(&text, effort).map_err(|_| Undecided::GivenUp)
    }

    /// Why the pattern is invalid, if it is.
    pub(super) fn problem(&self) -> Option<&str> {
        self.compiled().as_ref().err().map(String::as_str)
    }

    fn compiled(&self) -> &Result<Compiled, String> {
        self.compiled.get_or_init(|| {
            if self.text.len() > PATTERN_BYTES_MAX {
                return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
            }
            let parsed = parse::parse(&self.text)?;
            let mut emitted = emit::emit(&parsed, false)?;
            let backtracks = emitted.translated.backtracks;
            if emitted.has_boundary && backtracks {
                emitted = emit::emit(&parsed, true)?;
            }
            Ok(Compiled {
                usual: Pattern::build(&emitted.translated, &self.budget)?,
                exact: (emitted.has_boundary && !backtracks).then(OnceLock::new),
            })
        })
    }

    fn build_exact(&self) -> Result<Pattern, String> {
        let emitted = emit::emit(&parse::parse(&self.text)?, true)?;
        Pattern::build(&emitted.translated, &self.budget)
    }
}

/// Whether a text holds a character that is part of a word for Rust's `\b`, but not for .NET's.
fn has_disputed(text: &str) -> bool {
    static DISPUTED: LazyLock<Option<regex::Regex>> =
        LazyLock::new(|| regex::Regex::new(r"[[\p{Alphabetic}\p{M}]&&[^\p{L}\p{Mn}]]").ok());
    !text.is_ascii() && DISPUTED.as_ref().is_none_or(|disputed| disputed.is_match(text))
}

/// The patterns of one message, each text once.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    known: HashMap<Box<str>, Arc<LazyPattern>>,
    budget: Arc<Budget>,
}

impl Patterns {
    /// The pattern with this text, compiled or not.
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
