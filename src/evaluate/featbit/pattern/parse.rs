//! From .NET's syntax of regular expressions to a tree.
//!
//! Patterns are read as UTF-16, because that is what .NET matches: a character beyond the basic plane is
//! two, and each may be repeated or stand in a class alone. Source: .NET's documentation of regular
//! expressions, compared with its parser.

use std::collections::HashSet;

use super::class::{Set, is_word};
use super::tree::{Assertion, Condition, Node, Slot};

/// Groups and classes inside each other.
pub(super) const NESTING_MAX: usize = 60;
/// Counts from here on are no bound; .NET refuses numbers above it.
const COUNT_MAX: u32 = 0x7FFF_FFFF;

/// A pattern that was read.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) root: Node,
    /// The groups that references and conditions look at.
    pub(super) referenced: HashSet<Slot>,
}

/// Reads a pattern, or says what is wrong with it.
pub(super) fn parse(pattern: &str) -> Result<Parsed, String> {
    let units: Vec<u16> = pattern.encode_utf16().collect();
    // Which numbers groups have shows at the end only, and references may come before.
    let mut survey = Parser::new(&units, None);
    survey.whole()?;
    let slots = survey.found.numbered();
    let mut parser = Parser::new(&units, Some(&slots));
    let root = parser.whole()?;
    Ok(Parsed {
        root,
        referenced: parser.referenced,
    })
}

/// The groups as they were met.
#[derive(Debug, Default)]
struct Found {
    numbers: HashSet<Slot>,
    names: Vec<String>,
    /// Groups without name or number so far.
    plain: Slot,
}

/// All groups of a pattern; names have the numbers that were left.
#[derive(Debug)]
struct Slots {
    numbers: HashSet<Slot>,
    names: Vec<(String, Slot)>,
}

impl Found {
    fn numbered(self) -> Slots {
        let Self {
            mut numbers,
            names,
            plain,
        } = self;
        let mut next = plain + 1;
        let mut named = Vec::with_capacity(names.len());
        for name in names {
            while numbers.contains(&next) {
                next += 1;
            }
            numbers.insert(next);
            named.push((name, next));
        }
        numbers.insert(0);
        Slots {
            numbers,
            names: named,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Options {
    /// `i`
    fold: bool,
    /// `m`
    multiline: bool,
    /// `s`
    dot_all: bool,
    /// `n`: groups without a name do not capture.
    explicit: bool,
    /// `x`
    comments: bool,
}

pub(super) struct Parser<'p> {
    pub(super) units: &'p [u16],
    pub(super) at: usize,
    options: Options,
    depth: usize,
    found: Found,
    /// `None` while groups are looked for.
    slots: Option<&'p Slots>,
    referenced: HashSet<Slot>,
}

impl<'p> Parser<'p> {
    fn new(units: &'p [u16], slots: Option<&'p Slots>) -> Self {
        Self {
            units,
            at: 0,
            options: Options::default(),
            depth: 0,
            found: Found::default(),
            slots,
            referenced: HashSet::new(),
        }
    }

    fn whole(&mut self) -> Result<Node, String> {
        let mut branches = self.branches()?;
        if self.at < self.units.len() {
            return Err("too many )'s".to_owned());
        }
        Ok(alternatives(&mut branches))
    }

    /// Reads alternatives up to the end of the group, which stays.
    fn branches(&mut self) -> Result<Vec<Node>, String> {
        let mut branches = Vec::new();
        let mut sequence = Vec::new();
        loop {
            self.skip_blank()?;
            if self.at >= self.units.len() {
                break;
            }
            match self.char() {
                Some(')') => break,
                Some('|') => {
                    self.at += 1;
                    branches.push(Node::Sequence(std::mem::take(&mut sequence)));
                }
                _ if self.is_quantifier() => {
                    return Err("a quantifier follows nothing that can be repeated".to_owned());
                }
                _ => {
                    if let Some(atom) = self.atom()? {
                        sequence.push(self.quantified(atom)?);
                    }
                }
            }
        }
        branches.push(Node::Sequence(sequence));
        Ok(branches)
    }

    /// Reads one atom; `None` for `(?i)`.
    fn atom(&mut self) -> Result<Option<Node>, String> {
        let Some(unit) = self.next() else {
            return Ok(None);
        };
        Ok(Some(match ascii(unit) {
            Some('(') => return self.group(),
            Some('[') => Node::Set(self.class(self.options.fold, 0)?),
            Some('\\') => self.escape()?,
            Some('^') if self.options.multiline => Node::Assertion(Assertion::LineStart),
            Some('^') => Node::Assertion(Assertion::TextStart),
            Some('$') if self.options.multiline => Node::Assertion(Assertion::LineEnd),
            Some('$') => Node::Assertion(Assertion::TextEnd),
            Some('.') if self.options.dot_all => Node::Set(Set::all()),
            Some('.') => Node::Set(Set::all_but(u16::from(b'\n'))),
            _ => self.literal(unit),
        }))
    }

    fn literal(&self, unit: u16) -> Node {
        Node::Set(Set::of(unit, self.options.fold))
    }

    /// Reads what follows an opening parenthesis; `None` for `(?i)`.
    fn group(&mut self) -> Result<Option<Node>, String> {
        let options = self.options;
        if self.char() != Some('?') {
            let slot = (!options.explicit).then(|| {
                self.found.plain += 1;
                self.found.numbers.insert(self.found.plain);
                self.found.plain
            });
            let inner = self.rest_of_group(options)?;
            return Ok(Some(match slot {
                Some(slot) => Node::Capture(slot, Box::new(inner)),
                None => inner,
            }));
        }
        self.at += 1;
        let kind = self.char().filter(|kind| *kind != ')').ok_or_else(unrecognized)?;
        self.at += 1;
        let look_around = |inner, behind, negated| Node::LookAround {
            behind,
            negated,
            inner: Box::new(inner),
        };
        let behind = kind == '<' && matches!(self.char(), Some('=' | '!'));
        Ok(Some(match kind {
            ':' => self.rest_of_group(options)?,
            '=' => look_around(self.rest_of_group(options)?, false, false),
            '!' => look_around(self.rest_of_group(options)?, false, true),
            '<' if behind => {
                let negated = self.char() == Some('!');
                self.at += 1;
                look_around(self.rest_of_group(options)?, true, negated)
            }
            '>' => Node::Atomic(Box::new(self.rest_of_group(options)?)),
            '<' | '\'' => {
                let slot = self.group_name(if kind == '<' { '>' } else { '\'' })?;
                Node::Capture(slot, Box::new(self.rest_of_group(options)?))
            }
            '(' => self.conditional(options)?,
            _ => {
                self.at -= 1;
                self.read_options();
                match self.char() {
                    Some(')') => {
                        self.at += 1;
                        return Ok(None);
                    }
                    Some(':') => {
                        self.at += 1;
                        self.rest_of_group(options)?
                    }
                    _ => return Err(unrecognized()),
                }
            }
        }))
    }

    /// Reads a group up to its parenthesis, after which `outside` hold again.
    fn rest_of_group(&mut self, outside: Options) -> Result<Node, String> {
        let mut branches = self.branches_of_group(outside)?;
        Ok(alternatives(&mut branches))
    }

    fn branches_of_group(&mut self, outside: Options) -> Result<Vec<Node>, String> {
        if self.depth >= NESTING_MAX {
            return Err(format!("groups nested deeper than {NESTING_MAX}"));
        }
        self.depth += 1;
        let branches = self.branches()?;
        self.depth -= 1;
        if self.char() != Some(')') {
            return Err("not enough )'s".to_owned());
        }
        self.at += 1;
        self.options = outside;
        Ok(branches)
    }

    /// Reads `name>`, or a number.
    fn group_name(&mut self, close: char) -> Result<Slot, String> {
        let invalid = || "malformed name of a group".to_owned();
        let slot = if self.char().is_some_and(|c| c.is_ascii_digit()) {
            let number = self.number()?;
            if number == 0 {
                return Err("a group cannot have the number 0".to_owned());
            }
            self.found.numbers.insert(number);
            number
        } else {
            let name = self.name();
            if name.is_empty() && self.char() != Some('-') {
                return Err(invalid());
            }
            if !name.is_empty() && !self.found.names.contains(&name) {
                self.found.names.push(name.clone());
            }
            self.slot_of(&name).unwrap_or_default()
        };
        if self.char() == Some('-') {
            return Err("balancing groups are not supported".to_owned());
        }
        if !self.eat(close) {
            return Err(invalid());
        }
        Ok(slot)
    }

    /// Reads `condition)yes|no)`.
    fn conditional(&mut self, outside: Options) -> Result<Node, String> {
        let start = self.at;
        let condition = match self.captured()? {
            Some(slot) => Condition::Captured(slot),
            None => {
                self.at = start;
                let inner = if self.char() == Some('?') {
                    let is_comment = self.peek(1) == Some('#');
                    let is_named = self.peek(1) == Some('\'')
                        || self.peek(1) == Some('<') && !matches!(self.peek(2), Some('=' | '!'));
                    if is_comment || is_named {
                        return Err("malformed condition".to_owned());
                    }
                    self.group()?.ok_or_else(unrecognized)?
                } else {
                    self.rest_of_group(self.options)?
                };
                Condition::Matches(Box::new(inner))
            }
        };
        let mut branches = self.branches_of_group(outside)?;
        if branches.len() > 2 {
            return Err("too many alternatives after a condition".to_owned());
        }
        let no = if branches.len() == 2 { branches.pop() } else { None };
        Ok(Node::Conditional {
            condition,
            yes: Box::new(branches.pop().unwrap_or_else(empty)),
            no: Box::new(no.unwrap_or_else(empty)),
        })
    }

    /// Reads `1)` or `name)` if it names a group.
    fn captured(&mut self) -> Result<Option<Slot>, String> {
        if self.char().is_some_and(|c| c.is_ascii_digit()) {
            let number = self.number()?;
            if !self.eat(')') || !self.has_slot(number) {
                return Err("a condition refers to no group".to_owned());
            }
            self.referenced.insert(number);
            return Ok(Some(number));
        }
        let name = self.name();
        // While groups are looked for, the name of one that comes later is not known yet; either reading
        // finds the same groups.
        let slot = self.slot_of(&name).filter(|_| !name.is_empty() && self.eat(')'));
        self.referenced.extend(slot);
        Ok(slot)
    }

    /// Reads letters and signs up to something else.
    fn read_options(&mut self) {
        let mut on = true;
        while let Some(c) = self.char() {
            let options = &mut self.options;
            match c.to_ascii_lowercase() {
                '-' => on = false,
                '+' => on = true,
                'i' => options.fold = on,
                'm' => options.multiline = on,
                's' => options.dot_all = on,
                'n' => options.explicit = on,
                'x' => options.comments = on,
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Reads what may repeat `atom`.
    fn quantified(&mut self, atom: Node) -> Result<Node, String> {
        self.skip_blank()?;
        if !self.is_quantifier() {
            return Ok(atom);
        }
        let (min, max) = match self.next().and_then(ascii) {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            _ => {
                let min = self.number()?;
                let max = match self.char() {
                    Some(',') => {
                        self.at += 1;
                        if self.char() == Some('}') {
                            COUNT_MAX
                        } else {
                            self.number()?
                        }
                    }
                    _ => min,
                };
                self.at += 1;
                (min, Some(max).filter(|max| *max < COUNT_MAX))
            }
        };
        self.skip_blank()?;
        let lazy = self.eat('?');
        if max.is_some_and(|max| max < min) {
            return Err("a quantifier's bounds are in reverse order".to_owned());
        }
        Ok(Node::Repetition {
            inner: Box::new(atom),
            min,
            max,
            lazy,
        })
    }

    /// Whether a quantifier stands here; a brace that is none is literal.
    fn is_quantifier(&self) -> bool {
        match self.char() {
            Some('*' | '+' | '?') => return true,
            Some('{') => {}
            _ => return false,
        }
        let digits = |from: usize| {
            let is_digit = |at: &usize| self.peek(*at).is_some_and(|c| c.is_ascii_digit());
            (from..).take_while(is_digit).count()
        };
        let first = digits(1);
        let after = 1 + first;
        match self.peek(after) {
            _ if first == 0 => false,
            Some('}') => true,
            Some(',') => self.peek(after + 1 + digits(after + 1)) == Some('}'),
            _ => false,
        }
    }

    /// Reads what follows a backslash outside of a class.
    fn escape(&mut self) -> Result<Node, String> {
        let assertion = match self.char() {
            Some('b') => Some(Assertion::Boundary),
            Some('B') => Some(Assertion::NoBoundary),
            // Where the search began, which is the start of the text.
            Some('A' | 'G') => Some(Assertion::TextStart),
            Some('Z') => Some(Assertion::TextEnd),
            Some('z') => Some(Assertion::VeryEnd),
            _ => None,
        };
        if let Some(assertion) = assertion {
            self.at += 1;
            return Ok(Node::Assertion(assertion));
        }
        if let Some(set) = self.shorthand(self.options.fold)? {
            return Ok(Node::Set(set));
        }
        let start = self.at;
        if let Some(reference) = self.reference()? {
            return Ok(reference);
        }
        self.at = start;
        let unit = self.escaped_unit()?;
        Ok(self.literal(unit))
    }

    /// Reads `1`, `k<name>` or `<name>`; `None`: it is no reference.
    fn reference(&mut self) -> Result<Option<Node>, String> {
        let named = self.eat('k');
        let close = match self.char() {
            Some('<') => Some('>'),
            Some('\'') => Some('\''),
            _ => None,
        };
        self.at += usize::from(close.is_some());
        if named && (close.is_none() || self.char().is_none() && self.at >= self.units.len()) {
            return Err("malformed \\k<...>".to_owned());
        }
        let is_digit = self.char().is_some_and(|c| c.is_ascii_digit());
        let slot = match close {
            Some(close) if is_digit => {
                let number = self.number()?;
                if !self.eat(close) {
                    return Ok(None);
                }
                if !self.has_slot(number) {
                    return Err(format!("there is no group {number}"));
                }
                number
            }
            Some(close) => {
                let name = self.name();
                if name.is_empty() || !self.eat(close) {
                    return Ok(None);
                }
                self.slot_of(&name)
                    .ok_or_else(|| format!("there is no group {name:?}"))?
            }
            None if is_digit && self.char() != Some('0') => {
                let number = self.number()?;
                match self.has_slot(number) {
                    true => number,
                    false if number <= 9 => return Err(format!("there is no group {number}")),
                    // Then it is an octal number.
                    false => return Ok(None),
                }
            }
            None => return Ok(None),
        };
        self.referenced.insert(slot);
        Ok(Some(Node::Reference {
            slot,
            fold: self.options.fold,
        }))
    }

    fn has_slot(&self, number: Slot) -> bool {
        self.slots.is_none_or(|slots| slots.numbers.contains(&number))
    }

    /// The number of a named group; any while groups are looked for.
    fn slot_of(&self, name: &str) -> Option<Slot> {
        let Some(slots) = self.slots else {
            return Some(0);
        };
        let of_name = slots.names.iter().find(|(known, _)| known == name);
        of_name.map(|(_, slot)| *slot)
    }

    /// Skips comments and, with `x`, white space.
    fn skip_blank(&mut self) -> Result<(), String> {
        loop {
            match self.char() {
                Some(' ' | '\t' | '\n' | '\u{c}' | '\r') if self.options.comments => self.at += 1,
                Some('#') if self.options.comments => {
                    let rest = &self.units[self.at..];
                    let length = rest.iter().position(|&unit| unit == u16::from(b'\n'));
                    self.at += length.unwrap_or(rest.len());
                }
                Some('(') if self.peek(1) == Some('?') && self.peek(2) == Some('#') => {
                    let rest = &self.units[self.at..];
                    let length = rest.iter().position(|&unit| unit == u16::from(b')'));
                    self.at += length.ok_or("unterminated (?#...) comment")? + 1;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Reads the characters of a name, perhaps none.
    pub(super) fn name(&mut self) -> String {
        let start = self.at;
        while self.units.get(self.at).is_some_and(|&unit| is_word(unit)) {
            self.at += 1;
        }
        String::from_utf16_lossy(&self.units[start..self.at])
    }

    /// Reads digits.
    fn number(&mut self) -> Result<u32, String> {
        let mut number: u32 = 0;
        while let Some(digit) = self.char().and_then(|c| c.to_digit(10)) {
            let longer = number
                .checked_mul(10)
                .and_then(|number| number.checked_add(digit));
            number = longer
                .filter(|number| *number <= COUNT_MAX)
                .ok_or("a number is out of range")?;
            self.at += 1;
        }
        Ok(number)
    }

    pub(super) fn next(&mut self) -> Option<u16> {
        let unit = *self.units.get(self.at)?;
        self.at += 1;
        Some(unit)
    }

    /// The next character if it is ASCII.
    pub(super) fn char(&self) -> Option<char> {
        self.peek(0)
    }

    pub(super) fn peek(&self, ahead: usize) -> Option<char> {
        self.units.get(self.at + ahead).copied().and_then(ascii)
    }

    pub(super) fn eat(&mut self, wanted: char) -> bool {
        let found = self.char() == Some(wanted);
        self.at += usize::from(found);
        found
    }
}

fn unrecognized() -> String {
    "unrecognized grouping construct".to_owned()
}

fn empty() -> Node {
    Node::Sequence(Vec::new())
}

fn alternatives(branches: &mut Vec<Node>) -> Node {
    if branches.len() == 1 {
        return branches.pop().unwrap_or_else(empty);
    }
    Node::Alternatives(std::mem::take(branches))
}

/// A unit as a character if it is ASCII.
pub(super) fn ascii(unit: u16) -> Option<char> {
    u8::try_from(unit).ok().filter(u8::is_ascii).map(char::from)
}
