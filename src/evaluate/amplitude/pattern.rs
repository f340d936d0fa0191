//! Regular expressions with Java's meaning and a bound on the time they take.
//!
//! A pattern is translated and compiled when flags are loaded: for an automaton that runs in linear time
//! if it can be, else (look-around, back-references, possessive quantifiers) for a backtracking matcher
//! that gives up after a number of steps. Every match is of the whole text.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use self::translate::{Translated, translate};

mod class;
mod escape;
mod translate;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 64 << 10;
/// Program size of a common pattern, and the longest text that one is run on.
const SMALL: (usize, usize) = (96 << 10, 1 << 20);
/// The same for a pattern that unrolls large repetitions.
const LARGE: (usize, usize) = (2 << 20, 8 << 10);
/// How many patterns of one flag set may be large, or backtracking: each costs milliseconds to compile.
const COSTLY_PATTERNS_MAX: u32 = 512;
/// Steps of a first try of a backtracking match, and of the second one.
const QUICK_STEPS: usize = 2_000;
const PATIENT_STEPS: usize = 50_000;
/// Backtracking matches in one evaluation, and how many of them may be tried a second time.
const BACKTRACKING_MATCHES_MAX: u32 = 10_000;
const PATIENT_MATCHES_MAX: u32 = 20;

/// A compiled pattern.
#[derive(Debug)]
pub(super) enum Pattern {
    Linear {
        regex: regex::Regex,
        text_bytes_max: usize,
    },
    Backtracking {
        quick: fancy_regex::Regex,
        patient: fancy_regex::Regex,
    },
    /// It did not compile: it matches nothing.
    Invalid,
}

/// What the matches of one evaluation have cost so far.
#[derive(Debug, Default)]
pub(super) struct Effort {
    backtracking: Cell<u32>,
    patient: Cell<u32>,
    given_up: Cell<u32>,
}

impl Effort {
    /// How many matches were given up because of a limit; they count as "does not match".
    pub(super) fn given_up(&self) -> u32 {
        self.given_up.get()
    }

    fn give_up(&self) -> bool {
        self.given_up.set(self.given_up.get().saturating_add(1));
        false
    }
}

impl Pattern {
    /// Whether the pattern matches the whole of `text`.
    pub(super) fn is_match(&self, text: &str, effort: &Effort) -> bool {
        match self {
            Self::Linear { text_bytes_max, .. } if text.len() > *text_bytes_max => effort.give_up(),
            Self::Linear { regex, .. } => regex.is_match(text),
            Self::Backtracking { quick, patient } => {
                if !take(&effort.backtracking, BACKTRACKING_MATCHES_MAX) {
                    return effort.give_up();
                }
                if let Ok(matched) = quick.is_match(text) {
                    return matched;
                }
                if !take(&effort.patient, PATIENT_MATCHES_MAX) {
                    return effort.give_up();
                }
                patient.is_match(text).unwrap_or_else(|_| effort.give_up())
            }
            Self::Invalid => false,
        }
    }
}

/// Counts one more, unless the limit is reached.
fn take(counter: &Cell<u32>, max: u32) -> bool {
    let free = counter.get() < max;
    counter.set(counter.get() + u32::from(free));
    free
}

/// Compiles the patterns of a flag set, each text once.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    compiled: HashMap<Box<str>, (Arc<Pattern>, Option<String>)>,
    costly: u32,
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

    fn build(&mut self, pattern: &str) -> Result<Pattern, String> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
        }
        let Translated { text, backtracks } = translate(pattern)?;
        if !backtracks {
            match linear(&text, SMALL) {
                Err(regex::Error::CompiledTooBig(_)) => {}
                Ok(built) => return Ok(built),
                Err(error) => return Err(last_line(&error.to_string())),
            }
        }
        if self.costly >= COSTLY_PATTERNS_MAX {
            return Err(format!(
                "more than {COSTLY_PATTERNS_MAX} patterns of this flag set are costly"
            ));
        }
        self.costly += 1;
        if !backtracks {
            return linear(&text, LARGE).map_err(|error| last_line(&error.to_string()));
        }
        let build = |steps| {
            fancy_regex::RegexBuilder::new(&text)
                .backtrack_limit(steps)
                .delegate_size_limit(LARGE.0)
                .delegate_dfa_size_limit(LARGE.0)
                .max_prog_size(1 << 16)
                .build()
                .map_err(|error| last_line(&error.to_string()))
        };
        Ok(Pattern::Backtracking {
            quick: build(QUICK_STEPS)?,
            patient: build(PATIENT_STEPS)?,
        })
    }
}

fn linear(text: &str, (size, text_bytes_max): (usize, usize)) -> Result<Pattern, regex::Error> {
    let regex = regex::RegexBuilder::new(text)
        .size_limit(size)
        .dfa_size_limit(1 << 20)
        .nest_limit(400)
        .build()?;
    Ok(Pattern::Linear {
        regex,
        text_bytes_max,
    })
}

/// The last line of a message: regex errors draw a picture of the pattern first.
fn last_line(message: &str) -> String {
    message
        .lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

#[cfg(test)]
mod tests;
