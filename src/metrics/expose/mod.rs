//! The families of OPS 8 that have a subject: name, help, labels, and where each number is read.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::Registry;

use super::cells::{LATENCY, Totals};
use super::family::{Declaration, Family, Kind, Sampler, Samples};
use super::labels::{Degraded, LogLevel, TraceResult};
use super::shared::{LogMetrics, TaskMetrics};
use super::{Group, Parts, WorkerMetrics, process};

mod answers;
mod featbit;
mod http;
mod upstream;

/// Declares everything on `registry`, reading from `parts`.
pub(super) fn declare_all(registry: &Registry, parts: &Arc<Parts>) {
    let on = Declare { registry, parts };
    process_families(&on);
    workers(&on);
    task_panics(&on);
    http::requests(&on);
    http::bodies(&on);
    http::connections(&on);
    answers::cache_requests(&on);
    answers::cache_sizes(&on);
    answers::evaluation(&on);
    upstream::requests(&on);
    upstream::states(&on);
    upstream::sync(&on);
    upstream::environments(&on);
    featbit::events(&on);
    featbit::synced_streams(&on);
    featbit::served_streams(&on);
    logs(&on);
    traces(&on);
}

/// Where families are declared, and what their numbers are read from.
pub(super) struct Declare<'a, P = Parts> {
    pub(super) registry: &'a Registry,
    pub(super) parts: &'a Arc<P>,
}

/// What every process of flagside has, whatever it does.
pub(super) trait Process: Send + Sync + 'static {
    fn version(&self) -> &str;
    fn revision(&self) -> &str;
    fn started_at(&self) -> SystemTime;
    fn logs(&self) -> &LogMetrics;
    fn tasks(&self) -> &TaskMetrics;
}

/// Reads the numbers of a family.
pub(super) trait Read<P>: Fn(&P, &mut Samples) + Send + Sync + 'static {}

impl<P, F: Fn(&P, &mut Samples) + Send + Sync + 'static> Read<P> for F {}

/// Names of labels.
type Labels = &'static [&'static str];

impl<P: Send + Sync + 'static> Declare<'_, P> {
    pub(super) fn counter(&self, name: &'static str, help: &'static str, labels: Labels, read: impl Read<P>) {
        self.family(Kind::Counter, name, help, labels, read);
    }

    pub(super) fn gauge(&self, name: &'static str, help: &'static str, labels: Labels, read: impl Read<P>) {
        self.family(Kind::Gauge, name, help, labels, read);
    }

    pub(super) fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        read: impl Read<P>,
    ) {
        self.family(Kind::Histogram, name, help, labels, read);
    }

    fn family(&self, kind: Kind, name: &'static str, help: &'static str, labels: Labels, read: impl Read<P>) {
        let declaration = Declaration {
            name,
            help,
            kind,
            labels,
        };
        let parts = Arc::clone(self.parts);
        register(
            self.registry,
            declaration,
            Box::new(move |samples| read(&parts, samples)),
        );
    }
}

/// Out of line: it stands once in the program instead of once for each family.
#[inline(never)]
fn register(registry: &Registry, declaration: Declaration, read: Sampler) {
    let declared = Family::new(declaration, read).and_then(|family| registry.register(Box::new(family)));
    if let Err(error) = declared {
        // A fault of this file, which the tests find; the process is better off without a family than dead.
        tracing::error!(family = declaration.name, error = %error, "a metric family could not be declared");
    }
}

/// A number of all workers together.
fn total(parts: &Parts, read: impl Fn(&WorkerMetrics) -> u64) -> u64 {
    parts.workers.iter().map(|worker| read(worker)).sum()
}

/// A number of all members of a group together.
fn of_group(group: &Group, read: impl Fn(usize) -> u64) -> u64 {
    group.members.iter().map(|member| read(*member)).sum()
}

/// The oldest of a group's timestamps: the one to worry about.
fn oldest(group: &Group, read: impl Fn(usize) -> f64) -> f64 {
    group
        .members
        .iter()
        .map(|member| read(*member))
        .reduce(f64::min)
        .unwrap_or_default()
}

pub(super) fn process_families<P: Process>(on: &Declare<'_, P>) {
    on.gauge(
        "flagside_build_info",
        "What is running; always 1.",
        &["version", "revision", "features"],
        |parts, out| out.number(&[parts.version(), parts.revision(), "proxy"], 1),
    );
    on.counter(
        "process_cpu_seconds_total",
        "User and system CPU time spent.",
        &[],
        |_, out| {
            if let Some(seconds) = process::cpu_seconds() {
                out.value(&[], seconds);
            }
        },
    );
    type Read = fn() -> Option<u64>;
    let gauges: [(&'static str, &'static str, Read); 5] = [
        (
            "process_resident_memory_bytes",
            "Resident memory.",
            process::resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory.",
            process::virtual_bytes,
        ),
        ("process_open_fds", "Open file descriptors.", process::open_fds),
        (
            "process_max_fds",
            "Limit of open file descriptors.",
            process::max_fds,
        ),
        ("process_threads", "Threads.", process::threads),
    ];
    for (name, help, read) in gauges {
        on.gauge(name, help, &[], move |_, out| {
            if let Some(number) = read() {
                out.number(&[], number);
            }
        });
    }
    on.gauge(
        "process_start_time_seconds",
        "Start of the process, in seconds since 1970.",
        &[],
        |parts, out| {
            out.value(
                &[],
                parts
                    .started_at()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs_f64(),
            );
        },
    );
}

fn workers(on: &Declare<'_>) {
    on.histogram(
        "flagside_worker_lag_seconds",
        "How late a worker's one-second timer fired: how long other work kept the thread.",
        &[],
        |parts, out| {
            let mut totals = Totals::new(&LATENCY);
            parts
                .workers
                .iter()
                .for_each(|worker| totals.add(&LATENCY, worker.lag()));
            out.histogram(&[], &totals);
        },
    );
    on.gauge(
        "flagside_degraded",
        "1 while answers may be worse than usual for this reason.",
        &["reason"],
        |parts, out| {
            for reason in Degraded::ALL {
                out.number(&[reason.as_str()], u64::from(parts.degraded(reason)));
            }
        },
    );
}

pub(super) fn task_panics<P: Process>(on: &Declare<'_, P>) {
    on.counter(
        "flagside_task_panics_total",
        "Background tasks that panicked: bugs.",
        &[],
        |parts, out| {
            out.number(&[], parts.tasks().panics());
        },
    );
}

pub(super) fn logs<P: Process>(on: &Declare<'_, P>) {
    on.counter(
        "flagside_log_messages_total",
        "Log lines.",
        &["level"],
        |parts, out| {
            for level in LogLevel::ALL {
                out.number(&[level.as_str()], parts.logs().written_total(level));
            }
        },
    );
    on.counter(
        "flagside_log_dropped_total",
        "Log lines lost because the writer could not keep up.",
        &["level"],
        |parts, out| {
            for level in LogLevel::ALL {
                out.number(&[level.as_str()], parts.logs().dropped_total(level));
            }
        },
    );
}

fn traces(on: &Declare<'_>) {
    on.counter(
        "flagside_trace_spans_total",
        "Spans, by what became of them.",
        &["result"],
        |parts, out| {
            for result in TraceResult::ALL {
                out.number(&[result.as_str()], parts.traces.count(result));
            }
        },
    );
}
