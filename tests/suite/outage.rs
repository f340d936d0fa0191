//! Outages: nobody notices, and everything returns to normal afterwards.

use std::time::Duration;

use serde_json::json;

use crate::support::opinion::Shape;
use crate::support::outages::{OUTAGES, outage};
use crate::support::upstream::Door;
use crate::support::{Ask, FakeUpstream, Fault, Response, Route, Sidecar, at_once, eventually, holds_for};

fn user(number: usize) -> String {
    let plan = if number.is_multiple_of(2) { "pro" } else { "free" };
    let country = ["DE", "US", "FR"][number % 3];
    json!({
        "user_id": format!("u-{number}"), "device_id": format!("d-{number}"), "country": country,
        "user_properties": {"plan": plan},
    })
    .to_string()
}

/// The answer without the flag that only the cloud adds.
fn flags_of(answer: &Response) -> serde_json::Value {
    let mut flags = answer.json();
    flags.as_object_mut().unwrap().shift_remove("who");
    flags
}

/// Eight users whose answers are stored and eight that were never seen ask during the outage, then it ends.
fn nobody_notices(name: &str) {
    let outage = outage(name);
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("cache.fresh_for", "1ms")
        .set("cache.stale_while_revalidate", "0ms")
        .set("upstream.circuit.open_for", "100ms")
        .start();
    for number in 0..8 {
        assert_eq!(sidecar.ask(&Ask::sdk_get(&user(number))).status, 200);
    }
    sidecar.wait_for_syncs(1);
    (outage.strike)(&cloud);
    at_once(16, |number| {
        let ask = if number % 4 == 3 {
            Ask::sdk_post(&user(number))
        } else {
            Ask::sdk_get(&user(number))
        };
        let mut caller = sidecar.caller();
        for _ in 0..3 {
            let answer = caller.ask(&ask);
            assert_eq!(answer.status, 200, "user {number}: {answer:?}");
            assert_eq!(
                flags_of(&answer),
                cloud.verdict(&user(number), &[], Shape::V2),
                "user {number}"
            );
            assert!(answer.took < Duration::from_secs(1), "user {number}: {answer:?}");
        }
    });
    let flags = sidecar.ask(&Ask::flags());
    assert_eq!(flags.status, 200, "{flags:?}");
    assert!(flags.json().as_array().is_some_and(|flags| !flags.is_empty()));
    cloud.heal();
    let mut strangers = (100..).map(|number| Ask::sdk_get(&user(number)));
    eventually("upstream's own answers again", || {
        let answer = sidecar.ask(&strangers.next().unwrap());
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.source() == "miss" && answer.json().get("who").is_some()).then_some(())
    });
}

macro_rules! nobody_notices {
    ($($outage:ident)+) => {
        mod nobody_notices_when_upstream_is {
            $(#[test]
            fn $outage() {
                super::nobody_notices(stringify!($outage));
            })+
        }

        #[test]
        fn every_outage_there_is_has_its_test() {
            let mut tested = vec![$(stringify!($outage)),+];
            let mut known: Vec<_> = OUTAGES.iter().map(|outage| outage.name).collect();
            tested.sort_unstable();
            known.sort_unstable();
            assert_eq!(tested, known);
        }
    };
}

nobody_notices! {
    refused reset_at_accept reset_after_the_request closed_without_an_answer accepted_and_never_read never_accepted
    accept_queue_full never_answered stalled_after_the_head stalled_in_the_body a_byte_at_a_time late length_too_long
    length_too_short chunks_cut_off chunks_malformed not_http half_a_head html not_json empty_body null wrong_shape
    wrong_members error_in_a_200 too_large redirect not_found no_content throttled request_timeout misdirected internal_error
    bad_gateway unavailable gateway_timeout
}

#[test]
fn the_flags_survive_an_outage_of_the_flags_route() {
    for fault in [
        Fault::body("{}"),
        Fault::body("[]x"),
        Fault::body(r#"["theme"]"#),
        Fault::body(r#"[{"error":"unwell"}]"#),
        Fault::body(r#"[{"key":"theme"}]"#),
        Fault::html(),
        Fault::status(500),
        Fault::throttled(1),
        Fault::Garbage,
    ] {
        let cloud = FakeUpstream::start();
        let sidecar = Sidecar::start(&cloud);
        sidecar.ask(&Ask::about("somebody"));
        sidecar.wait_for_syncs(1);
        cloud.fail_on(Route::Flags, fault.clone());
        cloud.forget();
        cloud.wait_for(Route::Flags, 1);
        sidecar.wait_for_metric(
            "flagside_sync_runs_total",
            &[("source", "flags"), ("result", "failed")],
            1.0,
        );
        cloud.go_down();
        let answer = sidecar.ask(&Ask::sdk_get(&user(1)));
        assert_eq!(
            (answer.status, answer.source()),
            (200, "local"),
            "{fault:?}: {answer:?}"
        );
        assert_eq!(answer.json(), cloud.verdict(&user(1), &[], Shape::V2));
    }
}

#[test]
fn a_start_during_an_outage_is_a_start() {
    let cloud = FakeUpstream::start();
    cloud.go_down();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("readiness.deadline", "100ms")
        .set("upstream.circuit.open_for", "100ms")
        .start();
    eventually("readiness", || {
        (sidecar.admin_get("/readyz").status == 200).then_some(())
    });
    assert_eq!(sidecar.ask(&Ask::about("u-1")).status, 503);
    cloud.heal();
    eventually("an answer", || {
        (sidecar.ask(&Ask::about("u-1")).status == 200).then_some(())
    });
}

#[test]
fn an_outage_never_makes_it_unready() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("u-1"));
    eventually("readiness", || {
        (sidecar.admin_get("/readyz").status == 200).then_some(())
    });
    cloud.go_down();
    sidecar.wait_for_metric(
        "flagside_sync_runs_total",
        &[("source", "flags"), ("result", "failed")],
        1.0,
    );
    for path in ["/readyz", "/healthz", "/startupz"] {
        assert_eq!(sidecar.admin_get(path).status, 200, "{path}");
    }
}

#[test]
fn a_connection_that_the_cloud_closed_while_idle_costs_nobody_an_answer() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let mut caller = sidecar.caller();
    for number in 0..20 {
        let answer = caller.ask(&Ask::about(&format!("u-{number}")));
        assert_eq!((answer.status, answer.source()), (200, "miss"), "{answer:?}");
        cloud.close_idle();
    }
    assert_eq!(cloud.count(Route::Vardata), 20, "and no question is asked twice");
}

#[test]
fn one_lost_connection_is_retried() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("upstream.retry_budget", "1")
        .start();
    cloud.fail_times(Route::Vardata, Fault::Reset, 1);
    let answer = sidecar.ask(&Ask::about("u-1"));
    assert_eq!((answer.status, answer.source()), (200, "miss"), "{answer:?}");
    assert_eq!(cloud.count(Route::Vardata), 2);
}

#[test]
fn an_open_breaker_asks_nobody_and_closes_again_by_a_probe() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("upstream.circuit.failures", "3")
        .set("upstream.circuit.open_for", "1s")
        .set("upstream.retries", "0")
        .start();
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.fail_on(Route::Vardata, Fault::status(503));
    let mut strangers = (0..).map(|number| Ask::about(&format!("stranger {number}")));
    let mut ask = || sidecar.ask(&strangers.next().unwrap());
    sidecar.metrics();
    eventually("an open breaker", || {
        assert_eq!(ask().source(), "local");
        (sidecar.metric("flagside_upstream_circuit_state", &[("state", "open")]) >= 1.0).then_some(())
    });
    let asked = cloud.count(Route::Vardata);
    for _ in 0..20 {
        assert_eq!(ask().source(), "local");
    }
    // One probe may have gone out, if the machine took more than a second for these twenty.
    assert!(
        cloud.count(Route::Vardata) <= asked + 1,
        "an open breaker lets nothing through"
    );
    cloud.heal();
    eventually("the breaker to close", || {
        (ask().source() == "miss").then_some(())
    });
}

#[test]
fn slow_answers_alone_open_no_breaker() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud)
        .set("answer_deadline", "20ms")
        .set("upstream.circuit.failures", "2");
    let sidecar = settings.start();
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.fail_on(Route::Vardata, Fault::Hold);
    for number in 0..10 {
        assert_eq!(sidecar.ask(&Ask::about(&format!("u-{number}"))).source(), "local");
    }
    // Each of them is asked.
    cloud.wait_for(Route::Vardata, 11);
    cloud.release();
    eventually("their answers", || {
        (sidecar.ask(&Ask::about("u-9")).source() == "hit").then_some(())
    });
    sidecar.ask(&Ask::about("one more"));
    // Whether it came within 20 ms does not matter: upstream is asked.
    cloud.wait_for(Route::Vardata, 12);
}

#[test]
fn a_hanging_upstream_holds_up_no_stored_answer() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("seen"));
    sidecar.wait_for_syncs(1);
    cloud.set_door(Door::Mute);
    let slow: Vec<_> = (0..50)
        .map(|number| Ask::about(&format!("unseen {number}")).bytes())
        .collect();
    let mut waiting: Vec<_> = slow
        .iter()
        .map(|bytes| {
            let mut caller = sidecar.caller();
            caller.send(bytes);
            caller
        })
        .collect();
    let mut caller = sidecar.caller();
    holds_for(Duration::from_millis(200), "stored answers come at once", || {
        let answer = caller.ask(&Ask::about("seen"));
        answer.source() == "hit" && answer.took < Duration::from_millis(200)
    });
    for (caller, bytes) in waiting.iter_mut().zip(&slow) {
        assert_eq!(caller.receive(false).expect_answer(bytes).source(), "local");
    }
}

#[test]
fn more_requests_than_upstream_slots_are_answered_by_stand_ins() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("upstream.max_in_flight", "4")
        .set("workers", "1")
        .start();
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let answers = at_once(20, |number| sidecar.ask(&Ask::about(&format!("u-{number}"))));
    assert!(
        answers.iter().all(|answer| answer.source() == "local"),
        "{answers:#?}"
    );
    assert_eq!(cloud.count(Route::Vardata), 1 + 4);
}

#[test]
fn the_log_says_why_upstream_is_of_no_use() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let told = |what: &str| {
        let times = || sidecar.logs().iter().filter(|line| line.contains(what)).count();
        eventually(what, || (times() > 0).then_some(()));
        times()
    };
    cloud.fail_on(Route::Vardata, Fault::status(404));
    assert_eq!(sidecar.ask(&Ask::about("u")).status, 503);
    told("404, which no question can cause: check the URL");
    cloud.go_down();
    for number in 0..20 {
        assert_eq!(sidecar.ask(&Ask::about(&format!("u-{number}"))).status, 503);
    }
    let times = told("cannot connect: Connection refused (os error 111); check its URL and the network");
    assert!(
        times <= 2,
        "said {times} times: one per outage, or two who met it at once"
    );
}
