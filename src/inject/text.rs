//! Edits in the text of a manifest: what is there stays byte for byte, new lines come between.
//!
//! New things always come first: the item of a list before the others, the entry of a map before the others (behind
//! the first one where that stands on the line of its dash). So nothing has to be known about where things end.

use serde_json::{Map, Value};

use super::edit::{Edit, Path};
use super::emit::{self, Style};
use super::yaml::{Document, Found, Kind, Node, Problem, problem};

/// Text that comes to a place, and how many bytes it takes the place of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Change {
    at: usize,
    removed: usize,
    text: String,
}

/// Puts `changes` into `text`.
pub(super) fn changed(text: &str, mut changes: Vec<Change>) -> String {
    changes.sort_by_key(|change| change.at);
    let mut out = String::with_capacity(text.len() + 8 * 1024);
    let mut done = 0;
    for change in &changes {
        if let Some(kept) = text.get(done..change.at) {
            out.push_str(kept);
            done = change.at;
        }
        out.push_str(&change.text);
        done = done.max(change.at + change.removed);
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

/// Whether what an alias stands for may be changed where it stands, for all its aliases at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Aliases {
    /// No: the alias is written out.
    WrittenOut,
    /// Yes: all of them want the same.
    Followed,
}

/// The changes that carry out `edits` on one document of `text`.
///
/// # Errors
///
/// When something stands there in a form that cannot be edited.
pub(super) fn changes(
    text: &str,
    document: &Document,
    edits: &[Edit],
    style: Style,
    aliases: Aliases,
) -> Result<Vec<Change>, Problem> {
    let mut editor = Editor {
        text,
        document,
        style,
        aliases,
        newline: if text.contains("\r\n") { "\r\n" } else { "\n" },
        changes: Vec::new(),
    };
    for edit in edits {
        match edit {
            Edit::Prepend { at, items } => editor.prepend(at, items)?,
            Edit::Insert { at, entries } => editor.insert(at, entries)?,
            Edit::Fill { at, value } => {
                let found = editor.find(at)?;
                editor.replace(found, value)?;
            }
        }
    }
    // Two pods that are the same text, by an anchor, want the same change: once is enough.
    let mut changes: Vec<Change> = Vec::new();
    for change in editor.changes {
        if !changes.contains(&change) {
            changes.push(change);
        }
    }
    Ok(changes)
}

struct Editor<'a> {
    text: &'a str,
    document: &'a Document,
    style: Style,
    aliases: Aliases,
    newline: &'static str,
    changes: Vec<Change>,
}

impl<'a> Editor<'a> {
    fn find(&self, at: &Path) -> Result<Found<'a>, Problem> {
        let found = match self.aliases {
            Aliases::WrittenOut => self.document.find(at),
            Aliases::Followed => self.document.find_target(at),
        };
        found.ok_or_else(|| {
            problem(
                self.document.root.line,
                format!("{at} cannot be found in the text"),
            )
        })
    }

    fn put(&mut self, at: usize, removed: usize, text: String) {
        self.changes.push(Change { at, removed, text });
    }

    fn prepend(&mut self, at: &Path, new: &[Value]) -> Result<(), Problem> {
        let found = self.find(at)?;
        match &found.node.kind {
            Kind::List { items, closing: None } if !items.is_empty() => {
                let dash = self.dash(&items[0])?;
                let column = self.column(dash);
                let mut lines = Vec::new();
                emit::items(new, column, self.style, &mut lines);
                let place = self.above_comments(self.line_start(dash));
                self.lines_at(place, &lines);
                Ok(())
            }
            Kind::List {
                items,
                closing: Some(_),
            } if !items.is_empty() || self.stays_flow(&found) => {
                self.flow(
                    found.node,
                    items.first(),
                    &new.iter().map(|item| (None, item)).collect::<Vec<_>>(),
                );
                Ok(())
            }
            Kind::List { .. } | Kind::Alias(_) => {
                let mut all = new.to_vec();
                if let Value::Array(old) = self.document.value(found.node)? {
                    all.extend(old);
                }
                self.replace(found, &Value::Array(all))
            }
            Kind::Scalar { .. } | Kind::Map { .. } => {
                Err(problem(found.node.line, format!("{at} is not a list")))
            }
        }
    }

    fn insert(&mut self, at: &Path, new: &Map<String, Value>) -> Result<(), Problem> {
        let found = self.find(at)?;
        match &found.node.kind {
            Kind::Map {
                entries,
                closing: None,
            } if !entries.is_empty() => {
                self.insert_lines(entries, new, !at.0.is_empty());
                Ok(())
            }
            Kind::Map {
                entries,
                closing: Some(_),
            } if !entries.is_empty() || self.stays_flow(&found) => {
                let new: Vec<_> = new
                    .iter()
                    .map(|(key, value)| (Some(key.as_str()), value))
                    .collect();
                self.flow(found.node, entries.first().map(|(key, _)| key), &new);
                Ok(())
            }
            Kind::Map { .. } | Kind::Alias(_) => {
                let mut all = new.clone();
                if let Value::Object(old) = self.document.value(found.node)? {
                    all.extend(old);
                }
                self.replace(found, &Value::Object(all))
            }
            Kind::Scalar { .. } | Kind::List { .. } => {
                Err(problem(found.node.line, format!("{at} is not a map")))
            }
        }
    }

    /// New entries of a map without braces. Comments above its first key belong to that, unless the map is the
    /// document: then they are about the whole file.
    fn insert_lines(&mut self, entries: &[(Node, Node)], new: &Map<String, Value>, is_inner: bool) {
        let (key, value) = &entries[0];
        let mut lines = Vec::new();
        emit::entries(new, key.column, self.style, &mut lines);
        let start = self.line_start(key.start);
        if self.text[start..key.start].trim().is_empty() {
            let place = if is_inner {
                self.above_comments(start)
            } else {
                start
            };
            return self.lines_at(place, &lines);
        }
        // The first key stands behind a dash.
        let is_short =
            matches!(value.kind, Kind::Scalar { .. }) && value.line == key.line && value.end_line == key.line;
        let is_block_text = self.text[value.start..value.end].contains('\n')
            || self.text[key.end..value.start].contains(['|', '>']);
        let next = entries.get(1).map(|(key, _)| key.line);
        if is_short && !is_block_text && next.is_none_or(|line| line > key.line) {
            let place = self.line_end(value.end.max(key.end));
            self.lines_at(place, &lines);
        } else {
            let text = lines.join(self.newline);
            let indent = " ".repeat(key.column);
            self.put(
                key.start,
                0,
                format!("{}{}{indent}", text.trim_start(), self.newline),
            );
        }
    }

    /// Whether an empty collection must stay in brackets: it stands in others, or in a list.
    fn stays_flow(&self, found: &Found<'_>) -> bool {
        found.in_flow || found.key.is_none()
    }

    /// New items or entries behind an opening bracket: in lines if the ones there are, else in its line.
    fn flow(&mut self, node: &Node, first: Option<&Node>, new: &[(Option<&str>, &Value)]) {
        let place = node.end;
        let leading = first
            .filter(|first| first.line > node.line)
            .map(|first| self.leading(first.start));
        let name = |key: Option<&str>| {
            key.map(|key| format!("{}: ", Value::from(key)))
                .unwrap_or_default()
        };
        let mut text = String::new();
        for (at, (key, value)) in new.iter().enumerate() {
            if let Some(prefix) = leading {
                let unit = self.unit(node, prefix);
                let json = emit::json_lines(value, prefix, &unit).replace('\n', self.newline);
                text.push_str(&format!("{}{prefix}{}{json},", self.newline, name(*key)));
            } else {
                let is_last = first.is_none() && at + 1 == new.len();
                let comma = if is_last { "" } else { ", " };
                text.push_str(&format!("{}{}{comma}", name(*key), emit::json(value)));
            }
        }
        self.put(place, 0, text);
    }

    /// The blanks that the line of `at` begins with.
    fn leading(&self, at: usize) -> &'a str {
        let line = &self.text[self.line_start(at)..at];
        &line[..line.len() - line.trim_start().len()]
    }

    /// By how much the lines of this file go deeper inside of a bracket.
    fn unit(&self, node: &Node, prefix: &str) -> String {
        let line = &self.text[self.line_start(node.start)..];
        let outer = line.len() - line.trim_start_matches([' ', '\t']).len();
        let unit = prefix.get(outer..).unwrap_or_default();
        if unit.is_empty() {
            "  ".to_owned()
        } else {
            unit.to_owned()
        }
    }

    /// A value where null, an empty collection or an alias stands.
    fn replace(&mut self, found: Found<'_>, value: &Value) -> Result<(), Problem> {
        let node = found.node;
        let end = match &node.kind {
            Kind::List {
                closing: Some(at), ..
            }
            | Kind::Map {
                closing: Some(at), ..
            } => at + 1,
            _ => node.end,
        };
        let is_absent = matches!(&node.kind, Kind::Scalar { text, .. } if text.is_empty());
        if found.in_flow {
            if is_absent {
                return Err(problem(node.line, "nothing stands here; write null"));
            }
            self.put(node.start, end - node.start, emit::json(value));
            return Ok(());
        }
        let odd = || problem(node.line, "a form that cannot be edited; write it out");
        let key = found.key.ok_or_else(odd)?;
        let (start, end) = if is_absent {
            (key.end, key.end)
        } else {
            (node.start, end)
        };
        let between = self.text.get(key.end..start).ok_or_else(odd)?;
        let colon = match is_absent {
            true => self.text[start..]
                .find(':')
                .filter(|at| self.text[start..start + at].trim().is_empty()),
            false => Some(between.find(':').ok_or_else(odd)?),
        };
        if colon.is_none() || self.text[self.line_start(key.start)..key.start].contains('?') {
            return Err(odd());
        }
        let line_end = self.line_end(end);
        let rest = self.text[end..line_end].trim_start_matches([' ', ':']).trim();
        if !rest.is_empty() && !rest.starts_with('#') {
            return Err(odd());
        }
        if !is_absent {
            let blanks = between.len() - between.trim_end_matches(' ').len();
            self.put(start - blanks, end - start + blanks, String::new());
        }
        let mut lines = Vec::new();
        match value {
            Value::Array(items) => {
                emit::items(
                    items,
                    emit::list_indent(key.column, self.style),
                    self.style,
                    &mut lines,
                );
            }
            Value::Object(map) => emit::entries(map, key.column + 2, self.style, &mut lines),
            _ => return Err(odd()),
        }
        self.lines_at(line_end, &lines);
        Ok(())
    }

    /// Whole lines at the beginning of a line, or behind the end of a text without a last line end.
    fn lines_at(&mut self, place: usize, lines: &[String]) {
        let before = &self.text[..place];
        let text = lines.join(self.newline);
        let text = if before.is_empty() || before.ends_with('\n') {
            format!("{text}{}", self.newline)
        } else {
            format!("{}{text}", self.newline)
        };
        self.put(place, 0, text);
    }

    /// The dash before an item, which stands on a line of its own beginning.
    fn dash(&self, item: &Node) -> Result<usize, Problem> {
        let mut end = item.start;
        loop {
            let start = self.line_start(end);
            let line = &self.text[start..end];
            let code = line.split(" #").next().unwrap_or_default().trim();
            if code == "-" {
                return Ok(start + line.len() - line.trim_start().len());
            }
            if !(code.is_empty() || code.starts_with('#')) || start == 0 {
                return Err(problem(
                    item.line,
                    "a list in a form that cannot be edited; give it lines of its own",
                ));
            }
            end = start - 1;
        }
    }

    fn column(&self, at: usize) -> usize {
        self.text[self.line_start(at)..at].chars().count()
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Behind the line end that follows.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..]
            .find('\n')
            .map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// The beginning of the comment lines directly above the line that begins at `start`.
    fn above_comments(&self, mut start: usize) -> usize {
        while start > 0 {
            let above = self.line_start(start - 1);
            if !self.text[above..start].trim_start().starts_with('#') {
                break;
            }
            start = above;
        }
        start
    }
}
