//! Requests, responses and connections.

use super::super::cells::{BYTES, BytesHistogram, LATENCY, Totals};
use super::super::family::Samples;
use super::super::labels::{Closed, Code, Listener, Method, Rejection, Route, Source};
use super::super::{Parts, WorkerMetrics, routes};
use super::{Declare, total};

pub(super) fn requests(on: &Declare<'_>) {
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
    for (route, method, code) in routes::requests().filter(|(route, ..)| parts.serves(*route)) {
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
    for (route, source) in routes::responses().filter(|(route, _)| parts.serves(*route)) {
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
    let is_shown = |(route, source): &(Route, Source)| {
        routes::duration(*route, *source) == (*route, *source) && parts.serves(*route)
    };
    for shown in cells().filter(is_shown) {
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

pub(super) fn bodies(on: &Declare<'_>) {
    type Shown = fn(Route) -> Route;
    type Read = fn(&WorkerMetrics, Route) -> &BytesHistogram;
    let sizes: [(&'static str, &'static str, Shown, Read); 2] = [
        (
            "flagside_http_request_body_bytes",
            "Size of request bodies.",
            routes::request_body,
            WorkerMetrics::request_bodies,
        ),
        (
            "flagside_http_response_body_bytes",
            "Size of response bodies, as sent.",
            routes::response_body,
            WorkerMetrics::response_bodies,
        ),
    ];
    for (name, help, shown_as, read) in sizes {
        on.histogram(name, help, &["route"], move |parts, out| {
            let is_shown = |route: &Route| shown_as(*route) == *route && parts.serves(*route);
            for shown in Route::ALL.into_iter().filter(is_shown) {
                let mut totals = Totals::new(&BYTES);
                for route in Route::ALL.into_iter().filter(|route| shown_as(*route) == shown) {
                    parts
                        .workers
                        .iter()
                        .for_each(|worker| totals.add(&BYTES, read(worker, route)));
                }
                out.histogram(&[shown.as_str()], &totals);
            }
        });
    }
}

pub(super) fn connections(on: &Declare<'_>) {
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
