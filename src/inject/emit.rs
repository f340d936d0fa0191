//! Values as YAML lines, or as JSON where YAML stands in brackets.

use serde_json::{Map, Value};

/// Words that some version of YAML takes for something else than text.
const WORDS: [&str; 11] = [
    "null", "true", "false", "yes", "no", "on", "off", "y", "n", "~", "",
];

/// How the lines around are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Style {
    /// The items of a map's list begin in the column of its key, not two behind it.
    pub(super) flat_lists: bool,
}

/// The lines of a map's entries, `indent` blanks before each.
pub(super) fn entries(map: &Map<String, Value>, indent: usize, style: Style, lines: &mut Vec<String>) {
    for (key, value) in map {
        let head = format!("{:indent$}{}:", "", text(key));
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                lines.push(head);
                entries(inner, indent + 2, style, lines);
            }
            Value::Array(list) if !list.is_empty() => {
                lines.push(head);
                items(list, list_indent(indent, style), style, lines);
            }
            other => lines.push(format!("{head} {}", inline(other))),
        }
    }
}

/// Where the items of a list begin whose key has `indent` blanks before it.
pub(super) const fn list_indent(indent: usize, style: Style) -> usize {
    if style.flat_lists { indent } else { indent + 2 }
}

/// The lines of a list's items, `indent` blanks before each dash.
pub(super) fn items(list: &[Value], indent: usize, style: Style, lines: &mut Vec<String>) {
    for item in list {
        let first = lines.len();
        match item {
            Value::Object(map) if !map.is_empty() => entries(map, indent + 2, style, lines),
            Value::Array(inner) if !inner.is_empty() => items(inner, indent + 2, style, lines),
            other => lines.push(format!("{:indent$}  {}", "", inline(other))),
        }
        lines[first].replace_range(indent..=indent, "-");
    }
}

/// A value without lines of its own.
fn inline(value: &Value) -> String {
    match value {
        Value::String(value) => text(value),
        other => json(other),
    }
}

/// A text, in quotes wherever it could be taken for anything else.
fn text(value: &str) -> String {
    let is_quantity = value.len() < 12 && {
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &value[digits.len()..];
        !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && matches!(unit, "m" | "Ki" | "Mi" | "Gi")
    };
    let starts_plain = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let is_plain = starts_plain
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./:@".contains(&b))
        && !value.ends_with(':')
        && !WORDS.contains(&value.to_ascii_lowercase().as_str());
    if is_plain || is_quantity {
        value.to_owned()
    } else {
        Value::from(value).to_string()
    }
}

/// JSON on one line with blanks behind commas and colons, as people write it.
pub(super) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, None, &mut out);
    out
}

/// JSON in lines; every line but the first begins with `prefix`, deeper ones with `unit` more.
pub(super) fn json_lines(value: &Value, prefix: &str, unit: &str) -> String {
    let mut out = String::new();
    write_json(value, Some((prefix, unit)), &mut out);
    out
}

fn write_json(value: &Value, lines: Option<(&str, &str)>, out: &mut String) {
    let inner = lines.map(|(prefix, unit)| (format!("{prefix}{unit}"), unit));
    let inner = inner.as_ref().map(|(prefix, unit)| (prefix.as_str(), *unit));
    let begin = |first: bool, out: &mut String| match inner {
        None => out.push_str(if first { "" } else { ", " }),
        Some((prefix, _)) => {
            out.push_str(if first { "\n" } else { ",\n" });
            out.push_str(prefix);
        }
    };
    let end = |out: &mut String| {
        if let Some((prefix, _)) = lines {
            out.push('\n');
            out.push_str(prefix);
        }
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                begin(at == 0, out);
                write_json(item, inner, out);
            }
            end(out);
            out.push(']');
        }
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (at, (key, value)) in map.iter().enumerate() {
                begin(at == 0, out);
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push_str(": ");
                write_json(value, inner, out);
            }
            end(out);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn block(value: &Value, flat_lists: bool) -> String {
        let mut lines = Vec::new();
        entries(value.as_object().unwrap(), 2, Style { flat_lists }, &mut lines);
        lines.join("\n")
    }

    #[test]
    fn maps_and_lists_become_lines() {
        let value = json!({"a": [{"b": "c", "d": [1, [2]]}, "e", {}], "f": {"g": {}, "h": []}});
        let wanted = "  a:\n    - b: c\n      d:\n        - 1\n        - - 2\n    - e\n    - {}\n  f:\n    g: {}\n    h: []";
        assert_eq!(block(&value, false), wanted);
        let wanted = "  a:\n  - b: c\n    d:\n    - 1\n    - - 2\n  - e\n  - {}\n  f:\n    g: {}\n    h: []";
        assert_eq!(block(&value, true), wanted);
    }

    #[test]
    fn texts_are_quoted_unless_they_are_safe() {
        for (value, wanted) in [
            ("flagside", "flagside"),
            ("/etc/flagside", "/etc/flagside"),
            ("http://127.0.0.1:3546", "http://127.0.0.1:3546"),
            ("128Mi", "128Mi"),
            ("10m", "10m"),
            ("--wait", "\"--wait\""),
            ("30s", "\"30s\""),
            ("3546", "\"3546\""),
            ("0.0.0.0:3547", "\"0.0.0.0:3547\""),
            ("true", "\"true\""),
            ("Off", "\"Off\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a:", "\"a:\""),
            ("a #b", "\"a #b\""),
            ("*a", "\"*a\""),
            ("a\nb", "\"a\\nb\""),
            ("1e3", "\"1e3\""),
        ] {
            assert_eq!(text(value), wanted);
        }
    }

    #[test]
    fn json_comes_in_one_line_or_many() {
        let value = json!({"a": [1, {"b": null}], "c": {}});
        assert_eq!(json(&value), r#"{"a": [1, {"b": null}], "c": {}}"#);
        let wanted = "{\n  \"a\": [\n    1,\n    {\n      \"b\": null\n    }\n  ],\n  \"c\": {}\n}";
        assert_eq!(json_lines(&value, "", "  "), wanted);
        assert_eq!(json_lines(&json!([1]), "\t", "\t"), "[\n\t\t1\n\t]");
    }
}
