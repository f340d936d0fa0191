//! What is relayed and not understood: unknown paths, cohorts, streams.

use crate::support::caller::exchange;
use crate::support::codec;
use crate::support::upstream::{COHORT_SECRET, KEY};
use crate::support::wait::PATIENCE;
use crate::support::{Ask, FakeUpstream, Fault, Outcome, Route, Sidecar, at_once};

#[test]
fn unknown_paths_of_the_api_are_relayed_and_never_stored() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for _ in 0..2 {
        let answer = sidecar.ask(&Ask::get("/web/v1/configs?b=2&a=%7e1"));
        assert_eq!(
            (answer.status, answer.source()),
            (200, "passthrough"),
            "{answer:?}"
        );
        assert_eq!(
            answer.json()["target"],
            "/web/v1/configs?b=2&a=%7e1",
            "the query is left alone"
        );
        assert_eq!(answer.header("x-cloud"), Some("here"));
    }
    assert_eq!(cloud.count(Route::Other), 2);
    for path in [
        "/v1/other",
        "/sdk/v1/flags",
        "/sdk/rules?eval_mode=local",
        "/web/anything",
    ] {
        let answer = sidecar.ask(&Ask::get(path));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (404, r#"{"error":"not found"}"#),
            "{path}"
        );
    }
}

#[test]
fn a_relayed_post_carries_its_method_and_body() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let body = "x".repeat(100_000);
    for ask in [
        Ask::post("/web/v1/events", body.clone()),
        Ask {
            method: "PUT".to_owned(),
            ..Ask::post("/web/v1/events", body.clone())
        },
    ] {
        let answer = sidecar.ask(&ask).json();
        assert_eq!(answer["method"], ask.method.as_str());
        assert_eq!(answer["body"], body.as_str());
    }
    let chunked = crate::support::spellings::chunked(&Ask::post("/web/v1/events", "in pieces, please"));
    let mut caller = sidecar.caller();
    caller.send(&chunked);
    assert_eq!(
        caller.receive(false).expect_answer(&chunked).json()["body"],
        "in pieces, please"
    );
}

#[test]
fn a_question_is_not_relayed_to_another_host_than_upstreams() {
    let cloud = FakeUpstream::start();
    let other = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for target in [
        format!("{}/web/v1/configs", other.url()),
        format!("http://u:p@{}/web/v1/configs", other.address()),
    ] {
        let answer = sidecar.ask(&Ask::get(&target).header("X-Forwarded-Host", &other.address().to_string()));
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
    }
    assert_eq!(other.accepted(), 0);
    let host = cloud.address().to_string();
    let seen = cloud.requests_on(Route::Other);
    assert_eq!(seen.len(), 2, "{seen:#?}");
    for request in seen {
        assert_eq!(request.header("host"), Some(&*host), "{request:?}");
    }
}

#[test]
fn hop_by_hop_headers_and_cookies_stay_on_their_hop() {
    let cloud = FakeUpstream::start();
    for (name, value) in [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("X-Hop", "1"),
        ("X-End", "1"),
    ] {
        cloud.add_header(name, value);
    }
    cloud.add_header("Connection", "keep-alive, X-Hop");
    let sidecar = Sidecar::start(&cloud);
    let ask = Ask::get("/web/v1/configs")
        .header("Connection", "keep-alive, X-Private")
        .header("X-Private", "1")
        .header("Keep-Alive", "timeout=9")
        .header("Proxy-Authorization", "Basic eA==")
        .header("TE", "trailers")
        .header("Upgrade", "websocket")
        .header("Cookie", "a=b")
        .header("X-Kept", "1");
    let answer = sidecar.ask(&ask);
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = cloud.requests_on(Route::Other).remove(0);
    for name in [
        "x-private",
        "keep-alive",
        "proxy-authorization",
        "te",
        "upgrade",
        "cookie",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-kept"), Some("1"));
    for name in ["keep-alive", "proxy-authenticate", "x-hop"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-end"), Some("1"));
}

#[test]
fn cohorts_are_relayed_with_their_own_credentials() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let basic = format!("Basic {}", codec::base64(COHORT_SECRET.as_bytes()));
    let ask = Ask::new("GET", "/sdk/v1/cohort/c1?maxCohortSize=2147483647").header("Authorization", &basic);
    for _ in 0..2 {
        let answer = sidecar.ask(&ask);
        assert_eq!(
            (answer.status, answer.header("content-encoding")),
            (200, None),
            "{answer:?}"
        );
        assert_eq!(answer.json()["cohortId"], "c1");
    }
    assert_eq!(
        cloud.requests_on(Route::Cohort)[0].query(),
        "maxCohortSize=2147483647"
    );
    assert_eq!(
        sidecar
            .ask(
                &ask.clone()
                    .without("Authorization")
                    .header("Authorization", "Basic eDp5")
            )
            .status,
        401
    );
    for (status, seen) in [(204, 204), (413, 413), (404, 404)] {
        cloud.heal();
        cloud.fail_on(Route::Cohort, Fault::status(status));
        assert_eq!(sidecar.ask(&ask).status, seen);
    }
}

#[test]
fn a_stream_is_relayed_as_it_comes() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let mut caller = sidecar.caller();
    caller.send(
        &Ask::get("/sdk/stream/v1/flags")
            .header("Accept", "text/event-stream")
            .bytes(),
    );
    let first = caller.read_until("\"key\":\"hidden\"");
    assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
    assert!(
        first
            .to_ascii_lowercase()
            .contains("content-type: text/event-stream"),
        "{first}"
    );
    assert!(
        !first.to_ascii_lowercase().contains("content-encoding"),
        "{first}"
    );
    for data in [" ", "[]", "[{\"key\":\"late\"}]"] {
        cloud.push(data);
        caller.read_until(&format!("data: {data}\n\n"));
    }
}

#[test]
fn a_stream_that_ends_upstream_ends_here() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let mut caller = sidecar.caller();
    caller.send(&Ask::get("/sdk/stream/v1/flags").bytes());
    caller.read_until("\"key\":\"hidden\"");
    cloud.cut();
    assert!(matches!(
        caller.receive(false),
        Outcome::Broken(_) | Outcome::Closed
    ));
}

#[test]
fn a_client_that_leaves_a_stream_ends_it_upstream() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let mut caller = sidecar.caller();
    caller.send(&Ask::get("/sdk/stream/v1/flags").bytes());
    caller.read_until("\"key\":\"hidden\"");
    drop(caller);
    cloud.close_idle();
    cloud.wait_for_open_at_most(0);
}

#[test]
fn a_stream_that_cannot_be_had_is_not_implemented() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for path in ["/sdk/stream/v1/flags", "/sdk/stream/v1/vardata"] {
        cloud.heal();
        for status in [500, 503] {
            cloud.heal();
            cloud.fail_on(Route::Stream, Fault::status(status));
            assert_eq!(
                sidecar.ask(&Ask::get(path)).status,
                501,
                "{path} {status}: SDKs then poll and are content"
            );
        }
        cloud.go_down();
        assert_eq!(sidecar.ask(&Ask::get(path)).status, 501, "{path}");
    }
    cloud.heal();
    assert_eq!(
        sidecar
            .ask(&Ask::get("/sdk/stream/v1/flags").key("nobody"))
            .status,
        401
    );
}

#[test]
fn a_silent_stream_is_given_up_in_time_for_the_client_to_poll() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    cloud.fail_on(Route::Stream, Fault::Hang);
    let answer = sidecar.ask(&Ask::get("/sdk/stream/v1/flags"));
    assert_eq!(answer.status, 501);
    assert!(answer.took.as_millis() < 1500, "clients wait 1.5 s: {answer:?}");
}

#[test]
fn our_short_clocks_open_no_breaker() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud).set("upstream.circuit.failures", "1");
    let sidecar = settings.set("answer_deadline", "100ms").start();
    cloud.fail_on(Route::Stream, Fault::Hang);
    cloud.fail_times(Route::Vardata, Fault::Hang, 1);
    let unreadable = Ask::sdk_get("this is no user");
    assert_eq!(sidecar.ask(&unreadable).status, 400);
    assert_eq!(sidecar.ask(&Ask::get("/sdk/stream/v1/flags")).status, 501);
    cloud.wait_for(Route::Stream, 1);
    cloud.wait_for(Route::Vardata, 1);
    let answer = sidecar.ask(&Ask::about("u"));
    assert_eq!((answer.status, answer.source()), (200, "miss"), "{answer:?}");
}

#[test]
fn a_failed_relay_is_an_error_of_ours() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    cloud.go_down();
    let answer = sidecar.ask(&Ask::get("/web/v1/configs"));
    assert_eq!(
        (answer.status, answer.error_code()),
        (503, Some("no_answer")),
        "{answer:?}"
    );
}

#[test]
fn a_truncated_relay_is_never_made_whole() {
    for fault in [Fault::LengthTooLong, Fault::TruncatedChunks] {
        let cloud = FakeUpstream::start();
        let sidecar = Sidecar::start(&cloud);
        cloud.fail_on(Route::Other, fault.clone());
        let bytes = Ask::get("/web/v1/configs").bytes();
        let mut caller = sidecar.caller();
        caller.send(&bytes);
        match caller.receive(false) {
            Outcome::Answer(answer) => assert!(answer.status >= 500, "{fault:?}: {answer:?}"),
            Outcome::Broken(_) | Outcome::Closed => {}
            Outcome::Silence => panic!("{fault:?}: the client waits for ever"),
        }
    }
}

#[test]
fn an_endless_relay_does_not_hold_up_questions() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("u"));
    let mut streams: Vec<_> = (0..20)
        .map(|_| {
            let mut caller = sidecar.caller();
            caller.send(&Ask::get("/sdk/stream/v1/flags").bytes());
            caller.read_until("\"key\":\"hidden\"");
            caller
        })
        .collect();
    let answers = at_once(4, |_| sidecar.ask(&Ask::about("u")));
    assert!(answers.iter().all(|answer| answer.source() == "hit"));
    cloud.push("[]");
    for stream in &mut streams {
        stream.read_until("data: []\n\n");
    }
}

#[test]
fn a_broken_body_is_the_clients_own_fault() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("upstream.total_deadline", "3s")
        .start();
    let post = |framing: &str, body: &str| {
        let head = "POST /web/v1/events HTTP/1.1\r\nHost: a";
        format!("{head}\r\nAuthorization: Api-Key {KEY}\r\n{framing}\r\n\r\n{body}").into_bytes()
    };
    let chunks = format!("10000\r\n{}\r\n", "x".repeat(65_536)).repeat(17);
    for (bytes, status) in [
        (post("Transfer-Encoding: chunked", &chunks), 413),
        (post("Transfer-Encoding: chunked", "2\r\n{}\r\nzz\r\n"), 400),
        (post("Content-Length: 50", "too slow"), 408),
    ] {
        // More often than a breaker would take.
        for answer in at_once(8, |_| exchange(sidecar.data(), &bytes, PATIENCE)) {
            assert_eq!(answer.expect_answer(&bytes).status, status);
        }
        let other = sidecar.ask(&Ask::about(&format!("after-{status}")));
        assert_eq!((other.status, other.source()), (200, "miss"), "after {status}");
    }
}
