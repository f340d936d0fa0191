//! FeatBit: forwarded events, streams to upstream, streams to SDKs. Without an environment of it there are no
//! such series.

use std::time::SystemTime;

use super::{Declare, of_group};
use crate::metrics::labels::{EventDrop, EventKind, StreamEnd, StreamKind};
use crate::metrics::shared::{EventMetrics, SyncMetrics};
use crate::metrics::{Parts, family::Samples};

pub(super) fn events(on: &Declare<'_>) {
    type Read = fn(&EventMetrics) -> u64;
    let counters: [(&'static str, &'static str, Read); 2] = [
        (
            "flagside_events_received_total",
            "Events of applications taken on.",
            EventMetrics::received_total,
        ),
        (
            "flagside_events_sent_total",
            "Events that upstream took.",
            EventMetrics::sent_total,
        ),
    ];
    for (name, help, read) in counters {
        on.counter(name, help, &["kind"], move |parts, out| {
            each_kind(parts, |kind, cells| out.number(&[kind], read(cells)));
        });
    }
    on.counter(
        "flagside_events_dropped_total",
        "Events given up, by why.",
        &["kind", "reason"],
        |parts, out| {
            each_kind(parts, |kind, cells| {
                for reason in EventDrop::ALL {
                    out.number(&[kind, reason.as_str()], cells.dropped_total(reason));
                }
            });
        },
    );
    let gauges: [(&'static str, &'static str, Read); 2] = [
        (
            "flagside_events_queue_depth",
            "Events that wait to be sent.",
            EventMetrics::waiting,
        ),
        (
            "flagside_events_queue_capacity",
            "Events that may wait.",
            EventMetrics::capacity,
        ),
    ];
    for (name, help, read) in gauges {
        on.gauge(name, help, &["kind"], move |parts, out| {
            each_kind(parts, |kind, cells| out.number(&[kind], read(cells)));
        });
    }
    on.gauge(
        "flagside_events_oldest_age_seconds",
        "How long the oldest waiting event has waited; 0 = none waits.",
        &["kind"],
        |parts, out| {
            let now = SystemTime::now();
            each_kind(parts, |kind, cells| {
                out.value(&[kind], cells.oldest_age(now).as_secs_f64());
            });
        },
    );
}

fn each_kind(parts: &Parts, mut tell: impl FnMut(&str, &EventMetrics)) {
    for kind in EventKind::ALL {
        if is_reachable(parts, kind) {
            tell(kind.as_str(), &parts.events[kind.index()]);
        }
    }
}

fn is_reachable(parts: &Parts, kind: EventKind) -> bool {
    match kind {
        EventKind::Insight => !parts.featbit_labels.is_empty(),
    }
}

pub(super) fn synced_streams(on: &Declare<'_>) {
    type Read = fn(&SyncMetrics) -> u64;
    on.gauge(
        "flagside_stream_connected",
        "Streams to upstream that are open and have brought data.",
        &["environment"],
        |parts, out| by_environment(parts, out, SyncMetrics::streams),
    );
    let counters: [(&'static str, &'static str, Read); 3] = [
        (
            "flagside_stream_reconnects_total",
            "Streams to upstream opened again after the first time.",
            SyncMetrics::reconnects,
        ),
        (
            "flagside_stream_refusals_total",
            "Streams that upstream refused: bad secret, wrong kind of it, or clocks that differ.",
            SyncMetrics::refusals,
        ),
        (
            "flagside_stream_clock_corrections_total",
            "Times that the clock of upstream was found to differ and was reckoned with.",
            SyncMetrics::clock_corrections,
        ),
    ];
    for (name, help, read) in counters {
        on.counter(name, help, &["environment"], move |parts, out| {
            by_environment(parts, out, read);
        });
    }
}

fn by_environment(parts: &Parts, out: &mut Samples, read: fn(&SyncMetrics) -> u64) {
    for group in &parts.featbit_labels {
        out.number(
            &[&group.label],
            of_group(group, |at| read(&parts.environments[at])),
        );
    }
}

pub(super) fn served_streams(on: &Declare<'_>) {
    on.gauge(
        "flagside_served_streams",
        "Streams open to SDKs.",
        &["kind"],
        |parts, out| {
            for kind in StreamKind::ALL.into_iter().filter(|_| serves(parts)) {
                out.number(&[kind.as_str()], parts.streams.open(kind));
            }
        },
    );
    on.counter(
        "flagside_served_streams_total",
        "Streams opened to SDKs.",
        &["kind"],
        |parts, out| {
            for kind in StreamKind::ALL.into_iter().filter(|_| serves(parts)) {
                out.number(&[kind.as_str()], parts.streams.opened_total(kind));
            }
        },
    );
    on.counter(
        "flagside_served_streams_ended_total",
        "Streams to SDKs that ended or were turned away, by why.",
        &["reason"],
        |parts, out| {
            for end in StreamEnd::ALL.into_iter().filter(|_| serves(parts)) {
                out.number(&[end.as_str()], parts.streams.ended(end));
            }
        },
    );
    on.counter(
        "flagside_served_stream_messages_total",
        "Messages with flags sent to SDKs.",
        &[],
        |parts, out| {
            if serves(parts) {
                out.number(&[], parts.streams.messages());
            }
        },
    );
}

fn serves(parts: &Parts) -> bool {
    !parts.featbit_labels.is_empty()
}
