//! What injection changes about a pod, as edits that are carried out three ways: as JSON Patch, on a value, and
//! in the text of a manifest.
//!
//! Nothing is ever removed or rewritten: lists get items in front, maps get entries they did not have.

use std::cmp::Reverse;
use std::fmt::{self, Write};

use serde_json::{Map, Value, json};

/// One step into a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// The entry of a map.
    Key(String),
    /// The item of a list, from 0.
    Index(usize),
}

/// A place in a value; empty = the whole.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// The entry `key` below this place.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// The item `at` below this place.
    #[must_use]
    pub fn index(&self, at: usize) -> Self {
        self.step(Step::Index(at))
    }

    /// Several entries below each other.
    #[must_use]
    pub fn keys(&self, keys: &[&str]) -> Self {
        keys.iter().fold(self.clone(), |path, key| path.key(key))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The value there, if there is one.
    #[must_use]
    pub fn find<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(root, |value, step| below(value, step))
    }

    fn find_mut<'a>(&self, root: &'a mut Value) -> Option<&'a mut Value> {
        self.0.iter().try_fold(root, |value, step| match step {
            Step::Key(key) => value.as_object_mut()?.get_mut(key),
            Step::Index(at) => value.as_array_mut()?.get_mut(*at),
        })
    }

    /// As JSON Pointer (RFC 6901).
    #[must_use]
    pub fn pointer(&self) -> String {
        let mut pointer = String::new();
        for step in &self.0 {
            // Writing to a string cannot fail.
            let _ = match step {
                Step::Key(key) => write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1")),
                Step::Index(at) => write!(pointer, "/{at}"),
            };
        }
        pointer
    }
}

/// As people write it: `spec.containers[0].env`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn below<'a>(value: &'a Value, step: &Step) -> Option<&'a Value> {
    match step {
        Step::Key(key) => value.as_object()?.get(key),
        Step::Index(at) => value.as_array()?.get(*at),
    }
}

/// One change at a place that exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Items in front of a list.
    Prepend {
        /// The list.
        at: Path,
        /// The items, in their final order.
        items: Vec<Value>,
    },
    /// Entries into a map that has none of those names.
    Insert {
        /// The map.
        at: Path,
        /// The entries, in their final order.
        entries: Map<String, Value>,
    },
    /// A value instead of null.
    Fill {
        /// Where null stands.
        at: Path,
        /// The value.
        value: Value,
    },
}

impl Edit {
    const fn at(&self) -> &Path {
        match self {
            Self::Prepend { at, .. } | Self::Insert { at, .. } | Self::Fill { at, .. } => at,
        }
    }
}

/// The place of an edit holds something that does not take it: a text where a list belongs.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{at} is not {wanted}")]
pub struct Unfit {
    /// The place.
    pub at: String,
    /// What it should be.
    pub wanted: &'static str,
}

/// Edits of one value, each place once.
#[derive(Clone, Debug)]
pub struct Edits<'a> {
    root: &'a Value,
    prepended: Vec<(Path, Vec<Value>)>,
    added: Vec<Added>,
}

/// What is new at a place that exists: entries of a map, or a value instead of null.
#[derive(Clone, Debug)]
struct Added {
    at: Path,
    is_null: bool,
    value: Value,
}

impl<'a> Edits<'a> {
    /// No edits of `root` yet.
    #[must_use]
    pub const fn new(root: &'a Value) -> Self {
        Self {
            root,
            prepended: Vec::new(),
            added: Vec::new(),
        }
    }

    /// Puts `item` in front of the list at `at`, behind items that were put there before; makes what is missing.
    ///
    /// # Errors
    ///
    /// When something on the way is of another kind.
    pub fn prepend(&mut self, at: &Path, item: Value) -> Result<(), Unfit> {
        if let Some(depth) = self.missing(at)? {
            match self.make(at, depth) {
                Value::Array(items) => items.push(item),
                other => *other = Value::Array(vec![item]),
            }
        } else if !at.find(self.root).is_some_and(Value::is_array) {
            return Err(unfit(at, "a list"));
        } else if let Some((_, items)) = self.prepended.iter_mut().find(|(known, _)| known == at) {
            items.push(item);
        } else {
            self.prepended.push((at.clone(), vec![item]));
        }
        Ok(())
    }

    /// Puts an entry into the map at `at`, unless it has one of that name; makes what is missing.
    ///
    /// # Errors
    ///
    /// When something on the way is of another kind, or the entry is there.
    pub fn insert(&mut self, at: &Path, key: &str, value: Value) -> Result<(), Unfit> {
        let target = at.key(key);
        let depth = self.missing(&target)?.ok_or_else(|| unfit(&target, "free"))?;
        *self.make(&target, depth) = value;
        Ok(())
    }

    /// The edits, the deepest first: none moves a place that a later one names.
    #[must_use]
    pub fn finish(self) -> Vec<Edit> {
        let added = self.added.into_iter().map(|added| match added.value {
            Value::Object(entries) if !added.is_null => Edit::Insert {
                at: added.at,
                entries,
            },
            value => Edit::Fill { at: added.at, value },
        });
        let prepended = self.prepended.into_iter();
        let mut edits: Vec<Edit> = prepended
            .map(|(at, items)| Edit::Prepend { at, items })
            .chain(added)
            .collect();
        edits.sort_by_key(|edit| Reverse(edit.at().0.len()));
        edits
    }

    /// How many steps of `path` exist, if not all of them lead to something that is not null.
    fn missing(&self, path: &Path) -> Result<Option<usize>, Unfit> {
        let mut value = self.root;
        for (depth, step) in path.0.iter().enumerate() {
            let here = || Path(path.0[..depth].to_vec());
            value = match (value, step) {
                (Value::Null, _) => return Ok(Some(depth)),
                (Value::Object(map), Step::Key(key)) => match map.get(key) {
                    Some(inner) => inner,
                    None => return Ok(Some(depth)),
                },
                (Value::Array(items), Step::Index(at)) if *at < items.len() => &items[*at],
                (_, Step::Key(_)) => return Err(unfit(&here(), "a map")),
                (_, Step::Index(_)) => return Err(unfit(&here(), "a list")),
            };
        }
        Ok(value.is_null().then_some(path.0.len()))
    }

    /// The new value at `path`, of which `depth` steps exist.
    fn make(&mut self, path: &Path, depth: usize) -> &mut Value {
        let at = Path(path.0[..depth].to_vec());
        let known = self.added.iter().position(|added| added.at == at);
        let place = known.unwrap_or_else(|| {
            let is_null = at.find(self.root).is_none_or(Value::is_null);
            self.added.push(Added {
                at,
                is_null,
                value: Value::Null,
            });
            self.added.len() - 1
        });
        let mut slot = &mut self.added[place].value;
        for step in &path.0[depth..] {
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            let name = match step {
                Step::Key(key) => key.clone(),
                Step::Index(at) => at.to_string(),
            };
            slot = &mut slot[name];
        }
        slot
    }
}

fn unfit(at: &Path, wanted: &'static str) -> Unfit {
    let at = at.to_string();
    Unfit {
        at: if at.is_empty() {
            "the manifest".to_owned()
        } else {
            at
        },
        wanted,
    }
}

/// Carries `edits` out on `value`, which they were made for.
pub fn apply(edits: &[Edit], value: &mut Value) {
    for edit in edits {
        match edit {
            Edit::Prepend { at, items } => {
                if let Some(Value::Array(list)) = at.find_mut(value) {
                    list.splice(0..0, items.iter().cloned());
                }
            }
            Edit::Insert { at, entries } => {
                if let Some(Value::Object(map)) = at.find_mut(value) {
                    map.extend(entries.clone());
                }
            }
            Edit::Fill { at, value: new } => {
                if let Some(slot) = at.find_mut(value) {
                    slot.clone_from(new);
                }
            }
        }
    }
}

/// The same as a JSON Patch (RFC 6902) of `add` operations.
#[must_use]
pub fn json_patch(edits: &[Edit]) -> Value {
    let add = |path: String, value: &Value| json!({"op": "add", "path": path, "value": value});
    let mut operations = Vec::new();
    for edit in edits {
        match edit {
            Edit::Prepend { at, items } => {
                let each = items.iter().enumerate();
                operations.extend(each.map(|(n, item)| add(at.index(n).pointer(), item)));
            }
            Edit::Insert { at, entries } => {
                let each = entries.iter();
                operations.extend(each.map(|(key, value)| add(at.key(key).pointer(), value)));
            }
            Edit::Fill { at, value } => operations.push(add(at.pointer(), value)),
        }
    }
    Value::Array(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        let step = |part: &str| match part.parse() {
            Ok(at) => Step::Index(at),
            Err(_) => Step::Key(part.to_owned()),
        };
        Path(
            text.split('.')
                .filter(|part| !part.is_empty())
                .map(step)
                .collect(),
        )
    }

    #[test]
    fn what_is_missing_is_made_once() {
        let pod = json!({"spec": {"a": [1], "n": null, "e": []}});
        let mut edits = Edits::new(&pod);
        for (at, item) in [
            ("spec.a", 10),
            ("spec.a", 11),
            ("spec.n", 12),
            ("spec.n", 13),
            ("spec.e", 14),
            ("spec.l", 15),
            ("spec.l", 16),
        ] {
            edits.prepend(&path(at), json!(item)).unwrap();
        }
        edits.insert(&path("metadata.labels"), "x/y", json!("1")).unwrap();
        edits.insert(&path("metadata.labels"), "z~", json!("2")).unwrap();
        edits
            .insert(&path("metadata.annotations"), "s", json!("3"))
            .unwrap();
        let edits = edits.finish();
        let mut changed = pod.clone();
        apply(&edits, &mut changed);
        let wanted = json!({
            "spec": {"a": [10, 11, 1], "n": [12, 13], "e": [14], "l": [15, 16]},
            "metadata": {"labels": {"x/y": "1", "z~": "2"}, "annotations": {"s": "3"}},
        });
        assert_eq!(changed, wanted);
        let operations: Vec<String> = json_patch(&edits)
            .as_array()
            .unwrap()
            .iter()
            .map(|operation| format!("{} {}", operation["path"].as_str().unwrap(), operation["value"]))
            .collect();
        assert_eq!(
            operations,
            [
                "/spec/a/0 10",
                "/spec/a/1 11",
                "/spec/e/0 14",
                "/spec/n [12,13]",
                "/spec/l [15,16]",
                r#"/metadata {"labels":{"x/y":"1","z~":"2"},"annotations":{"s":"3"}}"#,
            ]
        );
    }

    #[test]
    fn an_item_in_front_moves_no_place_of_another_edit() {
        let pod = json!({"l": [{"name": "a"}, {"name": "b", "env": [1]}]});
        let mut edits = Edits::new(&pod);
        edits.prepend(&path("l"), json!({"name": "new"})).unwrap();
        edits.prepend(&path("l.0.env"), json!(2)).unwrap();
        edits.prepend(&path("l.1.env"), json!(3)).unwrap();
        let mut changed = pod.clone();
        apply(&edits.finish(), &mut changed);
        let wanted = json!({"l": [{"name": "new"}, {"name": "a", "env": [2]}, {"name": "b", "env": [3, 1]}]});
        assert_eq!(changed, wanted);
    }

    #[test]
    fn names_are_escaped_in_pointers() {
        let pod = json!({"metadata": {"labels": {}}});
        let mut edits = Edits::new(&pod);
        edits
            .insert(&path("metadata.labels"), "flagside.io/a~b", json!("1"))
            .unwrap();
        let patch = json_patch(&edits.finish());
        assert_eq!(patch[0]["path"], "/metadata/labels/flagside.io~1a~0b");
    }

    #[test]
    fn what_does_not_take_an_edit_is_named() {
        let pod = json!({"spec": "text", "a": [{"env": {}}]});
        let mut edits = Edits::new(&pod);
        for (at, wanted) in [
            ("spec.volumes", "spec is not a map"),
            ("a.0.env", "a[0].env is not a list"),
            ("a.1.env", "a is not a list"),
        ] {
            let problem = edits.prepend(&path(at), json!(1)).unwrap_err();
            assert_eq!(problem.to_string(), wanted);
        }
        assert!(edits.insert(&path(""), "spec", json!(1)).is_err());
        assert_eq!(edits.finish(), []);
    }
}
