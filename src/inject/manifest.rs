//! Files of manifests in, the same files with sidecars out.

use std::fmt;

use serde_json::Value;

use super::edit::{Edit, Path, apply};
use super::emit::Style;
use super::pod::{Plan, Pod, Verdict, plan};
use super::skip::Skip;
use super::template::Template;
use super::text::{self, Aliases};
use super::yaml::{self, Document, Kind, Problem, problem};

/// A file with its sidecars.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Injected {
    /// Its new text.
    pub text: String,
    /// What became of each workload, in the order of the file.
    pub reports: Vec<Report>,
}

/// What became of a workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Line where its document, or its item of a list, begins.
    pub line: usize,
    /// Kind and name: `Deployment web`.
    pub workload: String,
    /// Why it was left as it is; none = it has the sidecar now.
    pub skip: Option<(Skip, String)>,
    /// What its owner should know.
    pub warnings: Vec<String>,
}

/// As one line: `12: Deployment web: injected`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.line, self.workload)?;
        match &self.skip {
            None => f.write_str("injected"),
            Some((skip, why)) => write!(f, "skipped: {skip}: {why}"),
        }
    }
}

/// Adds the sidecar to every workload in `text`, YAML or JSON, one document or many. Everything else stays byte
/// for byte.
///
/// # Errors
///
/// When the text is not YAML, or a workload stands there in a form that cannot be edited.
pub fn inject(text: &str, template: &Template) -> Result<Injected, Problem> {
    let documents = yaml::documents(text)?;
    let mut reports = Vec::new();
    let mut planned = Vec::new();
    for document in &documents {
        let mut value = document.value(&document.root)?;
        let edits = edits(document, &value, template, &mut reports)?;
        apply(&edits, &mut value);
        planned.push((edits, value));
    }
    let written = |aliases| {
        let mut changes = Vec::new();
        for (document, (edits, _)) in documents.iter().zip(&planned) {
            changes.extend(text::changes(text, document, edits, style(document), aliases)?);
        }
        let text = text::changed(text, changes);
        check(
            &text,
            documents
                .iter()
                .zip(&planned)
                .map(|(document, (_, value))| (document, value)),
        )?;
        Ok(text)
    };
    let text =
        written(Aliases::WrittenOut).or_else(|problem| written(Aliases::Followed).map_err(|_| problem))?;
    Ok(Injected { text, reports })
}

/// What is to be changed in one document, `value` being what it means.
fn edits(
    document: &Document,
    value: &Value,
    template: &Template,
    reports: &mut Vec<Report>,
) -> Result<Vec<Edit>, Problem> {
    let mut edits = Vec::new();
    for workload in workloads(value) {
        let line = document
            .find(&workload.whole)
            .map_or(document.root.line, |found| found.node.line);
        let pod = Pod {
            root: value,
            at: &workload.pod,
            namespace: workload.namespace.as_deref(),
            ends: workload.ends,
        };
        let Plan { verdict, warnings } = plan(template, &pod, &[])
            .map_err(|unfit| problem(line, format!("{}: {unfit}", workload.title)))?;
        let skip = match verdict {
            Verdict::Inject(new) => {
                edits.extend(new);
                None
            }
            Verdict::Skip(skip, why) => Some((skip, why)),
        };
        reports.push(Report {
            line,
            workload: workload.title,
            skip,
            warnings,
        });
    }
    Ok(edits)
}

/// Whether the new text means what it should: anchors can make one change show in two places.
fn check<'a>(text: &str, wanted: impl Iterator<Item = (&'a Document, &'a Value)>) -> Result<(), Problem> {
    let documents = yaml::documents(text).unwrap_or_default();
    for (at, (old, value)) in wanted.enumerate() {
        let new = documents
            .get(at)
            .and_then(|document| document.value(&document.root).ok());
        if new.as_ref() != Some(value) {
            let what = "this cannot be edited without changing something else: anchors, or an unusual form; write it out";
            return Err(problem(old.root.line, what));
        }
    }
    Ok(())
}

/// A workload in a document.
struct Workload {
    title: String,
    whole: Path,
    pod: Path,
    namespace: Option<String>,
    ends: bool,
}

/// The workloads in a document, those in lists too.
fn workloads(root: &Value) -> Vec<Workload> {
    let mut found = Vec::new();
    collect(root, &Path::default(), None, &mut found);
    found
}

fn collect(root: &Value, at: &Path, kind_of_list: Option<&str>, found: &mut Vec<Workload>) {
    let text = |keys: &[&str]| at.keys(keys).find(root).and_then(Value::as_str);
    let Some(kind) = text(&["kind"]).or(kind_of_list) else {
        return;
    };
    if let (Some(of), Some(Value::Array(items))) = (kind.strip_suffix("List"), at.key("items").find(root)) {
        for item in 0..items.len() {
            let of = Some(of).filter(|of| !of.is_empty());
            collect(root, &at.key("items").index(item), of, found);
        }
        return;
    }
    let group = text(&["apiVersion"]).map(|version| version.split_once('/').map_or("", |(group, _)| group));
    let pod: &[&str] = match (group.unwrap_or_default(), kind) {
        ("", "Pod") => &[],
        ("", "PodTemplate") => &["template"],
        ("" | "apps" | "extensions", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("", "ReplicationController")
        | ("" | "batch", "Job") => &["spec", "template"],
        ("" | "batch", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return,
    };
    let name = text(&["metadata", "name"]).or_else(|| text(&["metadata", "generateName"]));
    found.push(Workload {
        title: format!("{kind} {}", name.unwrap_or("without name")),
        whole: at.clone(),
        pod: at.keys(pod),
        namespace: text(&["metadata", "namespace"]).map(str::to_owned),
        ends: matches!(kind, "Job" | "CronJob"),
    });
}

/// How most lists of the document stand: in the column of their key, or behind it.
fn style(document: &Document) -> Style {
    fn count(node: &yaml::Node, flat: &mut i64) {
        match &node.kind {
            Kind::List { items, .. } => items.iter().for_each(|item| count(item, flat)),
            Kind::Map { entries, .. } => {
                for (key, value) in entries {
                    if let Kind::List { items, closing: None } = &value.kind
                        && let Some(first) = items.first()
                    {
                        // The dash stands two before the item, or further.
                        *flat += if first.column <= key.column + 3 { 1 } else { -1 };
                    }
                    count(value, flat);
                }
            }
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }
    let mut flat = 0;
    count(&document.root, &mut flat);
    Style { flat_lists: flat > 0 }
}

#[cfg(test)]
mod tests;
