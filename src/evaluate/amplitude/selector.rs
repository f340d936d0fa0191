//! Selectors: the distinct paths of a flag set as numbered slots, and what a user has in them.
//!
//! The paths into the context form a tree, so that one walk over the user's JSON, reading only what
//! flags select, fills all slots.

use super::property::{Property, write_text};
use crate::evaluate::json::{Kind, Value, write_string};
use crate::evaluate::quick_map::WordMap;

/// Members of a user that move into `context.groups` (AE 2).
const GROUP_MEMBERS: [&str; 3] = ["groups", "group_properties", "group_cohort_ids"];

/// Whom to evaluate.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'d> {
    /// A user as an SDK sends it; the context is built from it (AE 2).
    User(Value<'d>),
    /// A ready evaluation context: an object with `user` and `groups`.
    Context(Value<'d>),
}

/// Where a selector leads.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Source {
    /// Nowhere: always null, because of the flags and not of the user.
    Nowhere,
    /// A slot of the context.
    Context(u32),
    /// A slot of [`super::set::FlagSet::results`].
    Result(u32),
}

impl Source {
    /// A number of its own in a flag set.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Nowhere => 0,
            Self::Context(slot) => 1 << 32 | u64::from(slot),
            Self::Result(slot) => 2 << 32 | u64::from(slot),
        }
    }
}

/// The paths into the context that a flag set selects.
#[derive(Debug, Default)]
pub(super) struct Paths {
    nodes: Vec<Node>,
    slots: u32,
}

/// A place in the context; node 0 is the context itself.
#[derive(Debug, Default)]
struct Node {
    slot: Option<u32>,
    children: WordMap<u32>,
}

impl Paths {
    /// The slot of a path (without its leading `context`).
    pub(super) fn intern(&mut self, path: &[&str]) -> u32 {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for name in path {
            let child = match self.nodes[at].children.get(*name) {
                Some(child) => *child,
                None => {
                    let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
                    self.nodes[at].children.insert((*name).into(), next);
                    self.nodes.push(Node::default());
                    next
                }
            };
            at = child as usize;
        }
        if self.nodes[at].slot.is_none() {
            self.nodes[at].slot = Some(self.slots);
            self.slots += 1;
        }
        self.nodes[at].slot.unwrap_or(0)
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots as usize
    }

    /// Finds everything that is selected of a subject.
    pub(super) fn select<'d>(&self, subject: Subject<'d>) -> Selected<'d> {
        let mut selected = Selected {
            of_slot: vec![0; self.slots()],
            properties: Vec::with_capacity(16),
        };
        if self.nodes.is_empty() {
            return selected;
        }
        match subject {
            Subject::Context(context) => self.walk(context, 0, &mut selected),
            Subject::User(user) => self.walk_user(user, &mut selected),
        }
        selected
    }

    /// Fills the slots at and below a node with a value and what is inside it.
    fn walk<'d>(&self, value: Value<'d>, node: u32, selected: &mut Selected<'d>) {
        let mut pending = Vec::new();
        let mut next = Some((value, node));
        while let Some((value, node)) = next {
            let node = &self.nodes[node as usize];
            if let Some(slot) = node.slot {
                selected.put(slot, value);
            }
            if !node.children.is_empty() && value.kind() == Kind::Object {
                for (name, value) in value.members() {
                    let Some(child) = node.children.get(name) else {
                        continue;
                    };
                    match &self.nodes[*child as usize] {
                        // Most are at the end of a path.
                        Node {
                            slot: Some(slot),
                            children,
                        } if children.is_empty() => selected.put(*slot, value),
                        _ => pending.push((value, *child)),
                    }
                }
            }
            next = pending.pop();
        }
    }

    /// The same for a user, whose context is never written out unless a flag selects all of it.
    fn walk_user<'d>(&self, user: Value<'d>, selected: &mut Selected<'d>) {
        let root = &self.nodes[0];
        if let Some(slot) = root.slot {
            selected.put_written(slot, written(|out| write_context(user, out)));
        }
        if let Some(node) = root
            .children
            .get("user")
            .map(|child| &self.nodes[*child as usize])
        {
            if let Some(slot) = node.slot {
                selected.put_written(slot, written(|out| write_user(user, out)));
            }
            for (name, value) in user.members() {
                let child = node.children.get(name).filter(|_| !GROUP_MEMBERS.contains(&name));
                if let Some(child) = child {
                    self.walk(value, *child, selected);
                }
            }
        }
        if let Some(node) = root
            .children
            .get("groups")
            .map(|child| &self.nodes[*child as usize])
        {
            if let Some(slot) = node.slot {
                selected.put_written(slot, written(|out| write_groups(user, out)));
            }
            if node.children.is_empty() {
                return;
            }
            for group in groups(user) {
                if let Some(child) = node.children.get(group.kind) {
                    self.walk_group(group, *child, selected);
                }
            }
        }
    }

    fn walk_group<'d>(&self, group: Group<'d>, node: u32, selected: &mut Selected<'d>) {
        let node = &self.nodes[node as usize];
        if let Some(slot) = node.slot {
            selected.put_written(slot, written(|out| write_group(group, out)));
        }
        for (name, value) in group.members() {
            if let (Some(child), Some(value)) = (node.children.get(name), value) {
                self.walk(value, *child, selected);
            }
        }
    }
}

/// What a subject has in the slots of a flag set.
#[derive(Debug)]
pub(super) struct Selected<'d> {
    /// Per slot one more than the place in `properties`; 0 is null.
    of_slot: Vec<u32>,
    properties: Vec<Property<'d>>,
}

impl<'d> Selected<'d> {
    /// What is in a slot; `None` is null.
    pub(super) fn get(&self, slot: u32) -> Option<&Property<'d>> {
        let place = *self.of_slot.get(slot as usize)?;
        self.properties.get((place as usize).wrapping_sub(1))
    }

    fn put(&mut self, slot: u32, value: Value<'d>) {
        if !value.is_null() {
            self.properties.push(Property::of(value));
            self.of_slot[slot as usize] = u32::try_from(self.properties.len()).unwrap_or(0);
        }
    }

    fn put_written(&mut self, slot: u32, text: Option<String>) {
        if let Some(text) = text {
            self.properties.push(Property::of_object_text(text));
            self.of_slot[slot as usize] = u32::try_from(self.properties.len()).unwrap_or(0);
        }
    }
}

/// An entry of `context.groups`.
#[derive(Clone, Copy)]
struct Group<'d> {
    kind: &'d str,
    name: Value<'d>,
    properties: Option<Value<'d>>,
    cohorts: Option<Value<'d>>,
}

impl<'d> Group<'d> {
    fn members(self) -> [(&'static str, Option<Value<'d>>); 3] {
        [
            ("group_name", Some(self.name)),
            ("group_properties", self.properties),
            ("cohort_ids", self.cohorts),
        ]
    }
}

/// The groups of a user: of each type the first name, if that is a text and not empty.
fn groups<'d>(user: Value<'d>) -> impl Iterator<Item = Group<'d>> {
    let [groups, properties, cohorts] = GROUP_MEMBERS.map(|member| user.get(member));
    groups
        .into_iter()
        .flat_map(Value::members)
        .filter_map(move |(kind, names)| {
            let name = names.elements().next()?;
            let text = name.as_str().filter(|text| !text.is_empty())?;
            let of_group =
                |all: Option<Value<'d>>| all?.get(kind)?.get(text).filter(|found| !is_empty(*found));
            Some(Group {
                kind,
                name,
                properties: of_group(properties),
                cohorts: of_group(cohorts),
            })
        })
}

/// Whether the SDKs take a value for nothing: only a text, array or object can hold something.
fn is_empty(value: Value<'_>) -> bool {
    match value.kind() {
        Kind::Object => value.members().next().is_none(),
        Kind::Array => value.elements().next().is_none(),
        Kind::String => value.as_str() == Some(""),
        Kind::Null | Kind::Bool | Kind::Number => true,
    }
}

/// What `write` writes; `None` if it writes nothing.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> Option<String> {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).ok().filter(|text| !text.is_empty())
}

/// Writes `{"user":...,"groups":...}`, each if there is one.
fn write_context(user: Value<'_>, out: &mut Vec<u8>) {
    let (mut of_user, mut of_groups) = (Vec::new(), Vec::new());
    write_user(user, &mut of_user);
    write_groups(user, &mut of_groups);
    let members = [("user", of_user), ("groups", of_groups)]
        .into_iter()
        .filter(|(_, text)| !text.is_empty());
    write_object(members, out, |text, out| out.extend_from_slice(&text));
    if out.is_empty() {
        out.extend_from_slice(b"{}");
    }
}

fn write_user(user: Value<'_>, out: &mut Vec<u8>) {
    let members = user.members().filter(|(name, _)| !GROUP_MEMBERS.contains(name));
    write_object(members, out, write_text);
}

fn write_groups(user: Value<'_>, out: &mut Vec<u8>) {
    write_object(groups(user).map(|group| (group.kind, group)), out, write_group);
}

fn write_group(group: Group<'_>, out: &mut Vec<u8>) {
    let members = group
        .members()
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    write_object(members, out, write_text);
}

/// Writes an object; nothing if it has no members.
fn write_object<'n, V>(
    members: impl Iterator<Item = (&'n str, V)>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(V, &mut Vec<u8>),
) {
    let start = out.len();
    for (name, value) in members {
        out.push(if out.len() == start { b'{' } else { b',' });
        write_string(name, out);
        out.push(b':');
        write(value, out);
    }
    if out.len() > start {
        out.push(b'}');
    }
}
