//! YAML and JSON text becomes a [`Node`]. JSON is read as the part of YAML that it is.
//!
//! Refused, with place: a key given twice, tags, more than one document, keys that are no text, nesting
//! beyond 32, and aliases that would expand to more than 20,000 values.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::fault::{Fault, Origin};
use super::tree::{self, Entry, Node, Step, Value};

const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 20_000;
const BYTES_MAX: usize = 1 << 20;

/// Reads `bytes`, the content of `file`. What can be used is returned even if there are faults.
pub(crate) fn read(file: &Path, bytes: &[u8]) -> (Node, Vec<Fault>) {
    let whole = Origin::file(file);
    if bytes.len() > BYTES_MAX {
        return (Node::default(), vec![Fault::new(&whole, "", "larger than 1MiB")]);
    }
    let file: Arc<Path> = Arc::from(file);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            let origin = Origin::File { file, line, column };
            return (Node::default(), vec![Fault::new(&origin, "", "not UTF-8 text")]);
        }
    };
    Reader::new(Source::File(file)).read(text)
}

/// Reads `text`, the value of a variable or option: everything in it has that `origin`.
pub(crate) fn read_value(text: &str, origin: &Origin) -> (Node, Vec<Fault>) {
    Reader::new(Source::Value(origin.clone())).read(text)
}

enum Source {
    File(Arc<Path>),
    Value(Origin),
}

/// Reading cannot go on; the fault is noted.
struct Stop;

struct Reader {
    source: Source,
    faults: Vec<Fault>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    path: Vec<Step>,
}

type Events<'a> = Parser<'a, StrInput<'a>>;

impl Reader {
    fn new(source: Source) -> Self {
        Self {
            source,
            faults: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            path: Vec::new(),
        }
    }

    fn read(mut self, text: &str) -> (Node, Vec<Fault>) {
        let node = self
            .document(&mut Parser::new_from_str(text))
            .unwrap_or_else(|Stop| Node::default());
        (node, self.faults)
    }

    fn document(&mut self, events: &mut Events<'_>) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            match self.next(events)? {
                (Event::StreamEnd, _) => return Ok(root.unwrap_or_default()),
                (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
                (_, span) if root.is_some() => return Err(self.stop(span.start, "a second document")),
                (event, span) => root = Some(self.node(events, event, span, 0)?),
            }
        }
    }

    fn next<'a>(&mut self, events: &mut Events<'a>) -> Result<(Event<'a>, Span), Stop> {
        match events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                self.path.clear();
                let what = format!("not YAML: {}", error.info());
                Err(self.stop(*error.marker(), &what))
            }
            None => Err(self.stop(Marker::new(0, 1, 0), "not YAML: ends unexpectedly")),
        }
    }

    fn node(
        &mut self,
        events: &mut Events<'_>,
        event: Event<'_>,
        span: Span,
        depth: usize,
    ) -> Result<Node, Stop> {
        let origin = self.place(span.start);
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            let what = if depth > DEPTH_MAX {
                "nested too deeply"
            } else {
                "too many values"
            };
            return Err(self.stop(span.start, what));
        }
        let (value, anchor) = match event {
            Event::Alias(id) => return self.alias(id, span.start),
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), span.start);
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (
                    if null {
                        Value::Null
                    } else {
                        Value::Text(text.into_owned())
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), span.start);
                (Value::List(self.list(events, depth)?), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), span.start);
                (Value::Map(self.map(events, depth)?), anchor)
            }
            _ => return Err(self.stop(span.start, "not YAML: ends unexpectedly")),
        };
        let node = Node { value, origin };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, events: &mut Events<'_>, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next(events)? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => {
                    self.path.push(Step::Index(items.len()));
                    items.push(self.node(events, event, span, depth + 1)?);
                    self.path.pop();
                }
            }
        }
    }

    fn map(&mut self, events: &mut Events<'_>, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        loop {
            let (event, key_span) = self.next(events)?;
            if matches!(event, Event::MappingEnd) {
                entries.extend(merged);
                return Ok(entries);
            }
            let key = self.node(events, event, key_span, depth + 1)?;
            let (event, span) = self.next(events)?;
            let Value::Text(name) = key.value else {
                self.fault(&key.origin, "a key that is no text");
                self.node(events, event, span, depth + 1)?;
                continue;
            };
            self.path.push(Step::Key(name.clone()));
            let node = self.node(events, event, span, depth + 1)?;
            if name == "<<" {
                self.merge_key(node, &entries, &mut merged);
            } else if let Some(first) = entries.iter().find(|e| e.key == name) {
                let what = match first.key_origin {
                    Origin::File { line, .. } => format!("given twice, first in line {line}"),
                    _ => "given twice".to_owned(),
                };
                self.fault(&key.origin, &what);
            } else {
                merged.retain(|e| e.key != name);
                entries.push(Entry {
                    key: name,
                    key_origin: key.origin,
                    node,
                });
            }
            self.path.pop();
        }
    }

    /// `<<: *base`, or a list of such: the entries that the map does not have itself; earlier ones win.
    fn merge_key(&mut self, node: Node, entries: &[Entry], merged: &mut Vec<Entry>) {
        match node.value {
            Value::Map(others) => {
                for other in others {
                    if !entries.iter().chain(merged.iter()).any(|e| e.key == other.key) {
                        merged.push(other);
                    }
                }
            }
            Value::List(items) if items.iter().all(|i| matches!(i.value, Value::Map(_))) => {
                for item in items {
                    self.merge_key(item, entries, merged);
                }
            }
            _ => self.fault(&node.origin, "a merge key (<<) that is no map"),
        }
    }

    fn alias(&mut self, id: usize, at: Marker) -> Result<Node, Stop> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return Err(self.stop(at, "an alias inside of what it stands for"));
        };
        self.nodes += count(&node);
        if self.nodes > NODES_MAX {
            return Err(self.stop(at, "aliases expand to too many values"));
        }
        Ok(node)
    }

    fn check_tag(&mut self, tag: Option<&Tag>, at: Marker) {
        if let Some(tag) = tag.filter(|t| !t.is_yaml_core_schema()) {
            let origin = self.place(at);
            self.fault(&origin, &format!("the tag {tag}; tags mean nothing here"));
        }
    }

    fn place(&self, at: Marker) -> Origin {
        match &self.source {
            Source::File(file) => Origin::File {
                file: file.clone(),
                line: at.line().max(1),
                column: at.col() + 1,
            },
            Source::Value(origin) => origin.clone(),
        }
    }

    fn fault(&mut self, origin: &Origin, what: &str) {
        self.faults
            .push(Fault::new(origin, &tree::Path(&self.path).to_string(), what));
    }

    fn stop(&mut self, at: Marker, what: &str) -> Stop {
        let origin = self.place(at);
        self.fault(&origin, what);
        Stop
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Text(_) => 0,
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|e| count(&e.node)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Compact text of a tree, to compare with.
    fn compact(node: &Node) -> String {
        match &node.value {
            Value::Null => "~".to_owned(),
            Value::Text(text) => text.clone(),
            Value::List(items) => format!("[{}]", items.iter().map(compact).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|e| format!("{}:{}", e.key, compact(&e.node)))
                    .collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    fn read_text(text: &str) -> (String, Vec<String>) {
        let (node, faults) = read(Path::new("f.yaml"), text.as_bytes());
        (compact(&node), faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn yaml_and_json_are_read() {
        for (text, wanted) in [
            ("", "~"),
            ("# only a comment\n", "~"),
            ("a: 1\nb: {c: '~', d: ~}\n", "{a:1,b:{c:~,d:~}}"),
            ("---\na: [1, x y]\n...\n", "{a:[1,x y]}"),
            ("\u{feff}a: 1", "{a:1}"),
            ("a: &x {k: 1}\nb: *x\n", "{a:{k:1},b:{k:1}}"),
            (
                "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\n",
                "{a:{k:1,l:2},b:{k:3,l:2}}",
            ),
            (
                "a: {k: 1}\nb: {<<: [{k: 1, m: 5}, {k: 2}], l: 3}\n",
                "{a:{k:1},b:{l:3,k:1,m:5}}",
            ),
            (
                "{\"a\": [1, 2.5, true, null],\n\t\"b\": {\"c\": \"d\\n\"}\n}",
                "{a:[1,2.5,true,~],b:{c:d\n}}",
            ),
            (
                "{\n\t\"a\": {\n\t\t\"b\": \"http:\\/\\/x\"\n\t}\n}\n",
                "{a:{b:http://x}}",
            ),
            ("a: !!str 5", "{a:5}"),
        ] {
            assert_eq!(read_text(text), (wanted.to_owned(), vec![]), "{text:?}");
        }
    }

    #[test]
    fn what_is_refused_is_named_with_its_place() {
        for (text, wanted) in [
            ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1 a: given twice, first in line 1"),
            (
                "{\"a\": 1, \"a\": 2}",
                "f.yaml:1:10 a: given twice, first in line 1",
            ),
            ("a: 1\n---\nb: 2\n", "f.yaml:3:1: a second document"),
            (
                "a: !secret x\n",
                "f.yaml:1:4 a: the tag !secret; tags mean nothing here",
            ),
            ("? [a, b]\n: 1\n", "f.yaml:1:3: a key that is no text"),
            (
                "a: &x [*x]\n",
                "f.yaml:1:8 a[0]: an alias inside of what it stands for",
            ),
            ("a: {<<: 1}\n", "f.yaml:1:9 a.<<: a merge key (<<) that is no map"),
        ] {
            assert_eq!(read_text(text).1, [wanted], "{text:?}");
        }
        assert!(
            read_text("a: [1\nb: 2").1[0].starts_with("f.yaml:2:"),
            "{:?}",
            read_text("a: [1\nb: 2")
        );
        assert!(read_text("a: *nobody\n").1[0].starts_with("f.yaml:1:4: not YAML: "));
        let (_, faults) = read(Path::new("f.yaml"), b"a: 1\nbc: \xff\n");
        assert_eq!(faults[0].to_string(), "f.yaml:2:5: not UTF-8 text");
        let (_, faults) = read(Path::new("f.yaml"), &vec![b' '; BYTES_MAX + 1]);
        assert_eq!(faults[0].to_string(), "f.yaml: larger than 1MiB");
    }

    #[test]
    fn nesting_and_expansion_are_bounded() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(
            read_text(&deep).1,
            [format!("f.yaml:1:34 {}: nested too deeply", "[0]".repeat(33))]
        );
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let item = format!("*a{}", n - 1);
            laughs += &format!("a{n}: &a{n} [{}]\n", vec![item; 10].join(", "));
        }
        let faults = read_text(&laughs).1;
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].ends_with("aliases expand to too many values"),
            "{faults:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_or_refused(text in "[-:\\[\\]{}&*!|>'\"%@#?, ~<a0\\n\\t\\r\\\\u.]{0,60}|\\PC{0,40}") {
            let _ = read(Path::new("f.yaml"), text.as_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(Path::new("f.yaml"), &bytes);
        }
    }
}
