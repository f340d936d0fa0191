//! Sets of UTF-16 units: classes, shorthands, properties, escapes of single units.

use std::sync::LazyLock;

use super::blocks::block;
use super::fold::{add_equivalents, equivalents};
use super::parse::{NESTING_MAX, Parser, ascii};
use super::units::{SURROGATES, as_char};
use crate::evaluate::pattern::push_range;

/// What `\w` is; word boundaries count two joiners in.
const WORD: &str = r"\p{L}\p{Mn}\p{Nd}\p{Pc}";
pub(super) const BOUNDARY_WORD: &str = r"[\p{L}\p{Mn}\p{Nd}\p{Pc}\x{200C}\x{200D}]";
const CASED: &str = r"\p{Lu}\p{Ll}\p{Lt}";

/// A set of units.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    negated: bool,
    ranges: Vec<(u16, u16)>,
    /// Insides of Rust classes.
    classes: Vec<String>,
    minus: Option<Box<Self>>,
}

/// Whether a unit may be part of a name, and cannot be escaped.
pub(super) fn is_word(unit: u16) -> bool {
    static WORDS: LazyLock<Option<regex::Regex>> = LazyLock::new(|| regex::Regex::new(BOUNDARY_WORD).ok());
    if let Some(c) = ascii(unit) {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    let mut text = [0; 4];
    let text = as_char(unit).encode_utf8(&mut text);
    WORDS.as_ref().is_some_and(|words| words.is_match(text))
}

impl Set {
    /// One unit, and with `fold` those of the other case.
    pub(super) fn of(unit: u16, fold: bool) -> Self {
        let mut ranges = vec![(unit, unit)];
        if fold {
            ranges.extend(equivalents(unit).map(|other| (other, other)));
        }
        Self {
            ranges,
            ..Self::default()
        }
    }

    /// Every unit.
    pub(super) fn all() -> Self {
        Self {
            ranges: vec![(0, u16::MAX)],
            ..Self::default()
        }
    }

    /// Every other unit.
    pub(super) fn all_but(unit: u16) -> Self {
        Self {
            ranges: vec![(unit, unit)],
            negated: true,
            ..Self::default()
        }
    }

    fn of_class(body: String) -> Self {
        Self {
            classes: vec![body],
            ..Self::default()
        }
    }

    /// Appends the set as a Rust class.
    pub(super) fn write(&self, out: &mut String) {
        let Some(minus) = &self.minus else {
            return self.write_base(out);
        };
        out.push('[');
        self.write_base(out);
        out.push_str("&&[^");
        minus.write(out);
        out.push_str("]]");
    }

    fn write_base(&self, out: &mut String) {
        out.push_str(if self.negated { "[^" } else { "[" });
        for &(first, last) in &self.ranges {
            let (low, high) = SURROGATES;
            // Surrogates are moved out of the way, so that a range may fall into three.
            for (from, to) in [(0, low - 1), (low, high), (high + 1, u16::MAX)] {
                let (from, to) = (first.max(from), last.min(to));
                if from <= to {
                    push_range(out, as_char(from), as_char(to));
                }
            }
        }
        for class in &self.classes {
            out.push_str(class);
        }
        out.push(']');
    }

    fn add(&mut self, first: u16, last: u16) {
        self.ranges.push((first, last));
    }
}

impl Parser<'_> {
    /// Reads `d`, `W`, `p{L}` and the like; `None`: it is none of them.
    pub(super) fn shorthand(&mut self, fold: bool) -> Result<Option<Set>, String> {
        let Some(letter) = self.char() else {
            return Ok(None);
        };
        let body = match letter.to_ascii_lowercase() {
            'd' => r"\p{Nd}".to_owned(),
            'w' => WORD.to_owned(),
            's' => r"\p{White_Space}".to_owned(),
            'p' => {
                self.at += 1;
                let body = self.property(fold)?;
                return Ok(Some(Set::of_class(negated(body, letter == 'P'))));
            }
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(Set::of_class(negated(body, letter.is_ascii_uppercase()))))
    }

    /// Reads `{name}` and gives the inside of a Rust class.
    fn property(&mut self, fold: bool) -> Result<String, String> {
        if !self.eat('{') {
            return Err("malformed \\p{X}".to_owned());
        }
        let mut name = self.name();
        while self.eat('-') {
            name.push('-');
            name.push_str(&self.name());
        }
        if !self.eat('}') {
            return Err("incomplete \\p{X}".to_owned());
        }
        let known = match &*name {
            "Lu" | "Ll" | "Lt" if fold => Some(CASED.to_owned()),
            "Cs" => Some(surrogates()),
            // Surrogates stand in the last plane of private characters.
            "Co" => Some(format!(r"[\p{{Co}}&&[^{}]]", surrogates())),
            "C" | "Cc" | "Cf" | "Cn" | "L" | "Ll" | "Lm" | "Lo" | "Lt" | "Lu" | "M" | "Mc" | "Me" | "Mn"
            | "N" | "Nd" | "Nl" | "No" | "P" | "Pc" | "Pd" | "Pe" | "Pf" | "Pi" | "Po" | "Ps" | "S"
            | "Sc" | "Sk" | "Sm" | "So" | "Z" | "Zl" | "Zp" | "Zs" => Some(format!(r"\p{{{name}}}")),
            _ => block(&name).map(|ranges| {
                let mut body = String::new();
                for &(first, last) in ranges {
                    if (SURROGATES.0..=SURROGATES.1).contains(&first) {
                        body.push_str(&surrogates());
                    } else {
                        push_range(&mut body, as_char(first), as_char(last));
                    }
                }
                body
            }),
        };
        known.ok_or_else(|| format!("unknown property {name:?}"))
    }

    /// Reads a class after its opening bracket.
    pub(super) fn class(&mut self, fold: bool, depth: usize) -> Result<Set, String> {
        if depth >= NESTING_MAX {
            return Err(format!("classes nested deeper than {NESTING_MAX}"));
        }
        let mut set = Set {
            negated: self.eat('^'),
            ..Set::default()
        };
        let start = self.at;
        let mut range_from: Option<u16> = None;
        loop {
            let is_first = self.at == start;
            let mut unit = self.next().ok_or_else(unterminated)?;
            let mut escaped = false;
            match ascii(unit) {
                Some(']') if !is_first => break,
                Some('\\') if self.at < self.units.len() => {
                    if let Some(class) = self.shorthand(fold)? {
                        if range_from.is_some() {
                            return Err("a class cannot end a range".to_owned());
                        }
                        set.classes.extend(class.classes);
                        continue;
                    }
                    // An escaped hyphen ends a range, but never begins one.
                    let hyphen = self.eat('-');
                    if hyphen && range_from.is_none() {
                        set.add(u16::from(b'-'), u16::from(b'-'));
                        continue;
                    }
                    unit = if hyphen {
                        u16::from(b'-')
                    } else {
                        self.escaped_unit()?
                    };
                    escaped = true;
                }
                _ => {}
            }
            let opens = ascii(unit) == Some('[') && !escaped && !is_first;
            match range_from.take() {
                Some(first) if opens => {
                    // What looked like a range is a subtraction: `[a-[b]]`.
                    set.add(first, first);
                    self.subtract(&mut set, fold, depth)?;
                }
                Some(first) if first > unit => return Err("[x-y] range in reverse order".to_owned()),
                Some(first) => set.add(first, unit),
                None if self.char() == Some('-') && self.is_range() => {
                    range_from = Some(unit);
                    self.at += 1;
                }
                None if ascii(unit) == Some('-') && !escaped && !is_first && self.eat('[') => {
                    self.subtract(&mut set, fold, depth)?;
                }
                None => set.add(unit, unit),
            }
        }
        if fold {
            add_equivalents(&mut set.ranges);
        }
        Ok(set)
    }

    /// Whether the hyphen here is followed by something that a range could end with.
    fn is_range(&self) -> bool {
        self.at + 1 < self.units.len() && self.peek(1) != Some(']')
    }

    /// Reads what is subtracted from a class, after its opening bracket.
    fn subtract(&mut self, set: &mut Set, fold: bool, depth: usize) -> Result<(), String> {
        set.minus = Some(Box::new(self.class(fold, depth + 1)?));
        match self.char() {
            Some(']') => Ok(()),
            _ if self.at >= self.units.len() => Err(unterminated()),
            _ => Err("a subtraction must be the last element of a class".to_owned()),
        }
    }

    /// Reads an escape that stands for one unit.
    pub(super) fn escaped_unit(&mut self) -> Result<u16, String> {
        let unit = self.next().ok_or("illegal \\ at the end of the pattern")?;
        Ok(match ascii(unit) {
            Some('0'..='7') => {
                self.at -= 1;
                self.octal()
            }
            Some('x') => self.hexadecimal(2)?,
            Some('u') => self.hexadecimal(4)?,
            Some('a') => 7,
            Some('b') => 8,
            Some('e') => 27,
            Some('f') => 12,
            Some('n') => 10,
            Some('r') => 13,
            Some('t') => 9,
            Some('v') => 11,
            Some('c') => {
                let letter = self.next().ok_or("missing control character")?;
                let control = ascii(letter).map(|c| u16::from(c.to_ascii_uppercase() as u8).wrapping_sub(64));
                control
                    .filter(|control| *control < 32)
                    .ok_or("unrecognized control character")?
            }
            _ if is_word(unit) => return Err("unrecognized escape sequence".to_owned()),
            _ => unit,
        })
    }

    /// Reads one to three digits; larger numbers lose their high bits.
    fn octal(&mut self) -> u16 {
        let mut unit = 0;
        for _ in 0..3 {
            let Some(digit) = self.char().and_then(|c| c.to_digit(8)) else {
                break;
            };
            unit = unit * 8 + u16::try_from(digit).unwrap_or(0);
            self.at += 1;
        }
        unit & 0xFF
    }

    fn hexadecimal(&mut self, digits: usize) -> Result<u16, String> {
        let mut unit = 0;
        for _ in 0..digits {
            let digit = self.char().and_then(|c| c.to_digit(16));
            let digit = digit.and_then(|digit| u16::try_from(digit).ok());
            unit = unit << 4 | digit.ok_or("insufficient hexadecimal digits")?;
            self.at += 1;
        }
        Ok(unit)
    }
}

fn surrogates() -> String {
    let mut body = String::new();
    push_range(&mut body, as_char(SURROGATES.0), as_char(SURROGATES.1));
    body
}

fn negated(body: String, negated: bool) -> String {
    if negated { format!("[^{body}]") } else { body }
}

fn unterminated() -> String {
    "unterminated [] set".to_owned()
}
