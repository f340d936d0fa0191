//! From Java's syntax of regular expressions to that of the `regex` and `fancy-regex` crates.
//!
//! Flags never reach the output: every literal, class and anchor is written out with the meaning that
//! the flags in force give it, so that the two dialects' different ideas of `\d`, `.`, `$` or case do not
//! meet. Source: the documentation of `java.util.regex.Pattern` (JDK 17), compared with its behaviour.

use super::class::LINE_ENDS;
use crate::evaluate::pattern::{Translated, push_char};

/// Groups and classes inside each other.
pub(super) const NESTING_MAX: usize = 60;

/// Translates a pattern, anchored at both ends, or says what is wrong with it.
pub(super) fn translate(pattern: &str) -> Result<Translated, String> {
    let mut translator = Translator {
        tokens: unquoted(pattern),
        at: 0,
        out: String::with_capacity(pattern.len() * 2),
        flags: Flags::default(),
        open: Vec::new(),
        names: Vec::new(),
        groups: 0,
        backtracks: false,
        consumes: false,
    };
    translator.run()?;
    let text = format!(r"\A(?:{})\z", translator.out);
    Ok(Translated {
        text,
        backtracks: translator.backtracks,
    })
}

/// A character, and whether it stood between `\Q` and `\E`.
pub(super) type Token = (char, bool);

/// The pattern with `\Q...\E` resolved.
fn unquoted(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix("\\Q") {
            let (inside, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            tokens.extend(inside.chars().map(|c| (c, true)));
            rest = after;
            continue;
        }
        let mut taken = rest.chars();
        tokens.push((next, false));
        taken.next();
        if next == '\\' {
            // What is escaped is no start of a quotation.
            tokens.extend(taken.next().map(|c| (c, false)));
        }
        rest = taken.as_str();
    }
    tokens
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// `i`
    pub(super) fold: bool,
    /// `u`: folds all of Unicode.
    fold_unicode: bool,
    /// `m`
    multiline: bool,
    /// `s`
    dot_all: bool,
    /// `d`
    unix_lines: bool,
    /// `x`
    comments: bool,
    /// `U`
    pub(super) unicode: bool,
}

/// A group that is open.
struct Group {
    /// Where it starts in the output.
    start: usize,
    close: &'static str,
    /// The flags around it.
    flags: Flags,
    looks_around: bool,
    /// [`Translator::consumes`] of the level around it, so far.
    consumes: bool,
}

pub(super) struct Translator {
    pub(super) tokens: Vec<Token>,
    pub(super) at: usize,
    pub(super) out: String,
    pub(super) flags: Flags,
    open: Vec<Group>,
    /// Names of groups with their numbers.
    pub(super) names: Vec<(String, usize)>,
    /// Capturing groups so far.
    pub(super) groups: usize,
    pub(super) backtracks: bool,
    /// Whether anything of the group at hand can match a character.
    pub(super) consumes: bool,
}

impl Translator {
    fn run(&mut self) -> Result<(), String> {
        while let Some((next, quoted)) = self.next() {
            let start = self.out.len();
            let consumed = std::mem::take(&mut self.consumes);
            match next {
                _ if quoted => self.literal(next),
                '(' => {
                    self.consumes = consumed;
                    self.open_group()?;
                    continue;
                }
                ')' => {
                    let group = self.open.pop().ok_or("unmatched closing `)`")?;
                    self.out.push_str(group.close);
                    self.flags = group.flags;
                    let consumes = consumed && !group.looks_around;
                    self.consumes = group.consumes || consumes;
                    self.quantifier(group.start, consumes)?;
                    continue;
                }
                '|' => {
                    self.consumes = consumed;
                    self.out.push('|');
                    continue;
                }
                '[' => {
                    let body = self.class(0, true)?;
                    self.push_class(&body);
                }
                '\\' => self.escape()?,
                '.' => self.dot(),
                '^' => self.line_start(),
                '$' => self.line_end(self.flags.multiline),
                '*' | '+' | '?' => return Err(format!("dangling meta character `{next}`")),
                '{' => {
                    // Java: nothing, repeated; a `{` without a number is an error in `quantifier`.
                    self.out.push_str("(?:)");
                    self.at -= 1;
                }
                other => self.literal(other),
            }
            let consumes = self.consumes;
            self.consumes |= consumed;
            self.quantifier(start, consumes)?;
        }
        if self.open.is_empty() {
            Ok(())
        } else {
            Err("unclosed group".to_owned())
        }
    }

    /// The next token that counts, which stays.
    pub(super) fn peek(&mut self) -> Option<Token> {
        if self.flags.comments {
            while let Some((next, false)) = self.tokens.get(self.at) {
                match next {
                    ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' => self.at += 1,
                    '#' => {
                        let ends = |token: &Token| self.is_line_end(token.0);
                        let length = self.tokens[self.at..].iter().position(ends);
                        self.at = length.map_or(self.tokens.len(), |length| self.at + length);
                    }
                    _ => break,
                }
            }
        }
        self.tokens.get(self.at).copied()
    }

    fn is_line_end(&self, c: char) -> bool {
        c == '\n' || !self.flags.unix_lines && matches!(c, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    /// The next character if it is not quoted, without skipping comments.
    pub(super) fn raw(&self, ahead: usize) -> Option<char> {
        self.tokens
            .get(self.at + ahead)
            .filter(|token| !token.1)
            .map(|token| token.0)
    }

    pub(super) fn eat(&mut self, wanted: char) -> bool {
        let found = self.raw(0) == Some(wanted);
        self.at += usize::from(found);
        found
    }

    pub(super) fn literal(&mut self, c: char) {
        self.consumes = true;
        if self.flags.fold && self.flags.fold_unicode {
            self.out.push_str("(?i:");
            push_char(&mut self.out, c);
            self.out.push(')');
        } else if self.flags.fold && c.is_ascii_alphabetic() {
            self.out
                .extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']);
        } else {
            push_char(&mut self.out, c);
        }
    }

    pub(super) fn push_class(&mut self, body: &str) {
        self.consumes = true;
        let folds = self.flags.fold && self.flags.fold_unicode;
        self.out.push_str(if folds { "(?i:[" } else { "[" });
        self.out.push_str(body);
        self.out.push_str(if folds { "])" } else { "]" });
    }

    fn dot(&mut self) {
        self.consumes = true;
        self.out
            .push_str(&match (self.flags.dot_all, self.flags.unix_lines) {
                (true, _) => "(?s:.)".to_owned(),
                (false, true) => r"[^\n]".to_owned(),
                (false, false) => format!("[^{LINE_ENDS}]"),
            });
    }

    fn line_start(&mut self) {
        if !self.flags.multiline {
            self.out.push_str(r"(?:\A)");
            return;
        }
        self.backtracks = true;
        // After a line's end, but not at the end of the text nor inside `\r\n`.
        self.out.push_str(if self.flags.unix_lines {
            r"(?:\A|(?<=\n)(?!\z))"
        } else {
            r"(?:\A|(?<=[\n\x{85}\x{2028}\x{2029}])(?!\z)|(?<=\r)(?!\n|\z))"
        });
    }

    /// `$`, or `\Z` with `multiline` false.
    pub(super) fn line_end(&mut self, multiline: bool) {
        let inside_look_around = self.open.iter().any(|group| group.looks_around);
        if !multiline && !inside_look_around && self.nothing_follows() {
            // The whole text has to match, so that the line end before the end cannot stay over.
            self.out.push_str(r"(?:\z)");
            return;
        }
        self.backtracks = true;
        self.out.push_str(match (multiline, self.flags.unix_lines) {
            (true, true) => r"(?=\n|\z)",
            (false, true) => r"(?=\n?\z)",
            (true, false) => r"(?:(?=[\r\x{85}\x{2028}\x{2029}]|\z)|(?<!\r)(?=\n))",
            (false, false) => r"(?:(?=\r\n\z|[\r\x{85}\x{2028}\x{2029}]\z|\z)|(?<!\r)(?=\n\z))",
        });
    }

    /// Whether certainly nothing stands between here and the end of the pattern that could match text.
    fn nothing_follows(&self) -> bool {
        let mut at = self.at;
        loop {
            match self.tokens.get(at) {
                None => return true,
                Some((')', false)) => {
                    at += 1;
                    if matches!(self.tokens.get(at), Some(('*' | '+' | '?' | '{', false))) {
                        return false;
                    }
                }
                Some(('|', false)) => match self.end_of_group(at) {
                    Some(end) => at = end,
                    None => return false,
                },
                Some(_) => return false,
            }
        }
    }

    /// Where the group around `at` ends; `None` where telling would need the whole grammar.
    fn end_of_group(&self, mut at: usize) -> Option<usize> {
        let mut depth = 0;
        loop {
            match self.tokens.get(at) {
                None => return Some(at),
                Some((')', false)) if depth == 0 => return Some(at),
                Some((')', false)) => depth -= 1,
                Some(('(', false)) => depth += 1,
                Some(('[' | '#', false)) => return None,
                Some(('\\', false)) => at += 1,
                Some(_) => {}
            }
            at += 1;
        }
    }

    fn open_group(&mut self) -> Result<(), String> {
        if self.open.len() >= NESTING_MAX {
            return Err(format!("groups nested deeper than {NESTING_MAX}"));
        }
        let consumes = self.consumes;
        let mut group = Group {
            start: self.out.len(),
            close: ")",
            flags: self.flags,
            looks_around: false,
            consumes,
        };
        if !self.eat('?') {
            self.groups += 1;
            self.out.push('(');
            self.enter(group);
            return Ok(());
        }
        let mut look = |translator: &mut Self, opening: &str| {
            group.looks_around = true;
            group.close = "))";
            translator.backtracks = true;
            translator.out.push_str(opening);
        };
        match (self.raw(0), self.raw(1)) {
            (Some(':'), _) => self.out.push_str("(?:"),
            (Some('='), _) => look(self, "(?:(?="),
            (Some('!'), _) => look(self, "(?:(?!"),
            (Some('<'), Some('=')) => look(self, "(?:(?<="),
            (Some('<'), Some('!')) => look(self, "(?:(?<!"),
            (Some('>'), _) => {
                self.backtracks = true;
                self.out.push_str("(?>");
            }
            (Some('<'), _) => {
                self.at += 1;
                let name = self.group_name()?;
                if self.names.iter().any(|(known, _)| *known == name) {
                    return Err(format!("two groups are named {name:?}"));
                }
                self.groups += 1;
                self.names.push((name, self.groups));
                self.out.push('(');
                self.enter(group);
                return Ok(());
            }
            _ => return self.inline_flags(group),
        }
        self.at += if self.raw(0) == Some('<') { 2 } else { 1 };
        self.enter(group);
        Ok(())
    }

    fn enter(&mut self, group: Group) {
        self.open.push(group);
        self.consumes = false;
    }

    /// Reads `name>`.
    pub(super) fn group_name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        while let Some(c) = self.raw(0).filter(char::is_ascii_alphanumeric) {
            name.push(c);
            self.at += 1;
        }
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic()) && self.eat('>');
        if valid {
            Ok(name)
        } else {
            Err("malformed name of a group".to_owned())
        }
    }

    /// Reads `i-s)`, which changes the flags of the group around, or `i-s:`, which opens one.
    fn inline_flags(&mut self, group: Group) -> Result<(), String> {
        let mut on = true;
        loop {
            let flag = self.raw(0).ok_or("unknown inline modifier")?;
            self.at += 1;
            let flags = &mut self.flags;
            match flag {
                '-' if on => on = false,
                'i' => flags.fold = on,
                'm' => flags.multiline = on,
                's' => flags.dot_all = on,
                'd' => flags.unix_lines = on,
                'x' => flags.comments = on,
                'u' => flags.fold_unicode = on,
                'U' => {
                    flags.unicode = on;
                    flags.fold_unicode = on;
                }
                ')' => return Ok(()),
                ':' => {
                    self.out.push_str("(?:");
                    self.enter(group);
                    return Ok(());
                }
                _ => return Err("unknown group type or inline modifier".to_owned()),
            }
        }
    }

    /// Reads what may repeat the atom that starts at `start` of the output and `consumes` characters.
    fn quantifier(&mut self, start: usize, consumes: bool) -> Result<(), String> {
        let Some((next, false)) = self.peek() else {
            return Ok(());
        };
        let (min, repetition) = match next {
            '?' | '*' | '+' => {
                self.at += 1;
                (u32::from(next == '+'), next.to_string())
            }
            '{' => {
                self.at += 1;
                self.counts()?
            }
            _ => return Ok(()),
        };
        let suffix = self
            .peek()
            .filter(|(c, quoted)| matches!(c, '?' | '+') && !quoted)
            .map(|(c, _)| c);
        self.at += usize::from(suffix.is_some());
        if !consumes {
            // Once is as good as many times, and no dialect but Java's repeats what is empty.
            if min == 0 {
                self.out
                    .insert_str(start, if suffix == Some('?') { "(?:|" } else { "(?:" });
                self.out.push_str(if suffix == Some('?') { ")" } else { "|)" });
            }
            return Ok(());
        }
        self.out.push_str(&repetition);
        match suffix {
            Some('+') => {
                self.backtracks = true;
                self.out.insert_str(start, "(?>");
                self.out.push(')');
            }
            Some(_) => self.out.push('?'),
            None => {}
        }
        Ok(())
    }

    /// Reads `2}`, `2,}` or `2,5}`; gives the least count and the text.
    fn counts(&mut self) -> Result<(u32, String), String> {
        let min = self.count()?.ok_or("illegal repetition")?;
        let mut text = format!("{{{min}");
        if self.eat(',') {
            text.push(',');
            if let Some(max) = self.count()? {
                if max < min {
                    return Err("illegal repetition range".to_owned());
                }
                text.push_str(&max.to_string());
            }
        }
        if !self.eat('}') {
            return Err("unclosed counted closure".to_owned());
        }
        text.push('}');
        Ok((min, text))
    }

    fn count(&mut self) -> Result<Option<u32>, String> {
        let mut digits = String::new();
        while let Some(digit) = self.raw(0).filter(char::is_ascii_digit) {
            digits.push(digit);
            self.at += 1;
        }
        if digits.is_empty() {
            return Ok(None);
        }
        let count = digits.parse().ok().filter(|count| *count <= 0x7fff_ffff);
        count
            .map(Some)
            .ok_or_else(|| "illegal repetition range".to_owned())
    }
}
