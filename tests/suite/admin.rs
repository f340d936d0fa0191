//! The admin listener: probes, metrics, status; and what must never be in them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::upstream::{Door, KEY};
use crate::support::{Ask, Caller, FakeUpstream, Fault, Route, Sidecar, at_once, eventually};

#[test]
fn probes_answer_as_soon_as_it_listens() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for path in ["/healthz", "/livez"] {
        assert_eq!(sidecar.admin_get(path).status, 200, "{path}");
    }
    for path in ["/readyz", "/ready", "/startupz"] {
        eventually(path, || (sidecar.admin_get(path).status == 200).then_some(()));
    }
    assert!(!sidecar.admin_get("/readyz?verbose").text().is_empty());
    let status = sidecar.ask(&Ask::new("GET", "/status"));
    assert_eq!(
        (status.status, status.text().trim_end()),
        (200, "OK"),
        "the incumbent's probe, on the data listener"
    );
}

#[test]
fn the_two_listeners_keep_to_their_own_paths() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for path in ["/metrics", "/healthz", "/readyz", "/admin/config"] {
        assert_eq!(sidecar.ask(&Ask::get(path)).status, 404, "{path}");
    }
    for ask in [Ask::about("u"), Ask::flags(), Ask::get("/nowhere")] {
        assert_eq!(sidecar.admin_ask(&ask).status, 404, "{ask:?}");
    }
    assert_eq!(cloud.count(Route::All), 0);
}

#[test]
fn answers_are_counted_by_source() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("a"));
    for _ in 0..3 {
        sidecar.ask(&Ask::about("a"));
    }
    sidecar.wait_for_syncs(1);
    cloud.go_down();
    for _ in 0..2 {
        sidecar.ask(&Ask::about("b"));
    }
    sidecar.ask(&Ask::get("/nowhere"));
    let route = ("route", "vardata_v2");
    sidecar.wait_for_metric(
        "flagside_http_responses_total",
        &[("route", "other"), ("source", "none")],
        1.0,
    );
    let metrics = sidecar.metrics();
    for (source, count) in [("miss", 1.0), ("hit", 3.0), ("local", 2.0), ("stale", 0.0)] {
        assert_eq!(
            metrics.sum("flagside_http_responses_total", &[route, ("source", source)]),
            count,
            "{source}"
        );
    }
    assert_eq!(
        metrics.sum(
            "flagside_http_requests_total",
            &[route, ("method", "GET"), ("code", "200")]
        ),
        6.0
    );
    assert_eq!(
        metrics.sum("flagside_http_request_duration_seconds_count", &[route]),
        6.0
    );
    assert_eq!(metrics.sum("flagside_http_requests_in_flight", &[]), 0.0);
    assert!(
        metrics.sum(
            "flagside_upstream_requests_total",
            &[("operation", "evaluate"), ("outcome", "2xx")]
        ) >= 1.0
    );
}

#[test]
fn metrics_are_well_formed_and_few() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("a"));
    let scrape = sidecar.admin_get("/metrics");
    assert!(
        scrape.header("content-type").unwrap().starts_with("text/plain"),
        "{scrape:?}"
    );
    let metrics = sidecar.metrics();
    assert!(
        metrics.samples().len() <= 1500,
        "{} series",
        metrics.samples().len()
    );
    let mut seen = BTreeSet::new();
    for sample in metrics.samples() {
        assert!(
            sample.name.starts_with("flagside_") || sample.name.starts_with("process_"),
            "{sample:?}"
        );
        assert!(
            seen.insert(format!("{}{:?}", sample.name, sample.labels)),
            "twice: {sample:?}"
        );
    }
    let text = scrape.text();
    for sample in metrics.samples() {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| sample.name.strip_suffix(end))
            .unwrap_or(&sample.name);
        let typed = |name: &str| text.contains(&format!("# TYPE {name} "));
        assert!(
            typed(&sample.name) || typed(family),
            "no type for {}",
            sample.name
        );
    }
    assert_eq!(metrics.sum("flagside_build_info", &[]), 1.0);
}

#[test]
fn nothing_that_it_writes_names_a_key_or_a_user() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .arg("--log-level")
        .arg("trace")
        .start();
    let user =
        r#"{"user_id":"marker-user","device_id":"marker-device","user_properties":{"email":"marker-mail"}}"#;
    let asks = [
        Ask::sdk_get(user),
        Ask::sdk_get(user),
        Ask::sdk_post(user),
        Ask::v1("user_id=marker-user&context=%7B%22city%22:%22marker-city%22%7D"),
        Ask::v1("context=marker-broken"),
        Ask::sdk_get(user).header("Cookie", "marker-cookie"),
        Ask::sdk_get(user).key("marker-rejected-key"),
        Ask::sdk_get(user).to("/web/v1/configs?marker-query"),
        Ask::new("GET", "/sdk/v1/cohort/c1").header("Authorization", "Basic bWFya2VyOm1hcmtlcg=="),
        Ask::sdk_get("marker-no-json"),
    ];
    for ask in &asks {
        sidecar.ask(ask);
    }
    sidecar.wait_for_syncs(1);
    cloud.fail(Fault::canned(500, "text/plain", "marker-body"));
    for ask in &asks {
        sidecar.ask(&ask.clone().header("X-Request-Id", "fails"));
    }
    cloud.go_down();
    for ask in &asks {
        sidecar.ask(ask);
    }
    let written = sidecar.everything_written()
        + &sidecar.admin_get("/metrics").text()
        + &sidecar.admin_get("/status").text();
    for secret in ["marker", KEY, "bWFya2Vy"] {
        let line = written.lines().find(|line| line.contains(secret));
        assert_eq!(
            line, None,
            "{secret} stands in a log line, a metric or the status"
        );
    }
}

#[test]
fn log_lines_are_json_with_the_same_members() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("a"));
    let logs = sidecar.logs();
    assert!(logs[0].contains("flagside is listening"), "{logs:#?}");
    for line in logs {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for member in ["ts", "level", "target", "msg"] {
            assert!(line[member].is_string(), "{member} in {line}");
        }
    }
}

#[test]
fn the_status_tells_what_it_is_and_knows() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("a"));
    sidecar.wait_for_syncs(1);
    let status = sidecar.status();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["state"], "ready", "{status}");
    assert_eq!(status["mode"], "sidecar");
    assert!(
        status["pid"].as_u64().is_some() && status["uptime_s"].is_number(),
        "{status}"
    );
    assert!(
        status["listeners"]
            .to_string()
            .contains(&sidecar.data().to_string()),
        "{status}"
    );
    assert!(
        status["environments"][0]["flags"]
            .as_u64()
            .is_some_and(|flags| flags >= 4),
        "{status}"
    );
    assert!(
        status["cache"]
            .as_array()
            .is_some_and(|caches| !caches.is_empty()),
        "{status}"
    );
}

#[test]
fn the_status_shows_an_outage_that_the_probes_ignore() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("a"));
    sidecar.wait_for_syncs(1);
    cloud.go_down();
    eventually("the outage in the status", || {
        let up = sidecar.metric("flagside_upstream_up", &[]);
        (up == 0.0).then_some(())
    });
    assert_eq!(sidecar.admin_get("/readyz").status, 200);
    assert!(
        !sidecar.status()["upstreams"]
            .to_string()
            .contains("\"last_error\":null")
    );
}

#[test]
fn the_admin_listener_answers_while_every_question_hangs() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).patient().start();
    cloud.set_door(Door::Mute);
    let mut waiting: Vec<_> = (0..100)
        .map(|number| {
            let mut caller = sidecar.caller();
            caller.send(&Ask::about(&format!("u-{number}")).bytes());
            caller
        })
        .collect();
    sidecar.wait_for_metric("flagside_http_requests_in_flight", &[], 100.0);
    for path in ["/healthz", "/metrics", "/status"] {
        let answer = sidecar.admin_get(path);
        assert_eq!(answer.status, 200);
        assert!(answer.took.as_millis() < 1000, "{path}: {answer:?}");
    }
    waiting.clear();
    eventually("their end", || {
        (sidecar.metric("flagside_http_requests_in_flight", &[]) == 0.0).then_some(())
    });
}

#[test]
fn counters_are_right_after_concurrent_use() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    at_once(8, |thread| {
        let mut caller = sidecar.caller();
        for number in 0..250 {
            caller.ask(&Ask::about(&format!("u-{}", (thread + number) % 10)));
        }
    });
    let route = [("route", "vardata_v2")];
    sidecar.wait_for_metric("flagside_http_responses_total", &route, 2000.0);
    assert_eq!(sidecar.metric("flagside_http_responses_total", &route), 2000.0);
    assert_eq!(sidecar.metric("flagside_http_requests_total", &route), 2000.0);
}

#[test]
fn writes_and_unknown_paths_of_the_admin_listener_are_refused() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let admin = |ask: Ask| sidecar.admin_ask(&ask).status;
    for path in ["/metrics", "/status", "/healthz", "/readyz"] {
        assert_eq!(admin(Ask::new("POST", path)), 405, "{path}");
        assert_eq!(admin(Ask::new("HEAD", path)), 200, "{path}");
    }
    assert_eq!(admin(Ask::new("GET", "/")), 404);
    assert_eq!(admin(Ask::new("GET", "/etc/passwd")), 404);
}

#[test]
fn a_web_page_cannot_read_the_admin_listener_under_another_name() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let rebound = Ask::new("GET", "/status").host(&"evil.example:80");
    assert_eq!(Caller::new(sidecar.admin()).ask(&rebound).status, 403);
}

#[test]
fn the_gauges_of_an_upstream_show_what_is_on_the_way() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).patient().start();
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let active = [("state", "active")];
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| at_once(3, |number| sidecar.ask(&Ask::about(&format!("u-{number}")))));
        cloud.wait_for(Route::Vardata, 3);
        sidecar.wait_for_metric("flagside_upstream_requests_in_flight", &[], 3.0);
        sidecar.wait_for_metric("flagside_upstream_connections", &active, 3.0);
        cloud.release();
        assert!(asking.join().unwrap().iter().all(|answer| answer.status == 200));
    });
    let idle = [("state", "idle")];
    eventually("nothing on the way, over connections that stay", || {
        let metrics = sidecar.metrics();
        let is_quiet = metrics.sum("flagside_upstream_requests_in_flight", &[]) == 0.0
            && metrics.sum("flagside_upstream_connections", &active) == 0.0;
        (is_quiet && metrics.sum("flagside_upstream_connections", &idle) >= 3.0).then_some(())
    });
}
