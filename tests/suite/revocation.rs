//! Deployment keys: who accepts them, who revokes them, and what that does to what is stored.

use crate::support::upstream::KEY;
use crate::support::{Ask, FakeUpstream, Fault, Route, Sidecar, eventually};

#[test]
fn a_rejected_key_is_remembered_for_a_short_time() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("keys.negative_ttl", "20s")
        .start();
    for number in 0..5 {
        let answer = sidecar.ask(&Ask::about(&format!("u-{number}")).key("nobody"));
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    assert_eq!(cloud.count(Route::Vardata), 1);
    assert_eq!(
        sidecar.ask(&Ask::about("u-0")).status,
        200,
        "another key is another matter"
    );
}

#[test]
fn a_rejected_key_is_tried_again_when_that_time_is_over() {
    let cloud = FakeUpstream::start();
    cloud.accept_keys(&["server-other"]);
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("keys.negative_ttl", "50ms")
        .start();
    assert_eq!(sidecar.ask(&Ask::about("u-1")).status, 401);
    cloud.accept_keys(&[KEY]);
    eventually("acceptance", || {
        (sidecar.ask(&Ask::about("u-1")).status == 200).then_some(())
    });
}

#[test]
fn a_revoked_key_gets_nothing_that_was_stored() {
    // What upstream said is remembered; when that time is over, nobody knows.
    for (negative_ttl, status) in [("10m", 401), ("0s", 503)] {
        let cloud = FakeUpstream::start();
        let sidecar = Sidecar::in_front_of(&cloud)
            .set("sync.flags_interval", "1h")
            .set("keys.negative_ttl", negative_ttl)
            .start();
        sidecar.ask(&Ask::about("seen"));
        sidecar.ask(&Ask::flags());
        sidecar.wait_for_syncs(1);
        cloud.revoke(KEY);
        assert_eq!(
            sidecar.ask(&Ask::about("seen")).source(),
            "hit",
            "nobody told us yet"
        );
        assert_eq!(sidecar.ask(&Ask::about("unseen")).status, 401, "now upstream did");
        assert_eq!(sidecar.ask(&Ask::about("seen")).status, 401);
        assert_eq!(sidecar.ask(&Ask::flags()).status, 401);
        cloud.go_down();
        for ask in [Ask::about("seen"), Ask::about("unseen"), Ask::flags()] {
            let answer = sidecar.ask(&ask);
            assert_eq!(answer.status, status, "an outage restores nobody: {answer:?}");
        }
    }
}

#[test]
fn a_restored_key_is_served_again() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("keys.negative_ttl", "50ms")
        .start();
    sidecar.ask(&Ask::about("seen"));
    cloud.revoke(KEY);
    assert_eq!(sidecar.ask(&Ask::about("unseen")).status, 401);
    cloud.restore(KEY);
    eventually("acceptance", || {
        (sidecar.ask(&Ask::about("other")).status == 200).then_some(())
    });
    assert_eq!(sidecar.ask(&Ask::about("seen")).status, 200);
}

#[test]
fn the_poll_of_the_flags_revokes_too() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("seen"));
    sidecar.wait_for_syncs(1);
    cloud.revoke(KEY);
    eventually("the revocation", || {
        (sidecar.ask(&Ask::about("seen")).status == 401).then_some(())
    });
}

#[test]
fn a_background_refresh_revokes_too() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud)
        .set("sync.flags_interval", "1h")
        .set("cache.fresh_for", "1ms");
    let sidecar = settings.start();
    sidecar.ask(&Ask::about("seen"));
    cloud.revoke(KEY);
    eventually("the revocation", || {
        (sidecar.ask(&Ask::about("seen")).status == 401).then_some(())
    });
}

#[test]
fn an_answer_under_way_when_its_key_is_revoked_reaches_nobody() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud)
        .set("sync.flags_interval", "1h")
        .patient();
    let sidecar = settings.set("keys.negative_ttl", "0ms").start();
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.fail_times(Route::Vardata, Fault::Hold, 1);
    let bytes = Ask::about("early").bytes();
    let mut early = sidecar.caller();
    early.send(&bytes);
    cloud.wait_for(Route::Vardata, 2);
    cloud.revoke(KEY);
    assert_eq!(sidecar.ask(&Ask::about("late")).status, 401);
    cloud.release();
    assert_eq!(early.receive(false).expect_answer(&bytes).status, 401);
    assert_eq!(sidecar.ask(&Ask::about("early")).status, 401, "nor was it stored");
}

#[test]
fn a_403_is_passed_on_and_revokes_nothing() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("seen"));
    cloud.fail_on(Route::Vardata, Fault::status(403));
    assert_eq!(sidecar.ask(&Ask::about("unseen")).status, 403);
    assert_eq!(sidecar.ask(&Ask::about("seen")).source(), "hit");
}

#[test]
fn a_refused_probe_for_remote_flags_revokes_nothing() {
    for status in [400, 401, 403, 404] {
        let cloud = FakeUpstream::start();
        cloud.fail_on(Route::RemoteFlags, Fault::status(status));
        let sidecar = Sidecar::start(&cloud);
        sidecar.ask(&Ask::about("seen"));
        cloud.wait_for(Route::RemoteFlags, 1);
        sidecar.wait_for_syncs(1);
        assert_eq!(sidecar.ask(&Ask::about("seen")).source(), "hit", "{status}");
        cloud.go_down();
        let local = sidecar.ask(&Ask::about("unseen"));
        assert_eq!(
            (local.status, local.source()),
            (200, "local"),
            "{status}: the plain flags are used: {local:?}"
        );
    }
}

#[test]
fn a_401_on_a_cohort_or_an_unknown_path_revokes_nothing() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("seen"));
    cloud.fail_on(Route::Cohort, Fault::status(401));
    cloud.fail_on(Route::Other, Fault::status(401));
    for path in ["/sdk/v1/cohort/c1", "/web/v1/configs", "/sdk/rules"] {
        assert_eq!(sidecar.ask(&Ask::get(path)).status, 401, "{path}");
        assert_eq!(sidecar.ask(&Ask::about("seen")).source(), "hit", "{path}");
    }
}

#[test]
fn an_unknown_key_in_an_outage_is_not_called_wrong() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("seen"));
    sidecar.wait_for_syncs(1);
    cloud.go_down();
    for ask in [Ask::about("seen"), Ask::flags()] {
        let answer = sidecar.ask(&ask.key("server-never-seen"));
        assert_eq!(
            answer.status, 503,
            "we do not know it, which is not a no: {answer:?}"
        );
    }
}

#[test]
fn a_revoked_key_is_not_covered_by_a_flags_file() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud).set("sync.flags_interval", "1h");
    let sidecar = settings.flags(&crate::support::flags::flags(1)).start();
    sidecar.ask(&Ask::about("seen"));
    cloud.revoke(KEY);
    assert_eq!(sidecar.ask(&Ask::about("unseen")).status, 401);
    cloud.go_down();
    assert_eq!(sidecar.ask(&Ask::about("third")).status, 401);
    assert_eq!(
        sidecar.ask(&Ask::about("third").key("server-another")).source(),
        "local"
    );
}

#[test]
fn a_full_key_table_forwards_what_it_cannot_evaluate() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("environments.0.evaluation", "local")
        .set("keys.max_learnt", "1")
        .start();
    let source = |key: &str| sidecar.ask(&Ask::about("u").key(key)).source().to_owned();
    assert_eq!(source("server-1"), "local");
    cloud.forget();
    for _ in 0..2 {
        assert_eq!(source("server-2"), "miss");
    }
    assert_eq!(cloud.count(Route::Vardata), 2);
    let synced = cloud.requests_on(Route::Flags);
    let of_strange = synced.iter().filter(|request| request.key() == Some("server-2"));
    assert_eq!(of_strange.count(), 0, "its flags would be for nothing");
    assert_eq!(source("server-1"), "local");
}

#[test]
fn a_full_key_table_forwards_what_it_cannot_learn() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud).set("keys.max_learnt", "2").start();
    for key in ["server-1", "server-2"] {
        sidecar.ask(&Ask::about("u").key(key));
        assert_eq!(sidecar.ask(&Ask::about("u").key(key)).source(), "hit", "{key}");
    }
    cloud.forget();
    for _ in 0..2 {
        assert_eq!(sidecar.ask(&Ask::about("u").key("server-3")).status, 200);
    }
    assert_eq!(cloud.count(Route::Vardata), 2, "uncached, but answered");
    for key in ["server-1", "server-2"] {
        assert_eq!(
            sidecar.ask(&Ask::about("u").key(key)).source(),
            "hit",
            "{key} is still known"
        );
    }
}
