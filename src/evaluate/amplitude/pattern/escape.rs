//! Escapes and character classes of Java's syntax.

use super::class::{predefined, property};
use super::translate::{NESTING_MAX, Translator};
use crate::evaluate::pattern::push_range;

impl Translator {
    /// Reads what follows a backslash outside of a class.
    pub(super) fn escape(&mut self) -> Result<(), String> {
        let escaped = self.raw(0).ok_or("unexpected end after a backslash")?;
        if let Some(body) = predefined(escaped, self.flags.unicode) {
            self.at += 1;
            self.push_class(&body);
            return Ok(());
        }
        match escaped {
            'p' | 'P' => {
                let body = self.property()?;
                self.push_class(&body);
            }
            // Java before 19 looks at Unicode letters here, as Rust does.
            'b' | 'B' if (escaped, self.raw(1), self.raw(2)) != ('b', Some('{'), Some('g')) => {
                self.push_escape(if escaped == 'b' { r"(?:\b)" } else { r"(?:\B)" })
            }
            'A' | 'G' => self.push_escape(r"(?:\A)"),
            'z' => self.push_escape(r"(?:\z)"),
            'Z' => {
                self.at += 1;
                self.line_end(false);
            }
            'R' => {
                self.consumes = true;
                self.push_escape(r"(?:\r\n|[\n\x0B\x0C\r\x{85}\x{2028}\x{2029}])");
            }
            '1'..='9' => self.numbered_reference(),
            'k' => {
                self.at += 1;
                if !self.eat('<') {
                    return Err("`\\k` is not followed by `<`".to_owned());
                }
                let name = self.group_name()?;
                let number = self
                    .names
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, number)| *number);
                self.reference(number.ok_or_else(|| format!("no group is named {name:?}"))?);
            }
            _ => {
                let c = self.escaped_char()?;
                self.literal(c);
            }
        }
        Ok(())
    }

    fn push_escape(&mut self, text: &str) {
        self.at += 1;
        self.out.push_str(text);
    }

    /// Reads a number; more digits belong to it as long as there are that many groups.
    fn numbered_reference(&mut self) {
        let mut number = 0;
        while let Some(digit) = self.raw(0).and_then(|c| c.to_digit(10)) {
            let longer = number * 10 + digit as usize;
            if number != 0 && longer > self.groups {
                break;
            }
            number = longer;
            self.at += 1;
        }
        if number > self.groups {
            // Java: a group that is not there never matches.
            self.consumes = true;
            self.out.push_str("[a&&b]");
        } else {
            self.reference(number);
        }
    }

    fn reference(&mut self, number: usize) {
        self.consumes = true;
        self.backtracks = true;
        self.out.push_str(&if self.flags.fold {
            format!(r"(?i:\{number})")
        } else {
            format!(r"(?:\{number})")
        });
    }

    /// Reads `p{name}` or `pL` and gives the class.
    fn property(&mut self) -> Result<String, String> {
        let negated = self.raw(0) == Some('P');
        self.at += 1;
        let mut name = String::new();
        if self.eat('{') {
            loop {
                let c = self.raw(0).ok_or("unclosed character family")?;
                self.at += 1;
                if c == '}' {
                    break;
                }
                name.push(c);
            }
        } else {
            name.push(self.raw(0).ok_or("unknown character property")?);
            self.at += 1;
        }
        property(&name, negated, self.flags.fold)
    }

    /// Reads an escape that stands for one character.
    fn escaped_char(&mut self) -> Result<char, String> {
        let (escaped, quoted) = *self
            .tokens
            .get(self.at)
            .ok_or("unexpected end after a backslash")?;
        self.at += 1;
        Ok(match escaped {
            _ if quoted => return Err("illegal escape sequence".to_owned()),
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'f' => '\u{c}',
            'a' => '\u{7}',
            'e' => '\u{1b}',
            'c' => {
                let c = self
                    .tokens
                    .get(self.at)
                    .ok_or("illegal control escape sequence")?
                    .0;
                self.at += 1;
                char::from_u32(u32::from(c) ^ 64).ok_or("illegal control escape sequence")?
            }
            '0' => self.octal()?,
            'x' if self.eat('{') => {
                let code = self.hexadecimal(6)?;
                if !self.eat('}') {
                    return Err("unclosed hexadecimal escape sequence".to_owned());
                }
                char::from_u32(code).ok_or("hexadecimal codepoint is too big")?
            }
            'x' => {
                let code = self.exactly(2)?;
                char::from_u32(code).ok_or("illegal hexadecimal escape sequence")?
            }
            'u' => self.utf16_escape()?,
            c if c.is_ascii_alphanumeric() => {
                return Err(format!("illegal or unsupported escape sequence `\\{c}`"));
            }
            c => c,
        })
    }

    fn octal(&mut self) -> Result<char, String> {
        let mut code = 0;
        let mut digits = 0;
        while let Some(digit) = self.raw(0).and_then(|c| c.to_digit(8)).filter(|_| digits < 3) {
            if digits == 2 && code * 8 + digit > 0o377 {
                break;
            }
            code = code * 8 + digit;
            digits += 1;
            self.at += 1;
        }
        let known = char::from_u32(code).filter(|_| digits > 0);
        known.ok_or_else(|| "illegal octal escape sequence".to_owned())
    }

    fn utf16_escape(&mut self) -> Result<char, String> {
        let high = self.exactly(4)?;
        let mut code = high;
        if (0xD800..0xDC00).contains(&high) && self.raw(0) == Some('\\') && self.raw(1) == Some('u') {
            self.at += 2;
            let low = self.exactly(4)?;
            code = 0x1_0000 + ((high - 0xD800) << 10) + low.wrapping_sub(0xDC00);
        }
        char::from_u32(code).ok_or_else(|| "a lone surrogate is no character".to_owned())
    }

    fn exactly(&mut self, digits: usize) -> Result<u32, String> {
        let start = self.at;
        let code = self.hexadecimal(digits)?;
        if self.at - start == digits {
            Ok(code)
        } else {
            Err("illegal hexadecimal escape sequence".to_owned())
        }
    }

    fn hexadecimal(&mut self, digits_max: usize) -> Result<u32, String> {
        let start = self.at;
        let mut code = 0;
        while let Some(digit) = self
            .raw(0)
            .and_then(|c| c.to_digit(16))
            .filter(|_| self.at - start < digits_max)
        {
            code = code * 16 + digit;
            self.at += 1;
        }
        if self.at > start {
            Ok(code)
        } else {
            Err("illegal hexadecimal escape sequence".to_owned())
        }
    }

    /// Reads a class up to its bracket (taken if `consume`) and gives the inside of a Rust class.
    ///
    /// Follows the reading order of Java's parser, where `&&` binds weakest and a `]` or `^` is literal
    /// depending on what came before.
    pub(super) fn class(&mut self, depth: usize, consume: bool) -> Result<String, String> {
        if depth >= NESTING_MAX {
            return Err(format!("classes nested deeper than {NESTING_MAX}"));
        }
        let negated = consume && self.peek() == Some(('^', false));
        self.at += usize::from(negated);
        let mut body = String::new();
        loop {
            let next = self.peek().ok_or("unclosed character class")?;
            match next {
                ('[', false) => {
                    self.at += 1;
                    let nested = self.class(depth + 1, true)?;
                    body.push_str(&nested);
                }
                ('&', false) if self.raw(1) == Some('&') => {
                    self.at += 2;
                    let right = self.right_of_intersection(depth)?;
                    body = match (body.is_empty(), right.is_empty()) {
                        (true, true) => return Err("bad class syntax".to_owned()),
                        (true, false) => right,
                        (false, true) => body,
                        (false, false) => format!("[[{body}]&&[{right}]]"),
                    };
                }
                (']', false) if !body.is_empty() => {
                    self.at += usize::from(consume);
                    return Ok(if negated { format!("[^{body}]") } else { body });
                }
                _ => self.class_item(&mut body)?,
            }
        }
    }

    fn right_of_intersection(&mut self, depth: usize) -> Result<String, String> {
        let mut right = String::new();
        loop {
            match self.peek().ok_or("unclosed character class")? {
                (']' | '&', false) => return Ok(right),
                ('[', false) => {
                    self.at += 1;
                    right.push_str(&self.class(depth + 1, true)?);
                }
                _ => right.push_str(&self.class(depth + 1, false)?),
            }
        }
    }

    /// Reads a character, a range, or an escape of a class.
    fn class_item(&mut self, body: &mut String) -> Result<(), String> {
        let Some((mut first, quoted)) = self.next() else {
            return Err("unclosed character class".to_owned());
        };
        if !quoted && first == '\\' {
            let escaped = self.raw(0).ok_or("unexpected end after a backslash")?;
            if let Some(class) = predefined(escaped, self.flags.unicode) {
                self.at += 1;
                body.push_str(&class);
                return Ok(());
            }
            if matches!(escaped, 'p' | 'P') {
                body.push_str(&self.property()?);
                return Ok(());
            }
            first = self.escaped_char()?;
        }
        let mut last = first;
        let ranges = self.peek() == Some(('-', false)) && !matches!(self.raw(1), Some('[' | ']'));
        if ranges {
            self.at += 1;
            let (next, quoted) = self.next().ok_or("unclosed character class")?;
            last = if !quoted && next == '\\' {
                self.escaped_char()?
            } else {
                next
            };
            if last < first {
                return Err("illegal character range".to_owned());
            }
        }
        push_range(body, first, last);
        if self.flags.fold {
            for (a, z) in [('a', 'z'), ('A', 'Z')] {
                let (from, to) = (first.max(a), last.min(z));
                if from <= to {
                    let other = |c: char| {
                        if c.is_ascii_lowercase() {
                            c.to_ascii_uppercase()
                        } else {
                            c.to_ascii_lowercase()
                        }
                    };
                    push_range(body, other(from), other(to));
                }
            }
        }
        Ok(())
    }
}
