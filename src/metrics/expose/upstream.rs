//! Upstreams, and the syncs of their environments.

use super::super::cells::{LATENCY, Totals};
use super::super::labels::{Circuit, Operation, Outcome, Refresh, SyncSource};
use super::super::{Group, Parts};
use super::{Declare, of_group, oldest};

/// The labels under which an operation's upstreams are told apart: all by name for what is asked most.
fn upstream_groups(parts: &Parts, operation: Operation) -> &[Group] {
    match operation {
        Operation::Evaluate | Operation::Flags => &parts.upstream_labels,
        Operation::Cohort | Operation::Stream | Operation::Events | Operation::Passthrough => {
            &parts.detailed_upstream_labels
        }
    }
}

/// Calls `each` for every label and operation that upstreams are counted under, with the cells that belong there.
fn each_upstream_operation<'a>(
    parts: &'a Parts,
    groups: impl Fn(Operation) -> &'a [Group],
    mut each: impl FnMut(&str, Operation, &[(usize, Operation)]),
) {
    for shown in Operation::ALL {
        for group in groups(shown) {
            let upstreams = group
                .members
                .iter()
                .map(|member| (*member, &parts.upstreams[*member]));
            if !upstreams
                .clone()
                .any(|(_, upstream)| upstream.operations.contains(&shown))
            {
                continue;
            }
            let cells: Vec<(usize, Operation)> = upstreams
                .flat_map(|(at, upstream)| {
                    let under = move |operation: &Operation| upstream.counted_under(*operation) == shown;
                    Operation::ALL
                        .into_iter()
                        .filter(under)
                        .map(move |operation| (at, operation))
                })
                .collect();
            each(&group.label, shown, &cells);
        }
    }
}

pub(super) fn requests(on: &Declare<'_>) {
    on.counter(
        "flagside_upstream_requests_total",
        "Attempts to ask an upstream, by how they ended.",
        &["upstream", "operation", "outcome"],
        |parts, out| {
            let groups = |operation| upstream_groups(parts, operation);
            each_upstream_operation(parts, groups, |label, shown, cells| {
                for outcome in Outcome::ALL {
                    let seen = cells
                        .iter()
                        .map(|(at, op)| parts.upstreams[*at].cells.requests(*op, outcome))
                        .sum();
                    out.number(&[label, shown.as_str(), outcome.as_str()], seen);
                }
            });
        },
    );
    on.histogram(
        "flagside_upstream_request_duration_seconds",
        "From the start of an attempt to its end.",
        &["upstream", "operation"],
        |parts, out| {
            let groups = |_| parts.detailed_upstream_labels.as_slice();
            each_upstream_operation(parts, groups, |label, shown, cells| {
                let mut totals = Totals::new(&LATENCY);
                for (at, operation) in cells {
                    totals.add(&LATENCY, parts.upstreams[*at].cells.duration(*operation));
                }
                out.histogram(&[label, shown.as_str()], &totals);
            });
        },
    );
    on.counter(
        "flagside_upstream_retries_total",
        "Attempts after the first one.",
        &["upstream", "operation"],
        |parts, out| {
            let groups = |operation| upstream_groups(parts, operation);
            each_upstream_operation(parts, groups, |label, shown, cells| {
                let seen = cells
                    .iter()
                    .map(|(at, op)| parts.upstreams[*at].cells.retries(*op))
                    .sum();
                out.number(&[label, shown.as_str()], seen);
            });
        },
    );
}

pub(super) fn states(on: &Declare<'_>) {
    on.gauge(
        "flagside_upstream_requests_in_flight",
        "Attempts under way.",
        &["upstream"],
        |parts, out| {
            for group in &parts.upstream_labels {
                out.number(
                    &[&group.label],
                    of_group(group, |at| parts.upstream_reading(at).in_flight),
                );
            }
        },
    );
    on.gauge(
        "flagside_upstream_connections",
        "Open connections, by whether a request is on them.",
        &["upstream", "state"],
        |parts, out| {
            for group in &parts.upstream_labels {
                let open = of_group(group, |at| parts.upstream_reading(at).connections);
                let active = open.min(of_group(group, |at| parts.upstream_reading(at).in_flight));
                out.number(&[&group.label, "active"], active);
                out.number(&[&group.label, "idle"], open - active);
            }
        },
    );
    on.gauge(
        "flagside_upstream_up",
        "0 while the breaker is open or the last attempt failed.",
        &["upstream"],
        |parts, out| {
            for group in &parts.upstream_labels {
                let is_up = |at: &usize| {
                    parts.upstream_reading(*at).circuit != Circuit::Open && parts.upstreams[*at].cells.is_up()
                };
                out.number(&[&group.label], u64::from(group.members.iter().all(is_up)));
            }
        },
    );
    on.gauge(
        "flagside_upstream_circuit_state",
        "1 for the state that the breaker is in.",
        &["upstream", "state"],
        |parts, out| {
            for group in &parts.upstream_labels {
                for state in Circuit::ALL {
                    let is_in = group
                        .members
                        .iter()
                        .any(|at| parts.upstream_reading(*at).circuit == state);
                    out.number(&[&group.label, state.as_str()], u64::from(is_in));
                }
            }
        },
    );
    on.gauge(
        "flagside_upstream_last_success_timestamp_seconds",
        "When it last answered 2xx, in seconds since 1970; 0 = never.",
        &["upstream"],
        |parts, out| {
            for group in &parts.upstream_labels {
                out.value(
                    &[&group.label],
                    oldest(group, |at| parts.upstreams[at].cells.succeeded_at()),
                );
            }
        },
    );
}

pub(super) fn sync(on: &Declare<'_>) {
    on.counter(
        "flagside_sync_runs_total",
        "Syncs, by what they brought.",
        &["environment", "source", "result"],
        |parts, out| {
            for (source, group) in &parts.sync_labels {
                for result in Refresh::ALL {
                    let runs = of_group(group, |at| parts.environments[at].runs(*source, result));
                    out.number(&[&group.label, source.as_str(), result.as_str()], runs);
                }
            }
        },
    );
    on.histogram(
        "flagside_sync_duration_seconds",
        "How long syncs took.",
        &["source"],
        |parts, out| {
            let is_used = |source: &SyncSource| parts.sync_labels.iter().any(|(used, _)| used == source);
            for source in SyncSource::ALL.into_iter().filter(is_used) {
                let mut totals = Totals::new(&LATENCY);
                parts
                    .environments
                    .iter()
                    .for_each(|sync| totals.add(&LATENCY, sync.duration(source)));
                out.histogram(&[source.as_str()], &totals);
            }
        },
    );
    on.gauge(
        "flagside_sync_last_success_timestamp_seconds",
        "When a sync last succeeded, in seconds since 1970; 0 = never.",
        &["environment", "source"],
        |parts, out| {
            for (source, group) in &parts.sync_labels {
                let at = oldest(group, |at| parts.environments[at].succeeded_at(*source));
                out.value(&[&group.label, source.as_str()], at);
            }
        },
    );
    on.gauge(
        "flagside_sync_last_change_timestamp_seconds",
        "When a sync last brought something new, in seconds since 1970; 0 = never.",
        &["environment", "source"],
        |parts, out| {
            for (source, group) in &parts.sync_labels {
                let at = oldest(group, |at| parts.environments[at].changed_at(*source));
                out.value(&[&group.label, source.as_str()], at);
            }
        },
    );
}

pub(super) fn environments(on: &Declare<'_>) {
    on.gauge(
        "flagside_flags",
        "Flags in use.",
        &["environment"],
        |parts, out| {
            for group in &parts.environment_labels {
                out.number(
                    &[&group.label],
                    of_group(group, |at| parts.environment_reading(at).flags),
                );
            }
        },
    );
    on.gauge(
        "flagside_segments",
        "FeatBit's segments in use.",
        &["environment"],
        |parts, out| {
            for group in &parts.featbit_labels {
                out.number(
                    &[&group.label],
                    of_group(group, |at| parts.environment_reading(at).segments),
                );
            }
        },
    );
    on.gauge(
        "flagside_bad_flags",
        "Flags that could not be compiled.",
        &["environment"],
        |parts, out| {
            for group in &parts.environment_labels {
                out.number(
                    &[&group.label],
                    of_group(group, |at| parts.environment_reading(at).bad_flags),
                );
            }
        },
    );
}
