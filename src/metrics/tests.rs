//! The exposition as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn upstream(name: &str, operations: &[Operation]) -> UpstreamSetup {
    UpstreamSetup {
        name: name.to_owned(),
        operations: operations.to_vec(),
    }
}

fn setup(environments: usize, upstreams: Vec<UpstreamSetup>) -> Setup {
    Setup {
        version: "1.2.3".to_owned(),
        revision: "abc".to_owned(),
        environments: (0..environments).map(|n| format!("e{n}")).collect(),
        featbit_environments: Vec::new(),
        upstreams,
        workers: 2,
        logs: Arc::default(),
    }
}

fn one() -> Arc<Metrics> {
    Metrics::new(setup(1, vec![upstream("u0", &[])]))
}

/// One environment of each backend.
fn both() -> Arc<Metrics> {
    Metrics::new(Setup {
        featbit_environments: vec![1],
        ..setup(2, vec![upstream("u0", &[])])
    })
}

/// The samples of an exposition: everything but comments.
fn samples(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

/// The value of a sample, by its name with labels.
fn value(metrics: &Metrics, sample: &str) -> f64 {
    let text = metrics.render();
    let found = samples(&text).find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no {sample}"))
}

/// The sum of a family's samples whose line holds `part`.
fn sum(metrics: &Metrics, family: &str, part: &str) -> f64 {
    let text = metrics.render();
    let lines = samples(&text).filter(|line| {
        line.strip_prefix(family)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
            && line.contains(part)
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn names_types_and_help_are_pinned() {
    let text = both().render();
    let comments: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    insta::assert_snapshot!("families", comments.join("\n"));
}

#[test]
fn the_labels_of_every_family_are_pinned() {
    let text = both().render();
    let shapes: BTreeSet<String> = samples(&text)
        .filter(|line| !line.starts_with("process_"))
        .map(|line| {
            let (name, labels) = line
                .split_once('{')
                .unwrap_or((line.split(' ').next().unwrap(), ""));
            let names = labels
                .split(',')
                .filter_map(|pair| pair.split_once('=').map(|(name, _)| name));
            format!("{name} {}", names.collect::<Vec<_>>().join(","))
        })
        .collect();
    insta::assert_snapshot!("labels", shapes.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_series_is_there_from_the_first_scrape_and_within_the_budget() {
    use Operation::{Cohort, Evaluate, Events, Flags, Passthrough, Stream};
    let by_host = vec![
        upstream("eval", &[Evaluate, Flags, Passthrough]),
        upstream("flags", &[Flags]),
        upstream("stream", &[Stream]),
        upstream("cohort", &[Cohort]),
    ];
    let featbit = Setup {
        featbit_environments: vec![0],
        ..setup(
            1,
            vec![upstream("u0", &[Evaluate, Flags, Stream, Events, Passthrough])],
        )
    };
    let many = (0..64).map(|n| upstream(&format!("u{n}"), &[])).collect();
    let too_many = (0..300).map(|n| upstream(&format!("u{n}"), &[])).collect();
    for (case, setup, budget) in [
        ("one", setup(1, vec![upstream("u0", &[])]), 1_480),
        ("one, a host for each operation", setup(1, by_host), 1_480),
        ("one of FeatBit", featbit, 1_480),
        ("64", setup(64, many), 5_900),
        ("300", setup(300, too_many), 6_000),
    ] {
        let metrics = Metrics::new(setup);
        let first = metrics.render();
        let count = samples(&first).count();
        assert!(count <= budget, "{case}: {count} series");

        count_everything(&metrics);
        let names = |text: &str| -> Vec<String> {
            samples(text)
                .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
                .collect()
        };
        let second = metrics.render();
        assert_eq!(
            names(&first),
            names(&second),
            "{case}: traffic made or removed series"
        );
        let distinct: BTreeSet<String> = names(&second).into_iter().collect();
        assert_eq!(distinct.len(), count, "{case}: a series is there twice");
    }
}

/// Counts every tuple of labels once, foreseen or not.
fn count_everything(metrics: &Metrics) {
    let worker = metrics.worker(0);
    for route in Route::ALL {
        for method in Method::ALL {
            for code in Code::ALL {
                for source in Source::ALL {
                    worker.started();
                    worker.answered(route, method, code, source, Duration::from_millis(1), 100);
                }
            }
        }
        worker.request_body(route, 1);
    }
    for cache in CacheName::ALL {
        CacheResult::ALL
            .into_iter()
            .for_each(|result| worker.cache(cache, result));
        worker.stale_used(cache, Duration::from_secs(1));
        Eviction::ALL
            .into_iter()
            .for_each(|cause| metrics.cache().evicted(cache, cause));
        Refresh::ALL
            .into_iter()
            .for_each(|result| metrics.cache().refreshed(cache, result));
    }
    for index in 0..metrics.parts.upstreams.len() {
        for operation in Operation::ALL {
            for outcome in Outcome::ALL {
                metrics
                    .upstream(index)
                    .ended(operation, outcome, Duration::from_millis(1));
            }
            metrics.upstream(index).retried(operation);
        }
    }
    for index in 0..metrics.parts.environments.len() {
        for source in SyncSource::ALL {
            metrics
                .sync(index)
                .ended(source, Refresh::Changed, Duration::from_millis(1));
        }
        metrics.sync(index).stream_opened();
        metrics.sync(index).reconnecting();
    }
    for kind in EventKind::ALL {
        EventDrop::ALL
            .into_iter()
            .for_each(|reason| metrics.events(kind).dropped(reason, 1));
    }
    for kind in StreamKind::ALL {
        metrics.streams().opened(kind);
        StreamEnd::ALL
            .into_iter()
            .for_each(|end| metrics.streams().turned_away(end));
    }
}

#[test]
fn an_environment_has_the_series_of_its_backend_alone() {
    let text = both().render();
    let series = |name: &str| samples(&text).filter(|line| line.starts_with(name)).count();
    assert_eq!(series("flagside_sync_runs_total{environment=\"e0\""), 3);
    assert_eq!(series("flagside_sync_runs_total{environment=\"e1\""), 6);
    assert_eq!(series("flagside_stream_connected"), 1);
    assert_eq!(series("flagside_events_received_total"), 1);
    let text = one().render();
    assert!(!text.contains("flagside_events_") && !text.contains("fb_stream"));
}

#[test]
fn waiting_events_have_an_age() {
    let metrics = both();
    let events = metrics.events(EventKind::Insight);
    let sample = "flagside_events_oldest_age_seconds{kind=\"insight\"}";
    assert_eq!(value(&metrics, sample), 0.0);
    events.set_waiting(3, Some(SystemTime::now() - Duration::from_secs(100)));
    assert!(value(&metrics, sample) >= 100.0);
    assert_eq!(
        value(&metrics, "flagside_events_queue_depth{kind=\"insight\"}"),
        3.0
    );
    events.set_waiting(0, None);
    assert_eq!(value(&metrics, sample), 0.0);
}

#[test]
fn no_tuple_is_lost() {
    let metrics = both();
    count_everything(&metrics);
    let all = (Route::ALL.len() * Method::ALL.len() * Code::ALL.len() * Source::ALL.len()) as f64;
    assert_eq!(sum(&metrics, "flagside_http_requests_total", ""), all);
    assert_eq!(sum(&metrics, "flagside_http_responses_total", ""), all);
    assert_eq!(
        sum(&metrics, "flagside_http_request_duration_seconds_count", ""),
        all
    );
    assert_eq!(sum(&metrics, "flagside_http_response_body_bytes_count", ""), all);
    assert_eq!(
        sum(&metrics, "flagside_http_request_body_bytes_count", ""),
        Route::ALL.len() as f64
    );
    let looked_up = (CacheName::ALL.len() * CacheResult::ALL.len()) as f64;
    assert_eq!(sum(&metrics, "flagside_cache_requests_total", ""), looked_up);
    let attempts = (Operation::ALL.len() * Outcome::ALL.len()) as f64;
    assert_eq!(sum(&metrics, "flagside_upstream_requests_total", ""), attempts);
    assert_eq!(
        sum(&metrics, "flagside_upstream_request_duration_seconds_count", ""),
        attempts
    );
}

#[test]
fn undeclared_upstream_operations_count_with_a_declared_one() {
    for (operations, wanted) in [
        (
            vec![Operation::Evaluate, Operation::Passthrough],
            "operation=\"passthrough\"",
        ),
        (vec![Operation::Evaluate, Operation::Flags], "operation=\"flags\""),
    ] {
        let metrics = Metrics::new(setup(1, vec![upstream("u0", &operations)]));
        metrics
            .upstream(0)
            .ended(Operation::Cohort, Outcome::Success, Duration::ZERO);
        assert_eq!(
            sum(&metrics, "flagside_upstream_requests_total", wanted),
            1.0,
            "{operations:?}"
        );
        assert_eq!(
            sum(
                &metrics,
                "flagside_upstream_request_duration_seconds_count",
                wanted
            ),
            1.0
        );
        assert_eq!(sum(&metrics, "flagside_upstream_requests_total", "cohort"), 0.0);
    }
}

#[test]
fn environments_past_the_limit_count_as_other() {
    let metrics = Metrics::new(setup(66, Vec::new()));
    for index in [0, 63, 64, 65] {
        metrics
            .sync(index)
            .ended(SyncSource::Flags, Refresh::Unchanged, Duration::ZERO);
    }
    let runs = |name: &str| {
        sum(
            &metrics,
            "flagside_sync_runs_total",
            &format!("environment=\"{name}\""),
        )
    };
    assert_eq!((runs("e0"), runs("e63"), runs("other")), (1.0, 1.0, 2.0));
    metrics
        .sync(66)
        .ended(SyncSource::Flags, Refresh::Unchanged, Duration::ZERO);
    assert_eq!(
        sum(&metrics, "flagside_sync_runs_total", ""),
        4.0,
        "an unknown index harms nobody"
    );
}

#[test]
fn workers_are_summed() {
    let metrics = one();
    for n in 0..2 {
        let worker = metrics.worker(n);
        worker.connection_opened();
        for _ in 0..3 {
            worker.started();
        }
        let took = Duration::from_micros(30);
        worker.answered(Route::VardataV1, Method::Get, Code::C200, Source::Hit, took, 300);
        worker.cache(CacheName::Vardata, CacheResult::Hit);
    }
    metrics.worker(1).connection_closed();
    let labels = "route=\"vardata_v1\",source=\"hit\"";
    let duration = "flagside_http_request_duration_seconds";
    for (sample, wanted) in [
        (
            "flagside_http_requests_total{route=\"vardata_v1\",method=\"GET\",code=\"200\"}",
            2.0,
        ),
        (&format!("flagside_http_responses_total{{{labels}}}"), 2.0),
        (&format!("{duration}_bucket{{{labels},le=\"0.000025\"}}"), 0.0),
        (&format!("{duration}_bucket{{{labels},le=\"0.00005\"}}"), 2.0),
        (&format!("{duration}_bucket{{{labels},le=\"+Inf\"}}"), 2.0),
        (&format!("{duration}_sum{{{labels}}}"), 0.000_06),
        ("flagside_http_requests_in_flight", 4.0),
        ("flagside_http_connections{listener=\"data\"}", 1.0),
        ("flagside_http_connections_total{listener=\"data\"}", 2.0),
        (
            "flagside_http_response_body_bytes_sum{route=\"vardata_v1\"}",
            600.0,
        ),
        (
            "flagside_cache_requests_total{cache=\"vardata\",result=\"hit\"}",
            2.0,
        ),
    ] {
        assert!(
            (value(&metrics, sample) - wanted).abs() < 1e-12,
            "{sample}: {}",
            value(&metrics, sample)
        );
    }
    assert_eq!(metrics.hit_ratio(CacheName::Vardata), Some(1.0));
    assert_eq!(metrics.hit_ratio(CacheName::Flags), None);
}

#[test]
fn evaluations_are_counted_by_result_and_flag() {
    let metrics = one();
    let flags = EvaluatedFlags {
        variant: 5,
        off: 4,
        default: 3,
        failed: 2,
        unfaithful: 1,
    };
    metrics.worker(0).evaluated(
        Engine::Amplitude,
        Trigger::Outage,
        Evaluation::Partial,
        Duration::from_micros(7),
        flags,
    );
    for (sample, wanted) in [
        (
            "flagside_evaluations_total{engine=\"amplitude\",trigger=\"outage\",result=\"partial\"}",
            1.0,
        ),
        (
            "flagside_evaluation_duration_seconds_bucket{engine=\"amplitude\",le=\"0.000005\"}",
            0.0,
        ),
        (
            "flagside_evaluation_duration_seconds_bucket{engine=\"amplitude\",le=\"0.00001\"}",
            1.0,
        ),
        (
            "flagside_evaluated_flags_total{engine=\"amplitude\",result=\"variant\"}",
            5.0,
        ),
        (
            "flagside_evaluated_flags_total{engine=\"amplitude\",result=\"failed\"}",
            2.0,
        ),
        (
            "flagside_evaluation_unfaithful_flags_total{engine=\"amplitude\"}",
            1.0,
        ),
    ] {
        assert_eq!(value(&metrics, sample), wanted, "{sample}");
    }
}

struct Fixed;

impl Readings for Fixed {
    fn cache(&self, _: CacheName) -> CacheReading {
        CacheReading {
            entries: 1,
            weight_bytes: 2,
            max_weight_bytes: 3,
        }
    }

    fn upstream(&self, _: usize) -> UpstreamReading {
        UpstreamReading {
            circuit: Circuit::Open,
            in_flight: 2,
            connections: 5,
        }
    }

    fn environment(&self, _: usize) -> EnvironmentReading {
        EnvironmentReading {
            segments: 0,
            flags: 20,
            bad_flags: 1,
        }
    }

    fn degraded(&self, reason: Degraded) -> bool {
        reason == Degraded::Upstream
    }
}

#[test]
fn states_are_read_at_scrape() {
    let metrics = one();
    assert_eq!(value(&metrics, "flagside_upstream_up{upstream=\"u0\"}"), 1.0);
    metrics.observe(Box::new(Fixed));
    for (sample, wanted) in [
        ("flagside_cache_entries{cache=\"flags\"}", 1.0),
        ("flagside_cache_weight_bytes{cache=\"vardata\"}", 2.0),
        ("flagside_cache_max_weight_bytes{cache=\"negative\"}", 3.0),
        (
            "flagside_upstream_circuit_state{upstream=\"u0\",state=\"open\"}",
            1.0,
        ),
        (
            "flagside_upstream_circuit_state{upstream=\"u0\",state=\"closed\"}",
            0.0,
        ),
        ("flagside_upstream_up{upstream=\"u0\"}", 0.0),
        ("flagside_upstream_requests_in_flight{upstream=\"u0\"}", 2.0),
        (
            "flagside_upstream_connections{upstream=\"u0\",state=\"active\"}",
            2.0,
        ),
        (
            "flagside_upstream_connections{upstream=\"u0\",state=\"idle\"}",
            3.0,
        ),
        ("flagside_flags{environment=\"e0\"}", 20.0),
        ("flagside_bad_flags{environment=\"e0\"}", 1.0),
        ("flagside_degraded{reason=\"upstream\"}", 1.0),
        ("flagside_degraded{reason=\"auth\"}", 0.0),
    ] {
        assert_eq!(value(&metrics, sample), wanted, "{sample}");
    }
}

#[test]
fn an_upstream_is_up_when_its_last_attempt_was_answered() {
    let metrics = one();
    let cells = metrics.upstream(0);
    for (outcome, up) in [
        (Outcome::Timeout, 0.0),
        (Outcome::Cancelled, 0.0),
        (Outcome::Throttled, 1.0),
        (Outcome::ServerError, 0.0),
        (Outcome::Success, 1.0),
    ] {
        cells.ended(Operation::Evaluate, outcome, Duration::from_millis(1));
        assert_eq!(
            value(&metrics, "flagside_upstream_up{upstream=\"u0\"}"),
            up,
            "{outcome:?}"
        );
    }
    assert!(
        value(
            &metrics,
            "flagside_upstream_last_success_timestamp_seconds{upstream=\"u0\"}"
        ) > 1.7e9
    );
}

#[test]
fn a_worker_that_is_kept_busy_lags() {
    let metrics = one();
    let worker = metrics.worker(0);
    worker.beat(Duration::ZERO);
    worker.beat(Duration::from_millis(700));
    let bucket = |le: &str| {
        value(
            &metrics,
            &format!("flagside_worker_lag_seconds_bucket{{le=\"{le}\"}}"),
        )
    };
    assert_eq!((bucket("0.5"), bucket("1")), (1.0, 2.0));
    assert!(metrics.heartbeats()[0] < Duration::from_secs(10));
}

#[test]
fn names_group_by_label() {
    let group = |label: &str, members: &[usize]| Group {
        label: label.to_owned(),
        members: members.to_vec(),
    };
    assert_eq!(groups(&["a", "b"], 2), [group("a", &[0]), group("b", &[1])]);
    assert_eq!(groups(&["other", "b", "c"], 1), [group("other", &[0, 1, 2])]);
    assert!(groups(&[], 2).is_empty());
}
