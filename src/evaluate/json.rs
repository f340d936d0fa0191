//! A strict JSON reader (RFC 8259) that keeps what evaluation and cache keys need: member order, number
//! literals, exact source text.
//!
//! One pass fills one vector of nodes; strings are borrowed from the text unless they hold escapes. It
//! never recurses, so that no input can overflow the stack, and it never shows contents in `Debug`,
//! because users' data must not reach a log.

use std::fmt;
use std::ops::Range;

pub(crate) use self::elements::Elementwise;
pub use self::outline::{Outline, Wanted};
use self::scan::Parser;

mod elements;
mod outline;
mod scan;
mod sorted;
#[cfg(test)]
mod tests;

/// A parsed JSON text.
///
/// Invariants: the text is valid UTF-8 and valid RFC 8259 JSON without lone surrogate escapes, nested no
/// deeper than was asked for.
pub struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
    /// The contents of the strings that hold escapes, one after the other.
    decoded: String,
    /// The places in `decoded` of the string *values* (names keep theirs in the node).
    spans: Vec<(u32, u32)>,
    /// The text is its own compact form: strict, no white space between tokens, no escapes, no repeated names.
    is_compact: bool,
}

impl<'a> Document<'a> {
    /// Reads a whole text: one JSON value with nothing but white space around it.
    ///
    /// `max_depth` is how many arrays and objects may stand inside each other; a root of either kind is
    /// at depth 1. Texts from 4 GiB on are refused.
    ///
    /// # Errors
    ///
    /// Anything that RFC 8259 forbids, invalid UTF-8, an escape of half a surrogate pair, or a value
    /// nested too deeply.
    pub fn parse(text: &'a [u8], max_depth: usize) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(text).map_err(|error| JsonError {
            what: Fault::InvalidUtf8,
            offset: error.valid_up_to(),
        })?;
        Parser::new(text, max_depth, None).run()
    }

    /// Like [`Document::parse`], but words without quotes are values, as `bare` says, and names.
    pub(crate) fn parse_lenient(text: &'a str, bare: fn(&str) -> Bare) -> Result<Self, JsonError> {
        Parser::new(text, usize::MAX, Some(bare)).run()
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        Value {
            document: self,
            node: 0,
        }
    }

    /// The text as it was given.
    pub fn text(&self) -> &'a str {
        self.text
    }
}

/// The text that `bytes` are, without a copy.
///
/// # Errors
///
/// When they are not UTF-8.
pub(crate) fn into_text(bytes: Vec<u8>) -> Result<String, JsonError> {
    String::from_utf8(bytes).map_err(|error| JsonError {
        what: Fault::InvalidUtf8,
        offset: error.utf8_error().valid_up_to(),
    })
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("bytes", &self.text.len())
            .field("nodes", &self.nodes.len())
            .finish()
    }
}

/// What a word without quotes stands for in a lenient text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bare {
    Null,
    False,
    True,
    Number,
}

/// One value or member name. 16 bytes, in document order: a name is followed by its value, an array or
/// object by what it holds.
#[derive(Clone, Copy)]
struct Node {
    /// Source bytes of a value; of a name its contents, in the text or, if it holds escapes, in `decoded`.
    start: u32,
    end: u32,
    /// Array, object: the node after its last one. Name: the node of the value that holds for it. String
    /// value with escapes: its place in `spans`.
    link: u32,
    tag: Tag,
    /// The string or name holds escapes.
    escaped: bool,
    /// A name that an earlier member of the object has too; the earlier one carries this one's value.
    shadowed: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tag {
    Null,
    False,
    True,
    Number,
    String,
    Array,
    Object,
    Name,
}

/// The kind of a JSON value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number literal.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A value inside a [`Document`]; as cheap to copy as a reference.
#[derive(Clone, Copy)]
pub struct Value<'d> {
    document: &'d Document<'d>,
    node: u32,
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

impl<'d> Value<'d> {
    /// What it is.
    pub fn kind(self) -> Kind {
        match self.node().tag {
            Tag::Null => Kind::Null,
            Tag::False | Tag::True => Kind::Bool,
            Tag::Number => Kind::Number,
            Tag::String | Tag::Name => Kind::String,
            Tag::Array => Kind::Array,
            Tag::Object => Kind::Object,
        }
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.node().tag == Tag::Null
    }

    /// The value of a `true` or `false`.
    pub fn as_bool(self) -> Option<bool> {
        match self.node().tag {
            Tag::True => Some(true),
            Tag::False => Some(false),
            _ => None,
        }
    }

    /// The contents of a string, escapes resolved.
    pub fn as_str(self) -> Option<&'d str> {
        let node = self.node();
        if node.tag != Tag::String {
            return None;
        }
        if node.escaped {
            let (start, end) = *self.document.spans.get(node.link as usize)?;
            return self.document.decoded.get(start as usize..end as usize);
        }
        self.document
            .text
            .get(node.start as usize + 1..node.end as usize - 1)
    }

    /// The literal of a number, verbatim.
    pub fn as_number(self) -> Option<&'d str> {
        (self.node().tag == Tag::Number).then(|| self.source())
    }

    /// The members of an object in their order; nothing for other kinds.
    ///
    /// Of members with the same name the last one's value holds, at the first one's position, as in a
    /// Java `LinkedHashMap`.
    pub fn members(self) -> Members<'d> {
        let node = self.node();
        let (next, end) = if node.tag == Tag::Object {
            (self.node + 1, node.link)
        } else {
            (0, 0)
        };
        Members {
            document: self.document,
            next,
            end,
        }
    }

    /// The members of an object in their order, also those whose names come again later; nothing for other
    /// kinds.
    pub fn members_as_written(self) -> impl Iterator<Item = (&'d str, Self)> {
        let document = self.document;
        let Members { mut next, end, .. } = self.members();
        std::iter::from_fn(move || {
            let name = *document.nodes.get(next as usize).filter(|_| next < end)?;
            let node = next + 1;
            next = document.after(node);
            Some((document.name(name), Self { document, node }))
        })
    }

    /// The elements of an array in their order; nothing for other kinds.
    pub fn elements(self) -> Elements<'d> {
        let node = self.node();
        let (next, end) = if node.tag == Tag::Array {
            (self.node + 1, node.link)
        } else {
            (0, 0)
        };
        Elements {
            document: self.document,
            next,
            end,
        }
    }

    /// The value of the member `name` of an object.
    pub fn get(self, name: &str) -> Option<Self> {
        self.members()
            .find(|(member, _)| *member == name)
            .map(|(_, value)| value)
    }

    /// The values of several members of an object, found in one pass.
    #[inline]
    pub(crate) fn pick<const N: usize>(self, names: [&str; N]) -> [Option<Self>; N] {
        let mut found = [None; N];
        let mut members = self.members();
        while let Some((member, value)) = members.next_node() {
            let member = self.document.name_bytes(self.document.nodes[member as usize]);
            if let Some(at) = names.iter().position(|name| name.as_bytes() == member) {
                found[at] = Some(value);
            }
        }
        found
    }

    /// The exact source text.
    pub fn raw(self) -> &'d [u8] {
        self.source().as_bytes()
    }

    /// Where the value stands in the text, in bytes.
    pub fn span(self) -> Range<usize> {
        let node = self.node();
        node.start as usize..node.end as usize
    }

    /// Appends the value without insignificant white space: member order kept, repeated names resolved,
    /// number literals verbatim, strings as by [`write_string`].
    pub fn write_compact(self, out: &mut Vec<u8>) {
        if self.document.is_compact {
            return out.extend_from_slice(self.raw());
        }
        self.write_with(out, &mut |literal, out| out.extend_from_slice(literal.as_bytes()));
    }

    /// Appends `"name":value`, compact. `name` is the one that this value has in its object.
    pub(crate) fn write_member(self, name: &str, out: &mut Vec<u8>) {
        // Without repeated names a value stands behind its own name.
        match self.node.checked_sub(1) {
            Some(name) if self.document.is_compact => {
                let start = self.document.nodes[name as usize].start as usize - 1;
                out.extend_from_slice(&self.document.text.as_bytes()[start..self.span().end]);
            }
            _ => {
                write_string(name, out);
                out.push(b':');
                self.write_compact(out);
            }
        }
    }

    /// Like [`Value::write_compact`], but number literals are written by `number`.
    pub fn write_with(self, out: &mut Vec<u8>, number: &mut dyn FnMut(&str, &mut Vec<u8>)) {
        // The stack of what is open lives on the heap: depth is bounded by the parser, not by the thread.
        let mut open: Vec<Open<'d>> = Vec::new();
        let mut value = self;
        loop {
            match value.node().tag {
                // Without escapes the source is minimal already.
                Tag::String if !value.node().escaped => out.extend_from_slice(value.raw()),
                Tag::String | Tag::Name => write_string(value.as_str().unwrap_or_default(), out),
                Tag::Number => number(value.source(), out),
                // Not the source: a lenient text may spell them differently.
                Tag::Null => out.extend_from_slice(b"null"),
                Tag::False => out.extend_from_slice(b"false"),
                Tag::True => out.extend_from_slice(b"true"),
                Tag::Array => {
                    out.push(b'[');
                    open.push(Open {
                        rest: Rest::Elements(value.elements()),
                        first: true,
                    });
                }
                Tag::Object => {
                    out.push(b'{');
                    open.push(Open {
                        rest: Rest::Members(value.members()),
                        first: true,
                    });
                }
            }
            loop {
                let Some(top) = open.last_mut() else { return };
                if let Some(next) = top.step(out) {
                    value = next;
                    break;
                }
                open.pop();
            }
        }
    }

    fn node(self) -> Node {
        self.document.nodes[self.node as usize]
    }

    fn source(self) -> &'d str {
        let node = self.node();
        &self.document.text[node.start as usize..node.end as usize]
    }
}

/// An array or object that is being written.
struct Open<'d> {
    rest: Rest<'d>,
    first: bool,
}

enum Rest<'d> {
    Elements(Elements<'d>),
    Members(Members<'d>),
}

impl<'d> Open<'d> {
    /// Writes what stands before the next value and returns that value; at the end writes the bracket.
    fn step(&mut self, out: &mut Vec<u8>) -> Option<Value<'d>> {
        let (name, value, close) = match &mut self.rest {
            Rest::Elements(rest) => (None, rest.next(), b']'),
            Rest::Members(rest) => match rest.next() {
                Some((name, value)) => (Some(name), Some(value), b'}'),
                None => (None, None, b'}'),
            },
        };
        let Some(value) = value else {
            out.push(close);
            return None;
        };
        if !std::mem::replace(&mut self.first, false) {
            out.push(b',');
        }
        if let Some(name) = name {
            write_string(name, out);
            out.push(b':');
        }
        Some(value)
    }
}

/// The members of an object; see [`Value::members`].
#[derive(Clone)]
pub struct Members<'d> {
    document: &'d Document<'d>,
    next: u32,
    end: u32,
}

impl fmt::Debug for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

impl<'d> Iterator for Members<'d> {
    type Item = (&'d str, Value<'d>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.next_node()?;
        Some((self.document.name(self.document.nodes[name as usize]), value))
    }
}

impl<'d> Members<'d> {
    /// The next member, its name as the number of a node.
    #[inline]
    fn next_node(&mut self) -> Option<(u32, Value<'d>)> {
        let document = self.document;
        while self.next < self.end {
            let name = self.next;
            self.next = document.after(name + 1);
            let Node { link, shadowed, .. } = document.nodes[name as usize];
            if !shadowed {
                return Some((name, Value { document, node: link }));
            }
        }
        None
    }
}

/// The elements of an array; see [`Value::elements`].
#[derive(Clone)]
pub struct Elements<'d> {
    document: &'d Document<'d>,
    next: u32,
    end: u32,
}

impl fmt::Debug for Elements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elements").finish_non_exhaustive()
    }
}

impl<'d> Iterator for Elements<'d> {
    type Item = Value<'d>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let value = Value {
            document: self.document,
            node: self.next,
        };
        self.next = self.document.after(self.next);
        Some(value)
    }
}

impl Document<'_> {
    /// The node that follows the value at `node` and all that it holds.
    #[inline]
    fn after(&self, node: u32) -> u32 {
        let value = self.nodes[node as usize];
        if matches!(value.tag, Tag::Array | Tag::Object) {
            value.link
        } else {
            node + 1
        }
    }

    #[inline]
    fn name(&self, node: Node) -> &str {
        let text = if node.escaped { &self.decoded } else { self.text };
        &text[node.start as usize..node.end as usize]
    }

    #[inline]
    fn name_bytes(&self, node: Node) -> &[u8] {
        &self.names(node)[node.start as usize..node.end as usize]
    }

    /// The first eight bytes of a name, as a number that is ordered as names are; short ones are padded with 0.
    #[inline]
    fn name_head(&self, node: Node) -> u64 {
        let (start, end) = (node.start as usize, node.end as usize);
        let names = self.names(node);
        // What follows a name is read with it and thrown away, unless the text ends there.
        let head = match names.get(start..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => {
                let mut bytes = [0; 8];
                for (to, from) in bytes.iter_mut().zip(&names[start..end]) {
                    *to = *from;
                }
                u64::from_be_bytes(bytes)
            }
        };
        match end - start {
            length @ 0..8 => head & !(u64::MAX >> (8 * length)),
            _ => head,
        }
    }

    #[inline]
    fn names(&self, node: Node) -> &[u8] {
        let text = if node.escaped { &self.decoded } else { self.text };
        text.as_bytes()
    }
}

/// Appends `text` as a JSON string, escaping only `"`, `\` and controls below U+0020 (the short forms
/// where there is one, else `\u00xx` in lower case).
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(found) = scan::find_special(&bytes[from..]) {
        let at = from + found;
        out.extend_from_slice(&bytes[from..at]);
        match bytes[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Why a text is not JSON, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub what: Fault,
    /// The byte at which it was noticed, from 0; the length of the text if it ends too early.
    pub offset: usize,
}

/// What can be wrong with a JSON text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// The text ends inside a value.
    #[error("unexpected end")]
    UnexpectedEnd,
    /// A byte that cannot begin a value.
    #[error("a value was expected")]
    ValueExpected,
    /// Something else than a name in quotes inside an object.
    #[error("a member name in quotes was expected")]
    NameExpected,
    /// A name without its colon.
    #[error("`:` was expected")]
    ColonExpected,
    /// Two elements or members without a comma, or the wrong bracket.
    #[error("`,` or the closing bracket was expected")]
    CommaOrEndExpected,
    /// A malformed number, such as `01`, `1.` or `+1`.
    #[error("malformed number")]
    BadNumber,
    /// A backslash before something that cannot be escaped.
    #[error("malformed escape")]
    BadEscape,
    /// An escape of half a surrogate pair.
    #[error("lone surrogate escape")]
    LoneSurrogate,
    /// A raw control character inside a string.
    #[error("control character in a string")]
    ControlCharacter,
    /// Arrays and objects inside each other beyond the limit.
    #[error("nested too deeply")]
    TooDeep,
    /// Something else than white space after the value.
    #[error("text after the value")]
    TrailingText,
    /// A text of 4 GiB or more.
    #[error("text too long")]
    TooLong,
}
