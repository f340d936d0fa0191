//! Regular expressions with a bound on the time they take, whatever dialect they were written in.
//!
//! An engine translates its dialect to the one of the `regex` and `fancy-regex` crates ([`Translated`]);
//! [`Pattern`] runs it: on an automaton in linear time if it can, else (look-around, back-references,
//! atomic groups) on a backtracking matcher that gives up after a number of steps.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Longest pattern, in bytes.
pub(in crate::evaluate) const PATTERN_BYTES_MAX: usize = 64 << 10;
/// Program size of a common pattern, and the longest text that one is run on.
const SMALL: (usize, usize) = (96 << 10, 1 << 20);
/// The same for a pattern that unrolls large repetitions.
const LARGE: (usize, usize) = (2 << 20, 8 << 10);
/// How deep groups may nest.
const NESTING_MAX: u32 = 400;
/// What plain patterns are put together from, with the bytes that each takes in an automaton at most.
const PLAIN_PIECES: [(&str, usize); 13] = [
    (r"\A", 64),
    (r"\z", 64),
    ("(?s:.)", 4096),
    ("(?:", 192),
    ("(", 192),
    (")", 0),
    ("|", 64),
    ("*", 192),
    ("+", 192),
    ("?", 192),
    ("[0-9]", 128),
    ("[a-zA-Z0-9_]", 256),
    (r"[^\n\r\x{85}\x{2028}\x{2029}]", 4096),
];
/// The same for a character.
const CHARACTER_BYTES: usize = 256;
/// Groups in a plain pattern: they could stand inside each other.
const PLAIN_GROUPS_MAX: usize = 100;
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
        regex: Automaton,
        text_bytes_max: usize,
    },
    Backtracking {
        quick: Box<fancy_regex::Regex>,
        patient: Box<fancy_regex::Regex>,
    },
    /// It did not compile: it matches nothing.
    Invalid,
}

/// An automaton that is made when it is first asked, where it is certain before that this succeeds. Making one takes
/// 320 KB for a moment and 750 KB of code: a process that asks upstream first never needs them.
#[derive(Debug)]
pub(in crate::evaluate) struct Automaton {
    text: Box<str>,
    made: OnceLock<Option<regex::Regex>>,
}

impl Automaton {
    /// One for `text`, of at most `size` bytes; made now unless it is surely small.
    fn new(text: &str, size: usize) -> Result<Self, regex::Error> {
        let made = if is_surely_small(text) {
            OnceLock::new()
        } else {
            OnceLock::from(Some(automaton(text, size)?))
        };
        Ok(Self {
            text: text.into(),
            made,
        })
    }

    fn is_match(&self, text: &str) -> bool {
        // Only small ones are made this late.
        let made = self.made.get_or_init(|| automaton(&self.text, SMALL.0).ok());
        made.as_ref().is_some_and(|regex| regex.is_match(text))
    }
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
    Ok(Pattern::Linear {
        regex: Automaton::new(text, size)?,
        text_bytes_max,
    })
}

fn automaton(text: &str, size: usize) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(text)
        .size_limit(size)
        .dfa_size_limit(1 << 20)
        .nest_limit(NESTING_MAX)
        .build()
}

/// Whether `text`, as translated, certainly makes an automaton of the [`SMALL`] size. Translators balance groups and
/// leave nothing dangling, so that letters, digits, escaped characters and [`PLAIN_PIECES`] are valid in any order
/// that they write; whether anything else is shows when it is made.
fn is_surely_small(text: &str) -> bool {
    let (mut rest, mut groups, mut bytes) = (text, 0, 0);
    while let Some(first) = rest.chars().next() {
        let plain = PLAIN_PIECES.iter().find(|(piece, _)| rest.starts_with(piece));
        let (length, needed) = if let Some((piece, needed)) = plain {
            (piece.len(), *needed)
        } else if first.is_ascii_alphanumeric() {
            (1, CHARACTER_BYTES)
        } else if let Some((digits, _)) = rest.strip_prefix(r"\x{").and_then(|rest| rest.split_once('}')) {
            (r"\x{}".len() + digits.len(), CHARACTER_BYTES)
        } else {
            return false;
        };
        groups += usize::from(first == '(');
        bytes += needed;
        rest = &rest[length..];
        // A group with a flag or a look around.
        if rest.starts_with('?') && text[..text.len() - rest.len()].ends_with('(') {
            return false;
        }
    }
    groups <= PLAIN_GROUPS_MAX && bytes < SMALL.0
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_made(text: &str) -> bool {
        Automaton::new(text, SMALL.0).unwrap().made.get().is_some()
    }

    #[test]
    fn plain_patterns_are_made_when_first_asked() {
        for text in [
            r"\A(?:(?:\A)\x{2F}checkout\x{2F}[^\n\r\x{85}\x{2028}\x{2029}]*(?:\z))\z",
            r"\A(?:(a|b)+?[0-9]?\x{1F600}(?s:.)*)\z",
        ] {
            let automaton = Automaton::new(text, SMALL.0).unwrap();
            assert!(automaton.made.get().is_none(), "{text}");
            assert!(!automaton.is_match("c"), "{text}");
            assert!(matches!(automaton.made.get(), Some(Some(_))), "{text}");
        }
    }

    #[test]
    fn whatever_might_fail_is_made_at_once() {
        for text in ["[a-z]", "a{2}", "(?i:a)", "(?i)", r"\p{L}", r"\bA", r"\x41", "é"] {
            assert!(is_made(text), "{text}");
        }
        assert!(is_made(&format!("{}a{}", "(".repeat(101), ")".repeat(101))));
        assert!(is_made(&"(?s:.)".repeat(30)));
        for text in ["[z-a]", "(?=a)", "(?", r"\x{110000", "a{2", "]("] {
            assert!(Automaton::new(text, SMALL.0).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_surely_small_can_be_made(pieces in proptest::collection::vec(0..PLAIN_PIECES.len() + 2, 0..400)) {
            // As a translator would: groups balanced, nothing dangling.
            let (mut text, mut open, mut repeatable) = (String::new(), 0, false);
            for piece in pieces {
                let piece = PLAIN_PIECES.get(piece).map_or(["x", r"\x{10FFFF}"][piece % 2], |piece| piece.0);
                match piece {
                    "*" | "+" | "?" if !repeatable => continue,
                    ")" if open == 0 => continue,
                    ")" => open -= 1,
                    "(" | "(?:" => open += 1,
                    _ => {}
                }
                repeatable = !matches!(piece, "(" | "(?:" | "|" | "*" | "+" | "?");
                text.push_str(piece);
            }
            text.push_str(&")".repeat(open));
            if is_surely_small(&text) {
                prop_assert!(automaton(&text, SMALL.0).is_ok(), "{}", text);
            }
        }
    }
}
