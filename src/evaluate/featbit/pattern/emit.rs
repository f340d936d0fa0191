//! From the tree of a pattern to the syntax of the `regex` and `fancy-regex` crates.
//!
//! Options never reach the output: every set and assertion is written out with the meaning that .NET
//! gives it, so that the dialects' different ideas of `\w`, `.`, `$` or case do not meet.

use super::class::BOUNDARY_WORD;
use super::parse::Parsed;
use super::tree::{Assertion, Condition, Node, Slot};
use crate::evaluate::pattern::Translated;

/// A class that no character is in.
const NEVER: &str = "[a&&b]";

/// What a pattern was translated to.
#[derive(Debug)]
pub(super) struct Emitted {
    pub(super) translated: Translated,
    /// It looks for word boundaries, of which Rust has an idea of its own for a few characters.
    pub(super) has_boundary: bool,
}

/// Translates; `exact` gives word boundaries .NET's meaning, which takes backtracking.
pub(super) fn emit(parsed: &Parsed, exact: bool) -> Result<Emitted, String> {
    let mut emitter = Emitter {
        parsed,
        exact,
        out: String::new(),
        groups: Vec::new(),
        backtracks: false,
        has_boundary: false,
    };
    emitter.node(&parsed.root, true)?;
    Ok(Emitted {
        translated: Translated {
            text: emitter.out,
            backtracks: emitter.backtracks,
        },
        has_boundary: emitter.has_boundary,
    })
}

struct Emitter<'p> {
    parsed: &'p Parsed,
    exact: bool,
    out: String,
    /// The slots of the groups written so far; they count from 1.
    groups: Vec<Slot>,
    backtracks: bool,
    has_boundary: bool,
}

impl Emitter<'_> {
    /// Writes a node; if it is `last`, nothing of the pattern follows that could match text.
    fn node(&mut self, node: &Node, last: bool) -> Result<(), String> {
        match node {
            Node::Set(set) => set.write(&mut self.out),
            Node::Assertion(assertion) => self.assertion(*assertion, last),
            Node::Sequence(nodes) => {
                for (at, node) in nodes.iter().enumerate() {
                    self.node(node, last && at + 1 == nodes.len())?;
                }
            }
            Node::Alternatives(branches) => {
                self.out.push_str("(?:");
                for (at, branch) in branches.iter().enumerate() {
                    if at > 0 {
                        self.out.push('|');
                    }
                    self.node(branch, last)?;
                }
                self.out.push(')');
            }
            Node::Capture(slot, inner) => {
                // What nobody refers to needs no memory.
                let opening = if self.parsed.referenced.contains(slot) {
                    self.groups.push(*slot);
                    "("
                } else {
                    "(?:"
                };
                self.grouped(opening, inner, last)?;
            }
            Node::Atomic(inner) => {
                self.backtracks = true;
                self.grouped("(?>", inner, last)?;
            }
            Node::LookAround {
                behind,
                negated,
                inner,
            } => {
                self.backtracks = true;
                let opening = match (behind, negated) {
                    (false, false) => "(?=",
                    (false, true) => "(?!",
                    (true, false) => "(?<=",
                    (true, true) => "(?<!",
                };
                self.grouped(opening, inner, false)?;
            }
            Node::Reference { slot, fold } => self.reference(*slot, *fold)?,
            Node::Conditional { condition, yes, no } => self.conditional(condition, yes, no)?,
            Node::Repetition {
                inner,
                min,
                max,
                lazy,
            } => self.repetition(inner, (*min, *max), *lazy)?,
        }
        Ok(())
    }

    fn grouped(&mut self, opening: &str, inner: &Node, last: bool) -> Result<(), String> {
        self.out.push_str(opening);
        self.node(inner, last)?;
        self.out.push(')');
        Ok(())
    }

    fn assertion(&mut self, assertion: Assertion, last: bool) {
        self.out.push_str(match assertion {
            Assertion::TextStart => r"(?:\A)",
            Assertion::VeryEnd => r"(?:\z)",
            Assertion::LineStart => "(?m:^)",
            Assertion::LineEnd => "(?m:$)",
            // Whether the line feed is taken makes no difference to whether there is a match.
            Assertion::TextEnd if last => r"(?:\n?\z)",
            Assertion::TextEnd => {
                self.backtracks = true;
                r"(?=\n?\z)"
            }
            Assertion::Boundary | Assertion::NoBoundary => return self.boundary(assertion),
        });
    }

    fn boundary(&mut self, assertion: Assertion) {
        self.has_boundary = true;
        let is_boundary = assertion == Assertion::Boundary;
        if !self.exact {
            self.out.push_str(if is_boundary { r"(?:\b)" } else { r"(?:\B)" });
            return;
        }
        self.backtracks = true;
        let word = BOUNDARY_WORD;
        self.out.push_str(&if is_boundary {
            format!("(?:(?<={word})(?!{word})|(?<!{word})(?={word}))")
        } else {
            format!("(?:(?<={word})(?={word})|(?<!{word})(?!{word}))")
        });
    }

    /// The number of the group with this slot, if one was written.
    fn group(&self, slot: Slot) -> Result<Option<usize>, String> {
        let mut numbers = (1..).zip(&self.groups).filter(|(_, of)| **of == slot);
        match (numbers.next(), numbers.next()) {
            (Some(_), Some(_)) => Err("a reference to one of several groups is not supported".to_owned()),
            (number, _) => Ok(number.map(|(number, _)| number)),
        }
    }

    fn reference(&mut self, slot: Slot, fold: bool) -> Result<(), String> {
        self.backtracks = true;
        match self.group(slot)? {
            Some(number) if fold => self.out.push_str(&format!(r"(?i:\{number})")),
            Some(number) => self.out.push_str(&format!(r"(?:\{number})")),
            // Nothing is captured yet.
            None => self.out.push_str(NEVER),
        }
        Ok(())
    }

    fn conditional(&mut self, condition: &Condition, yes: &Node, no: &Node) -> Result<(), String> {
        self.backtracks = true;
        match condition {
            Condition::Captured(slot) => match self.group(*slot)? {
                Some(number) => self.out.push_str(&format!("(?({number})")),
                None => return self.grouped("(?:", no, false),
            },
            Condition::Matches(inner) => {
                self.out.push_str("(?(");
                self.grouped("(?=", inner, false)?;
                self.out.push(')');
            }
        }
        self.grouped("(?:", yes, false)?;
        self.out.push('|');
        self.grouped("(?:", no, false)?;
        self.out.push(')');
        Ok(())
    }

    fn repetition(&mut self, inner: &Node, bounds: (u32, Option<u32>), lazy: bool) -> Result<(), String> {
        let (min, max) = bounds;
        if max == Some(0) {
            return Ok(());
        }
        if !consumes(inner) {
            // Once is as good as many times, and what is empty cannot be repeated in every dialect.
            if min > 0 {
                return self.grouped("(?:", inner, false);
            }
            self.out.push_str(if lazy { "(?:|" } else { "(?:" });
            self.node(inner, false)?;
            self.out.push_str(if lazy { ")" } else { "|)" });
            return Ok(());
        }
        self.grouped("(?:", inner, false)?;
        self.out.push_str(&match bounds {
            (0, None) => "*".to_owned(),
            (1, None) => "+".to_owned(),
            (0, Some(1)) => "?".to_owned(),
            (min, None) => format!("{{{min},}}"),
            (min, Some(max)) if min == max => format!("{{{min}}}"),
            (min, Some(max)) => format!("{{{min},{max}}}"),
        });
        if lazy {
            self.out.push('?');
        }
        Ok(())
    }
}

/// Whether a node can match more than nothing.
fn consumes(node: &Node) -> bool {
    match node {
        Node::Set(_) | Node::Reference { .. } => true,
        Node::Assertion(_) | Node::LookAround { .. } => false,
        Node::Sequence(nodes) | Node::Alternatives(nodes) => nodes.iter().any(consumes),
        Node::Capture(_, inner) | Node::Atomic(inner) => consumes(inner),
        Node::Conditional { yes, no, .. } => consumes(yes) || consumes(no),
        Node::Repetition { inner, max, .. } => *max != Some(0) && consumes(inner),
    }
}
