//! Requests that flagside judges itself, in the server's order: 401, 405, 415, 400.

use serde_json::Value;

use super::{PATH, about, body, evaluate, gist};
use crate::support::featbit::Route;
use crate::support::{Ask, FakeFeatbit, FakeUpstream, Response, Sidecar};

const HTTP: &str = include_str!("../../vectors/featbit/http.json");

/// Compares an answer with what a recorded case expects.
fn check(case: &Value, answer: &Response) {
    let (id, expect) = (&case["id"], &case["expect"]);
    assert_eq!(expect["status"], answer.status, "{id}: {answer:?}");
    if let Some(json) = expect.get("json") {
        assert_eq!(*json, answer.json(), "{id}");
    }
    if let Some(message) = expect.get("message") {
        assert_eq!(*message, answer.json()["message"], "{id}");
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("application/json")
        );
    }
    if let Some(text) = expect.get("text") {
        assert_eq!(text, &Value::from(answer.text()), "{id}");
    }
    if expect.get("emptyBody").is_some() {
        assert_eq!(answer.text(), "", "{id}");
    }
    if expect.get("problem").is_some() {
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("application/problem+json"),
            "{id}"
        );
        assert_eq!(answer.json()["status"], 400, "{id}");
    }
    if answer.status == 401 {
        assert_eq!(answer.header("www-authenticate"), None, "{id}");
    }
    assert_eq!(answer.header("etag"), None, "{id}");
}

#[test]
fn whole_requests_are_answered_as_recorded() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let vectors: Value = serde_json::from_str(HTTP).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() > 40);
    for case in cases {
        let mut ask = Ask::new(case["method"].as_str().unwrap(), case["path"].as_str().unwrap());
        for (name, value) in case["headers"].as_object().unwrap() {
            ask = ask.header(name, value.as_str().unwrap());
        }
        ask.body = case["body"].as_str().map(|body| body.as_bytes().to_vec());
        // Once as a new request, once as one that may have been remembered.
        let mut caller = sidecar.caller();
        for _ in 0..2 {
            check(case, &caller.ask(&ask));
        }
    }
    let asked = featbit.requests(Route::Evaluate);
    let readable = |body: &[u8]| serde_json::from_slice::<Value>(body).is_ok_and(|body| body.is_object());
    assert!(!asked.is_empty());
    assert!(
        asked.iter().all(|request| readable(&request.body)),
        "what cannot be read goes nowhere"
    );
}

#[test]
fn the_same_bytes_as_no_json_are_refused_after_a_hit_too() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let ask = about(&featbit, "ada");
    let bare = ask.clone().without("Content-Type");
    let mut caller = sidecar.caller();
    for source in ["miss", "hit", "hit"] {
        assert_eq!(gist(&caller.ask(&ask)), (200, source));
    }
    for other in [
        bare.clone(),
        bare.clone().header("Content-Type", "text/plain"),
        bare.clone().header("Content-Type", ""),
        bare.clone()
            .header("Content-Type", "application/x-www-form-urlencoded"),
        bare.clone()
            .header("Content-Type", "application/json")
            .header("Content-Type", "text/plain"),
    ] {
        let answer = caller.ask(&other);
        assert_eq!(answer.status, 415, "{other:?}");
        assert_eq!(gist(&caller.ask(&ask)), (200, "hit"));
    }
    for good in ["text/json", "application/problem+json;v=1", "APPLICATION/JSON"] {
        for _ in 0..2 {
            let answer = caller.ask(&bare.clone().header("Content-Type", good));
            assert_eq!(gist(&answer), (200, "hit"), "{good}");
        }
    }
}

#[test]
fn only_posts_are_questions() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let ask = about(&featbit, "ada");
    for _ in 0..2 {
        sidecar.ask(&ask);
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH"] {
            let mut ask = ask.clone();
            ask.method = method.to_owned();
            if method == "GET" || method == "HEAD" {
                ask.body = None;
            }
            let answer = sidecar.ask(&ask);
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("POST")),
                "{method}"
            );
            let stranger = sidecar.ask(&ask.without("Authorization"));
            assert_eq!(stranger.status, 401, "{method}: the secret comes first");
        }
    }
    assert_eq!(featbit.count(Route::Evaluate), 1);
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied().set("listen.max_body", "4KiB"));
    let long = body(&"x".repeat(5_000)).to_string();
    let answer = sidecar.ask(&evaluate(&featbit.secret("server"), long));
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!(featbit.count(Route::Evaluate), 0);
}

#[test]
fn only_what_is_configured_has_routes() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    for ask in [
        Ask::about("ada"),
        Ask::flags(),
        Ask::v1("user_id=ada"),
        Ask::get("/"),
    ] {
        assert_eq!(sidecar.ask(&ask).status, 404, "{ask:?}");
    }
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let secret = featbit.secret("server");
    for ask in [
        about(&featbit, "ada"),
        Ask::new("GET", "/streaming?type=server&token=x"),
        Ask::new("GET", "/health/liveness"),
        Ask::new("GET", "/health/readiness"),
        Ask::new("GET", "/api/public/sdk/server/latest-all").header("Authorization", &secret),
        evaluate(&secret, "[]").to("/api/public/insight/track"),
    ] {
        assert_eq!(sidecar.ask(&ask).status, 404, "{ask:?}");
    }
    assert_eq!(
        cloud.count(crate::support::Route::Other),
        0,
        "secrets do not travel"
    );
}

#[test]
fn browsers_may_ask() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let preflight = Ask::new("OPTIONS", PATH)
        .header("Origin", "https://shop.example")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type");
    let allowed = sidecar.ask(&preflight);
    assert_eq!(allowed.status, 204, "{allowed:?}");
    assert!(allowed.header("access-control-allow-headers").is_some());
    let ask = about(&featbit, "ada").header("Origin", "https://shop.example");
    for source in ["miss", "hit"] {
        let answer = sidecar.ask(&ask);
        assert_eq!(gist(&answer), (200, source));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    let refused = sidecar.ask(&ask.without("Authorization"));
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (401, Some("*"))
    );
}

#[test]
fn unknown_paths_of_the_api_are_upstreams() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let secret = featbit.secret("server");
    let ask = Ask::new("GET", "/api/public/something/new?x=1").header("Authorization", &secret);
    let answer = sidecar.ask(&ask);
    assert_eq!(gist(&answer), (404, "passthrough"), "{answer:?}");
    let asked = featbit.requests(Route::Other);
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (&*asked[0].path, &*asked[0].query),
        ("/api/public/something/new", "x=1")
    );
    assert_eq!(asked[0].header("authorization"), Some(&*secret));
    assert_eq!(sidecar.ask(&about(&featbit, "ada")).status, 200);
}
