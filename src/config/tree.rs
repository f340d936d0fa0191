//! The configuration as given: text in maps and lists, each piece with its origin.
//!
//! Files, variables and options all become such a tree, and are laid over each other here; nothing is
//! interpreted yet.

use std::fmt;

use super::fault::{Fault, Origin};

/// A value and where it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What was given.
#[derive(Clone, Debug, Default)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`: as if the key were not there.
    #[default]
    Null,
    /// Text, number or word, as written.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map; its keys are unique.
    Map(Vec<Entry>),
}

/// One key of a map and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_origin: Origin,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn text(text: impl Into<String>, origin: &Origin) -> Self {
        Self {
            value: Value::Text(text.into()),
            origin: origin.clone(),
        }
    }

    pub(crate) fn texts(texts: impl IntoIterator<Item = impl Into<String>>, origin: &Origin) -> Self {
        let items = texts.into_iter().map(|text| Self::text(text, origin)).collect();
        Self {
            value: Value::List(items),
            origin: origin.clone(),
        }
    }

    /// What the value is, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    fn is_nothing(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Text(text) => text == "none",
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// The value at `key` of a map, unless it is null.
    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        entries
            .iter()
            .find(|e| e.key == key)
            .map(|e| &e.node)
            .filter(|n| !matches!(n.value, Value::Null))
    }

    /// The value at `path`, unless something on the way is missing or null.
    pub(crate) fn find(&self, path: &[Step]) -> Option<&Self> {
        path.iter()
            .try_fold(self, |node, step| match (step, &node.value) {
                (Step::Key(key), _) => node.child(key),
                (Step::Index(at), Value::List(items)) => items.get(*at),
                (Step::Index(_), _) => None,
            })
    }

    /// Lays `over` upon this: maps merge key by key, everything else replaces, null changes nothing.
    pub(crate) fn merge(&mut self, over: Self) {
        match (&mut self.value, over) {
            (
                _,
                Self {
                    value: Value::Null, ..
                },
            ) => {}
            (
                Value::Map(entries),
                Self {
                    value: Value::Map(others),
                    ..
                },
            ) => {
                for other in others {
                    match entries.iter_mut().find(|e| e.key == other.key) {
                        Some(entry) => entry.node.merge(other.node),
                        None => entries.push(other),
                    }
                }
            }
            (_, over) => *self = over,
        }
    }

    /// Puts `node` at `path`, making the maps and list items on the way.
    ///
    /// Fails when a step meets a value of another kind (`none` counts as nothing), or an index would leave
    /// a gap in its list.
    pub(crate) fn place(&mut self, path: &[Step], node: Self) -> Result<(), Box<Fault>> {
        let origin = node.origin.clone();
        let mut here = self;
        for (depth, step) in path.iter().enumerate() {
            let (wanted, fits) = match step {
                Step::Key(_) => ("a map", matches!(here.value, Value::Map(_))),
                Step::Index(_) => ("a list", matches!(here.value, Value::List(_))),
            };
            if !fits && !here.is_nothing() {
                let path = Path(&path[..depth]).to_string();
                return Err(Box::new(
                    Fault::new(&here.origin, &path, here.kind()).expected(wanted),
                ));
            }
            let part = match step {
                Step::Key(key) => here.entry(key, &origin),
                Step::Index(at) => here.item(*at, &origin),
            };
            here = part.ok_or_else(|| {
                let what = "an item of a list that has fewer items before it";
                Box::new(Fault::new(&origin, &Path(&path[..=depth]).to_string(), what))
            })?;
        }
        here.merge(node);
        Ok(())
    }

    fn entry(&mut self, key: &str, origin: &Origin) -> Option<&mut Self> {
        if !matches!(self.value, Value::Map(_)) {
            *self = Self {
                value: Value::Map(Vec::new()),
                origin: origin.clone(),
            };
        }
        let Value::Map(entries) = &mut self.value else {
            return None;
        };
        let at = entries.iter().position(|e| e.key == key).unwrap_or_else(|| {
            let node = Self {
                value: Value::Null,
                origin: origin.clone(),
            };
            entries.push(Entry {
                key: key.to_owned(),
                key_origin: origin.clone(),
                node,
            });
            entries.len() - 1
        });
        entries.get_mut(at).map(|e| &mut e.node)
    }

    fn item(&mut self, at: usize, origin: &Origin) -> Option<&mut Self> {
        if at == 0 && !matches!(self.value, Value::List(_)) {
            *self = Self {
                value: Value::List(Vec::new()),
                origin: origin.clone(),
            };
        }
        let Value::List(items) = &mut self.value else {
            return None;
        };
        if at == items.len() {
            items.push(Self {
                value: Value::Null,
                origin: origin.clone(),
            });
        }
        items.get_mut(at)
    }

    /// Removes what stands at `path`, if anything does.
    pub(crate) fn remove(&mut self, path: &[Step]) {
        let Some((last, before)) = path.split_last() else {
            return;
        };
        let holder = before
            .iter()
            .try_fold(self, |node, step| match (step, &mut node.value) {
                (Step::Key(key), Value::Map(entries)) => {
                    entries.iter_mut().find(|e| e.key == *key).map(|e| &mut e.node)
                }
                (Step::Index(at), Value::List(items)) => items.get_mut(*at),
                _ => None,
            });
        if let (
            Some(Self {
                value: Value::Map(entries),
                ..
            }),
            Step::Key(key),
        ) = (holder, last)
        {
            entries.retain(|e| e.key != *key);
        }
    }
}

/// One step from a value to a part of it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// A path as it is printed: `environments[0].urls.eval`.
#[derive(Debug)]
pub(crate) struct Path<'a>(pub(crate) &'a [Step]);

impl fmt::Display for Path<'_> {
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

/// Reads `environments[0].urls.eval` or `environments.0.urls.eval`; none if a step is empty or not closed.
pub(crate) fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (key, indices) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        match key.parse::<usize>() {
            Ok(index) if !steps.is_empty() => steps.push(Step::Index(index)),
            _ if key.is_empty() => return None,
            _ => steps.push(Step::Key(key.to_owned())),
        }
        let mut rest = indices;
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = after;
        }
    }
    Some(steps)
}

/// `path` with every index replaced by `[]`: the name of the setting.
pub(crate) fn pattern(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(_) => text.push_str("[]"),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(node: Option<&Node>) -> Option<&str> {
        match &node?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    #[test]
    fn paths_are_read_and_printed() {
        for (given, printed, setting) in [
            ("mode", "mode", "mode"),
            ("a.b", "a.b", "a.b"),
            (
                "environments[1].urls.eval",
                "environments[1].urls.eval",
                "environments[].urls.eval",
            ),
            (
                "environments.1.urls.eval",
                "environments[1].urls.eval",
                "environments[].urls.eval",
            ),
        ] {
            let path = steps(given).unwrap();
            assert_eq!(
                (Path(&path).to_string().as_str(), pattern(&path).as_str()),
                (printed, setting),
                "{given}"
            );
        }
        for given in ["", ".a", "a.", "a..b", "a[", "a[x]", "a[1", "a[1]b", "[0]"] {
            assert_eq!(steps(given), None, "{given}");
        }
    }

    #[test]
    fn maps_merge_lists_replace_and_null_changes_nothing() {
        let origin = Origin::Default;
        let mut base = Node::default();
        base.place(&steps("a.x").unwrap(), Node::text("1", &origin))
            .unwrap();
        base.place(&steps("a.y").unwrap(), Node::texts(["1", "2"], &origin))
            .unwrap();
        let mut over = Node::default();
        over.place(&steps("a.y").unwrap(), Node::texts(["3"], &origin))
            .unwrap();
        over.place(&steps("a.z").unwrap(), Node::text("4", &origin))
            .unwrap();
        over.place(&steps("a.x").unwrap(), Node::default()).unwrap();
        base.merge(over);
        assert_eq!(text(base.find(&steps("a.x").unwrap())), Some("1"));
        assert_eq!(text(base.find(&steps("a.y[0]").unwrap())), Some("3"));
        assert_eq!(text(base.find(&steps("a.y[1]").unwrap())), None);
        assert_eq!(text(base.find(&steps("a.z").unwrap())), Some("4"));
        base.remove(&steps("a.z").unwrap());
        assert_eq!(text(base.find(&steps("a.z").unwrap())), None);
    }

    #[test]
    fn an_index_may_append_but_leaves_no_gap() {
        let origin = Origin::Variable("FLAGSIDE_X".into());
        let mut base = Node::default();
        base.place(&steps("list[0].a").unwrap(), Node::text("1", &origin))
            .unwrap();
        base.place(&steps("list[1].a").unwrap(), Node::text("2", &origin))
            .unwrap();
        let fault = base
            .place(&steps("list[3].a").unwrap(), Node::text("3", &origin))
            .unwrap_err();
        assert_eq!(
            fault.to_string(),
            "FLAGSIDE_X list[3]: an item of a list that has fewer items before it"
        );
    }

    proptest! {
        #[test]
        fn any_path_is_read_or_refused(path in "[a-z0-9.\\[\\]]{0,20}|.{0,20}") {
            if let Some(steps) = steps(&path) {
                prop_assert!(!steps.is_empty());
            }
        }
    }
}
