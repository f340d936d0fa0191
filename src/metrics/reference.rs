//! All families as text: the page `docs/metrics.md` and the list `deploy/observability/metrics.txt`.
//!
//! `ends` are the labels `result` and `reason` of every way an admission can end, as in [`InjectorMetrics::new`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use super::{InjectorMetrics, Metrics, Setup, UpstreamSetup};

/// Labels whose values come from the configuration or the build.
const OPEN: [&str; 5] = ["environment", "upstream", "version", "revision", "features"];

/// One family, as an exposition shows it.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    /// Values by label, in the order of the exposition; the bounds of buckets left out.
    labels: Vec<(String, BTreeSet<String>)>,
    in_proxy: bool,
    in_injector: bool,
}

/// The families of proxy and injector, one a line: name, type, labels with commas between.
#[must_use]
pub fn list(ends: &[[&'static str; 2]]) -> String {
    let mut out = String::new();
    for (name, family) in families(ends) {
        let labels: Vec<&str> = family.labels.iter().map(|(name, _)| name.as_str()).collect();
        let line = format!("{name} {} {}", family.kind, labels.join(","));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// The page `docs/metrics.md`.
#[must_use]
pub fn reference_markdown(ends: &[[&'static str; 2]]) -> String {
    let mut tables = String::new();
    let families = families(ends);
    let parts = [
        ("The proxy", (true, false)),
        ("The injector", (false, true)),
        ("Both", (true, true)),
    ];
    for (title, wanted) in parts {
        let _ = write!(
            tables,
            "\n## {title}\n\n| Metric | Type | Labels | What it says |\n|---|---|---|---|\n"
        );
        let belongs = |family: &Family| (family.in_proxy, family.in_injector) == wanted;
        for (name, family) in families.iter().filter(|(_, family)| belongs(family)) {
            let labels: Vec<String> = family.labels.iter().map(cell).collect();
            let _ = writeln!(
                tables,
                "| `{name}` | {} | {} | {} |",
                family.kind,
                labels.join("; "),
                family.help
            );
        }
    }
    include_str!("reference.md").replace("{{families}}\n", tables.trim_start())
}

fn cell((name, values): &(String, BTreeSet<String>)) -> String {
    if OPEN.contains(&name.as_str()) {
        return format!("`{name}`");
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    format!("`{name}`: {}", values.join(", "))
}

/// Every family of a proxy with an environment of each backend and of an injector, by name.
fn families(ends: &[[&'static str; 2]]) -> BTreeMap<String, Family> {
    let proxy = Metrics::new(Setup {
        environments: vec!["main".to_owned(), "featbit".to_owned()],
        featbit_environments: vec![1],
        upstreams: vec![UpstreamSetup {
            name: "main".to_owned(),
            operations: Vec::new(),
        }],
        ..Setup::default()
    });
    let injector = InjectorMetrics::new("", ends.iter().copied(), Arc::default());
    injector.observe_certificate(|| Some(0));
    let mut families = BTreeMap::new();
    read(&proxy.render(), &mut families, |family| family.in_proxy = true);
    read(&injector.render(), &mut families, |family| {
        family.in_injector = true
    });
    families
}

/// Reads an exposition of Prometheus' text format.
fn read(text: &str, families: &mut BTreeMap<String, Family>, mark: impl Fn(&mut Family)) {
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            let family = families.entry(current.clone()).or_default();
            help.clone_into(&mut family.help);
            mark(family);
        } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut families.entry(current.clone()).or_default().kind);
        } else if let Some((_, rest)) = line.split_once('{') {
            let family = families.entry(current.clone()).or_default();
            let pairs = rest.rsplit_once('}').map_or("", |(pairs, _)| pairs);
            for (name, value) in pairs.split("\",").filter_map(|pair| pair.split_once("=\"")) {
                if name == "le" {
                    continue;
                }
                let value = value.trim_end_matches('"').to_owned();
                match family.labels.iter_mut().find(|(known, _)| known == name) {
                    Some((_, values)) => {
                        values.insert(value);
                    }
                    None => family.labels.push((name.to_owned(), BTreeSet::from([value]))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::review::Admission;

    fn ends() -> [[&'static str; 2]; Admission::ALL.len()] {
        Admission::ALL.map(Admission::labels)
    }

    #[test]
    fn the_page_in_docs_equals_the_registry() {
        let page = include_str!("../../docs/metrics.md");
        assert!(
            page == reference_markdown(&ends()),
            "run: cargo run -- help metrics --markdown > docs/metrics.md"
        );
    }

    #[test]
    fn the_list_in_deploy_equals_the_registry() {
        let golden = include_str!("../../deploy/observability/metrics.txt");
        assert!(
            golden == list(&ends()),
            "run: cargo run -- help metrics > deploy/observability/metrics.txt"
        );
    }

    #[test]
    fn every_family_is_described() {
        for (name, family) in families(&ends()) {
            assert!(family.help.len() > 5 && family.help.ends_with('.'), "{name}");
            assert!(
                ["counter", "gauge", "histogram"].contains(&family.kind.as_str()),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}");
            assert!(family.in_proxy || family.in_injector);
        }
    }
}
