//! One metric family: its declaration, and how its samples are made at scrape.

use std::collections::HashMap;
use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto;
use prometheus::proto::MetricType;

use super::cells::Totals;

/// What kind of number a family holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// What is said once about a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declaration {
    /// Name, with prefix and unit.
    pub(super) name: &'static str,
    /// What it counts, in a sentence.
    pub(super) help: &'static str,
    /// Kind.
    pub(super) kind: Kind,
    /// Names of the labels, in the order of the values.
    pub(super) labels: &'static [&'static str],
}

/// The samples of a family during one scrape.
#[derive(Debug)]
pub(super) struct Samples {
    declaration: Declaration,
    metrics: Vec<proto::Metric>,
}

impl Samples {
    /// Adds a counter's or gauge's value; `labels` has as many values as the declaration has names.
    pub(super) fn value(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.metric(labels);
        if self.declaration.kind == Kind::Counter {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a whole number.
    pub(super) fn number(&mut self, labels: &[&str], value: u64) {
        self.value(labels, value as f64);
    }

    /// Adds a histogram.
    pub(super) fn histogram(&mut self, labels: &[&str], totals: &Totals) {
        let buckets = totals.cumulative().map(|(upper, count)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(upper);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(totals.count());
        histogram.set_sample_sum(totals.sum());
        let mut metric = self.metric(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    fn metric(&self, values: &[&str]) -> proto::Metric {
        debug_assert_eq!(
            values.len(),
            self.declaration.labels.len(),
            "{}",
            self.declaration.name
        );
        let pairs = self.declaration.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        proto::Metric::from_label(pairs.collect())
    }
}

/// Makes the samples of a family. Boxed: sixty families of as many types would be sixty times this code.
pub(super) type Sampler = Box<dyn Fn(&mut Samples) + Send + Sync>;

/// A declared family with the function that reads its numbers.
pub(super) struct Family {
    declaration: Declaration,
    desc: Desc,
    read: Sampler,
}

impl Family {
    /// A family that `read` makes the samples of.
    ///
    /// # Errors
    ///
    /// When name, help or labels are not what Prometheus allows.
    pub(super) fn new(declaration: Declaration, read: Sampler) -> prometheus::Result<Self> {
        let labels = declaration.labels.iter().map(|name| (*name).to_owned()).collect();
        let desc = Desc::new(
            declaration.name.to_owned(),
            declaration.help.to_owned(),
            labels,
            HashMap::new(),
        )?;
        Ok(Self {
            declaration,
            desc,
            read,
        })
    }
}

impl Collector for Family {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut samples = Samples {
            declaration: self.declaration,
            metrics: Vec::new(),
        };
        (self.read)(&mut samples);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.declaration.name.to_owned());
        family.set_help(self.declaration.help.to_owned());
        family.set_field_type(match self.declaration.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(samples.metrics);
        vec![family]
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("declaration", &self.declaration)
            .finish_non_exhaustive()
    }
}
