//! The text exposition of Prometheus, read back.

use std::collections::BTreeMap;

/// One line of `/metrics`.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Name with its suffix (`_total`, `_bucket`, …).
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// Every sample of one scrape.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// Reads an exposition; panics at a line that is none.
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(sample).collect())
    }

    /// The sum of the samples of this name whose labels include `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The samples of this name whose labels include `labels`.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            let has =
                |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|other| other == value);
            sample.name == name && labels.iter().all(has)
        })
    }

    /// All of them.
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, labels) = series
        .strip_suffix('}')
        .and_then(|series| series.split_once('{'))
        .unwrap_or((series, ""));
    let labels = labels
        .split_terminator("\",")
        .map(|label| {
            label
                .split_once("=\"")
                .unwrap_or_else(|| panic!("no label: {line}"))
        })
        .map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect();
    let value = value.parse().unwrap_or_else(|_| panic!("no value: {line}"));
    Sample {
        name: name.to_owned(),
        labels,
        value,
    }
}

#[test]
fn samples_are_read_with_and_without_labels() {
    let metrics =
        Metrics::parse("# HELP a b\na_total{x=\"1\",y=\"two\"} 3\na_total{x=\"2\",y=\"two\"} 4\nb 1.5e3\n");
    assert_eq!(metrics.sum("a_total", &[("x", "2")]), 4.0);
    assert_eq!(metrics.sum("a_total", &[("y", "two")]), 7.0);
    assert_eq!(metrics.sum("b", &[]), 1500.0);
    assert_eq!(metrics.samples().len(), 3);
}
