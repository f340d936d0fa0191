//! The ladder of sources: which stand-in answers when upstream does not (design 5).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::opinion::Shape;
use crate::support::upstream::KEY;
use crate::support::{Ask, Builder, FakeUpstream, Fault, Response, Route, Sidecar, eventually, flags};

const PRO: &str = r#"{"user_id":"u-pro","device_id":"d-1","country":"DE","user_properties":{"plan":"pro"}}"#;

/// A sidecar whose flags are loaded: somebody asked already.
fn warm(cloud: &FakeUpstream, settings: Builder) -> Sidecar {
    let sidecar = settings.start();
    assert_eq!(sidecar.ask(&Ask::about("somebody")).status, 200);
    sidecar.wait_for_syncs(1);
    cloud.wait_for(Route::Flags, 1);
    sidecar
}

/// The settings under which a stored answer is stale at once and not given as such.
fn short_lived(cloud: &FakeUpstream) -> Builder {
    Sidecar::in_front_of(cloud)
        .set("cache.fresh_for", "1ms")
        .set("cache.stale_while_revalidate", "0ms")
}

fn environment(cloud: &FakeUpstream, evaluation: &str) -> String {
    let url = cloud.url();
    let bases = ["eval", "flags", "stream", "cohort"]
        .map(|base| format!("      {base}: {url}\n"))
        .concat();
    format!("environments:\n  - name: main\n    evaluation: {evaluation}\n    urls:\n{bases}")
}

fn ask_until(sidecar: &Sidecar, ask: &Ask, source: &str) -> Response {
    eventually(source, || {
        Some(sidecar.ask(ask)).filter(|answer| answer.source() == source)
    })
}

#[test]
fn a_late_upstream_is_replaced_by_local_evaluation_at_the_answer_deadline() {
    let cloud = FakeUpstream::start();
    let sidecar = warm(&cloud, Sidecar::in_front_of(&cloud));
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let answer = sidecar.ask(&Ask::sdk_get(PRO));
    assert_eq!((answer.status, answer.source()), (200, "local"), "{answer:?}");
    assert_eq!(answer.json(), cloud.verdict(PRO, &[], Shape::V2));
    assert!(answer.took >= Duration::from_millis(390), "{answer:?}");
    assert!(answer.took < Duration::from_secs(1), "{answer:?}");
}

#[test]
fn the_late_answer_of_upstream_still_fills_the_cache() {
    let cloud = FakeUpstream::start();
    let sidecar = warm(
        &cloud,
        Sidecar::in_front_of(&cloud).set("answer_deadline", "50ms"),
    );
    cloud.fail_on(Route::Vardata, Fault::Hold);
    assert_eq!(sidecar.ask(&Ask::sdk_get(PRO)).source(), "local");
    cloud.release();
    let hit = ask_until(&sidecar, &Ask::sdk_get(PRO), "hit");
    assert_eq!(hit.json()["who"]["key"], "asked", "it is upstream's own answer");
    assert_eq!(
        cloud.count(Route::Vardata),
        2,
        "the late request was the only one"
    );
}

#[test]
fn without_a_stand_in_a_request_waits_for_a_late_upstream() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("answer_deadline", "10ms")
        .start();
    cloud.fail_on(Route::Vardata, Fault::Late(Duration::from_millis(300)));
    let answer = sidecar.ask(&Ask::sdk_get(PRO));
    assert_eq!((answer.status, answer.source()), (200, "miss"), "{answer:?}");
}

#[test]
fn a_stored_answer_comes_before_local_evaluation_while_the_flags_are_unchanged() {
    let cloud = FakeUpstream::start();
    let sidecar = warm(&cloud, short_lived(&cloud));
    let first = sidecar.ask(&Ask::sdk_get(PRO));
    cloud.fail_on(Route::Vardata, Fault::status(503));
    let answer = ask_until(&sidecar, &Ask::sdk_get(PRO), "stale_error");
    assert_eq!(answer.body, first.body);
    let status = answer.header("cache-status").unwrap();
    assert!(status.contains("ttl=-") || status.contains("ttl=0"), "{status}");
}

#[test]
fn local_evaluation_comes_before_an_answer_of_older_flags() {
    let cloud = FakeUpstream::start();
    let sidecar = warm(&cloud, Sidecar::in_front_of(&cloud));
    assert_eq!(sidecar.ask(&Ask::sdk_get(PRO)).source(), "miss");
    cloud.fail_on(Route::Vardata, Fault::status(503));
    cloud.set_flags(flags::flags(2));
    let answer = ask_until(&sidecar, &Ask::sdk_get(PRO), "local");
    assert_eq!(answer.json(), cloud.verdict(PRO, &[], Shape::V2));
    assert_eq!(answer.json()["theme"]["payload"]["version"], 2);
}

#[test]
fn an_answer_of_any_age_is_the_last_resort() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::alone()
        .config(&environment(&cloud, "off"))
        .set("cache.fresh_for", "1ms");
    let sidecar = settings
        .set("cache.stale_while_revalidate", "0ms")
        .set("cache.stale_error", "0ms")
        .start();
    let first = sidecar.ask(&Ask::sdk_get(PRO));
    cloud.go_down();
    let answer = sidecar.ask(&Ask::sdk_get(PRO));
    assert_eq!(
        (answer.status, answer.source()),
        (200, "stale_error"),
        "{answer:?}"
    );
    assert_eq!(answer.body, first.body);
}

#[test]
fn an_answer_past_its_last_resort_is_not_given() {
    let cloud = FakeUpstream::start();
    let mut settings = Sidecar::alone()
        .config(&environment(&cloud, "off"))
        .set("cache.fresh_for", "1ms");
    for setting in [
        "cache.stale_while_revalidate",
        "cache.stale_error",
        "cache.max_stale",
    ] {
        settings = settings.set(setting, "0ms");
    }
    let sidecar = settings.start();
    sidecar.ask(&Ask::sdk_get(PRO));
    cloud.go_down();
    eventually("no answer", || {
        (sidecar.ask(&Ask::sdk_get(PRO)).status == 503).then_some(())
    });
}

#[test]
fn with_nothing_to_answer_from_it_says_so() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    cloud.go_down();
    let answer = sidecar.ask(&Ask::sdk_get(PRO));
    assert_eq!(
        (answer.status, answer.error_code()),
        (503, Some("no_answer")),
        "{answer:?}"
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.closes(), "Python keeps no broken connection in its pool");
}

#[test]
fn a_verdict_is_passed_on_whatever_could_stand_in() {
    let cloud = FakeUpstream::start();
    let sidecar = warm(&cloud, short_lived(&cloud));
    sidecar.ask(&Ask::sdk_get(PRO));
    for status in [400, 402, 403, 405, 406, 409, 410, 413, 415, 422, 451] {
        cloud.heal();
        cloud.fail_on(Route::Vardata, Fault::status(status));
        let answer = eventually("upstream's verdict", || {
            Some(sidecar.ask(&Ask::sdk_get(PRO))).filter(|answer| answer.source() != "hit")
        });
        assert_eq!(
            (answer.status, answer.text()),
            (status, format!("the cloud says {status}")),
            "{answer:?}"
        );
    }
}

#[test]
fn a_failure_is_papered_over() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud).set("upstream.circuit.failures", "1000");
    let sidecar = warm(&cloud, settings.set("upstream.retries", "0"));
    for (number, status) in [
        301, 302, 303, 307, 308, 404, 407, 408, 421, 425, 429, 500, 501, 502, 503, 504, 599,
    ]
    .iter()
    .enumerate()
    {
        cloud.heal();
        cloud.fail_on(Route::Vardata, Fault::redirect(*status, "http://127.0.0.1:9/"));
        let user = format!(r#"{{"user_id":"u-{number}"}}"#);
        let answer = sidecar.ask(&Ask::sdk_get(&user));
        assert_eq!(
            (answer.status, answer.source()),
            (200, "local"),
            "{status}: {answer:?}"
        );
        assert_eq!(answer.json(), cloud.verdict(&user, &[], Shape::V2), "{status}");
    }
}

#[test]
fn local_evaluation_knows_both_shapes_and_flag_keys() {
    let cloud = FakeUpstream::start();
    let sidecar = warm(&cloud, Sidecar::in_front_of(&cloud));
    cloud.go_down();
    let local = |ask: &Ask| {
        let answer = sidecar.ask(ask);
        assert_eq!((answer.status, answer.source()), (200, "local"), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        answer.json()
    };
    let v1 = local(&Ask::post("/v1/vardata", PRO));
    assert_eq!(v1, cloud.verdict(PRO, &[], Shape::V1));
    assert_eq!(v1["checkout"]["expKey"], "exp-1");
    assert_eq!(local(&Ask::sdk_get(PRO).to("/sdk/vardata")), v1);
    let some = local(&Ask::sdk_get(PRO).flag_keys(&["beta", "unknown"]));
    assert_eq!(some, cloud.verdict(PRO, &["beta"], Shape::V2));
    assert!(
        some.get("theme").is_some(),
        "what beta depends on is part of the answer"
    );
    assert_eq!(
        local(&Ask::get("/v1/vardata")),
        cloud.verdict("{}", &[], Shape::V1),
        "nobody gets an answer, too"
    );
}

#[test]
fn a_local_answer_is_never_stored() {
    let cloud = FakeUpstream::start();
    let sidecar = warm(&cloud, Sidecar::in_front_of(&cloud));
    cloud.fail_times(Route::Vardata, Fault::status(429), 1);
    assert_eq!(sidecar.ask(&Ask::sdk_get(PRO)).source(), "local");
    assert_eq!(sidecar.ask(&Ask::sdk_get(PRO)).source(), "miss");
}

#[test]
fn in_local_mode_no_question_reaches_upstream() {
    let cloud = FakeUpstream::start();
    let keys = format!("    deployment_keys: [{KEY}]\n");
    let sidecar = Sidecar::alone()
        .config(&(environment(&cloud, "local") + &keys))
        .start();
    sidecar.wait_for_syncs(1);
    for number in 0..20 {
        let user = format!(r#"{{"user_id":"u-{number}"}}"#);
        let answer = sidecar.ask(&Ask::sdk_get(&user));
        assert_eq!(
            (answer.source(), answer.json()),
            ("local", cloud.verdict(&user, &[], Shape::V2))
        );
    }
    assert_eq!(cloud.count(Route::Vardata), 0);
}

#[test]
fn in_local_mode_flags_that_are_not_synced_come_from_upstream() {
    let cloud = FakeUpstream::start();
    let keys = format!("    deployment_keys: [{KEY}]\n");
    let sidecar = Sidecar::alone()
        .config(&(environment(&cloud, "local") + &keys))
        .start();
    sidecar.wait_for_syncs(1);
    assert_eq!(sidecar.ask(&Ask::flags()).source(), "local");
    let web = Ask::sdk_get(PRO).to("/sdk/v2/flags?delivery_method=web");
    for source in ["miss", "hit"] {
        let answer = sidecar.ask(&web);
        assert_eq!((answer.status, answer.source()), (200, source), "{answer:?}");
    }
}

#[test]
fn in_local_mode_the_flags_of_an_unknown_key_come_before_the_flags_file() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::alone();
    let path = settings.file("bootstrap.json", &flags::flags(7).to_string());
    let sidecar = settings
        .config(&(environment(&cloud, "local") + &format!("    bootstrap_file: {path}\n")))
        .start();
    let first = sidecar.ask(&Ask::sdk_get(PRO));
    assert_eq!((first.status, first.source()), (200, "local"), "{first:?}");
    eventually("the synced flags", || {
        let answer = sidecar.ask(&Ask::sdk_get(PRO));
        assert_eq!(answer.source(), "local", "{answer:?}");
        (answer.json()["theme"]["payload"]["version"] == 1).then_some(())
    });
    assert_eq!(cloud.count(Route::Vardata), 0);
}

#[test]
fn a_switched_off_evaluation_still_hands_out_synced_flags() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::alone().config(&environment(&cloud, "off")).start();
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.go_down();
    let answer = sidecar.ask(&Ask::flags());
    assert_eq!((answer.status, answer.source()), (200, "local"), "{answer:?}");
}

#[test]
fn a_switched_off_evaluation_never_answers() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::alone().config(&environment(&cloud, "off")).start();
    assert_eq!(sidecar.ask(&Ask::about("somebody")).source(), "miss");
    cloud.go_down();
    assert_eq!(sidecar.ask(&Ask::sdk_get(PRO)).status, 503);
}

#[test]
fn a_flags_file_answers_when_upstream_never_did() {
    let cloud = FakeUpstream::start();
    cloud.go_down();
    let sidecar = Sidecar::in_front_of(&cloud).flags(&flags::flags(7)).start();
    for key in ["server-never-seen-before", "client-neither"] {
        let answer = sidecar.ask(&Ask::sdk_get(PRO).key(key));
        assert_eq!((answer.status, answer.source()), (200, "local"), "{answer:?}");
        assert_eq!(answer.json()["theme"]["payload"]["version"], 7);
    }
}

#[test]
fn a_flags_file_answers_with_no_upstream_at_all() {
    let settings = Sidecar::alone();
    let path = settings.file("bootstrap.json", &flags::flags(7).to_string());
    let sidecar = settings
        .config(&format!(
            "environments:\n  - name: main\n    urls: none\n    bootstrap_file: {path}\n"
        ))
        .start();
    let answer = sidecar.ask(&Ask::sdk_get(PRO));
    assert_eq!((answer.status, answer.source()), (200, "local"), "{answer:?}");
    let flags: Value = sidecar.ask(&Ask::flags()).json();
    assert!(
        flags
            .as_array()
            .is_some_and(|flags| flags.iter().any(|flag| flag["key"] == "theme")),
        "{flags}"
    );
}

#[test]
fn the_synced_flags_come_before_the_flags_file() {
    let cloud = FakeUpstream::start();
    let sidecar = warm(&cloud, Sidecar::in_front_of(&cloud).flags(&flags::flags(7)));
    cloud.go_down();
    assert_eq!(
        sidecar.ask(&Ask::sdk_get(PRO)).json()["theme"]["payload"]["version"],
        1
    );
}

#[test]
fn a_flag_that_cannot_be_evaluated_here_keeps_what_upstream_said() {
    let cloud = FakeUpstream::start();
    let mut with_cohort = flags::flags(1);
    with_cohort.as_array_mut().unwrap().push(flags::cohort_flag(1));
    cloud.set_flags(with_cohort);
    cloud.answer_with(|question, _| {
        let vip = question.user["user_id"] == "u-pro";
        json!({"vip": {"key": if vip { "on" } else { "off" }, "value": "cloud"}, "theme": {"key": "cloud"}})
    });
    let sidecar = warm(&cloud, short_lived(&cloud).set("cache.stale_error", "0ms"));
    sidecar.ask(&Ask::sdk_get(PRO));
    cloud.go_down();
    let answer = ask_until(&sidecar, &Ask::sdk_get(PRO), "local").json();
    assert_eq!(
        answer["vip"]["value"], "cloud",
        "only the cloud knows the cohort: {answer}"
    );
    assert_eq!(
        answer["theme"]["value"], "on",
        "a flag that can be evaluated here is: {answer}"
    );
    let stranger = sidecar.ask(&Ask::about("stranger")).json();
    assert_eq!(
        stranger["vip"]["key"], "off",
        "who was never seen gets what the engine computes: {stranger}"
    );
}
