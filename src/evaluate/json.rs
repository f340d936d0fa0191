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
pub use self::write::write_string;

mod elements;
mod outline;
mod scan;
mod sorted;
#[cfg(test)]
mod tests;
mod write;

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

    fn node(self) -> Node {
        self.document.nodes[self.node as usize]
    }

    fn source(self) -> &'d str {
        let node = self.node();
        &self.document.text[node.start as usize..node.end as usize]
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
