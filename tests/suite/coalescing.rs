//! Concurrent identical misses are one upstream request, whatever becomes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Ask, FakeUpstream, Fault, Response, Route, Sidecar, at_once, eventually, holds_for};

/// Asks `count` times at once while upstream holds its answer back, acts when all wait, and returns the answers.
fn together(sidecar: &Sidecar, cloud: &FakeUpstream, count: u32, act: impl FnOnce() + Send) -> Vec<Response> {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| at_once(count as usize, |_| sidecar.ask(&Ask::about("u-1"))));
        cloud.wait_for(Route::Vardata, 1);
        sidecar.wait_for_metric("flagside_http_requests_in_flight", &[], f64::from(count));
        act();
        asking.join().expect("a caller panicked")
    })
}

fn sources(answers: &[Response]) -> BTreeMap<String, usize> {
    answers.iter().fold(BTreeMap::new(), |mut sources, answer| {
        *sources.entry(answer.source().to_owned()).or_default() += 1;
        sources
    })
}

#[test]
fn two_hundred_identical_misses_are_one_upstream_request() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).patient().start();
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let answers = together(&sidecar, &cloud, 200, || cloud.release());
    assert_eq!(cloud.count(Route::Vardata), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == answers[0].body)
    );
    assert_eq!(
        sources(&answers),
        [("coalesced".to_owned(), 199), ("miss".to_owned(), 1)].into()
    );
}

#[test]
fn identical_misses_in_different_spellings_are_one_upstream_request() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).patient().start();
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let asks = [
        Ask::sdk_get(r#"{"user_id":"u","device_id":"d"}"#),
        Ask::sdk_post(r#"{ "device_id": "d", "user_id": "\u0075" }"#),
        Ask::sdk_get(r#"{"device_id":"d","user_id":"u"}"#).to("//sdk/v2/vardata"),
    ];
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| at_once(30, |number| sidecar.ask(&asks[number % 3])));
        cloud.wait_for(Route::Vardata, 1);
        sidecar.wait_for_metric("flagside_http_requests_in_flight", &[], 30.0);
        cloud.release();
        asking.join().unwrap()
    });
    assert_eq!(cloud.count(Route::Vardata), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == answers[0].body)
    );
}

#[test]
fn different_questions_wait_for_nobody_else() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).patient().start();
    cloud.fail_times(Route::Vardata, Fault::Hold, 1);
    let held = Ask::about("held").bytes();
    let mut caller = sidecar.caller();
    caller.send(&held);
    cloud.wait_for(Route::Vardata, 1);
    for number in 0..20 {
        assert_eq!(sidecar.ask(&Ask::about(&format!("u-{number}"))).source(), "miss");
    }
    cloud.release();
    assert_eq!(caller.receive(false).expect_answer(&held).source(), "miss");
}

#[test]
fn a_leader_that_leaves_takes_nobody_with_it() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).patient().start();
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let mut leader = sidecar.caller();
    leader.send(&Ask::about("u-1").bytes());
    cloud.wait_for(Route::Vardata, 1);
    let follower_bytes = Ask::about("u-1").bytes();
    let mut follower = sidecar.caller();
    follower.send(&follower_bytes);
    sidecar.wait_for_metric("flagside_http_requests_in_flight", &[], 2.0);
    drop(leader);
    eventually("the leader's end to be seen", || {
        (sidecar.metric("flagside_http_requests_in_flight", &[]) <= 1.0).then_some(())
    });
    cloud.release();
    assert_eq!(follower.receive(false).expect_answer(&follower_bytes).status, 200);
    assert_eq!(sidecar.ask(&Ask::about("u-1")).source(), "hit");
    assert_eq!(cloud.count(Route::Vardata), 1);
}

#[test]
fn a_question_that_everybody_left_still_fills_the_cache() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let mut only = sidecar.caller();
    only.send(&Ask::about("u-1").bytes());
    cloud.wait_for(Route::Vardata, 1);
    drop(only);
    cloud.release();
    eventually("a stored answer", || {
        (sidecar.ask(&Ask::about("u-1")).source() == "hit").then_some(())
    });
    assert_eq!(cloud.count(Route::Vardata), 1);
}

#[test]
fn every_waiter_has_its_own_deadline() {
    let cloud = FakeUpstream::start();
    let deadline = Duration::from_millis(500);
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("answer_deadline", "500ms")
        .start();
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.fail_on(Route::Vardata, Fault::Hold);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| sidecar.ask(&Ask::about("u-1")));
        cloud.wait_for(Route::Vardata, 2);
        holds_for(
            Duration::from_millis(250),
            "only one request goes upstream",
            || cloud.count(Route::Vardata) == 2,
        );
        let second = sidecar.ask(&Ask::about("u-1"));
        for answer in [first.join().unwrap(), second] {
            assert_eq!(answer.source(), "local");
            assert!(answer.took + Duration::from_millis(10) >= deadline, "{answer:?}");
            assert!(answer.took < 2 * deadline, "{answer:?}");
        }
    });
}

#[test]
fn a_leader_that_fails_fails_all_who_wait_and_nobody_after_them() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud).patient();
    let sidecar = settings.set("upstream.retries", "0").start();
    cloud.fail_times(Route::Vardata, Fault::Hang, 1);
    let answers = together(&sidecar, &cloud, 50, || cloud.cut());
    assert_eq!(
        cloud.count(Route::Vardata),
        1,
        "fifty waiters do not become fifty requests"
    );
    assert!(answers.iter().all(|answer| answer.status == 503), "{answers:#?}");
    let next = sidecar.ask(&Ask::about("u-1"));
    assert_eq!((next.status, next.source()), (200, "miss"), "{next:?}");
}

#[test]
fn a_leader_that_fails_once_is_retried_for_all() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud).patient();
    let sidecar = settings.set("upstream.retry_budget", "1").start();
    cloud.fail_times(Route::Vardata, Fault::Reset, 1);
    let answers = at_once(50, |_| sidecar.ask(&Ask::about("u-1")));
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:#?}");
    assert_eq!(cloud.count(Route::Vardata), 2, "{:#?}", cloud.requests());
}

#[test]
fn a_verdict_is_shared_and_not_stored() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).patient().start();
    cloud.fail_times(Route::Vardata, Fault::status(422), 1);
    let verdict = sidecar.ask(&Ask::about("u-1"));
    assert_eq!(verdict.status, 422);
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let answers = together(&sidecar, &cloud, 10, || cloud.release());
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:#?}");
    assert_eq!(cloud.count(Route::Vardata), 2);
}

#[test]
fn concurrent_questions_about_flags_are_few_upstream_requests() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("sync.flags_interval", "1h")
        .start();
    let answers = at_once(100, |_| sidecar.ask(&Ask::flags()));
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == answers[0].body)
    );
    let plain = cloud
        .requests_on(Route::Flags)
        .into_iter()
        .filter(|request| !request.query().contains("eval_mode"))
        .count();
    // One for the question on each of the two workers, one for the first poll.
    assert!(plain <= 3, "{:#?}", cloud.requests());
}
