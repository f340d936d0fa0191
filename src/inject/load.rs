//! The template file: names of [`template::NAMES`] and their values, and `container`, which has the last word.
//!
//! ```yaml
//! image: registry.example.com/flagside:1.0.0
//! memory-limit: 256Mi
//! set-env: [AMPLITUDE_SERVER_URL]
//! container:
//!   securityContext: {runAsUser: null, runAsGroup: null}
//! ```

use serde_json::Value;

use super::template::{self, Template};
use super::yaml::{self, Problem, problem};

/// Reads a template file over `template`.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of its lines.
pub fn read(template: &mut Template, text: &str) -> Result<(), Vec<Problem>> {
    let documents = yaml::documents(text).map_err(|problem| vec![problem])?;
    if let Some(second) = documents.get(1) {
        return Err(vec![problem(second.root.line, "a second document")]);
    }
    let Some(document) = documents.first() else {
        return Ok(());
    };
    let value = document.value(&document.root).map_err(|problem| vec![problem])?;
    let entries = match value {
        Value::Null => return Ok(()),
        Value::Object(entries) => entries,
        _ => return Err(vec![problem(document.root.line, "not a map of names and values")]),
    };
    let mut problems = Vec::new();
    for (name, value) in entries {
        if let Err(what) = set(template, &name, value) {
            let place = super::edit::Path::default().key(&name);
            let found = document.find(&place);
            let line = found.map_or(document.root.line, |found| found.key.unwrap_or(found.node).line);
            problems.push(problem(line, format!("{name}: {what}")));
        }
    }
    if problems.is_empty()
        && let Err(what) = template.check()
    {
        problems.push(problem(document.root.line, what));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn set(template: &mut Template, name: &str, value: Value) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        container if name == "container" => template.set_container(container),
        Value::Array(items) if name == "set-env" => {
            let texts = items
                .iter()
                .map(|item| item.as_str().ok_or("not a list of texts"));
            for text in texts.collect::<Result<Vec<_>, _>>()? {
                template.set(name, text)?;
            }
            Ok(())
        }
        Value::String(text) => template.set(name, &text),
        Value::Number(_) | Value::Bool(_) => template.set(name, &value.to_string()),
        Value::Array(_) | Value::Object(_) if template::NAMES.contains(&name) => {
            Err("not a text, number or switch".to_owned())
        }
        Value::Array(_) | Value::Object(_) => template.set(name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Template, Vec<String>> {
        let mut template = Template::default();
        read(&mut template, text)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        Ok(template)
    }

    #[test]
    fn files_say_what_options_say() {
        let text = "image: r/f:1\nport: 4000\nnative: false\nset-env: [A, 'B=x{port}']\nmemory-limit: 1Gi\nsecret: ~\ncontainer:\n  securityContext: {runAsUser: null}\n";
        let mut wanted = Template::default();
        for (name, text) in [
            ("image", "r/f:1"),
            ("port", "4000"),
            ("native", "false"),
            ("set-env", "A,B=x{port}"),
            ("memory-limit", "1Gi"),
        ] {
            wanted.set(name, text).unwrap();
        }
        wanted
            .set_container(serde_json::json!({"securityContext": {"runAsUser": null}}))
            .unwrap();
        assert_eq!(load(text), Ok(wanted));
        assert_eq!(load("# nothing\n"), Ok(Template::default()));
        assert_eq!(load(""), Ok(Template::default()));
    }

    #[test]
    fn all_that_is_wrong_is_said_with_its_line() {
        let text =
            "image: ''\n\ncpu-requets: 1\nport: 80\nset-env: [1]\nsecret: {a: b}\ncontainer: {name: x}\n";
        assert_eq!(
            load(text).unwrap_err(),
            [
                "1: image: not an image (got \"\")",
                "3: cpu-requets: cpu-requets means nothing; did you mean cpu-request?",
                "4: port: not a port from 1024 to 65535 (got 80)",
                "5: set-env: not a list of texts",
                "6: secret: not a text, number or switch",
                "7: container: the container is always called flagside",
            ]
        );
        assert_eq!(load("- a\n").unwrap_err(), ["1: not a map of names and values"]);
        assert_eq!(load("{}\n---\n{}\n").unwrap_err(), ["3: a second document"]);
        assert_eq!(load("a: [\n").unwrap_err().len(), 1);
        assert_eq!(
            load("memory-request: 1Gi\n").unwrap_err(),
            ["1: memory-request 1Gi is more than memory-limit 128Mi"]
        );
    }
}
