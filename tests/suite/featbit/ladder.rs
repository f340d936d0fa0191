//! Outages: who answers when the evaluation server does not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{about, ask_until, assert_same_flags, body, configured, evaluate, gist};
use crate::support::featbit::{Failure, Route};
use crate::support::{Ask, Builder, FakeFeatbit, Sidecar, eventually, holds_for};

/// Answers that are old at once, and a breaker that looks again soon.
fn short_lived(builder: Builder) -> Builder {
    builder
        .set("cache.fresh_for", "1ms")
        .set("cache.stale_while_revalidate", "0ms")
        .set("upstream.circuit.open_for", "100ms")
}

#[track_caller]
fn assert_local(featbit: &FakeFeatbit, sidecar: &Sidecar, user: &str) {
    let answer = sidecar.ask(&about(featbit, user));
    assert_eq!(gist(&answer), (200, "local"), "{answer:?}");
    assert_same_flags(&answer.json(), &featbit.verdict(&body(user)));
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert!(answer.took < Duration::from_secs(2), "{answer:?}");
}

#[test]
fn nobody_notices_an_outage_of_any_kind() {
    let failures = [
        Failure::Status(500),
        Failure::Status(503),
        Failure::Status(404),
        Failure::Status(301),
        Failure::Throttle(1),
        Failure::Reset,
        Failure::Hang,
        Failure::Nonsense,
        Failure::Says(200, "application/json", r#"{"flags":[]}"#),
        Failure::Says(200, "application/json", r#"[{"key":"a"}]"#),
        Failure::Says(200, "application/json", ""),
    ];
    for failure in failures {
        let featbit = FakeFeatbit::start();
        let sidecar = featbit.synced(featbit.proxied());
        featbit.fail(Route::Evaluate, failure.clone());
        for user in ["a", "b", "c"] {
            let answer = sidecar.ask(&about(&featbit, user));
            assert_eq!(gist(&answer), (200, "local"), "{failure:?}: {answer:?}");
            assert_same_flags(&answer.json(), &featbit.verdict(&body(user)));
            assert!(answer.took < Duration::from_secs(2), "{failure:?}: {answer:?}");
        }
        featbit.heal();
        ask_until(&sidecar, &about(&featbit, "a"), "miss");
    }
}

#[test]
fn a_local_answer_comes_before_an_old_stored_one() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(short_lived(featbit.proxied()));
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "seen"))), (200, "miss"));
    featbit.go_down();
    for user in ["seen", "unseen"] {
        assert_local(&featbit, &sidecar, user);
    }
    featbit.heal();
    ask_until(&sidecar, &about(&featbit, "seen"), "miss");
}

#[test]
fn a_local_answer_says_what_upstream_said_instead_and_is_not_stored() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    featbit.fail_times(Route::Evaluate, Failure::Status(500), 1);
    let local = sidecar.ask(&about(&featbit, "ada"));
    assert_eq!(
        local.header("cache-status"),
        Some("flagside; fwd=miss; fwd-status=500; detail=local")
    );
    assert_eq!(local.header("age"), None);
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "ada"))), (200, "miss"));
}

#[test]
fn local_answers_follow_changes_that_came_before_the_outage() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    featbit.fail(Route::Evaluate, Failure::Status(503));
    assert_local(&featbit, &sidecar, "ada");
    let key = &featbit.keys()[0];
    featbit.turn(key, featbit.flag(key)["isEnabled"] != true);
    let changed = [("source", "fb_stream"), ("result", "changed")];
    sidecar.wait_for_metric("flagside_sync_runs_total", &changed, 2.0);
    featbit.go_down();
    assert_local(&featbit, &sidecar, "ada");
}

#[test]
fn where_nothing_may_be_evaluated_the_stored_answer_stands_in() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(short_lived(configured(&featbit, "    evaluation: off\n")));
    let stored = sidecar.ask(&about(&featbit, "seen"));
    featbit.go_down();
    let answer = sidecar.ask(&about(&featbit, "seen"));
    assert_eq!(gist(&answer), (200, "stale_error"), "{answer:?}");
    assert_eq!(answer.body, stored.body);
    assert!(answer.header("age").is_some());
    let unseen = sidecar.ask(&about(&featbit, "unseen"));
    assert_eq!(
        (unseen.status, unseen.header("retry-after"), unseen.error_code()),
        (503, Some("1"), Some("no_answer"))
    );
    assert!(unseen.json()["message"].is_string(), "never a list without flags");
}

#[test]
fn a_late_upstream_is_not_waited_for_and_still_fills_the_cache() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    featbit.fail(Route::Evaluate, Failure::Hold);
    let answer = sidecar.ask(&about(&featbit, "ada"));
    assert_eq!(gist(&answer), (200, "local"));
    assert!(
        answer.took >= Duration::from_millis(350) && answer.took < Duration::from_secs(2),
        "{answer:?}"
    );
    featbit.release();
    ask_until(&sidecar, &about(&featbit, "ada"), "hit");
    assert_eq!(featbit.count(Route::Evaluate), 1);
}

#[test]
fn without_a_stand_in_a_late_upstream_is_waited_for() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(configured(&featbit, "    evaluation: off\n"));
    featbit.fail(Route::Evaluate, Failure::Hold);
    let bytes = about(&featbit, "ada").bytes();
    let mut caller = sidecar.caller();
    let asked = Instant::now();
    caller.send(&bytes);
    featbit.wait_for(Route::Evaluate, 1);
    eventually("the answer deadline", || {
        (asked.elapsed() > Duration::from_millis(700)).then_some(())
    });
    featbit.release();
    let answer = caller.receive(false).expect_answer(&bytes);
    assert_eq!(gist(&answer), (200, "miss"));
}

#[test]
fn a_server_that_throttles_is_left_alone_as_long_as_it_asks() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    featbit.fail_times(Route::Evaluate, Failure::Throttle(3), 1);
    let throttled = Instant::now();
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "u"))), (200, "local"));
    let mut n = 0;
    holds_for(Duration::from_secs(2), "nobody asks upstream", || {
        n += 1;
        let answer = sidecar.ask(&about(&featbit, &format!("u-{n}")));
        gist(&answer) == (200, "local") && featbit.count(Route::Evaluate) == 1
    });
    ask_until(&sidecar, &about(&featbit, "after"), "miss");
    assert!(
        throttled.elapsed() >= Duration::from_secs(3),
        "{:?}",
        throttled.elapsed()
    );
    assert_eq!(featbit.count(Route::Evaluate), 2);
}

#[test]
fn a_server_that_throttles_without_a_time_is_left_alone_for_a_moment() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    featbit.fail_times(Route::Evaluate, Failure::Status(429), 1);
    for user in ["a", "b", "c"] {
        assert_local(&featbit, &sidecar, user);
    }
    assert_eq!(featbit.count(Route::Evaluate), 1);
    ask_until(&sidecar, &about(&featbit, "a"), "miss");
}

#[test]
fn a_server_that_fails_for_ever_is_asked_less_and_less() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied().set("upstream.circuit.open_for", "60s"));
    featbit.fail(Route::Evaluate, Failure::Status(500));
    for n in 0..40 {
        assert_local(&featbit, &sidecar, &format!("u-{n}"));
    }
    assert!(
        featbit.count(Route::Evaluate) < 20,
        "{}",
        featbit.count(Route::Evaluate)
    );
}

#[test]
fn in_local_mode_no_question_reaches_upstream() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(configured(&featbit, "    evaluation: local\n"));
    for user in ["a", "b", "c"] {
        assert_local(&featbit, &sidecar, user);
    }
    assert_eq!(featbit.count(Route::Evaluate), 0);
    let (down, client) = (FakeFeatbit::start(), featbit.secret("client"));
    let answer = sidecar.ask(&evaluate(&client, body("a").to_string()));
    assert_eq!(
        gist(&answer),
        (200, "local"),
        "a secret that must be proven: {answer:?}"
    );
    assert_eq!(featbit.count(Route::Evaluate), 0);
    down.go_down();
    let sidecar = configured(&down, "    evaluation: local\n")
        .set("upstream.total_deadline", "1s")
        .start();
    let answer = sidecar.ask(&about(&down, "a"));
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1")),
        "there are no data: {answer:?}"
    );
}

#[test]
fn a_flags_file_answers_without_upstream() {
    let featbit = FakeFeatbit::start();
    let sidecar = Sidecar::alone().flags(&featbit.payload()).start();
    for kind in ["server", "client"] {
        let answer = sidecar.ask(&evaluate(&featbit.secret(kind), body("ada").to_string()));
        assert_eq!(gist(&answer), (200, "local"), "{answer:?}");
        assert_same_flags(&answer.json(), &featbit.verdict(&body("ada")));
    }
    let foreign = sidecar.ask(&evaluate(
        "AAAAAAAAAAAAAAAAAAAAAAeuJCwcaJDkyJNr2TNnv3lg",
        body("ada").to_string(),
    ));
    assert_eq!(
        (foreign.status, foreign.error_code()),
        (503, Some("no_answer")),
        "nothing is known of that environment, which is not a no: {foreign:?}"
    );
    let nowhere = sidecar.ask(&Ask::get("/api/public/nowhere"));
    assert_eq!(
        (nowhere.status, &*nowhere.body),
        (401, &b""[..]),
        "before any look at the path"
    );
    assert_eq!(featbit.count(Route::All), 0);
    assert_eq!(sidecar.admin_get("/readyz").status, 200);
}

#[test]
fn a_flags_file_answers_until_upstream_does() {
    let featbit = FakeFeatbit::start();
    let mut old = featbit.payload();
    for flag in old["data"]["featureFlags"].as_array_mut().unwrap() {
        flag["isEnabled"] = json!(false);
        flag["updatedAt"] = json!("2020-01-01T00:00:00Z");
    }
    featbit.go_down();
    let sidecar = featbit.proxied_without_secret().flags(&old).start();
    let answer = sidecar.ask(&about(&featbit, "ada"));
    assert_eq!(gist(&answer), (200, "local"), "{answer:?}");
    let reasons = |answer: &Value| -> Vec<String> {
        let flags = answer.as_array().unwrap().iter();
        flags
            .map(|flag| flag["variation"]["matchReason"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(
        reasons(&answer.json())
            .iter()
            .all(|reason| reason == "flag disabled" || reason == "flag archived")
    );
    featbit.heal();
    let answer = ask_until(&sidecar, &about(&featbit, "ada"), "miss");
    assert_same_flags(&answer.json(), &featbit.verdict(&body("ada")));
}

/// Data with a flag that cannot be evaluated, named `broken`.
fn with_broken_flag(featbit: &FakeFeatbit) -> Value {
    let mut payload = featbit.payload();
    let flags = payload["data"]["featureFlags"].as_array_mut().unwrap();
    let mut broken = flags[0].clone();
    broken["id"] = json!("00000000-0000-0000-0000-00000000b0b0");
    broken["key"] = json!("broken");
    broken["isEnabled"] = json!(true);
    broken["isArchived"] = json!(false);
    broken["targetUsers"] = json!([]);
    broken["rules"] = json!([{"id": "r", "name": "nobody knows", "dispatchKey": null, "includedInExpt": false,
        "conditions": [{"id": "c", "property": "User is in segment", "op": null, "value": "[\"no-such-segment\"]"}],
        "variations": []}]);
    flags.push(broken);
    payload
}

#[test]
fn a_flag_that_cannot_be_evaluated_is_left_out_and_counted() {
    let featbit = FakeFeatbit::start();
    let sidecar = Sidecar::alone().flags(&with_broken_flag(&featbit)).start();
    for _ in 0..3 {
        let answer = sidecar.ask(&about(&featbit, "ada"));
        assert_eq!(gist(&answer), (200, "local"));
        assert_same_flags(&answer.json(), &featbit.verdict(&body("ada")));
    }
    let told = |line: &String| line.contains("cannot be evaluated") && line.contains("\"broken\"");
    let n_told = || sidecar.logs().iter().filter(|line| told(line)).count();
    eventually("a line", || (n_told() > 0).then_some(()));
    assert_eq!(n_told(), 1);
    let failed = [("engine", "featbit"), ("result", "failed")];
    assert_eq!(sidecar.metric("flagside_evaluated_flags_total", &failed), 3.0);
}

#[test]
fn in_strict_mode_a_flag_that_cannot_be_evaluated_fails_the_answer() {
    let featbit = FakeFeatbit::start();
    let sidecar = Sidecar::alone()
        .flags(&with_broken_flag(&featbit))
        .set("featbit.strict", "true")
        .start();
    let answer = sidecar.ask(&about(&featbit, "ada"));
    assert_eq!((answer.status, answer.text()), (500, String::new()), "{answer:?}");
    let some = json!({"user": {"keyId": "ada"}, "filter": {"keys": [featbit.keys()[0]]}});
    let answer = sidecar.ask(&evaluate(&featbit.secret("server"), some.to_string()));
    assert_eq!(gist(&answer), (200, "local"), "that flag was not asked for");
}
