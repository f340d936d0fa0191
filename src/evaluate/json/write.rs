//! Writing values without insignificant white space.

use super::{Elements, Members, Tag, Value, scan};

impl<'d> Value<'d> {
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
