//! Cache keys: equal questions are one, different questions are never one.

use serde_json::{Value, json};

use crate::support::caller::exchange;
use crate::support::near_misses::near_misses;
use crate::support::opinion::Shape;
use crate::support::spellings::{Spelling, rest_spellings, sdk_spellings};
use crate::support::upstream::KEY;
use crate::support::wait::PATIENCE;
use crate::support::{Ask, Caller, FakeUpstream, Route, Sidecar, at_once, flags};

fn user() -> Value {
    serde_json::from_str(
        r#"{"user_id":"u-caf\u00e9","device_id":"d?~>","country":"DE",
            "user_properties":{"plan":"pro","n":1.0,"big":12345678901234567890123,"html":"<a href='/x'>&","l":[2,1,2],
                "o":{"y":1,"x":2},"none":null,"empty":"","yes":true,"smile":"\ud83d\ude00"},
            "groups":{"org":["acme","b"],"team":["x"]},
            "group_properties":{"org":{"acme":{"size":10,"tier":"gold"}}}}"#,
    )
    .unwrap()
}

fn one_upstream_request(spellings: &[Spelling]) {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let mut first = None;
    for Spelling { name, bytes } in spellings {
        let answer = exchange(sidecar.data(), bytes, PATIENCE).expect_answer(bytes);
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        let wanted = if first.is_none() { "miss" } else { "hit" };
        assert_eq!(answer.source(), wanted, "{name}");
        assert_eq!(
            *first.get_or_insert_with(|| answer.body.clone()),
            answer.body,
            "{name}"
        );
    }
    assert_eq!(cloud.count(Route::Vardata), 1);
    let asked = cloud.requests_on(Route::Vardata).remove(0).question().unwrap();
    assert_eq!(asked.user, user());
}

#[test]
fn all_spellings_of_an_sdk_question_are_one_upstream_request() {
    one_upstream_request(&sdk_spellings(&user(), &["theme", "checkout"]));
}

#[test]
fn all_spellings_of_a_rest_question_are_one_upstream_request() {
    one_upstream_request(&rest_spellings(&user(), &["theme", "checkout"]));
}

#[test]
fn whichever_spelling_comes_first_upstream_is_asked_the_same() {
    let (sdk, rest) = (
        sdk_spellings(&user(), &["theme"]),
        rest_spellings(&user(), &["theme"]),
    );
    for chunk in [sdk, rest].concat().chunks(16) {
        at_once(chunk.len(), |number| {
            let Spelling { name, bytes } = &chunk[number];
            let cloud = FakeUpstream::start();
            let sidecar = Sidecar::start(&cloud);
            let answer = exchange(sidecar.data(), bytes, PATIENCE).expect_answer(bytes);
            let asked = cloud.requests_on(Route::Vardata).remove(0).question().unwrap();
            assert_eq!(
                (asked.user, asked.flag_keys.first().map(String::as_str)),
                (user(), Some("theme")),
                "{name}"
            );
            assert_eq!(answer.json()["who"]["payload"]["user"], user(), "{name}");
        });
    }
}

#[test]
fn near_misses_never_share_an_answer() {
    let cloud = FakeUpstream::start();
    let twin = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let mut caller = sidecar.caller();
    for pair in near_misses() {
        let name = pair.name;
        cloud.forget();
        let asks = [&pair.one, &pair.other];
        let wanted = asks.map(|ask| Caller::new(twin.address()).ask(ask).json());
        for source in ["miss", "hit"] {
            for (ask, wanted) in asks.into_iter().zip(&wanted) {
                let answer = caller.ask(ask);
                assert_eq!(
                    (answer.status, answer.source()),
                    (200, source),
                    "{name}: {ask:?} {answer:?}"
                );
                assert_eq!(answer.json(), *wanted, "{name}");
            }
        }
        assert_eq!(cloud.count(Route::Vardata), 2, "{name}");
    }
}

#[test]
fn sixty_users_of_three_deployments_never_mix() {
    let cloud = FakeUpstream::start();
    let keys = [KEY, "server-second", "client-third"];
    for (version, key) in (1..).zip(keys) {
        cloud.set_flags_of(key, flags::flags(version));
    }
    let twin = FakeUpstream::start();
    for (version, key) in (1..).zip(keys) {
        twin.set_flags_of(key, flags::flags(version));
    }
    let sidecar = Sidecar::start(&cloud);
    let ask = |number: usize| {
        let plan = if number.is_multiple_of(2) { "pro" } else { "free" };
        let user = json!({"user_id": format!("u-{}", number % 60), "user_properties": {"plan": plan}});
        Ask::sdk_get(&user.to_string()).key(keys[number / 60])
    };
    let wanted: Vec<_> = (0..180)
        .map(|number| Caller::new(twin.address()).ask(&ask(number)).json())
        .collect();
    at_once(12, |thread| {
        let mut caller = sidecar.caller();
        for step in 0..360 {
            // Strides without a common factor with 180: every thread meets every question twice, in its own order.
            let number = (thread * 31 + step * [7, 11, 13, 17][thread % 4]) % 180;
            let answer = caller.ask(&ask(number));
            assert_eq!(
                (answer.status, answer.json()),
                (200, wanted[number].clone()),
                "question {number}"
            );
        }
    });
    assert_eq!(
        cloud.count(Route::Vardata),
        180,
        "one upstream request for each question"
    );
}

#[test]
fn only_what_is_in_the_key_is_forwarded() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let ask = Ask::about("u-1")
        .header("Cookie", "session=1")
        .header("User-Agent", "App/1")
        .header("Accept-Language", "de")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("Forwarded", "for=203.0.113.9")
        .header("X-Real-IP", "203.0.113.9")
        .header("X-Custom", "1")
        .header("Referer", "https://shop.example/")
        .header("Origin", "https://shop.example")
        .header("X-Amp-Exp-Library", "experiment-node-server/1.13.6")
        .header("X-Amp-Exp-Track", "no-track")
        .header("X-Amp-Exp-Exposure-Track", "track")
        .header("X-Amp-Exp-New", "kept")
        .header("tracestate", "a=b")
        .header("traceparent", trace);
    assert_eq!(sidecar.ask(&ask).status, 200);
    let seen = cloud.requests_on(Route::Vardata).remove(0);
    for name in [
        "cookie",
        "accept-language",
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-custom",
        "referer",
        "origin",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_ne!(seen.header("user-agent"), Some("App/1"));
    for (name, value) in [
        ("x-amp-exp-library", "experiment-node-server/1.13.6"),
        ("x-amp-exp-track", "no-track"),
        ("x-amp-exp-exposure-track", "track"),
        ("x-amp-exp-new", "kept"),
        ("tracestate", "a=b"),
        ("host", cloud.address().to_string().as_str()),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert!(
        seen.header("traceparent").unwrap().starts_with(&trace[..35]),
        "the trace goes on"
    );
    assert_eq!(seen.key(), Some(KEY));
}

#[test]
fn the_older_flag_key_parameter_is_forwarded_under_its_present_name() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::v1("user_id=a&flag_key=theme,banner"));
    let query = cloud.requests_on(Route::Vardata).remove(0).query().to_owned();
    assert!(
        query.contains("flag_keys=theme") && !query.contains("flag_key="),
        "{query}"
    );
}

#[test]
fn an_ignored_query_parameter_is_neither_keyed_nor_forwarded() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("cache.ignore_query", "utm_source")
        .start();
    sidecar.ask(&Ask::v1("user_id=a&utm_source=x"));
    assert_eq!(sidecar.ask(&Ask::v1("user_id=a&utm_source=y")).source(), "hit");
    assert_eq!(sidecar.ask(&Ask::v1("user_id=a")).source(), "hit");
    assert!(
        !cloud.requests_on(Route::Vardata)[0]
            .query()
            .contains("utm_source")
    );
}

#[test]
fn a_local_answer_is_for_the_user_who_asked() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.go_down();
    at_once(8, |thread| {
        let mut caller = sidecar.caller();
        for number in 0..20 {
            let plan = if number % 3 == 0 { "pro" } else { "free" };
            let user = json!({"user_id": format!("u-{thread}-{number}"), "user_properties": {"plan": plan}})
                .to_string();
            let answer = caller.ask(&Ask::sdk_get(&user));
            assert_eq!(answer.source(), "local", "{answer:?}");
            assert_eq!(answer.json(), cloud.verdict(&user, &[], Shape::V2), "{user}");
        }
    });
}
