//! The flags routes, and what a change of flags does to stored answers.

use serde_json::{Value, json};

use crate::support::upstream::KEY;
use crate::support::{Ask, FakeUpstream, Fault, Response, Route, Sidecar, at_once, eventually, flags};

fn keys(response: &Response) -> Vec<String> {
    let flags = response.json();
    let flags = flags
        .as_array()
        .unwrap_or_else(|| panic!("no list: {response:?}"));
    flags
        .iter()
        .map(|flag| flag["key"].as_str().unwrap().to_owned())
        .collect()
}

const LOCAL: [&str; 4] = ["theme", "layout", "beta", "hidden"];
const ALL: [&str; 6] = ["theme", "checkout", "banner", "layout", "beta", "hidden"];

#[test]
fn flags_are_answered_from_the_cache() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("sync.flags_interval", "1h")
        .start();
    let first = sidecar.ask(&Ask::flags());
    assert_eq!(
        (first.status, keys(&first)),
        (200, LOCAL.map(str::to_owned).to_vec())
    );
    sidecar.wait_for_syncs(1);
    let asked = cloud.count(Route::Flags);
    for ask in [
        Ask::flags(),
        Ask::get("/sdk/v2/flags?v=0"),
        Ask::get("//sdk/v2/flags/"),
        Ask::flags().header("X-Amp-Exp-User", "e30"),
    ] {
        let answer = sidecar.ask(&ask);
        assert_eq!((answer.status, answer.source()), (200, "hit"), "{ask:?}");
        assert_eq!(
            answer.body, first.body,
            "byte for byte what the cloud sent: {ask:?}"
        );
    }
    assert_eq!(cloud.count(Route::Flags), asked);
}

#[test]
fn flags_can_be_validated() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::flags());
    let answer = sidecar.ask(&Ask::flags());
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let etag = answer.header("etag").expect("there is an ETag").to_owned();
    assert!(
        etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2,
        "a strong one: {etag}"
    );
    for given in [
        etag.clone(),
        format!("\"other\", {etag}"),
        format!("W/{etag}"),
        "*".to_owned(),
    ] {
        let unchanged = sidecar.ask(&Ask::flags().header("If-None-Match", &given));
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{given}");
        assert_eq!(unchanged.header("etag"), Some(etag.as_str()), "{given}");
    }
    assert_eq!(
        sidecar
            .ask(&Ask::flags().header("If-None-Match", "\"other\""))
            .status,
        200
    );
    let vardata = sidecar.ask(&Ask::about("u"));
    assert_eq!(
        vardata.header("etag"),
        None,
        "an answer about a user is not validated"
    );
}

#[test]
fn the_sets_of_the_two_modes_never_mix() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    for outage in [false, true] {
        for _ in 0..2 {
            assert_eq!(keys(&sidecar.ask(&Ask::flags())), LOCAL);
            assert_eq!(
                keys(&sidecar.ask(&Ask::get("/sdk/v2/flags?eval_mode=remote"))),
                ALL
            );
        }
        if !outage {
            cloud.go_down();
        }
    }
}

#[test]
fn a_list_of_flag_keys_filters() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for query in ["flag_keys=theme,beta", "flag_keys=beta,%20theme,theme,"] {
        let mut answer = keys(&sidecar.ask(&Ask::get(&format!("/v1/flags?{query}"))));
        answer.sort_unstable();
        assert_eq!(answer, ["beta", "theme"], "{query}");
    }
    assert_eq!(keys(&sidecar.ask(&Ask::get("/v1/flags?flag_keys="))), LOCAL);
    assert_eq!(
        keys(&sidecar.ask(&Ask::get("/v1/flags?flag_keys=unknown"))),
        [""; 0]
    );
}

#[test]
fn flags_of_different_deployments_never_mix() {
    let cloud = FakeUpstream::start();
    cloud.set_flags_of("server-two", flags::flags(2));
    let sidecar = Sidecar::start(&cloud);
    at_once(8, |number| {
        let (key, version) = if number % 2 == 0 {
            (KEY, 1)
        } else {
            ("server-two", 2)
        };
        for _ in 0..5 {
            let flags = sidecar.ask(&Ask::flags().key(key)).json();
            assert_eq!(flags[0]["metadata"]["flagVersion"], version);
        }
    });
}

#[test]
fn flags_survive_any_outage() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let before = sidecar.ask(&Ask::flags());
    sidecar.wait_for_syncs(1);
    cloud.fail(Fault::Hang);
    let during = sidecar.ask(&Ask::flags());
    assert_eq!((during.status, &during.body), (200, &before.body), "{during:?}");
}

#[test]
fn without_flags_an_outage_is_an_error_that_empties_nobodys_flags() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    cloud.go_down();
    let answer = sidecar.ask(&Ask::flags());
    assert_eq!(answer.status, 503);
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    assert!(
        !body.is_some_and(|body| body.is_array() || body.is_null()),
        "Go takes any list for flags: {answer:?}"
    );
}

#[test]
fn a_wrong_shaped_flag_set_is_never_relayed() {
    for body in ["{}", "null", "[1]", "", "[{\"key\":\"a\"},", "<html>"] {
        let cloud = FakeUpstream::start();
        cloud.fail_on(Route::Flags, Fault::body(body));
        let sidecar = Sidecar::start(&cloud);
        let answer = sidecar.ask(&Ask::flags());
        assert_eq!(answer.status, 503, "{body:?}: {answer:?}");
    }
}

#[test]
fn a_change_of_flags_ends_the_freshness_of_stored_answers() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "1h").start();
    let user = r#"{"user_id":"u","user_properties":{"plan":"pro"}}"#;
    sidecar.ask(&Ask::sdk_get(user));
    sidecar.wait_for_syncs(1);
    assert_eq!(sidecar.ask(&Ask::sdk_get(user)).source(), "hit");
    cloud.set_flags(flags::flags(2));
    let answer = eventually("another miss", || {
        Some(sidecar.ask(&Ask::sdk_get(user))).filter(|answer| answer.source() == "miss")
    });
    assert_eq!(answer.json()["theme"]["payload"]["version"], 2);
    eventually("the new flags", || {
        (sidecar.ask(&Ask::flags()).json()[0]["metadata"]["flagVersion"] == 2).then_some(())
    });
}

#[test]
fn another_order_of_the_same_flags_changes_nothing() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "1h").start();
    sidecar.ask(&Ask::about("u"));
    sidecar.wait_for_syncs(1);
    let mut turned = flags::flags(1);
    turned.as_array_mut().unwrap().rotate_left(2);
    cloud.set_flags(turned);
    cloud.forget();
    cloud.wait_for(Route::Flags, 4);
    assert_eq!(sidecar.ask(&Ask::about("u")).source(), "hit");
    assert_eq!(cloud.count(Route::Vardata), 0);
}

#[test]
fn a_change_in_one_deployment_leaves_the_others_alone() {
    let cloud = FakeUpstream::start();
    cloud.set_flags_of("server-two", flags::flags(1));
    let sidecar = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "1h").start();
    sidecar.ask(&Ask::about("u"));
    sidecar.ask(&Ask::about("u").key("server-two"));
    sidecar.wait_for_syncs(2);
    cloud.set_flags_of("server-two", flags::flags(2));
    eventually("its change", || {
        (sidecar.ask(&Ask::about("u").key("server-two")).source() == "miss").then_some(())
    });
    assert_eq!(sidecar.ask(&Ask::about("u")).source(), "hit");
}

#[test]
fn an_answer_begun_before_a_change_is_not_stored_as_current() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "1h");
    let sidecar = settings.patient().start();
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    let user = r#"{"user_id":"u","user_properties":{"plan":"pro"}}"#;
    cloud.fail_times(Route::Vardata, Fault::Hold, 1);
    let bytes = Ask::sdk_get(user).bytes();
    let mut early = sidecar.caller();
    early.send(&bytes);
    cloud.wait_for(Route::Vardata, 2);
    cloud.set_flags(flags::flags(2));
    eventually("the new flags", || {
        (sidecar.ask(&Ask::flags()).json()[0]["metadata"]["flagVersion"] == 2).then_some(())
    });
    eventually("the change in the stored answers", || {
        (sidecar.ask(&Ask::about("somebody")).source() == "miss").then_some(())
    });
    cloud.release();
    assert_eq!(early.receive(false).expect_answer(&bytes).status, 200);
    let next = sidecar.ask(&Ask::sdk_get(user));
    assert_eq!(next.source(), "miss", "{next:?}");
    assert_eq!(next.json()["theme"]["payload"]["version"], 2);
}

#[test]
fn polls_send_the_etag_they_were_given() {
    let cloud = FakeUpstream::start();
    cloud.use_etags();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("u"));
    sidecar.wait_for_syncs(1);
    let polls = cloud.wait_for(Route::RemoteFlags, 2);
    assert_eq!(polls[0].header("if-none-match"), None);
    assert!(
        polls[1]
            .header("if-none-match")
            .is_some_and(|etag| etag.starts_with('"')),
        "{:?}",
        polls[1]
    );
    cloud.go_down();
    assert_eq!(
        keys(&sidecar.ask(&Ask::flags())),
        LOCAL,
        "a 304 keeps what there is"
    );
}

#[test]
fn polls_say_who_they_are_and_begin_with_the_first_accepted_question() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("u").key("nobody"));
    assert_eq!(cloud.count(Route::Flags), 0, "a rejected key is not polled");
    sidecar.ask(&Ask::about("u"));
    let poll = cloud.wait_for(Route::RemoteFlags, 1).remove(0);
    assert_eq!(poll.key(), Some(KEY));
    assert!(
        poll.header("x-amp-exp-library")
            .is_some_and(|library| library.starts_with("flagside/")),
        "{poll:?}"
    );
}

#[test]
fn web_flags_depend_on_the_user_and_others_do_not() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let web = |user: &str| Ask::sdk_get(user).to("/sdk/v2/flags?delivery_method=web");
    for (user, requests) in [(r#"{"user_id":"a"}"#, 1), (r#"{"user_id":"b"}"#, 2)] {
        assert_eq!(sidecar.ask(&web(user)).status, 200);
        let seen = cloud.requests_on(Route::Flags);
        let asked = seen
            .iter()
            .filter(|request| request.query().contains("delivery_method"))
            .count();
        assert_eq!(asked, requests, "{user}");
    }
}

#[test]
fn flags_are_never_compressed_unasked() {
    let cloud = FakeUpstream::start();
    let mut many = flags::flags(1);
    let first = many[0].clone();
    for number in 0..100 {
        let mut flag = first.clone();
        flag["key"] = json!(format!("flag-{number}"));
        many.as_array_mut().unwrap().push(flag);
    }
    cloud.set_flags(many);
    let sidecar = Sidecar::start(&cloud);
    for _ in 0..3 {
        for ask in [
            Ask::flags(),
            Ask::flags().header("Accept-Encoding", "identity"),
            Ask::flags().header("Accept-Encoding", "gzip;q=0"),
        ] {
            let answer = sidecar.ask(&ask);
            assert_eq!(answer.header("content-encoding"), None);
            assert_eq!(keys(&answer).len(), 104);
        }
    }
}

#[test]
fn a_flag_that_cannot_be_read_fails_no_other() {
    let cloud = FakeUpstream::start();
    let mut with_bad = flags::flags(1);
    with_bad
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"key": "bad", "variants": 7}));
    let regex = json!([[{"selector": ["context", "user", "country"], "op": "regex match", "values": ["("]}]]);
    with_bad.as_array_mut().unwrap().push(json!({
        "key": "hostile", "variants": {"on": {"key": "on"}, "off": {"key": "off"}},
        "segments": [{"conditions": regex, "variant": "on"}, {"variant": "off"}],
    }));
    cloud.set_flags(with_bad);
    cloud.answer_with(|_, _| json!({}));
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.go_down();
    let answer = sidecar.ask(&Ask::sdk_get(r#"{"country":"DE"}"#)).json();
    assert_eq!(
        (&answer["banner"]["key"], &answer["hostile"]["key"]),
        (&json!("on"), &json!("off")),
        "{answer}"
    );
    assert_eq!(answer.get("bad"), None);
    let status = sidecar.status().to_string();
    assert!(status.contains("\"bad\""), "the status names it: {status}");
}

#[test]
fn flags_come_from_the_evaluation_host_while_the_flags_host_is_gone() {
    let cloud = FakeUpstream::start();
    let gone = FakeUpstream::start();
    gone.go_down();
    let url = cloud.url();
    let sidecar = Sidecar::alone()
        .config(&format!(
            "environments:\n  - name: main\n    urls:\n      eval: {url}\n      flags: {}\n      stream: {url}\n      cohort: {url}\n",
            gone.url()
        ))
        .set("upstream.circuit.failures", "1")
        .set("upstream.circuit.open_for", "10m")
        .start();
    for flag in ["theme", "banner", "checkout"] {
        let answer = sidecar.ask(&Ask::get(&format!("/sdk/v2/flags?flag_keys={flag}")));
        assert_eq!(
            (answer.status, answer.source()),
            (200, "miss"),
            "{flag}: {answer:?}"
        );
    }
    sidecar.wait_for_syncs(1);
}
