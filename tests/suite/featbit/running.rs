//! Running it: health, metrics, `/status`, the end.

use serde_json::{Value, json};

use super::{about, ask_until, body, evaluate, gist};
use crate::support::featbit::{Failure, Route};
use crate::support::{Ask, FakeFeatbit, eventually};

#[test]
fn health_is_told_in_featbits_words() {
    let featbit = FakeFeatbit::start();
    featbit.go_down();
    let sidecar = featbit.proxied().start();
    let ask = |path: &str| {
        let answer = sidecar.ask(&Ask::new("GET", path));
        (answer.status, answer.text())
    };
    assert_eq!(ask("/health/liveness"), (200, "Healthy".to_owned()));
    assert_eq!(ask("/health/readiness"), (503, "Unhealthy".to_owned()));
    assert_eq!(
        ask("/Health/Liveness").0,
        200,
        "path case does not matter to the server"
    );
    let readyz = || sidecar.admin_get("/readyz").status;
    assert_eq!(readyz(), 503);
    featbit.heal();
    eventually("readiness", || {
        (ask("/health/readiness") == (200, "Healthy".to_owned())).then_some(())
    });
    assert_eq!(readyz(), 200);
    featbit.go_down();
    assert_eq!(
        ask("/health/readiness"),
        (200, "Healthy".to_owned()),
        "there are data"
    );
    assert_eq!(readyz(), 200);
}

#[test]
fn metrics_tell_featbits_routes_apart() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let secret = featbit.secret("server");
    for _ in 0..3 {
        sidecar.ask(&about(&featbit, "ada"));
    }
    featbit.fail(Route::Evaluate, Failure::Status(503));
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "ben"))), (200, "local"));
    sidecar.ask(&about(&featbit, "x").without("Authorization"));
    sidecar.ask(&about(&featbit, "x").without("Content-Type"));
    sidecar.ask(&evaluate(&secret, "{}"));
    sidecar.ask(&Ask::new("GET", "/api/public/sdk/server/latest-all").header("Authorization", &secret));
    sidecar.ask(&evaluate(&secret, "[]").to("/api/public/insight/track"));
    let metrics = sidecar.metrics();
    let requests = |labels: &[(&str, &str)]| metrics.sum("flagside_http_requests_total", labels);
    let of_evaluate = |code| requests(&[("route", "fb_evaluate"), ("method", "POST"), ("code", code)]);
    assert_eq!(
        ["200", "400", "401", "415"].map(of_evaluate),
        [4.0, 1.0, 1.0, 1.0]
    );
    assert_eq!(requests(&[("route", "fb_sdk"), ("code", "200")]), 1.0);
    assert_eq!(requests(&[("route", "fb_events"), ("code", "200")]), 1.0);
    let looked_up = |result| metrics.sum("flagside_cache_requests_total", &[("result", result)]);
    assert_eq!((looked_up("hit"), looked_up("miss")), (2.0, 2.0));
    let evaluated = metrics.sum(
        "flagside_evaluations_total",
        &[("engine", "featbit"), ("trigger", "outage")],
    );
    assert_eq!(evaluated, 1.0);
    assert_eq!(metrics.sum("flagside_stream_connected", &[]), 1.0);
}

#[test]
fn status_tells_what_is_held() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    sidecar.ask(&about(&featbit, "ada"));
    let status = sidecar.status();
    let environments = status["environments"].as_array().unwrap();
    assert_eq!(environments.len(), 1, "{status}");
    assert_eq!(environments[0]["backend"], "featbit");
    let rows = environments[0]["deployments"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{status}");
    assert_eq!(rows[0]["flags"], json!(featbit.keys().len()));
    assert!(!rows[0]["last_sync"].is_null(), "{status}");
    let segments = featbit.payload()["data"]["segments"].as_array().unwrap().len();
    assert!(segments > 0);
    assert_eq!(rows[0]["segments"], json!(segments), "{status}");
    eventually("the stream", || {
        let stream = &sidecar.status()["environments"][0]["stream"];
        (*stream == true).then_some(())
    });
    let hosts = status["upstreams"].as_array().unwrap().iter();
    let url = featbit.url();
    assert!(
        hosts
            .map(|it| it["host"].as_str().unwrap_or_default())
            .any(|host| url.ends_with(host)),
        "{status}"
    );
}

#[test]
fn insights_that_come_in_an_outage_arrive_after_it() {
    let featbit = FakeFeatbit::start();
    featbit.go_down();
    let sidecar = featbit.proxied_without_secret().start();
    let secret = featbit.secret("client");
    for n in 0..5 {
        let body = json!([{"user": {"keyId": format!("u{n}")}, "variations": []}]).to_string();
        let answer = sidecar.ask(&evaluate(&secret, body).to("/api/public/insight/track"));
        assert_eq!((answer.status, answer.text()), (200, String::new()));
    }
    featbit.heal();
    let seen = featbit.wait_for_insights(5);
    let users: Vec<&Value> = seen.iter().map(|it| &it["user"]["keyId"]).collect();
    assert_eq!(users, ["u0", "u1", "u2", "u3", "u4"]);
}

#[test]
fn everything_returns_to_normal_after_an_outage_at_the_start() {
    let featbit = FakeFeatbit::start();
    featbit.go_down();
    let sidecar = featbit
        .proxied()
        .set("upstream.total_deadline", "1s")
        .set("upstream.circuit.open_for", "100ms")
        .start();
    let answer = sidecar.ask(&about(&featbit, "ada"));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    featbit.heal();
    ask_until(&sidecar, &about(&featbit, "ada"), "miss");
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "ada"))), (200, "hit"));
    let other = evaluate(&featbit.secret("server"), body("ben").to_string());
    assert_eq!(gist(&sidecar.ask(&other)), (200, "miss"));
}
