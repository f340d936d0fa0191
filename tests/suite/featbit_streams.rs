//! FeatBit: keeping data up to date, and standing in for an evaluation server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::featbit::{Failure, Route};
use crate::support::stream::Stream;
use crate::support::{Ask, FakeFeatbit, Sidecar, eventually, holds_for};

/// A GET with a secret.
fn get(path: &str, secret: &str) -> Ask {
    Ask::new("GET", path).header("Authorization", secret)
}

/// A POST of JSON with a secret.
fn post(path: &str, secret: &str, body: &Value) -> Ask {
    let mut ask = Ask::new("POST", path)
        .header("Authorization", secret)
        .header("Content-Type", "application/json");
    ask.body = Some(body.to_string().into_bytes());
    ask
}

/// The flag of a message, if it has it.
fn flag<'m>(message: &'m Value, key: &str) -> Option<&'m Value> {
    let flags = message["data"]["featureFlags"].as_array()?;
    flags.iter().find(|flag| flag["key"] == key || flag["id"] == key)
}

fn synced(featbit: &FakeFeatbit) -> Sidecar {
    let sidecar = featbit.proxied().start();
    featbit.wait_for_streams(1);
    sidecar.wait_for_metric("flagside_stream_connected", &[], 1.0);
    sidecar
}

#[test]
fn a_change_reaches_servers_and_clients_at_once() {
    let featbit = FakeFeatbit::start();
    let sidecar = synced(&featbit);
    let mut server = Stream::open(sidecar.data(), "server", &featbit.secret("server"));
    let all = server.sync(0).unwrap();
    assert_eq!(all["data"]["eventType"], "full");
    assert_eq!(
        all["data"]["featureFlags"].as_array().unwrap().len(),
        featbit.keys().len()
    );
    let mut client = Stream::open(sidecar.data(), "client", &featbit.secret("client"));
    assert_eq!(client.sync_for("ada", 0).unwrap()["data"]["userKeyId"], "ada");
    let key = &featbit.keys()[0];
    featbit.turn(key, false);
    let (took, patch) = server.time_to_next();
    assert_eq!(patch["data"]["eventType"], "patch");
    assert_eq!(flag(&patch, key).unwrap()["isEnabled"], false);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(
        flag(&client.next().unwrap(), key).unwrap()["matchReason"],
        "flag disabled"
    );
    assert_eq!(
        featbit.requests(Route::Streaming).len(),
        2,
        "one to sync, one to ask for the client's secret"
    );
}

#[test]
fn data_outlive_upstream_and_catch_up_after_it() {
    let featbit = FakeFeatbit::start();
    let sidecar = synced(&featbit);
    let secret = featbit.secret("server");
    let mut stream = Stream::open(sidecar.data(), "server", &secret);
    stream.sync(0).unwrap();
    featbit.go_down();
    let latest = sidecar.ask(&get("/api/public/sdk/server/latest-all?timestamp=0", &secret));
    assert_eq!(latest.status, 200);
    assert_eq!(latest.header("etag"), None);
    assert_eq!(
        latest.json()["data"]["featureFlags"].as_array().unwrap().len(),
        featbit.keys().len()
    );
    let mut late = Stream::open(sidecar.data(), "server", &secret);
    assert!(late.sync(0).is_ok(), "a stream that is opened in the outage");
    let key = &featbit.keys()[1];
    featbit.turn(key, false);
    featbit.heal();
    for stream in [&mut stream, &mut late] {
        let patch = stream.next().unwrap();
        assert_eq!(flag(&patch, key).unwrap()["isEnabled"], false);
    }
}

#[test]
fn no_close_code_is_the_last_word() {
    let featbit = FakeFeatbit::start();
    let sidecar = synced(&featbit);
    for (n, code) in [1000, 1001, 1011, 4000].into_iter().enumerate() {
        featbit.close_streams(code);
        featbit.wait_for(Route::Streaming, n + 2);
        featbit.wait_for_streams(1);
    }
    sidecar.wait_for_metric("flagside_stream_reconnects_total", &[], 4.0);
}

#[test]
fn a_clock_that_differs_is_reckoned_with() {
    let featbit = FakeFeatbit::start();
    featbit.set_clock(7_200);
    let sidecar = synced(&featbit);
    assert_eq!(
        sidecar.metric("flagside_stream_clock_corrections_total", &[]),
        1.0
    );
}

#[test]
fn where_there_are_no_streams_data_are_polled() {
    for failure in [Failure::Status(404), Failure::Close(4003), Failure::Reset] {
        let featbit = FakeFeatbit::start();
        featbit.fail(Route::Streaming, failure.clone());
        let sidecar = featbit.proxied().start();
        let polls = featbit.wait_for(Route::Server, 1);
        assert_eq!(polls[0].parameter("timestamp"), Some("0"), "{failure:?}");
        let secret = featbit.secret("server");
        let latest = sidecar.ask(&get("/api/public/sdk/server/latest-all", &secret));
        assert_eq!(latest.status, 200, "{failure:?}");
    }
}

#[test]
fn polls_that_bring_no_data_change_nothing() {
    let featbit = FakeFeatbit::start();
    featbit.fail(Route::Streaming, Failure::Status(404));
    let sidecar = featbit.proxied().start();
    let secret = featbit.secret("server");
    let latest = || {
        sidecar
            .ask(&get("/api/public/sdk/server/latest-all", &secret))
            .status
    };
    assert_eq!(latest(), 200);
    let key = &featbit.keys()[0];
    for failure in [
        Failure::Nonsense,
        Failure::Throttle(1),
        Failure::Status(500),
        Failure::Hang,
    ] {
        featbit.fail_times(Route::Server, failure.clone(), 1);
        featbit.forget();
        featbit.wait_for(Route::Server, 1);
        assert_eq!(latest(), 200, "{failure:?}");
    }
    featbit.delete(key);
    featbit.turn(&featbit.keys()[0], false);
    let changed = [("source", "fb_poll"), ("result", "changed")];
    sidecar.wait_for_metric("flagside_sync_runs_total", &changed, 2.0);
}

#[test]
fn streams_are_refused_as_upstream_refuses_them() {
    let featbit = FakeFeatbit::start();
    let sidecar = synced(&featbit);
    let (server, client) = (featbit.secret("server"), featbit.secret("client"));
    let code =
        |kind: &str, secret: &str, age| Stream::open_aged(sidecar.data(), kind, secret, age).close_code();
    assert_eq!(code("server", &server, 40), 4003, "an old token");
    assert_eq!(code("server", &server, -40), 4003, "a token of the future");
    assert_eq!(code("client", &server, 0), 4003, "a server's secret");
    assert_eq!(code("server", &client, 0), 4003, "a client's secret");
    assert_eq!(code("relay-proxy", &server, 0), 4003);
    let unknown = server.replacen(&server[..4], "AAAA", 1);
    assert_eq!(code("server", &unknown, 0), 4003, "upstream does not know it");
    let mut good = Stream::open(sidecar.data(), "server", &server);
    assert!(good.sync(0).is_ok());
}

#[test]
fn without_data_streams_are_told_to_come_again() {
    let featbit = FakeFeatbit::start();
    featbit.go_down();
    let sidecar = featbit.proxied_without_secret().start();
    let secret = featbit.secret("server");
    let code = Stream::open(sidecar.data(), "server", &secret).close_code();
    assert_eq!(code, 1011);
    let latest = sidecar.ask(&get("/api/public/sdk/server/latest-all", &secret));
    assert_eq!((latest.status, latest.header("retry-after")), (503, Some("1")));
    featbit.heal();
    eventually("a stream", || {
        Stream::open(sidecar.data(), "server", &secret).sync(0).ok()
    });
}

#[test]
fn a_rejected_secret_is_out_of_service() {
    let featbit = FakeFeatbit::start();
    featbit.fail(Route::Streaming, Failure::Status(503));
    let sidecar = featbit.proxied().start();
    let secret = featbit.secret("server");
    let latest = || {
        sidecar
            .ask(&get("/api/public/sdk/server/latest-all", &secret))
            .status
    };
    assert_eq!(latest(), 200);
    let mut stream = Stream::open(sidecar.data(), "server", &secret);
    stream.sync(0).unwrap();
    featbit.revoke(&secret);
    featbit.forget();
    featbit.wait_for(Route::Server, 1);
    eventually("the 401", || (latest() == 401).then_some(()));
    assert_eq!(stream.sync(0), Err(4003));
}

#[test]
fn a_rejected_secret_comes_back_with_a_200() {
    for configured in [true, false] {
        let featbit = FakeFeatbit::start();
        featbit.fail(Route::Streaming, Failure::Status(503));
        let secret = featbit.secret("server");
        let builder = if configured {
            featbit.proxied()
        } else {
            featbit.proxied_without_secret()
        };
        let sidecar = builder.set("keys.negative_ttl", "100ms").start();
        let evaluate = || {
            let body = json!({"user": {"keyId": "u-1"}});
            let ask = post("/api/public/featureflag/evaluate", &secret, &body);
            sidecar.ask(&ask).status
        };
        let latest = || {
            let ask = get("/api/public/sdk/server/latest-all", &secret);
            sidecar.ask(&ask).status
        };
        for asked in [&evaluate as &dyn Fn() -> u16, &latest] {
            eventually("a 200", || (asked() == 200).then_some(()));
            featbit.revoke(&secret);
            eventually("the 401", || (asked() == 401).then_some(()));
            featbit.restore(&secret);
            eventually("a 200 again", || (asked() == 200).then_some(()));
        }
        eventually("its data", || (latest() == 200).then_some(()));
    }
}

#[test]
fn another_secret_is_proved_while_the_stream_of_a_rejected_one_is_open() {
    let featbit = FakeFeatbit::start();
    let sidecar = synced(&featbit);
    let [own, other] = ["server", "client"].map(|kind| featbit.secret(kind));
    featbit.fail_times(Route::Evaluate, Failure::Status(401), 1);
    let body = json!({"user": {"keyId": "u-1"}});
    let answer = sidecar.ask(&post("/api/public/featureflag/evaluate", &own, &body));
    assert_eq!(answer.status, 401);
    let latest = sidecar.ask(&get("/api/public/sdk/server/latest-all", &other));
    assert_eq!(latest.status, 200);
}

#[test]
fn a_429_pauses_its_own_environment_alone() {
    let featbit = FakeFeatbit::start();
    let sidecar = synced(&featbit);
    let evaluate = |secret: &str, user: &str| {
        let body = json!({"user": {"keyId": user}});
        sidecar.ask(&post("/api/public/featureflag/evaluate", secret, &body))
    };
    let n_asked = || featbit.requests(Route::Evaluate).len();
    let own = featbit.secret("server");
    featbit.fail_times(Route::Evaluate, Failure::Throttle(30), 1);
    assert_eq!(evaluate(&own, "u-1").status, 200, "computed here");
    assert_eq!(evaluate(&own, "u-2").status, 200, "computed here");
    assert_eq!(n_asked(), 1, "the second one did not go to upstream");
    let of_another_environment = "gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w";
    evaluate(of_another_environment, "u-1");
    assert_eq!(n_asked(), 2);
}

#[test]
fn insights_arrive_in_their_order_whatever_upstream_does() {
    let featbit = FakeFeatbit::start();
    let sidecar = synced(&featbit);
    let secret = featbit.secret("client");
    let track = |n: u32| {
        let body = json!([{"user": {"keyId": format!("u{n}")}, "variations": []}, {"user": {"keyId": " "}}]);
        let answer = sidecar.ask(&post("/api/public/insight/track", &secret, &body));
        assert_eq!((answer.status, answer.text()), (200, String::new()));
    };
    (0..3).for_each(track);
    featbit.wait_for_insights(3);
    featbit.fail_times(Route::Insight, Failure::Status(503), 1);
    (3..6).for_each(track);
    featbit.wait_for_insights(6);
    featbit.go_down();
    (6..9).for_each(track);
    holds_for(Duration::from_millis(700), "they wait", || {
        featbit.insights().len() == 6
    });
    featbit.heal();
    let seen = featbit.wait_for_insights(9);
    let users: Vec<&str> = seen
        .iter()
        .map(|it| it["user"]["keyId"].as_str().unwrap())
        .collect();
    assert_eq!(users, ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"]);
    let asked = featbit.requests(Route::Insight);
    assert!(
        asked
            .iter()
            .all(|request| request.header("authorization") == Some(&*secret))
    );
    sidecar.wait_for_metric("flagside_events_sent_total", &[("kind", "insight")], 9.0);
    featbit.fail(Route::Insight, Failure::Status(401));
    track(9);
    let rejected = [("kind", "insight"), ("reason", "rejected")];
    sidecar.wait_for_metric("flagside_events_dropped_total", &rejected, 1.0);
}

#[test]
fn the_end_delivers_insights_and_sends_streams_away() {
    let featbit = FakeFeatbit::start();
    let mut sidecar = synced(&featbit);
    let secret = featbit.secret("server");
    let mut stream = Stream::open(sidecar.data(), "server", &secret);
    stream.sync(0).unwrap();
    let body = json!([{"user": {"keyId": "last"}, "metrics": []}]);
    assert_eq!(
        sidecar
            .ask(&post("/api/public/insight/track", &secret, &body))
            .status,
        200
    );
    let began = Instant::now();
    sidecar.signal("TERM");
    assert_eq!(stream.close_code(), 1001);
    assert_eq!(sidecar.wait_exit(Duration::from_secs(10)), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(featbit.insights().len(), 1);
}

#[test]
fn clients_poll_flags_evaluated_for_their_user() {
    let featbit = FakeFeatbit::start();
    let sidecar = synced(&featbit);
    let secret = featbit.secret("client");
    let user = json!({"keyId": "ada", "name": "Ada", "customizedProperties": []});
    let path = "/api/public/sdk/client/latest-all?timestamp=0";
    let answer = sidecar.ask(&post(path, &secret, &user));
    assert_eq!(answer.status, 200);
    let message = answer.json();
    let verdict = featbit.verdict(&json!({"user": user}));
    let verdict = verdict.as_array().unwrap();
    assert_eq!(
        message["data"]["featureFlags"].as_array().unwrap().len(),
        verdict.len()
    );
    for told in verdict {
        let flag = flag(&message, told["key"].as_str().unwrap()).unwrap();
        assert_eq!(flag["variation"], told["variation"]["value"], "{}", told["key"]);
    }
    let blank = sidecar.ask(&post(path, &secret, &json!({"keyId": " "})));
    assert_eq!((blank.status, blank.text()), (400, "invalid end user".to_owned()));
}
