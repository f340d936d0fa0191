//! Stored answers: when they are used, what they hold, and when they end.

use crate::support::{Ask, FakeUpstream, Fault, Route, Sidecar, eventually};

#[test]
fn the_second_question_is_answered_from_the_cache() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let first = sidecar.ask(&Ask::about("u-1"));
    assert_eq!((first.status, first.source()), (200, "miss"), "{first:?}");
    let second = sidecar.ask(&Ask::about("u-1"));
    assert_eq!((second.status, second.source()), (200, "hit"), "{second:?}");
    assert_eq!(first.body, second.body);
    assert_eq!(cloud.count(Route::Vardata), 1);
}

#[test]
fn every_way_to_ask_is_cached() {
    let user = r#"{"user_id":"u-1","country":"DE"}"#;
    let asks = [
        Ask::sdk_get(user),
        Ask::sdk_post(r#"{"user_id":"u-2"}"#),
        Ask::v1("user_id=u-1"),
        Ask::post("/v1/vardata", user),
        Ask::sdk_get(user).to("/sdk/vardata"),
        Ask::post("/sdk/vardata", r#"{"user_id":"u-2"}"#),
        Ask::get("/v1/vardata"),
    ];
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for ask in asks {
        cloud.forget();
        let (first, second) = (sidecar.ask(&ask), sidecar.ask(&ask));
        assert_eq!((first.source(), second.source()), ("miss", "hit"), "{ask:?}");
        assert_eq!(first.body, second.body, "{ask:?}");
        assert_eq!(cloud.count(Route::Vardata), 1, "{ask:?}");
    }
}

#[test]
fn an_answer_says_where_it_came_from_and_how_old_it_is() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "60s").start();
    let miss = sidecar.ask(&Ask::about("u-1"));
    assert_eq!(
        miss.header("cache-status"),
        Some("flagside; fwd=uri-miss; stored")
    );
    let hit = sidecar.ask(&Ask::about("u-1"));
    let ttl: u64 = hit
        .header("cache-status")
        .unwrap()
        .strip_prefix("flagside; hit; ttl=")
        .unwrap()
        .parse()
        .unwrap();
    let age: u64 = hit.header("age").unwrap().parse().unwrap();
    assert!((59..=60).contains(&(ttl + age)), "{hit:?}");
    for answer in [miss, hit] {
        assert_eq!(
            answer.header("cache-control"),
            Some("private, no-store"),
            "one URL serves all users"
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("content-encoding"), None);
        assert!(!answer.closes());
    }
}

#[test]
fn a_stale_answer_is_given_at_once_and_refreshed_in_the_background() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("cache.fresh_for", "100ms")
        .start();
    let first = sidecar.ask(&Ask::about("u-1"));
    cloud.answer_with(|_, _| serde_json::json!({"theme": {"key": "newer"}}));
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let stale = eventually("a stale answer", || {
        Some(sidecar.ask(&Ask::about("u-1"))).filter(|answer| answer.source() == "stale")
    });
    assert_eq!(stale.body, first.body, "the refresh is still held back");
    cloud.wait_for(Route::Vardata, 2);
    cloud.release();
    eventually("the refreshed answer", || {
        Some(sidecar.ask(&Ask::about("u-1"))).filter(|answer| answer.body != first.body)
    });
}

#[test]
fn only_one_refresh_is_under_way_at_a_time() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "1ms").start();
    sidecar.ask(&Ask::about("u-1"));
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let mut caller = sidecar.caller();
    eventually("a stale answer", || {
        (caller.ask(&Ask::about("u-1")).source() == "stale").then_some(())
    });
    cloud.wait_for(Route::Vardata, 2);
    for _ in 0..50 {
        assert_eq!(caller.ask(&Ask::about("u-1")).source(), "stale");
    }
    assert_eq!(cloud.count(Route::Vardata), 2);
}

#[test]
fn an_answer_past_its_stale_time_is_fetched_again() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "1ms");
    let sidecar = settings.set("cache.stale_while_revalidate", "0ms").start();
    sidecar.ask(&Ask::about("u-1"));
    eventually("a second miss", || {
        (sidecar.ask(&Ask::about("u-1")).source() == "miss").then_some(())
    });
}

#[test]
fn no_header_of_the_cloud_reaches_a_second_client() {
    let cloud = FakeUpstream::start();
    for (name, value) in [
        ("Set-Cookie", "session=first"),
        ("X-Served-By", "cache-fra"),
        ("Access-Control-Allow-Origin", "https://first.example"),
        ("Cache-Control", "public, max-age=3600"),
        ("Vary", "Cookie"),
    ] {
        cloud.add_header(name, value);
    }
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("u-1"));
    let hit = sidecar.ask(&Ask::about("u-1"));
    assert_eq!(hit.source(), "hit");
    assert_eq!(hit.header("set-cookie"), None);
    assert_eq!(hit.header("x-served-by"), None);
    assert_eq!(hit.header("cache-control"), Some("private, no-store"));
    assert!(
        hit.headers
            .iter()
            .all(|(_, value)| !value.contains("first.example") && !value.contains("3600")),
        "{hit:?}"
    );
}

#[test]
fn a_head_request_gets_the_head_of_the_same_answer() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let get = sidecar.ask(&Ask::about("u-1"));
    let head = sidecar.ask(&Ask {
        method: "HEAD".to_owned(),
        ..Ask::about("u-1")
    });
    assert_eq!((head.status, head.source(), head.body.len()), (200, "hit", 0));
    assert_eq!(
        head.header("content-length"),
        Some(get.body.len().to_string().as_str())
    );
    assert_eq!(cloud.count(Route::Vardata), 1);
}

#[test]
fn an_error_is_not_stored() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    cloud.fail_times(
        Route::Vardata,
        Fault::canned(422, "application/json", r#"{"why":"no"}"#),
        1,
    );
    let verdict = sidecar.ask(&Ask::about("u-1"));
    assert_eq!(
        (verdict.status, verdict.text().as_str()),
        (422, r#"{"why":"no"}"#)
    );
    assert_eq!(sidecar.ask(&Ask::about("u-1")).source(), "miss");
}

#[test]
fn an_answer_larger_than_an_entry_is_relayed_and_not_stored() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("cache.max_entry", "8KiB")
        .start();
    cloud.fail_on(Route::Vardata, Fault::Huge(20_000));
    for asked in 1..=2 {
        let answer = sidecar.ask(&Ask::about("u-1"));
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() > 20_000);
        assert_eq!(cloud.count(Route::Vardata), asked);
    }
}

#[test]
fn the_cache_stays_within_its_bytes() {
    let cloud = FakeUpstream::start();
    cloud.answer_with(|question, _| serde_json::json!({"big": {"key": "on", "payload": "x".repeat(8000), "of": question.user}}));
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("cache.max_bytes", "1MiB")
        .start();
    let mut caller = sidecar.caller();
    for number in 0..400 {
        assert_eq!(caller.ask(&Ask::about(&format!("u-{number}"))).status, 200);
    }
    let vardata = [("cache", "vardata")];
    sidecar.wait_for_metric("flagside_cache_evictions_total", &vardata, 100.0);
    let metrics = sidecar.metrics();
    let (weight, most) = (
        metrics.sum("flagside_cache_weight_bytes", &vardata),
        metrics.sum("flagside_cache_max_weight_bytes", &vardata),
    );
    assert!(
        weight > 0.0 && weight <= most && most <= f64::from(1 << 20),
        "{weight} of {most}"
    );
}

/// Asks on twenty new connections, so that every worker is met, and returns the bodies.
fn on_every_worker(sidecar: &Sidecar, ask: &Ask) -> Vec<String> {
    (0..20).map(|_| sidecar.ask(ask).text()).collect()
}

#[test]
fn the_debug_parameter_skips_the_stored_answer_and_replaces_it_everywhere() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).set("workers", "4").start();
    on_every_worker(&sidecar, &Ask::about("u-1"));
    cloud.answer_with(|_, _| serde_json::json!({"theme": {"key": "newer"}}));
    let debug = sidecar
        .ask(&Ask::about("u-1").to("/sdk/v2/vardata?d=qwert"))
        .text();
    assert!(debug.contains("newer"), "{debug}");
    for body in on_every_worker(&sidecar, &Ask::about("u-1")) {
        assert_eq!(body, debug);
    }
    assert_eq!(cloud.count(Route::Vardata), 2);
}

#[test]
fn a_refreshed_answer_is_seen_by_every_worker_at_once() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud)
        .set("workers", "4")
        .set("cache.fresh_for", "300ms");
    let sidecar = settings.start();
    on_every_worker(&sidecar, &Ask::about("u-1"));
    cloud.answer_with(|_, _| serde_json::json!({"theme": {"key": "newer"}}));
    let newer = eventually("the refreshed answer", || {
        Some(sidecar.ask(&Ask::about("u-1")).text()).filter(|body| body.contains("newer"))
    });
    for body in on_every_worker(&sidecar, &Ask::about("u-1")) {
        assert_eq!(body, newer);
    }
}

#[test]
fn a_parameter_with_two_values_is_forwarded_unchanged_and_not_stored() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for (asked, query) in [
        "user_id=a&user_id=b",
        "v=0&v=1&user_id=a",
        "eval_mode=local&eval_mode=remote&user_id=a",
    ]
    .into_iter()
    .enumerate()
    {
        for again in 1..=2 {
            assert_eq!(sidecar.ask(&Ask::v1(query)).status, 200, "{query}");
            assert_eq!(
                cloud.requests_on(Route::Vardata).len(),
                2 * asked + again,
                "{query}"
            );
        }
        assert_eq!(cloud.requests_on(Route::Vardata)[2 * asked].query(), query);
    }
}

#[test]
fn answers_in_chunks_are_stored_like_others() {
    let cloud = FakeUpstream::start();
    cloud.fail_on(Route::Vardata, Fault::Chunked);
    let sidecar = Sidecar::start(&cloud);
    let (first, second) = (sidecar.ask(&Ask::about("u-1")), sidecar.ask(&Ask::about("u-1")));
    assert_eq!((first.source(), second.source()), ("miss", "hit"));
    assert_eq!(first.json(), second.json());
}

#[test]
fn a_body_that_is_compressed_unasked_is_not_relayed_as_it_is() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.fail_on(Route::Vardata, Fault::Gzip);
    for _ in 0..2 {
        let answer = sidecar.ask(&Ask::about("u-1"));
        assert_eq!(
            (answer.status, answer.header("content-encoding")),
            (200, None),
            "Node and Python fail on it: {answer:?}"
        );
        assert_eq!(answer.json()["theme"]["key"], "off");
    }
}

#[test]
fn stored_answers_hold_no_more_memory_than_their_own() {
    // One that keeps the read buffer it came in holds many times its own size.
    let cloud = FakeUpstream::start();
    cloud.answer_with(|question, _| serde_json::json!({"theme": {"key": question.user["user_id"]}}));
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("cache.max_bytes", "8MiB")
        .start();
    let ask = |range: std::ops::Range<u32>| {
        let mut caller = sidecar.caller();
        for number in range {
            assert_eq!(caller.ask(&Ask::about(&format!("u-{number}"))).status, 200);
        }
    };
    ask(0..200);
    let before = sidecar.metric("process_resident_memory_bytes", &[]);
    ask(200..4_200);
    let after = sidecar.metric("process_resident_memory_bytes", &[]);
    let entries = sidecar.metric("flagside_cache_entries", &[("cache", "vardata")]);
    assert!(entries >= 4_000.0, "{entries} entries");
    let grown_mib = (after - before) / 1024.0 / 1024.0;
    assert!(grown_mib < 10.0, "4000 answers of 100 bytes took {grown_mib} MiB");
}

#[test]
fn a_refused_refresh_is_not_repeated_for_every_request() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("cache.fresh_for", "1ms")
        .set("sync.flags_interval", "1h")
        .start();
    let mut caller = sidecar.caller();
    assert_eq!(caller.ask(&Ask::about("u-1")).source(), "miss");
    // A status that opens no breaker.
    cloud.fail_on(Route::Vardata, Fault::status(429));
    let stored_at = std::time::Instant::now();
    while stored_at.elapsed() < std::time::Duration::from_millis(2) {
        std::thread::yield_now();
    }
    let began = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(caller.ask(&Ask::about("u-1")).source(), "stale");
    }
    let refreshes = cloud.count(Route::Vardata) - 1;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(
        (1..=seconds + 1).contains(&refreshes),
        "{refreshes} in {seconds} s"
    );
}

#[test]
fn refreshes_are_counted_by_what_they_bring() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "1ms").start();
    sidecar.ask(&Ask::about("u-1"));
    let until_counted = |result| {
        eventually(result, || {
            sidecar.ask(&Ask::about("u-1"));
            let labels = [("cache", "vardata"), ("result", result)];
            let counted = sidecar.metrics().sum("flagside_cache_refreshes_total", &labels);
            (counted >= 1.0).then_some(())
        });
    };
    until_counted("unchanged");
    cloud.answer_with(|_, _| serde_json::json!({"theme": {"key": "newer"}}));
    until_counted("changed");
    cloud.fail_on(Route::Vardata, Fault::status(500));
    until_counted("failed");
}

#[test]
fn an_answer_that_ages_while_a_body_comes_is_no_hit() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).set("cache.fresh_for", "2s").start();
    let ask = Ask::sdk_post(r#"{"user_id":"u-1"}"#);
    for _ in 0..3 {
        assert_eq!(sidecar.ask(&ask).status, 200);
    }
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let bytes = ask.bytes();
    let (begin, end) = bytes.split_at(bytes.len() - 3);
    let mut slow = sidecar.caller();
    slow.send(begin);
    eventually("a stale answer", || {
        (sidecar.ask(&ask).source() == "stale").then_some(())
    });
    slow.send(end);
    let answer = slow.receive(false).expect_answer(&bytes);
    assert_eq!(answer.source(), "stale", "{answer:?}");
}
