//! Manifests as trees of values that know where in the text they stand. JSON is read as the part of YAML that it
//! is.
//!
//! Refused, with line: what is not YAML, a key given twice, nesting beyond 64, and aliases that expand to more than
//! 100,000 values.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Value};

use super::edit::{Path, Step};

const DEPTH_MAX: usize = 64;
const NODES_MAX: usize = 100_000;

/// A manifest cannot be read or edited: where, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{line}: {what}")]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Byte at which it begins, its anchor and tag included.
    pub(super) start: usize,
    /// Byte behind it; for lists and maps the byte behind the opening bracket.
    pub(super) end: usize,
    /// Line of its beginning, from 1.
    pub(super) line: usize,
    /// Line of its end, from 1; for lists and maps not known.
    pub(super) end_line: usize,
    /// Characters before it in its line.
    pub(super) column: usize,
}

/// What stands there.
#[derive(Debug)]
pub(super) enum Kind {
    /// A text, number or word; `plain` without quotes.
    Scalar { text: String, plain: bool },
    /// A list; in brackets if there is a closing one.
    List {
        items: Vec<Node>,
        closing: Option<usize>,
    },
    /// A map; in braces if there is a closing one.
    Map {
        entries: Entries,
        closing: Option<usize>,
    },
    /// The anchor of this number.
    Alias(usize),
}

/// Keys and values.
type Entries = Vec<(Node, Node)>;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    /// Nodes that aliases stand for, as paths into `root`.
    anchors: HashMap<usize, Vec<usize>>,
}

/// A node that was looked up, and how it is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) node: &'a Node,
    /// Its key, if it is the entry of a map.
    pub(super) key: Option<&'a Node>,
    /// Whether it stands in brackets or braces.
    pub(super) in_flow: bool,
}

/// Reads all documents of `text`. Documents of comments alone have the root null.
pub(super) fn documents(text: &str) -> Result<Vec<Document>, Problem> {
    let mut reader = Reader {
        text,
        events: Parser::new_from_str(text),
        bytes: text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect(),
        anchors: HashMap::new(),
        path: Vec::new(),
        nodes: 0,
    };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
            (event, span) => {
                reader.anchors.clear();
                let root = reader.node(event, span, 0)?;
                documents.push(Document {
                    root,
                    anchors: std::mem::take(&mut reader.anchors),
                });
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    events: Parser<'a, StrInput<'a>>,
    /// The byte of every character: markers count characters.
    bytes: Vec<usize>,
    anchors: HashMap<usize, Vec<usize>>,
    path: Vec<usize>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.problem(*error.marker(), format!("not YAML: {}", error.info()))),
            None => Err(problem(1, "not YAML: ends unexpectedly")),
        }
    }

    /// The parser's place, or the tab in the indentation there or below: that is what it stumbles over.
    fn problem(&self, at: Marker, what: String) -> Problem {
        let line = at.line().max(1);
        let mut near = self.text.lines().enumerate().skip(line - 1).take(2);
        let tab = near.find(|(_, text)| {
            let indent = text.len() - text.trim_start().len();
            text[..indent].contains('\t')
        });
        match tab {
            Some((above, _)) => problem(above + 1, "not YAML: a tab in the indentation"),
            None => problem(line, what),
        }
    }

    fn byte(&self, at: Marker) -> usize {
        self.bytes.get(at.index()).copied().unwrap_or(self.text.len())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let line = span.start.line().max(1);
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(problem(line, "nested too deeply, or too many values"));
        }
        let (start, end) = (self.byte(span.start), self.byte(span.end));
        let (kind, anchor) = match event {
            Event::Alias(id) => (Kind::Alias(id), 0),
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let text = text.into_owned();
                (Kind::Scalar { text, plain }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let (items, closing) = self.list(depth, end)?;
                (Kind::List { items, closing }, anchor)
            }
            Event::MappingStart(anchor, _) => {
                let (entries, closing) = self.map(depth, end)?;
                (Kind::Map { entries, closing }, anchor)
            }
            _ => return Err(problem(line, "not YAML: ends unexpectedly")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, self.path.clone());
        }
        Ok(Node {
            kind,
            start,
            end,
            line,
            end_line: span.end.line().max(1),
            column: span.start.col(),
        })
    }

    /// Where the closing bracket of a collection stands that began before `begun`, if it is one in brackets.
    fn closing(&self, begun: usize, open: char, span: Span) -> Option<usize> {
        self.text[..begun].ends_with(open).then(|| self.byte(span.start))
    }

    fn list(&mut self, depth: usize, begun: usize) -> Result<(Vec<Node>, Option<usize>), Problem> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok((items, self.closing(begun, '[', span)));
            }
            self.path.push(items.len());
            items.push(self.node(event, span, depth + 1)?);
            self.path.pop();
        }
    }

    fn map(&mut self, depth: usize, begun: usize) -> Result<(Entries, Option<usize>), Problem> {
        let mut entries: Entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok((entries, self.closing(begun, '{', span)));
            }
            // Keys are anchored so rarely that an alias for one finds nothing, and is refused.
            let at = entries.len();
            self.path.push(usize::MAX);
            let key = self.node(event, span, depth + 1)?;
            self.path.pop();
            let first = entries.iter().find(|(known, _)| same_text(known, &key));
            if let Some((first, _)) = first.filter(|_| name(&key) != Some("<<")) {
                let what = format!(
                    "{} is given twice, first in line {}",
                    name(&key).unwrap_or("a key"),
                    first.line
                );
                return Err(problem(key.line, what));
            }
            let (event, span) = self.next()?;
            self.path.push(at);
            let value = self.node(event, span, depth + 1)?;
            self.path.pop();
            entries.push((key, value));
        }
    }
}

pub(super) fn problem(line: usize, what: impl Into<String>) -> Problem {
    Problem {
        line,
        what: what.into(),
    }
}

fn name(key: &Node) -> Option<&str> {
    match &key.kind {
        Kind::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

fn same_text(a: &Node, b: &Node) -> bool {
    name(a).is_some() && name(a) == name(b)
}

impl Node {
    pub(super) const fn is_flow(&self) -> bool {
        matches!(
            self.kind,
            Kind::List { closing: Some(_), .. } | Kind::Map { closing: Some(_), .. }
        )
    }
}

impl Document {
    /// What an alias stands for.
    fn anchored(&self, id: usize) -> Option<&Node> {
        let mut node = &self.root;
        for at in self.anchors.get(&id)? {
            node = match &node.kind {
                Kind::List { items, .. } => items.get(*at)?,
                Kind::Map { entries, .. } => &entries.get(*at)?.1,
                Kind::Scalar { .. } | Kind::Alias(_) => return None,
            };
        }
        Some(node)
    }

    /// What a node means: aliases followed, merge keys (`<<`) merged.
    pub(super) fn value(&self, node: &Node) -> Result<Value, Problem> {
        let mut left = NODES_MAX;
        self.value_within(node, 0, &mut left)
    }

    fn value_within(&self, node: &Node, depth: usize, left: &mut usize) -> Result<Value, Problem> {
        *left = left.saturating_sub(1);
        if *left == 0 || depth > DEPTH_MAX {
            return Err(problem(
                node.line,
                "an alias inside of what it stands for, or aliases that expand to too many values",
            ));
        }
        match &node.kind {
            Kind::Scalar { text, plain } => Ok(if *plain {
                plain_value(text)
            } else {
                Value::String(text.clone())
            }),
            Kind::List { items, .. } => {
                let values = items.iter().map(|item| self.value_within(item, depth + 1, left));
                values.collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            Kind::Map { entries, .. } => self.map_value(entries, depth, left),
            Kind::Alias(id) => {
                let target = self.anchored(*id);
                let target = target.ok_or_else(|| problem(node.line, "an alias of nothing"))?;
                self.value_within(target, depth + 1, left)
            }
        }
    }

    fn map_value(&self, entries: &[(Node, Node)], depth: usize, left: &mut usize) -> Result<Value, Problem> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        for (key, node) in entries {
            let name = name(key).ok_or_else(|| problem(key.line, "a key that is no text"))?;
            let value = self.value_within(node, depth + 1, left)?;
            match (name, value) {
                ("<<", Value::Object(other)) => merged.push(other),
                ("<<", Value::Array(others)) => {
                    merged.extend(others.into_iter().filter_map(|other| match other {
                        Value::Object(other) => Some(other),
                        _ => None,
                    }));
                }
                (name, value) => {
                    map.insert(name.to_owned(), value);
                }
            }
        }
        for (key, value) in merged.into_iter().flatten() {
            map.entry(key).or_insert(value);
        }
        Ok(Value::Object(map))
    }

    /// The node at `path`; aliases on the way are followed, one at its end is not.
    pub(super) fn find(&self, path: &Path) -> Option<Found<'_>> {
        let mut found = Found {
            node: &self.root,
            key: None,
            in_flow: false,
        };
        for step in &path.0 {
            let mut node = found.node;
            while let Kind::Alias(id) = node.kind {
                node = self.anchored(id)?;
            }
            let in_flow = node.is_flow();
            found = match (&node.kind, step) {
                (Kind::List { items, .. }, Step::Index(at)) => Found {
                    node: items.get(*at)?,
                    key: None,
                    in_flow,
                },
                (Kind::Map { .. }, Step::Key(name)) => self.entry(node, name, 0)?,
                _ => return None,
            };
        }
        Some(found)
    }

    /// The node at `path`, and if that is an alias what it stands for.
    pub(super) fn find_target(&self, path: &Path) -> Option<Found<'_>> {
        let mut found = self.find(path)?;
        while let Kind::Alias(id) = found.node.kind {
            found = Found {
                node: self.anchored(id)?,
                key: None,
                in_flow: found.in_flow,
            };
        }
        Some(found)
    }

    /// The entry of a map, its own or one that it merges.
    fn entry<'a>(&'a self, map: &'a Node, wanted: &str, depth: usize) -> Option<Found<'a>> {
        let (Kind::Map { entries, .. }, true) = (&map.kind, depth < DEPTH_MAX) else {
            return None;
        };
        if let Some((key, node)) = entries.iter().find(|(key, _)| name(key) == Some(wanted)) {
            return Some(Found {
                node,
                key: Some(key),
                in_flow: map.is_flow(),
            });
        }
        let merges = entries.iter().filter(|(key, _)| name(key) == Some("<<"));
        let sources = merges.flat_map(|(_, source)| match &source.kind {
            Kind::List { items, .. } => items.iter().collect(),
            _ => vec![source],
        });
        sources
            .map(|source| match source.kind {
                Kind::Alias(id) => self.anchored(id).unwrap_or(source),
                _ => source,
            })
            .find_map(|source| self.entry(source, wanted, depth + 1))
    }
}

/// A text without quotes: null, switch, number, or text after all.
fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => serde_json::from_str(text)
            .map(Value::Number)
            .unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values(text: &str) -> Result<Vec<Value>, Problem> {
        documents(text)?
            .iter()
            .map(|document| document.value(&document.root))
            .collect()
    }

    #[test]
    fn documents_mean_what_yaml_means() {
        for (text, wanted) in [
            ("", json!([])),
            ("# nothing\n", json!([])),
            ("---\n# nothing\n---\na: 1\n", json!([null, {"a": 1}])),
            (
                "a: [1, x, '1', null, ~, true, 1.50]\n",
                json!([{"a": [1, "x", "1", null, null, true, serde_json::from_str::<Value>("1.50").unwrap()]}]),
            ),
            (
                "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n",
                json!([{"a": {"b": 1}, "c": {"b": 1}, "d": {"e": 2, "b": 1}}]),
            ),
            (
                "a: &x {b: 1}\nd: {<<: [*x, {b: 3, c: 4}], b: 2}\n",
                json!([{"a": {"b": 1}, "d": {"b": 2, "c": 4}}]),
            ),
            (
                "a: 0644\nb: yes\nc: |\n  x\n  y\n",
                json!([{"a": "0644", "b": "yes", "c": "x\ny\n"}]),
            ),
            ("{\n\t\"a\": [\n\t\t1\n\t]\n}\n", json!([{"a": [1]}])),
        ] {
            assert_eq!(values(text), Ok(wanted.as_array().unwrap().clone()), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, wanted) in [
            ("a: 1\nb: [\n", "3: not YAML"),
            ("a:\n\tb: 1\n", "2: not YAML: a tab in the indentation"),
            ("a: 1\nb: 2\na: 3\n", "3: a is given twice, first in line 1"),
            ("a: &x [*x]\n", "1: an alias inside of what it stands for"),
            ("a: *nobody\n", "1: not YAML"),
            ("? [a]\n: 1\n", "1: a key that is no text"),
        ] {
            let problem = values(text).unwrap_err().to_string();
            assert!(problem.starts_with(wanted), "{text:?}: {problem}");
        }
        let deep = format!("{}1{}", "[".repeat(80), "]".repeat(80));
        assert!(values(&deep).is_err());
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let item = format!("*a{}", n - 1);
            laughs += &format!("a{n}: &a{n} [{}]\n", vec![item; 10].join(", "));
        }
        assert!(values(&laughs).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_or_refused(text in "[-:\\[\\]{}&*!|>'\"%@#?, ~<a0\\n\\t\\r\\u{e9}.]{0,60}|\\PC{0,40}") {
            let _ = values(&text);
        }
    }
}
