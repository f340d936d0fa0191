//! Stopping: what is under way is finished, what is new is told to go elsewhere (OPS 7.3).

use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Ask, FakeUpstream, Fault, Route, Sidecar, eventually};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn an_idle_program_stops_at_once() {
    for signal in ["TERM", "INT"] {
        let cloud = FakeUpstream::start();
        let mut sidecar = Sidecar::start(&cloud);
        let mut idle = sidecar.caller();
        idle.ask(&Ask::about("u"));
        sidecar.signal(signal);
        assert_eq!(sidecar.wait_exit(SOON), 0, "{signal}");
        assert!(idle.is_closed_by_peer());
    }
}

#[test]
fn a_connection_that_never_said_a_word_does_not_hold_up_the_stop() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::in_front_of(&cloud).set("drain.timeout", "60s").start();
    let silent = TcpStream::connect(sidecar.data()).unwrap();
    sidecar.wait_for_metric("flagside_http_connections", &[("listener", "data")], 1.0);
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait_exit(SOON), 0);
    drop(silent);
}

#[test]
fn whoever_is_busy_hears_of_the_stop_from_an_answer() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::start(&cloud);
    let ask = Ask::about("u");
    let mut callers: Vec<_> = (0..20).map(|_| sidecar.caller()).collect();
    for caller in &mut callers {
        caller.ask(&ask);
    }
    sidecar.signal("TERM");
    // A kept connection is not closed under a request on its way.
    for caller in &mut callers {
        while !caller.ask(&ask).closes() {}
        assert!(caller.is_closed_by_peer());
    }
    assert_eq!(sidecar.wait_exit(SOON), 0);
}

#[test]
fn requests_under_way_are_finished() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::in_front_of(&cloud).patient().start();
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let bytes = Ask::about("u").bytes();
    let mut waiting: Vec<_> = (0..10)
        .map(|_| {
            let mut caller = sidecar.caller();
            caller.send(&bytes);
            caller
        })
        .collect();
    sidecar.wait_for_metric("flagside_http_requests_in_flight", &[], 10.0);
    sidecar.signal("TERM");
    eventually("unreadiness", || {
        (sidecar.admin_get("/readyz").status == 503).then_some(())
    });
    assert_eq!(
        sidecar.admin_get("/healthz").status,
        200,
        "it is not ill, it stops"
    );
    eventually("a closed door", || {
        TcpStream::connect(sidecar.data()).is_err().then_some(())
    });
    cloud.release();
    for caller in &mut waiting {
        let answer = caller.receive(false).expect_answer(&bytes);
        assert_eq!(answer.status, 200);
        assert!(answer.closes(), "{answer:?}");
    }
    assert_eq!(sidecar.wait_exit(SOON), 0);
}

#[test]
fn during_the_delay_questions_are_still_answered() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::in_front_of(&cloud).set("drain.delay", "2s").start();
    sidecar.ask(&Ask::about("u"));
    sidecar.signal("TERM");
    eventually("unreadiness", || {
        (sidecar.admin_get("/readyz").status == 503).then_some(())
    });
    let answer = sidecar.ask(&Ask::about("u"));
    assert_eq!(
        (answer.status, answer.source()),
        (200, "hit"),
        "who has not heard of it yet is served"
    );
    assert!(answer.closes(), "{answer:?}");
    assert_eq!(sidecar.wait_exit(SOON), 0);
}

#[test]
fn work_that_takes_too_long_is_left_and_said_so() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::in_front_of(&cloud)
        .patient()
        .set("drain.timeout", "200ms")
        .start();
    cloud.fail_on(Route::Vardata, Fault::Hang);
    let mut caller = sidecar.caller();
    caller.send(&Ask::about("u").bytes());
    sidecar.wait_for_metric("flagside_http_requests_in_flight", &[], 1.0);
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait_exit(SOON), 124);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::in_front_of(&cloud)
        .patient()
        .set("drain.timeout", "60s")
        .start();
    cloud.fail_on(Route::Vardata, Fault::Hang);
    let mut caller = sidecar.caller();
    caller.send(&Ask::about("u").bytes());
    sidecar.wait_for_metric("flagside_http_requests_in_flight", &[], 1.0);
    sidecar.signal("TERM");
    eventually("unreadiness", || {
        (sidecar.admin_get("/readyz").status == 503).then_some(())
    });
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait_exit(SOON), 130);
}

#[test]
fn an_open_stream_does_not_hold_up_the_stop() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::in_front_of(&cloud).set("drain.timeout", "60s").start();
    let mut stream = sidecar.caller();
    stream.send(&Ask::get("/sdk/stream/v1/flags").bytes());
    stream.read_until("\"key\":\"hidden\"");
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait_exit(SOON), 0);
}

#[test]
fn a_client_that_went_away_breaks_nothing() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::start(&cloud);
    cloud.fail_on(Route::Vardata, Fault::Hold);
    for number in 0..50 {
        let mut caller = sidecar.caller();
        caller.send(&Ask::about(&format!("u-{number}")).bytes());
    }
    cloud.release();
    assert!(sidecar.is_running());
    assert_eq!(sidecar.ask(&Ask::about("u-1")).status, 200);
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait_exit(SOON), 0);
}
