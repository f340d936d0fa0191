//! The canonical form: compact, with the members of every object sorted by name.

use super::{Document, Tag, Value, write_string};

impl Value<'_> {
    /// Appends the value as by [`Value::write_compact`], but with the members of every object sorted by the bytes of their
    /// names.
    ///
    /// Recurses as deep as the value: for documents that were parsed with a limit.
    pub(crate) fn write_sorted(self, out: &mut Vec<u8>) {
        write(self, out, &mut Vec::new());
    }
}

/// A member of an object that is being written.
#[derive(Clone, Copy)]
struct Member {
    /// What its name begins with.
    head: u64,
    name: u32,
    value: u32,
}

/// `members` holds those of all objects that are being written, the innermost one's last.
fn write(value: Value<'_>, out: &mut Vec<u8>, members: &mut Vec<Member>) {
    let Value { document, node } = value;
    if document.has_no_objects(node) {
        return value.write_compact(out);
    }
    if document.nodes[node as usize].tag == Tag::Array {
        out.push(b'[');
        for (at, element) in value.elements().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(element, out, members);
        }
        out.push(b']');
        return;
    }
    let start = members.len();
    collect(value, members);
    out.push(b'{');
    for at in start..members.len() {
        if at > start {
            out.push(b',');
        }
        write_member(document, members[at], out, members);
    }
    out.push(b'}');
    members.truncate(start);
}

/// Appends the members of an object, sorted.
fn collect(object: Value<'_>, members: &mut Vec<Member>) {
    let document = object.document;
    let name = |member: &Member| document.name_bytes(document.nodes[member.name as usize]);
    let start = members.len();
    let mut rest = object.members();
    while let Some((name, value)) = rest.next_node() {
        members.push(Member {
            head: document.name_head(document.nodes[name as usize]),
            name,
            value: value.node,
        });
    }
    members[start..].sort_unstable_by(|a, b| a.head.cmp(&b.head).then_with(|| name(a).cmp(name(b))));
}

fn write_member(document: &Document<'_>, member: Member, out: &mut Vec<u8>, members: &mut Vec<Member>) {
    let name = document.nodes[member.name as usize];
    let value = document.nodes[member.value as usize];
    let has_no_objects = document.has_no_objects(member.value);
    if document.is_compact {
        let end = if has_no_objects { value.end } else { value.start };
        out.extend_from_slice(&document.text.as_bytes()[name.start as usize - 1..end as usize]);
        if has_no_objects {
            return;
        }
    } else {
        write_string(document.name(name), out);
        out.push(b':');
    }
    let node = member.value;
    write(Value { document, node }, out, members);
}

impl Document<'_> {
    /// Whether a value is no object and no array that holds one, however deep: there is nothing to sort.
    #[inline]
    fn has_no_objects(&self, node: u32) -> bool {
        match self.nodes[node as usize].tag {
            Tag::Object => false,
            Tag::Array => {
                let held = &self.nodes[node as usize..self.after(node) as usize];
                held.iter().all(|node| node.tag != Tag::Object)
            }
            _ => true,
        }
    }
}
