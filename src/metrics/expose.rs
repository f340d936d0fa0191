//! The families of OPS 8 that have a subject: name, help, labels, and where each number is read.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use prometheus::Registry;

use super::cells::{AGE, BYTES, EVALUATION, LATENCY, Totals};
use super::family::{Declaration, Family, Kind, Samples};
use super::labels::{
    CacheName, CacheResult, Circuit, Closed, Code, Degraded, Engine, Evaluation, Eviction, FlagResult,
    Listener, LogLevel, Method, Operation, Outcome, Refresh, Rejection, Route, Source, SyncSource, Trigger,
};
use super::process::Process;
use super::{Group, Parts, WorkerMetrics, routes};

/// Declares everything on `registry`, reading from `parts`.
pub(super) fn declare_all(registry: &Registry, parts: &Arc<Parts>) {
    let on = Declare { registry, parts };
    process(&on);
    workers(&on);
    requests(&on);
    bodies(&on);
    connections(&on);
    cache_requests(&on);
    cache_sizes(&on);
    upstream_requests(&on);
    upstream_states(&on);
    sync(&on);
    evaluation(&on);
    logs(&on);
}

/// Where families are declared.
struct Declare<'a> {
    registry: &'a Registry,
    parts: &'a Arc<Parts>,
}

impl Declare<'_> {
    fn counter<F>(&self, name: &'static str, help: &'static str, labels: &'static [&'static str], read: F)
    where
        F: Fn(&Parts, &mut Samples) + Send + Sync + 'static,
    {
        self.family(
            Declaration {
                name,
                help,
                kind: Kind::Counter,
                labels,
            },
            read,
        );
    }

    fn gauge<F>(&self, name: &'static str, help: &'static str, labels: &'static [&'static str], read: F)
    where
        F: Fn(&Parts, &mut Samples) + Send + Sync + 'static,
    {
        self.family(
            Declaration {
                name,
                help,
                kind: Kind::Gauge,
                labels,
            },
            read,
        );
    }

    fn histogram<F>(&self, name: &'static str, help: &'static str, labels: &'static [&'static str], read: F)
    where
        F: Fn(&Parts, &mut Samples) + Send + Sync + 'static,
    {
        self.family(
            Declaration {
                name,
                help,
                kind: Kind::Histogram,
                labels,
            },
            read,
        );
    }

    fn family<F>(&self, declaration: Declaration, read: F)
    where
        F: Fn(&Parts, &mut Samples) + Send + Sync + 'static,
    {
        let parts = Arc::clone(self.parts);
        let declared = Family::new(declaration, move |samples: &mut Samples| read(&parts, samples))
            .and_then(|family| self.registry.register(Box::new(family)));
        if let Err(error) = declared {
            // A fault of this file, which the tests find; the process is better off without a family than dead.
            tracing::error!(family = declaration.name, error = %error, "a metric family could not be declared");
        }
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

fn process(on: &Declare<'_>) {
    on.gauge(
        "flagside_build_info",
        "What is running; always 1.",
        &["version", "revision", "features"],
        |parts, out| out.number(&[&parts.version, &parts.revision, "proxy"], 1),
    );
    on.counter(
        "process_cpu_seconds_total",
        "User and system CPU time spent.",
        &[],
        |_, out| {
            if let Some(seconds) = Process::read().cpu_seconds {
                out.value(&[], seconds);
            }
        },
    );
    type Read = fn(&Process) -> Option<u64>;
    let gauges: [(&'static str, &'static str, Read); 5] = [
        ("process_resident_memory_bytes", "Resident memory.", |process| {
            process.resident_bytes
        }),
        ("process_virtual_memory_bytes", "Virtual memory.", |process| {
            process.virtual_bytes
        }),
        ("process_open_fds", "Open file descriptors.", |process| {
            process.open_fds
        }),
        ("process_max_fds", "Limit of open file descriptors.", |process| {
            process.max_fds
        }),
        ("process_threads", "Threads.", |process| process.threads),
    ];
    for (name, help, read) in gauges {
        on.gauge(name, help, &[], move |_, out| {
            if let Some(number) = read(&Process::read()) {
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
                    .started_at
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
    on.counter(
        "flagside_task_panics_total",
        "Background tasks that panicked: bugs.",
        &[],
        |parts, out| {
            out.number(&[], parts.tasks.panics());
        },
    );
}

fn requests(on: &Declare<'_>) {
    on.counter(
        "flagside_http_requests_total",
        "Requests answered, by route, method and status.",
        &["route", "method", "code"],
        request_counts,
    );
    on.counter(
        "flagside_http_responses_total",
        "Answers sent, by route and by where they came from.",
        &["route", "source"],
        response_counts,
    );
    on.histogram(
        "flagside_http_request_duration_seconds",
        "From the end of the request head to the last byte handed to the socket.",
        &["route", "source"],
        request_durations,
    );
    on.gauge(
        "flagside_http_requests_in_flight",
        "Requests being answered now.",
        &[],
        |parts, out| {
            out.number(&[], total(parts, WorkerMetrics::in_flight));
        },
    );
    on.counter(
        "flagside_http_rejected_requests_total",
        "Requests turned away before anything was asked or looked up.",
        &["reason"],
        |parts, out| {
            for reason in Rejection::ALL {
                out.number(
                    &[reason.as_str()],
                    total(parts, |worker| worker.rejections(reason)),
                );
            }
        },
    );
}

fn request_counts(parts: &Parts, out: &mut Samples) {
    let mut counts = [[[0_u64; Code::ALL.len()]; Method::ALL.len()]; Route::ALL.len()];
    for route in Route::ALL {
        for method in Method::ALL {
            for code in Code::ALL {
                let seen = total(parts, |worker| worker.requests(route, method, code));
                if seen > 0 {
                    let (route, method, code) = routes::request(route, method, code);
                    counts[route.index()][method.index()][code.index()] += seen;
                }
            }
        }
    }
    for (route, method, code) in routes::requests() {
        let count = counts[route.index()][method.index()][code.index()];
        out.number(&[route.as_str(), method.as_str(), code.as_str()], count);
    }
}

fn response_counts(parts: &Parts, out: &mut Samples) {
    let mut counts = [[0_u64; Source::ALL.len()]; Route::ALL.len()];
    for route in Route::ALL {
        for source in Source::ALL {
            let seen = total(parts, |worker| worker.duration(route, source).count());
            let (route, source) = routes::response(route, source);
            counts[route.index()][source.index()] += seen;
        }
    }
    for (route, source) in routes::responses() {
        out.number(
            &[route.as_str(), source.as_str()],
            counts[route.index()][source.index()],
        );
    }
}

fn request_durations(parts: &Parts, out: &mut Samples) {
    let cells = || {
        Route::ALL
            .into_iter()
            .flat_map(|route| Source::ALL.map(|source| (route, source)))
    };
    for shown in cells().filter(|(route, source)| routes::duration(*route, *source) == (*route, *source)) {
        let mut totals = Totals::new(&LATENCY);
        for (route, source) in cells().filter(|(route, source)| routes::duration(*route, *source) == shown) {
            parts
                .workers
                .iter()
                .for_each(|worker| totals.add(&LATENCY, worker.duration(route, source)));
        }
        out.histogram(&[shown.0.as_str(), shown.1.as_str()], &totals);
    }
}

fn bodies(on: &Declare<'_>) {
    on.histogram(
        "flagside_http_request_body_bytes",
        "Size of request bodies.",
        &["route"],
        |parts, out| {
            for shown in Route::ALL
                .into_iter()
                .filter(|route| routes::request_body(*route) == *route)
            {
                let mut totals = Totals::new(&BYTES);
                for route in Route::ALL
                    .into_iter()
                    .filter(|route| routes::request_body(*route) == shown)
                {
                    parts
                        .workers
                        .iter()
                        .for_each(|worker| totals.add(&BYTES, worker.request_bodies(route)));
                }
                out.histogram(&[shown.as_str()], &totals);
            }
        },
    );
    on.histogram(
        "flagside_http_response_body_bytes",
        "Size of response bodies, as sent.",
        &["route"],
        |parts, out| {
            for shown in Route::ALL
                .into_iter()
                .filter(|route| routes::response_body(*route) == *route)
            {
                let mut totals = Totals::new(&BYTES);
                for route in Route::ALL
                    .into_iter()
                    .filter(|route| routes::response_body(*route) == shown)
                {
                    parts
                        .workers
                        .iter()
                        .for_each(|worker| totals.add(&BYTES, worker.response_bodies(route)));
                }
                out.histogram(&[shown.as_str()], &totals);
            }
        },
    );
}

fn connections(on: &Declare<'_>) {
    on.gauge(
        "flagside_http_connections",
        "Open connections.",
        &["listener"],
        |parts, out| {
            out.number(
                &[Listener::Data.as_str()],
                total(parts, WorkerMetrics::connections),
            );
            out.number(&[Listener::Admin.as_str()], parts.admin.connections());
        },
    );
    on.counter(
        "flagside_http_connections_total",
        "Connections accepted.",
        &["listener"],
        |parts, out| {
            out.number(
                &[Listener::Data.as_str()],
                total(parts, WorkerMetrics::connections_total),
            );
            out.number(&[Listener::Admin.as_str()], parts.admin.connections_total());
        },
    );
    on.counter(
        "flagside_http_connections_rejected_total",
        "Connections that flagside closed, by why.",
        &["listener", "reason"],
        |parts, out| {
            for reason in Closed::ALL {
                let data = total(parts, |worker| worker.connections_rejected(reason));
                out.number(&[Listener::Data.as_str(), reason.as_str()], data);
                let admin = parts.admin.connections_rejected(reason);
                out.number(&[Listener::Admin.as_str(), reason.as_str()], admin);
            }
        },
    );
}

/// The results that a cache's requests can have.
const fn cache_results(cache: CacheName) -> &'static [CacheResult] {
    match cache {
        CacheName::Vardata => &[
            CacheResult::Hit,
            CacheResult::Stale,
            CacheResult::Miss,
            CacheResult::Coalesced,
            CacheResult::Bypass,
        ],
        CacheName::Flags => &CacheResult::ALL,
        CacheName::Negative => &[CacheResult::Hit, CacheResult::Miss],
    }
}

fn cache_requests(on: &Declare<'_>) {
    on.counter(
        "flagside_cache_requests_total",
        "Look-ups, by cache and result.",
        &["cache", "result"],
        |parts, out| {
            for cache in CacheName::ALL {
                let shown = cache_results(cache);
                let seen = |result| total(parts, |worker| worker.cache_requests(cache, result));
                // What is not foreseen counts as a miss, which every cache has.
                let mut odd: u64 = CacheResult::ALL
                    .into_iter()
                    .filter(|result| !shown.contains(result))
                    .map(seen)
                    .sum();
                for result in shown {
                    let extra = if *result == CacheResult::Miss {
                        std::mem::take(&mut odd)
                    } else {
                        0
                    };
                    out.number(&[cache.as_str(), result.as_str()], seen(*result) + extra);
                }
            }
        },
    );
    on.counter(
        "flagside_cache_refreshes_total",
        "Refreshes in the background, by what they brought.",
        &["cache", "result"],
        |parts, out| {
            for cache in [CacheName::Vardata, CacheName::Flags] {
                for result in Refresh::ALL {
                    out.number(
                        &[cache.as_str(), result.as_str()],
                        parts.cache.refreshes(cache, result),
                    );
                }
            }
        },
    );
    on.histogram(
        "flagside_cache_stale_age_seconds",
        "How long past its freshness a stored response was when it was used.",
        &["cache"],
        |parts, out| {
            for cache in [CacheName::Vardata, CacheName::Flags] {
                let mut totals = Totals::new(&AGE);
                parts
                    .workers
                    .iter()
                    .for_each(|worker| totals.add(&AGE, worker.stale_age(cache)));
                out.histogram(&[cache.as_str()], &totals);
            }
        },
    );
}

fn cache_sizes(on: &Declare<'_>) {
    on.gauge("flagside_cache_entries", "Entries.", &["cache"], |parts, out| {
        for cache in CacheName::ALL {
            out.number(&[cache.as_str()], parts.cache_reading(cache).entries);
        }
    });
    on.gauge(
        "flagside_cache_weight_bytes",
        "Weight of the entries.",
        &["cache"],
        |parts, out| {
            for cache in CacheName::ALL {
                out.number(&[cache.as_str()], parts.cache_reading(cache).weight_bytes);
            }
        },
    );
    on.gauge(
        "flagside_cache_max_weight_bytes",
        "Weight that the entries may have.",
        &["cache"],
        |parts, out| {
            for cache in CacheName::ALL {
                out.number(&[cache.as_str()], parts.cache_reading(cache).max_weight_bytes);
            }
        },
    );
    on.counter(
        "flagside_cache_evictions_total",
        "Entries that left a cache, by why.",
        &["cache", "cause"],
        |parts, out| {
            for cache in CacheName::ALL {
                for cause in Eviction::ALL {
                    out.number(
                        &[cache.as_str(), cause.as_str()],
                        parts.cache.evictions(cache, cause),
                    );
                }
            }
        },
    );
}

/// The labels under which an operation's upstreams are told apart: all by name for what is asked most.
fn upstream_groups(parts: &Parts, operation: Operation) -> &[Group] {
    match operation {
        Operation::Evaluate | Operation::Flags => &parts.upstream_labels,
        Operation::Cohort | Operation::Stream | Operation::Passthrough => &parts.detailed_upstream_labels,
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

fn upstream_requests(on: &Declare<'_>) {
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

fn upstream_states(on: &Declare<'_>) {
    on.gauge(
        "flagside_upstream_requests_in_flight",
        "Attempts under way.",
        &["upstream"],
        |parts, out| {
            for group in &parts.upstream_labels {
                out.number(
                    &[&group.label],
                    of_group(group, |at| parts.upstreams[at].cells.in_flight()),
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
                let open = of_group(group, |at| parts.upstreams[at].cells.connections());
                let active = open.min(of_group(group, |at| parts.upstreams[at].cells.in_flight()));
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
                let is_up =
                    |at: &usize| parts.circuit(*at) != Circuit::Open && parts.upstreams[*at].cells.is_up();
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
                    let is_in = group.members.iter().any(|at| parts.circuit(*at) == state);
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

/// The oldest of a group's timestamps: the one to worry about.
fn oldest(group: &Group, read: impl Fn(usize) -> f64) -> f64 {
    group
        .members
        .iter()
        .map(|member| read(*member))
        .reduce(f64::min)
        .unwrap_or_default()
}

fn sync(on: &Declare<'_>) {
    on.counter(
        "flagside_sync_runs_total",
        "Syncs, by what they brought.",
        &["environment", "source", "result"],
        |parts, out| {
            for group in &parts.environment_labels {
                for source in SyncSource::ALL {
                    for result in Refresh::ALL {
                        let runs = of_group(group, |at| parts.environments[at].runs(source, result));
                        out.number(&[&group.label, source.as_str(), result.as_str()], runs);
                    }
                }
            }
        },
    );
    on.histogram(
        "flagside_sync_duration_seconds",
        "How long syncs took.",
        &["source"],
        |parts, out| {
            for source in SyncSource::ALL {
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
            for group in &parts.environment_labels {
                for source in SyncSource::ALL {
                    let at = oldest(group, |at| parts.environments[at].succeeded_at(source));
                    out.value(&[&group.label, source.as_str()], at);
                }
            }
        },
    );
    on.gauge(
        "flagside_sync_last_change_timestamp_seconds",
        "When a sync last brought something new, in seconds since 1970; 0 = never.",
        &["environment", "source"],
        |parts, out| {
            for group in &parts.environment_labels {
                for source in SyncSource::ALL {
                    let at = oldest(group, |at| parts.environments[at].changed_at(source));
                    out.value(&[&group.label, source.as_str()], at);
                }
            }
        },
    );
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

fn evaluation(on: &Declare<'_>) {
    const ENGINE: &str = Engine::Amplitude.as_str();
    on.counter(
        "flagside_evaluations_total",
        "Answers computed here, by why and how well.",
        &["engine", "trigger", "result"],
        |parts, out| {
            for trigger in Trigger::ALL {
                for result in Evaluation::ALL {
                    let seen = total(parts, |worker| worker.evaluations(trigger, result));
                    out.number(&[ENGINE, trigger.as_str(), result.as_str()], seen);
                }
            }
        },
    );
    on.histogram(
        "flagside_evaluation_duration_seconds",
        "How long computing an answer took.",
        &["engine"],
        |parts, out| {
            let mut totals = Totals::new(&EVALUATION);
            parts
                .workers
                .iter()
                .for_each(|worker| totals.add(&EVALUATION, worker.evaluation_duration()));
            out.histogram(&[ENGINE], &totals);
        },
    );
    on.counter(
        "flagside_evaluated_flags_total",
        "Flags computed here, by what they gave.",
        &["engine", "result"],
        |parts, out| {
            for result in FlagResult::ALL {
                let seen = total(parts, |worker| worker.evaluated_flags(result));
                out.number(&[ENGINE, result.as_str()], seen);
            }
        },
    );
    on.counter(
        "flagside_evaluation_unfaithful_flags_total",
        "Flags computed here that only upstream can compute exactly.",
        &["engine"],
        |parts, out| out.number(&[ENGINE], total(parts, WorkerMetrics::unfaithful_flags)),
    );
}

fn logs(on: &Declare<'_>) {
    on.counter(
        "flagside_log_messages_total",
        "Log lines.",
        &["level"],
        |parts, out| {
            for level in LogLevel::ALL {
                out.number(&[level.as_str()], parts.logs.written_total(level));
            }
        },
    );
    on.counter(
        "flagside_log_dropped_total",
        "Log lines lost because the writer could not keep up.",
        &["level"],
        |parts, out| {
            for level in LogLevel::ALL {
                out.number(&[level.as_str()], parts.logs.dropped_total(level));
            }
        },
    );
}
