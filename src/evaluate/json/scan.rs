//! The parser: one pass over the text, no recursion.

use super::{Bare, Document, Fault, JsonError, Node, Tag};

/// Marks a container without parent while it is open.
const NO_PARENT: u32 = u32::MAX;

pub(super) struct Parser<'a> {
    document: Document<'a>,
    at: usize,
    max_depth: usize,
    depth: usize,
    /// What words without quotes mean; `None`: strict JSON.
    bare: Option<fn(&str) -> Bare>,
    /// The innermost open container; each keeps its parent in `link` until it is closed.
    innermost: u32,
    /// Scratch of [`Parser::resolve_repeated_names`].
    names: Vec<(u64, u32)>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, max_depth: usize, bare: Option<fn(&str) -> Bare>) -> Self {
        // A guess that is right for users and flag sets; the vector grows for the rest.
        let nodes = Vec::with_capacity((text.len() / 12).clamp(4, 1 << 22));
        Self::with_nodes(text, max_depth, bare, nodes)
    }

    /// A parser for [`Parser::enter_array`] and then [`Parser::element`].
    pub(super) fn of_elements(text: &'a str, max_depth: usize) -> Self {
        Self::with_nodes(text, max_depth, None, Vec::new())
    }

    fn with_nodes(text: &'a str, max_depth: usize, bare: Option<fn(&str) -> Bare>, nodes: Vec<Node>) -> Self {
        Self {
            document: Document {
                text,
                nodes,
                decoded: String::new(),
                spans: Vec::new(),
                is_compact: bare.is_none(),
            },
            at: 0,
            max_depth,
            depth: 0,
            bare,
            innermost: NO_PARENT,
            names: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Document<'a>, JsonError> {
        self.check_length()?;
        self.skip_white_space();
        self.whole_value()?;
        self.end_of_text()?;
        Ok(self.document)
    }

    /// Reads the opening bracket of an array that is the whole text. Says whether there is one.
    pub(super) fn enter_array(&mut self) -> Result<bool, JsonError> {
        self.check_length()?;
        self.skip_white_space();
        if self.peek() != Some(b'[') || self.max_depth == 0 {
            return Ok(false);
        }
        self.at += 1;
        self.depth = 1;
        Ok(true)
    }

    /// Reads the next element of that array in place of the one before; `None` at the end of the text.
    pub(super) fn element(&mut self, is_first: bool) -> Result<Option<&Document<'a>>, JsonError> {
        let document = &mut self.document;
        document.nodes.clear();
        document.decoded.clear();
        document.spans.clear();
        if self.is_over(b']', is_first)? {
            self.at += 1;
            self.end_of_text()?;
            return Ok(None);
        }
        self.document.is_compact = true;
        self.whole_value()?;
        Ok(Some(&self.document))
    }

    fn check_length(&self) -> Result<(), JsonError> {
        match u32::try_from(self.document.text.len()) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.fault(Fault::TooLong)),
        }
    }

    /// Reads a value with all that it holds.
    fn whole_value(&mut self) -> Result<(), JsonError> {
        loop {
            self.value()?;
            loop {
                if self.innermost == NO_PARENT {
                    return Ok(());
                }
                if self.item()? {
                    break;
                }
                self.close();
            }
        }
    }

    fn end_of_text(&mut self) -> Result<(), JsonError> {
        self.skip_white_space();
        if self.at < self.bytes().len() {
            return Err(self.fault(Fault::TrailingText));
        }
        Ok(())
    }

    /// Whether a value follows in the innermost container, whose name is read then; else there is its bracket.
    #[inline]
    fn item(&mut self) -> Result<bool, JsonError> {
        let parent = self.innermost as usize;
        let is_first = parent + 1 == self.document.nodes.len();
        let is_object = self.document.nodes[parent].tag == Tag::Object;
        if self.is_over(if is_object { b'}' } else { b']' }, is_first)? {
            return Ok(false);
        }
        if is_object {
            self.name()?;
        }
        Ok(true)
    }

    /// Whether a container is over, at the bracket that closes it; else the next item follows.
    #[inline]
    fn is_over(&mut self, close: u8, is_first: bool) -> Result<bool, JsonError> {
        self.skip_white_space();
        match self.peek() {
            Some(byte) if byte == close => return Ok(true),
            Some(b',') if !is_first => {
                self.at += 1;
                self.skip_white_space();
            }
            None => return Err(self.fault(Fault::UnexpectedEnd)),
            Some(_) if is_first => {}
            Some(_) => return Err(self.fault(Fault::CommaOrEndExpected)),
        }
        Ok(false)
    }

    #[inline]
    fn name(&mut self) -> Result<(), JsonError> {
        let (start, end, escaped) = match self.peek() {
            Some(b'"') => self.string()?,
            Some(_) if self.bare.is_some() => {
                let start = self.offset();
                self.bare_word().ok_or(self.fault(Fault::NameExpected))?;
                (start, self.offset(), false)
            }
            Some(_) => return Err(self.fault(Fault::NameExpected)),
            None => return Err(self.fault(Fault::UnexpectedEnd)),
        };
        let value = self.next_node() + 1;
        self.document.nodes.push(Node {
            start,
            end,
            link: value,
            tag: Tag::Name,
            escaped,
            shadowed: false,
        });
        self.skip_white_space();
        match self.peek() {
            Some(b':') => self.at += 1,
            Some(_) => return Err(self.fault(Fault::ColonExpected)),
            None => return Err(self.fault(Fault::UnexpectedEnd)),
        }
        self.skip_white_space();
        Ok(())
    }

    /// Reads a scalar, or the opening bracket of a container.
    #[inline]
    fn value(&mut self) -> Result<(), JsonError> {
        let start = self.offset();
        match self.peek() {
            Some(b'"') => {
                let (from, to, escaped) = self.string()?;
                let mut link = 0;
                if escaped {
                    link = position(self.document.spans.len());
                    self.document.spans.push((from, to));
                }
                self.push(Tag::String, start, link, escaped);
                Ok(())
            }
            Some(b'{') => self.open(Tag::Object),
            Some(b'[') => self.open(Tag::Array),
            Some(_) if self.bare.is_some() => self.bare_value(),
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                self.push(Tag::Number, start, 0, false);
                Ok(())
            }
            Some(b't') => self.word(b"true", Tag::True),
            Some(b'f') => self.word(b"false", Tag::False),
            Some(b'n') => self.word(b"null", Tag::Null),
            Some(_) => Err(self.fault(Fault::ValueExpected)),
            None => Err(self.fault(Fault::UnexpectedEnd)),
        }
    }

    fn bare_value(&mut self) -> Result<(), JsonError> {
        let start = self.offset();
        let word = self.bare_word().ok_or(self.fault(Fault::ValueExpected))?;
        let tag = match self.bare.map(|meaning| meaning(word)) {
            Some(Bare::Number) => Tag::Number,
            Some(Bare::True) => Tag::True,
            Some(Bare::False) => Tag::False,
            Some(Bare::Null) | None => Tag::Null,
        };
        self.push(tag, start, 0, false);
        Ok(())
    }

    /// The characters up to the next white space, control or structural one; `None` if there is none.
    fn bare_word(&mut self) -> Option<&'a str> {
        let text = self.document.text;
        let ends = |byte: &u8| *byte <= b' ' || b",:[]{}\"\\".contains(byte);
        let start = self.at;
        self.at = self.bytes()[start..]
            .iter()
            .position(ends)
            .map_or(text.len(), |length| start + length);
        (self.at > start).then(|| &text[start..self.at])
    }

    fn word(&mut self, word: &[u8], tag: Tag) -> Result<(), JsonError> {
        if !self.bytes()[self.at..].starts_with(word) {
            return Err(self.fault(Fault::ValueExpected));
        }
        let start = self.offset();
        self.at += word.len();
        self.push(tag, start, 0, false);
        Ok(())
    }

    fn open(&mut self, tag: Tag) -> Result<(), JsonError> {
        if self.depth >= self.max_depth {
            return Err(self.fault(Fault::TooDeep));
        }
        self.depth += 1;
        let start = self.offset();
        let node = self.next_node();
        self.at += 1;
        self.push(tag, start, self.innermost, false);
        self.innermost = node;
        Ok(())
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
        let end = self.offset();
        let after = self.next_node();
        let closed = self.innermost;
        let node = &mut self.document.nodes[closed as usize];
        self.innermost = node.link;
        node.end = end;
        node.link = after;
        // A name and a value are two nodes at least: up to three nodes can hold one member only.
        if node.tag == Tag::Object && after - closed > 4 && self.may_repeat_names(closed) {
            self.resolve_repeated_names(closed);
        }
    }

    /// Reads a string with its quotes and returns where its contents stand, in the text or, if the third
    /// is true, in `decoded`.
    #[inline(always)]
    fn string(&mut self) -> Result<(u32, u32, bool), JsonError> {
        let start = self.at + 1;
        match next_special(self.bytes(), start) {
            Some(end) => self.at = end,
            None => {
                self.at = self.bytes().len();
                return Err(self.fault(Fault::UnexpectedEnd));
            }
        }
        if self.bytes()[self.at] == b'"' {
            self.at += 1;
            return Ok((position(start), position(self.at - 1), false));
        }
        let from = position(self.document.decoded.len());
        self.escaped_string(start)?;
        Ok((from, position(self.document.decoded.len()), true))
    }

    /// Reads the rest of a string that holds an escape (or a fault) at `self.at`.
    #[inline(never)]
    fn escaped_string(&mut self, start: usize) -> Result<(), JsonError> {
        self.document.is_compact = false;
        let text = self.document.text;
        let mut from = start;
        loop {
            self.document.decoded.push_str(&text[from..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let decoded = self.escape()?;
                    self.document.decoded.push(decoded);
                }
                Some(_) => return Err(self.fault(Fault::ControlCharacter)),
                None => return Err(self.fault(Fault::UnexpectedEnd)),
            }
            from = self.at;
            self.at = find_special(&self.bytes()[from..]).map_or(text.len(), |length| from + length);
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let decoded = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) => return Err(self.fault(Fault::BadEscape)),
            None => return Err(self.fault(Fault::UnexpectedEnd)),
        };
        self.at += 1;
        Ok(decoded)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let escape = self.at - 1;
        let lone = JsonError {
            what: Fault::LoneSurrogate,
            offset: escape,
        };
        let unit = self.code_unit()?;
        let code = match unit {
            0xD800..=0xDBFF => {
                if !self.bytes()[self.at..].starts_with(b"\\u") {
                    return Err(lone);
                }
                self.at += 1;
                let low = self.code_unit()?;
                if !(0xDC00..=0xDFFF).contains(&low) {
                    return Err(lone);
                }
                0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
            }
            _ => unit,
        };
        char::from_u32(code).ok_or(lone)
    }

    /// Reads `uXXXX`.
    fn code_unit(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            self.at += 1;
            let Some(byte) = self.peek() else {
                return Err(self.fault(Fault::UnexpectedEnd));
            };
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(self.fault(Fault::BadEscape));
            };
            unit = unit << 4 | digit;
        }
        self.at += 1;
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.fault(Fault::BadNumber));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Reads one digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'0'..=b'9') => self.at += 1,
            Some(_) => return Err(self.fault(Fault::BadNumber)),
            None => return Err(self.fault(Fault::UnexpectedEnd)),
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    /// Whether two members of an object may have the same name: surely not if this is false.
    fn may_repeat_names(&self, object: u32) -> bool {
        let document = &self.document;
        let end = document.nodes[object as usize].link;
        let mut seen = [0_u64; 4];
        let mut name = object + 1;
        while name < end {
            let print = fingerprint(document, document.nodes[name as usize]);
            let (word, bit) = ((print >> 62) as usize, 1 << (print >> 56 & 63));
            if seen[word] & bit != 0 {
                return true;
            }
            seen[word] |= bit;
            name = document.after(name + 1);
        }
        false
    }

    /// Lets the last member of each name hold, at the first one's position.
    fn resolve_repeated_names(&mut self, object: u32) {
        let document = &mut self.document;
        let end = document.nodes[object as usize].link;
        self.names.clear();
        let mut name = object + 1;
        while name < end {
            let print = fingerprint(document, document.nodes[name as usize]);
            self.names.push((print, name));
            name = document.after(name + 1);
        }
        // Members of the same name meet, in their order; of others only some do.
        self.names.sort_unstable();
        let mut rest = &mut self.names[..];
        while let Some((print, _)) = rest.first() {
            let same = rest.partition_point(|(other, _)| other == print);
            let (run, after) = rest.split_at_mut(same);
            if same > 1 {
                redirect(document, run);
            }
            rest = after;
        }
    }

    fn push(&mut self, tag: Tag, start: u32, link: u32, escaped: bool) {
        let end = self.offset();
        self.document.nodes.push(Node {
            start,
            end,
            link,
            tag,
            escaped,
            shadowed: false,
        });
    }

    fn next_node(&self) -> u32 {
        position(self.document.nodes.len())
    }

    fn offset(&self) -> u32 {
        position(self.at)
    }

    fn bytes(&self) -> &'a [u8] {
        self.document.text.as_bytes()
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
            self.document.is_compact = false;
        }
    }

    fn fault(&self, what: Fault) -> JsonError {
        JsonError {
            what,
            offset: self.at,
        }
    }
}

/// The place in a text, or the number of a node; neither exceeds the text's length, which is below 4 GiB.
#[allow(
    clippy::cast_possible_truncation,
    reason = "run() refuses texts of 4 GiB; nodes are fewer than bytes"
)]
fn position(index: usize) -> u32 {
    index as u32
}

/// Lets the last of each name in `run`, members whose names have one fingerprint, hold for the first one.
fn redirect(document: &mut Document<'_>, run: &mut [(u64, u32)]) {
    run.sort_by(|(_, a), (_, b)| {
        let [a, b] = [*a, *b].map(|node| document.name_bytes(document.nodes[node as usize]));
        a.cmp(b)
    });
    let mut first = 0;
    while first < run.len() {
        let of_first = run[first].1;
        let mut last = first;
        while let Some((_, next)) = run.get(last + 1) {
            let [a, b] = [of_first, *next].map(|node| document.name_bytes(document.nodes[node as usize]));
            if a != b {
                break;
            }
            document.nodes[*next as usize].shadowed = true;
            document.is_compact = false;
            last += 1;
        }
        document.nodes[of_first as usize].link = run[last].1 + 1;
        first = last + 1;
    }
}

/// A number that is equal for equal names and mostly differs for others, above all in its highest bits.
#[inline]
fn fingerprint(document: &Document<'_>, name: Node) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = (document.name_head(name) ^ u64::from(name.end - name.start)).wrapping_mul(MULTIPLIER);
    if let Some(tail) = document.name_bytes(name).last_chunk() {
        hash = (hash ^ u64::from_le_bytes(*tail).rotate_left(32)).wrapping_mul(MULTIPLIER);
    }
    hash
}

/// Where the first `"`, `\` or control below U+0020 stands at or after `from`. Most strings end within eight bytes.
#[inline(always)]
pub(super) fn next_special(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let Some((first, rest)) = rest.split_first_chunk() else {
        return find_special(rest).map(|length| from + length);
    };
    match specials(u64::from_le_bytes(*first)) {
        0 => find_special(rest).map(|length| from + 8 + length),
        hits => Some(from + hits.trailing_zeros() as usize / 8),
    }
}

/// Where the first of these stands in `bytes`; eight bytes at a time.
#[inline]
pub(super) fn find_special(bytes: &[u8]) -> Option<usize> {
    let (chunks, rest) = bytes.as_chunks();
    let mut at = 0;
    for chunk in chunks {
        let hits = specials(u64::from_le_bytes(*chunk));
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = rest
        .iter()
        .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')?;
    Some(at + rest)
}

/// High bits of the bytes that are one of these. The lowest is exact: borrows only disturb bytes above a hit.
#[inline(always)]
const fn specials(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5C));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let equal = (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash);
    (equal | control) & HIGHS
}
