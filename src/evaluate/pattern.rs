//! Regular expressions with a bound on the time they take, whatever dialect they were written in.
//!
//! An engine translates its dialect to the one of the `regex` and `fancy-regex` crates ([`Translated`]);
//! [`Pattern`] runs it: on an automaton in linear time if it can, else (look-around, back-references,
//! atomic groups) on a backtracking matcher that gives up after a number of steps.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

/// Longest pattern, in bytes.
pub(in crate::evaluate) const PATTERN_BYTES_MAX: usize = 64 << 10;
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

/// A pattern in the syntax of the crates.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::evaluate) struct Translated {
    pub(in crate::evaluate) text: String,
    /// It needs look-around, back-references or atomic groups.
    pub(in crate::evaluate) backtracks: bool,
}

/// How many costly patterns of one flag set were compiled.
#[derive(Debug, Default)]
pub(in crate::evaluate) struct Budget(AtomicU32);

impl Budget {
    fn take(&self) -> Result<(), String> {
        // Counts on after the limit is reached; it takes longer to wrap around than to load flags.
        if self.0.fetch_add(1, Ordering::Relaxed) < COSTLY_PATTERNS_MAX {
            return Ok(());
        }
        Err(format!(
            "more than {COSTLY_PATTERNS_MAX} patterns of this flag set are costly"
        ))
    }
}

/// A compiled pattern.
#[derive(Debug)]
pub(in crate::evaluate) enum Pattern {
    Linear {
        regex: regex::Regex,
        text_bytes_max: usize,
    },
    Backtracking {
        quick: Box<fancy_regex::Regex>,
        patient: Box<fancy_regex::Regex>,
    },
    /// It did not compile: it matches nothing.
    Invalid,
}

/// A match came to a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::evaluate) struct GivenUp;

/// What the matches of one evaluation have cost so far.
#[derive(Debug, Default)]
pub(in crate::evaluate) struct Effort {
    backtracking: Cell<u32>,
    patient: Cell<u32>,
    given_up: Cell<u32>,
}

impl Effort {
    /// How many matches were given up because of a limit.
    pub(in crate::evaluate) fn given_up(&self) -> u32 {
        self.given_up.get()
    }

    fn give_up(&self) -> GivenUp {
        self.given_up.set(self.given_up.get().saturating_add(1));
        GivenUp
    }
}

impl Pattern {
    /// Compiles what `pattern` was translated to, or says why not.
    pub(in crate::evaluate) fn build(translated: &Translated, budget: &Budget) -> Result<Self, String> {
        let Translated { text, backtracks } = translated;
        if !backtracks {
            match linear(text, SMALL) {
                Err(regex::Error::CompiledTooBig(_)) => {}
                Ok(built) => return Ok(built),
                Err(error) => return Err(last_line(&error.to_string())),
            }
        }
        budget.take()?;
        if !backtracks {
            return linear(text, LARGE).map_err(|error| last_line(&error.to_string()));
        }
        let build = |steps| {
            let built = fancy_regex::RegexBuilder::new(text)
                .backtrack_limit(steps)
                .delegate_size_limit(LARGE.0)
                .delegate_dfa_size_limit(LARGE.0)
                .max_prog_size(1 << 16)
                .build();
            built.map(Box::new).map_err(|error| last_line(&error.to_string()))
        };
        Ok(Self::Backtracking {
            quick: build(QUICK_STEPS)?,
            patient: build(PATIENT_STEPS)?,
        })
    }

    /// Whether the pattern matches `text`; a match that is given up does not.
    pub(in crate::evaluate) fn is_match(&self, text: &str, effort: &Effort) -> bool {
        self.try_match(text, effort) == Ok(true)
    }

    /// Whether the pattern matches `text`.
    pub(in crate::evaluate) fn try_match(&self, text: &str, effort: &Effort) -> Result<bool, GivenUp> {
        match self {
            Self::Linear { text_bytes_max, .. } if text.len() > *text_bytes_max => Err(effort.give_up()),
            Self::Linear { regex, .. } => Ok(regex.is_match(text)),
            Self::Backtracking { quick, patient } => {
                if !take(&effort.backtracking, BACKTRACKING_MATCHES_MAX) {
                    return Err(effort.give_up());
                }
                if let Ok(matched) = quick.is_match(text) {
                    return Ok(matched);
                }
                if !take(&effort.patient, PATIENT_MATCHES_MAX) {
                    return Err(effort.give_up());
                }
                patient.is_match(text).map_err(|_| effort.give_up())
            }
            Self::Invalid => Ok(false),
        }
    }
}

/// Counts one more, unless the limit is reached.
fn take(counter: &Cell<u32>, max: u32) -> bool {
    let free = counter.get() < max;
    counter.set(counter.get() + u32::from(free));
    free
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

/// Appends a literal character so that no dialect reads more into it.
pub(in crate::evaluate) fn push_char(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        out.push_str(&format!(r"\x{{{:X}}}", u32::from(c)));
    }
}

/// Appends a range of characters as part of a class.
pub(in crate::evaluate) fn push_range(body: &mut String, first: char, last: char) {
    push_char(body, first);
    if last != first {
        body.push('-');
        push_char(body, last);
    }
}
