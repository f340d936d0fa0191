//! Stored answers: which questions share one, how long it serves, and what ends it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{about, ask_until, assert_same_flags, body, configured, evaluate, gist};
use crate::support::featbit::{Failure, Route};
use crate::support::{Ask, FakeFeatbit, Sidecar, at_once, eventually};

const NORMALIZE: &str = include_str!("../../vectors/featbit/normalize.json");

#[test]
fn a_question_goes_upstream_once() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let miss = sidecar.ask(&about(&featbit, "ada"));
    assert_eq!(gist(&miss), (200, "miss"));
    assert_same_flags(&miss.json(), &featbit.verdict(&body("ada")));
    assert_eq!(
        miss.header("cache-status"),
        Some("flagside; fwd=uri-miss; stored")
    );
    assert_eq!(miss.header("age"), None);
    let mut caller = sidecar.caller();
    for _ in 0..3 {
        let hit = caller.ask(&about(&featbit, "ada"));
        assert_eq!(gist(&hit), (200, "hit"));
        assert_eq!(hit.body, miss.body);
        assert!(
            hit.header("cache-status")
                .unwrap()
                .starts_with("flagside; hit; ttl=")
        );
        assert!(hit.header("age").unwrap().parse::<u64>().unwrap() < 60, "{hit:?}");
    }
    for answer in [&miss, &caller.ask(&about(&featbit, "ada"))] {
        assert_eq!(
            answer.header("content-type"),
            Some("application/json; charset=utf-8")
        );
        assert_eq!(answer.header("cache-control"), Some("private, no-store"));
        assert_eq!(answer.header("etag"), None);
    }
    let asked = featbit.requests(Route::Evaluate);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), Some(&*featbit.secret("server")));
    assert!(
        asked[0]
            .header("content-type")
            .unwrap()
            .starts_with("application/json")
    );
}

/// A recorded question as a request.
fn recorded(headers: &Value, body: &Value) -> Ask {
    let mut ask = Ask::new("POST", super::PATH);
    for (name, value) in headers.as_object().unwrap() {
        ask = ask.header(name, value.as_str().unwrap());
    }
    ask.body = Some(body.to_string().into_bytes());
    ask
}

#[test]
fn questions_share_an_answer_exactly_when_they_ask_the_same() {
    let featbit = FakeFeatbit::start();
    featbit.number_answers();
    let sidecar = featbit.synced(featbit.proxied());
    let mut caller = sidecar.caller();
    let mut number = |headers: &Value, body: &Value| {
        let answer = caller.ask(&recorded(headers, body));
        match answer.status {
            200 => answer.json()[0]["variation"]["value"]
                .as_str()
                .unwrap()
                .to_owned(),
            status => format!("status {status}"),
        }
    };
    let vectors: Value = serde_json::from_str(NORMALIZE).unwrap();
    let mut questions = BTreeSet::new();
    let mut compared = 0;
    for group in vectors["groups"].as_array().unwrap() {
        let headers = &group["base"]["headers"];
        let base = number(headers, &group["base"]["body"]);
        questions.insert(base.clone());
        for variant in group["variants"].as_array().unwrap() {
            let answered = number(&variant["headers"], &variant["body"]);
            assert_eq!(variant["same"], answered == base, "{}", variant["change"]);
            questions.insert(answered);
            compared += 1;
        }
        for pair in group["pairs"].as_array().unwrap_or(&Vec::new()) {
            let (one, other) = (number(headers, &pair["a"]), number(headers, &pair["b"]));
            assert_eq!(
                pair["same"],
                one == other,
                "{}: {} and {}",
                pair["change"],
                pair["a"],
                pair["b"]
            );
            questions.extend([one, other]);
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
    questions.remove("status 401");
    assert_eq!(
        featbit.count(Route::Evaluate),
        questions.len(),
        "each was asked once"
    );
}

#[test]
fn spellings_of_bytes_and_path_do_not_matter() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let secret = featbit.secret("server");
    let first = r#"{"user":{"keyId":"\u0061da","name":null,"customizedProperties":[{"name":"a","value":"1"},{"name":"b","value":"2"}]}}"#;
    let other = "\n{ \"extra\": [1, {}], \"User\" : {\"CustomizedProperties\":[ {\"value\":\"2\",\"name\":\"b\"},\t{\"name\":\"a\",\"value\":\"\\u0031\"}], \"keyid\":\"ada\"} }\n";
    assert_eq!(sidecar.ask(&evaluate(&secret, first)).source(), "miss");
    let ask = evaluate(&secret, other);
    for ask in [
        ask.clone(),
        ask.clone().to("/API/Public/FeatureFlag/Evaluate"),
        ask.clone().to("/api/public/featureflag/evaluate/"),
        ask.clone().to("/api/public/featureflag/evaluate?a=1&b=2"),
        ask.clone()
            .without("Content-Type")
            .header("content-type", "text/json; charset=utf-8"),
        ask.clone()
            .without("Authorization")
            .line(&format!("AUTHORIZATION:  {secret}  ")),
        ask.header("User-Agent", "curl")
            .header("traceparent", "00-1-2-03"),
    ] {
        let answer = sidecar.ask(&ask);
        assert_eq!(gist(&answer), (200, "hit"), "{ask:?}");
    }
    assert_eq!(featbit.count(Route::Evaluate), 1);
}

#[test]
fn a_question_that_cannot_be_folded_is_asked_every_time() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let secret = featbit.secret("server");
    let question = r#"{"user":{"keyId":"ada"},"filter":{"keys":[null]}}"#;
    for n in 1..=3 {
        let answer = sidecar.ask(&evaluate(&secret, question));
        assert_eq!(answer.source(), "miss", "{answer:?}");
        assert_eq!(featbit.count(Route::Evaluate), n);
    }
}

#[test]
fn one_request_goes_up_for_all_who_ask_the_same_at_once() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied().patient());
    featbit.fail(Route::Evaluate, Failure::Hold);
    let secret = featbit.secret("server");
    let bodies = [
        r#"{"user":{"keyId":"crowd","name":"C"},"filter":{"keys":["a","b"]}}"#,
        r#"{"filter":{"keys":["b","a","a"],"tags":[]},"user":{"name":"C","keyId":"crowd"}}"#,
    ];
    let began = std::sync::atomic::AtomicUsize::new(0);
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            at_once(30, |n| {
                let bytes = evaluate(&secret, bodies[n % 2]).bytes();
                let mut caller = sidecar.caller();
                caller.send(&bytes);
                began.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                caller.receive(false).expect_answer(&bytes)
            })
        });
        featbit.wait_for(Route::Evaluate, 1);
        eventually("all of them asked", || {
            (sidecar.metric("flagside_cache_requests_total", &[("result", "coalesced")]) >= 29.0)
                .then_some(())
        });
        featbit.release();
        asking.join().unwrap()
    });
    let of = |source: &str| answers.iter().filter(|answer| answer.source() == source).count();
    assert_eq!((of("miss"), of("coalesced")), (1, 29));
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!(featbit.count(Route::Evaluate), 1);
}

#[test]
fn an_old_answer_serves_while_it_is_refreshed() {
    let featbit = FakeFeatbit::start();
    featbit.number_answers();
    let sidecar = featbit.synced(featbit.proxied().set("cache.fresh_for", "1ms"));
    assert_eq!(sidecar.ask(&about(&featbit, "ada")).source(), "miss");
    let stale = ask_until(&sidecar, &about(&featbit, "ada"), "stale");
    assert_eq!(stale.json()[0]["variation"]["value"], "1");
    assert!(
        stale.header("cache-status").unwrap().ends_with("; detail=stale"),
        "{stale:?}"
    );
    featbit.wait_for(Route::Evaluate, 2);
    eventually("the refreshed answer", || {
        let answer = sidecar.ask(&about(&featbit, "ada"));
        assert_eq!(answer.status, 200);
        (answer.json()[0]["variation"]["value"] != "1").then_some(())
    });
}

#[test]
fn a_change_of_the_data_ends_stored_answers() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let before = sidecar.ask(&about(&featbit, "ada")).json();
    assert_eq!(sidecar.ask(&about(&featbit, "ada")).source(), "hit");
    let key = before[0]["key"].as_str().unwrap().to_owned();
    let was_on = featbit.flag(&key)["isEnabled"] == true;
    featbit.turn(&key, !was_on);
    let after = ask_until(&sidecar, &about(&featbit, "ada"), "miss").json();
    assert_ne!(after, before);
    assert_same_flags(&after, &featbit.verdict(&body("ada")));
    assert_eq!(sidecar.ask(&about(&featbit, "ada")).source(), "hit");
}

#[test]
fn an_answer_from_before_a_change_is_not_stored_after_it() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied().patient());
    sidecar.ask(&about(&featbit, "first"));
    featbit.fail_times(Route::Evaluate, Failure::Hold, 1);
    let bytes = about(&featbit, "ada").bytes();
    let mut early = sidecar.caller();
    early.send(&bytes);
    featbit.wait_for(Route::Evaluate, 2);
    featbit.turn(&featbit.keys()[0], false);
    let changed = [("source", "fb_stream"), ("result", "changed")];
    sidecar.wait_for_metric("flagside_sync_runs_total", &changed, 2.0);
    featbit.release();
    assert_eq!(early.receive(false).expect_answer(&bytes).status, 200);
    let next = sidecar.ask(&about(&featbit, "ada"));
    assert_eq!(next.source(), "miss", "what came too late is not used again");
    assert_same_flags(&next.json(), &featbit.verdict(&body("ada")));
}

#[test]
fn what_upstream_says_of_a_request_is_passed_on_and_not_stored() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let refusal = Failure::Says(400, "text/plain; charset=utf-8", "no, not today");
    featbit.fail_times(Route::Evaluate, refusal, 1);
    let refused = sidecar.ask(&about(&featbit, "ada"));
    assert_eq!(gist(&refused), (400, "miss"));
    assert_eq!(refused.text(), "no, not today");
    assert_eq!(refused.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "ada"))), (200, "miss"));
}

#[test]
fn both_vendors_are_served_side_by_side() {
    let featbit = FakeFeatbit::start();
    let cloud = crate::support::FakeUpstream::start();
    let sidecar = featbit.synced(featbit.proxied().arg("--upstream").arg(&cloud.url()));
    for source in ["miss", "hit"] {
        assert_eq!(gist(&sidecar.ask(&about(&featbit, "ada"))), (200, source));
        assert_eq!(gist(&sidecar.ask(&Ask::about("ada"))), (200, source));
    }
    assert_eq!(featbit.count(Route::Evaluate), 1);
    assert_eq!(cloud.count(crate::support::Route::Vardata), 1);
    cloud.go_down();
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "ben"))), (200, "miss"));
    let status = sidecar.status();
    let environments = status["environments"].as_array().unwrap().iter();
    let backends: BTreeSet<_> = environments.map(|it| it["backend"].as_str().unwrap()).collect();
    assert_eq!(Vec::from_iter(backends), ["amplitude", "featbit"]);
}

#[test]
fn two_environments_are_told_apart_by_their_secrets() {
    let (one, other) = (FakeFeatbit::start(), FakeFeatbit::start());
    let foreign = foreign_secret();
    let yaml = format!(
        "{}  - name: other\n    backend: featbit\n    urls: {{featbit: \"{}\"}}\n    env_secrets: [{foreign}]\n",
        one.environment(""),
        other.url()
    );
    let sidecar = one.synced(Sidecar::alone().config(&yaml));
    assert_eq!(gist(&sidecar.ask(&about(&one, "ada"))), (200, "miss"));
    assert_eq!(
        sidecar.ask(&evaluate(&foreign, body("ada").to_string())).status,
        200
    );
    assert_eq!((one.count(Route::Evaluate), other.count(Route::Evaluate)), (1, 1));
    assert_eq!(
        other.requests(Route::Evaluate)[0].header("authorization"),
        Some(&*foreign)
    );
    let of_nobody = "AAAAAAAAAAAAAAAAAAAAAAeuJCwcaJDkyJNr2TNnv3lg";
    let answer = sidecar.ask(&evaluate(of_nobody, body("ada").to_string()));
    assert_eq!(
        (answer.status, answer.error_code()),
        (401, Some("unknown_environment_secret")),
        "it is not tried on either"
    );
    assert_eq!(
        (one.count(Route::All) > 0, other.count(Route::Evaluate)),
        (true, 1)
    );
}

/// A secret of another environment than the one which the fake server knows.
fn foreign_secret() -> String {
    let env = include_str!("../../vectors/featbit/env-bank-mobile-2.json");
    let env: Value = serde_json::from_str(env).unwrap();
    env["secrets"][0]["value"].as_str().unwrap().to_owned()
}

#[test]
fn environments_of_secrets_that_have_no_flags_are_answered_by_upstream() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied().set("environments.0.learn_keys", "true"));
    let answer = sidecar.ask(&evaluate(&foreign_secret(), body("ada").to_string()));
    assert_eq!((answer.status, answer.json()), (200, json!([])));
    let local = configured(&featbit, "    evaluation: off\n");
    let sidecar = featbit.synced(local);
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "ada"))), (200, "miss"));
}
