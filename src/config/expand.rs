//! `${VAR}` and `${VAR:-default}` in the values of files.

use super::fault::Fault;
use super::tree::{self, Node, Step, Value};

const FORM: &str = "${NAME}, ${NAME:-default}, or $${ for a literal ${";

/// Expands every text in `node`. A value that becomes empty by it counts as not given.
///
/// `${NAME}` is the variable's value, and a fault if there is none; `${NAME:-text}` is `text` if the variable
/// is unset or empty; `$${` stands for `${`.
pub(crate) fn expand(node: &mut Node, variable: &dyn Fn(&str) -> Option<String>) -> Vec<Fault> {
    let mut faults = Vec::new();
    walk(node, variable, &mut Vec::new(), &mut faults);
    faults
}

fn walk(
    node: &mut Node,
    variable: &dyn Fn(&str) -> Option<String>,
    path: &mut Vec<Step>,
    faults: &mut Vec<Fault>,
) {
    match &mut node.value {
        Value::Null => {}
        Value::Text(text) => match expanded(text, variable) {
            Ok(None) => {}
            Ok(Some(new)) if new.is_empty() => node.value = Value::Null,
            Ok(Some(new)) => *text = new,
            Err((what, got)) => {
                let path = tree::Path(path).to_string();
                faults.push(Fault::new(&node.origin, &path, what).got(&got).expected(FORM));
                node.value = Value::Null;
            }
        },
        Value::List(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                path.push(Step::Index(at));
                walk(item, variable, path, faults);
                path.pop();
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                path.push(Step::Key(entry.key.clone()));
                walk(&mut entry.node, variable, path, faults);
                path.pop();
            }
        }
    }
}

/// The text with its variables filled in; none if it has no `${`.
fn expanded(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, (&'static str, String)> {
    let Some(first) = text.find("${") else {
        return Ok(None);
    };
    let mut out = String::new();
    let mut rest = text;
    let mut next = Some(first);
    while let Some(at) = next {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
        } else {
            out.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let end = inside
                .find('}')
                .ok_or_else(|| ("a variable without closing brace", rest[at..].to_owned()))?;
            let reference = &rest[at..at + 2 + end + 1];
            out.push_str(&value(&inside[..end], variable).map_err(|what| (what, reference.to_owned()))?);
            rest = &inside[end + 1..];
        }
        next = rest.find("${");
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn value(inside: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, &'static str> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !is_name {
        return Err("not a variable's name");
    }
    match (variable(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(empty), None) => Ok(empty),
        (None, None) => Err("a variable that is not set"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fault::Origin;
    use super::*;

    fn set(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "REF" => Some("${A}".to_owned()),
            _ => None,
        }
    }

    fn run(text: &str) -> Result<Option<String>, String> {
        let mut node = Node::text(text, &Origin::Argument("-".into()));
        match expand(&mut node, &set).pop() {
            Some(fault) => Err(fault.to_string()),
            None => match node.value {
                Value::Text(text) => Ok(Some(text)),
                _ => Ok(None),
            },
        }
    }

    #[test]
    fn variables_are_filled_in() {
        for (text, wanted) in [
            ("plain $A }", Some("plain $A }")),
            ("${A}", Some("1")),
            ("x${A}y${A}z", Some("x1y1z")),
            ("${NONE:-d}", Some("d")),
            ("${EMPTY:-d}", Some("d")),
            ("${NONE:-http://x:1/}", Some("http://x:1/")),
            ("${NONE:-}", None),
            ("${EMPTY}", None),
            ("$${A} ${A}", Some("${A} 1")),
            ("${REF}", Some("${A}")),
        ] {
            assert_eq!(run(text), Ok(wanted.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_a_fault() {
        let form = "expected ${NAME}, ${NAME:-default}, or $${ for a literal ${";
        for (text, wanted) in [
            (
                "${NONE}",
                format!("-: a variable that is not set (got ${{NONE}}); {form}"),
            ),
            (
                "a${A",
                format!("-: a variable without closing brace (got ${{A); {form}"),
            ),
            ("${}", format!("-: not a variable's name (got ${{}}); {form}")),
            ("${1A}", format!("-: not a variable's name (got ${{1A}}); {form}")),
            (
                "${A-b}",
                format!("-: not a variable's name (got ${{A-b}}); {form}"),
            ),
        ] {
            assert_eq!(run(text), Err(wanted), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_expanded_or_refused(text in "[$\\{\\}A:\\-é]{0,20}") {
            let _ = run(&text);
        }
    }
}
