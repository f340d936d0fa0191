//! Wrong input: a client error of a stable shape, and a program that goes on.

use std::time::Duration;

use serde_json::Value;

use crate::support::caller::exchange;
use crate::support::malformed::{Malformed, Wanted, malformed};
use crate::support::wait::PATIENCE;
use crate::support::{Ask, Caller, FakeUpstream, Fault, Outcome, Route, Sidecar, at_once};

fn send(sidecar: &Sidecar, case: &Malformed) -> Outcome {
    if !case.finished {
        return exchange(sidecar.data(), &case.bytes, PATIENCE);
    }
    let mut caller = sidecar.caller();
    caller.send(&case.bytes);
    caller.finish();
    caller.receive(false)
}

/// What is wrong with the outcome, if anything.
fn fault(case: &Malformed, outcome: &Outcome) -> Option<String> {
    let right = match (outcome, case.wanted) {
        (Outcome::Answer(answer), wanted) => {
            let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
            let harmless = !body.is_some_and(|body| body.is_array() || body.is_null());
            harmless
                && match wanted {
                    Wanted::Status(status) => answer.status == status,
                    Wanted::ClientErrorOrLast => (400..500).contains(&answer.status) || answer.closes(),
                    Wanted::ClientError | Wanted::ClientErrorOrClosed => (400..500).contains(&answer.status),
                }
        }
        (Outcome::Closed, Wanted::ClientErrorOrClosed) => true,
        _ => false,
    };
    (!right).then(|| format!("{}: {outcome:?} instead of {:?}", case.name, case.wanted))
}

#[test]
fn malformed_input_is_a_client_error_and_harms_nobody() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("bystander"));
    let cases = malformed();
    let faults = at_once(8, |thread| {
        let mine = cases.iter().skip(thread).step_by(8);
        mine.filter_map(|case| fault(case, &send(&sidecar, case)))
            .collect::<Vec<_>>()
    });
    let faults = faults.concat();
    assert!(
        faults.is_empty(),
        "{} of {}: {faults:#?}",
        faults.len(),
        cases.len()
    );
    assert!(sidecar.is_running());
    assert_eq!(sidecar.ask(&Ask::about("bystander")).source(), "hit");
}

#[test]
fn malformed_input_is_a_client_error_in_an_outage_too() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("somebody"));
    sidecar.wait_for_syncs(1);
    cloud.go_down();
    let cases = malformed();
    let bad = cases.iter().filter(|case| case.wanted == Wanted::Status(400));
    let faults: Vec<_> = bad
        .filter_map(|case| fault(case, &send(&sidecar, case)))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_cannot_be_read_is_forwarded_as_it_came_and_the_verdict_relayed() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let lenient = r#"{"theme":{"key":"on","value":"on"}}"#;
    cloud.fail_on(Route::Vardata, Fault::body(lenient));
    for round in 1..=2 {
        let answer = sidecar.ask(&Ask::sdk_get("{user_id: 'a'}"));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, lenient),
            "upstream may be more lenient than we are"
        );
        assert_eq!(answer.source(), "passthrough");
        assert_eq!(cloud.count(Route::Vardata), round, "and nothing of it is stored");
    }
    let seen = cloud.requests_on(Route::Vardata).remove(0);
    let sent = Ask::sdk_get("{user_id: 'a'}").headers[1].clone();
    assert_eq!(
        format!("X-Amp-Exp-User: {}", seen.header("x-amp-exp-user").unwrap()),
        sent
    );
}

#[test]
fn our_own_errors_have_one_shape() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let asks = [
        (
            Ask::about("u").without("Authorization"),
            401,
            "missing_deployment_key",
        ),
        (Ask::get("/nowhere"), 404, "not_found"),
        (Ask::new("PUT", "/sdk/v2/vardata"), 405, "method_not_allowed"),
    ];
    for (ask, status, code) in asks {
        let answer = sidecar.ask(&ask);
        assert_eq!(
            (answer.status, answer.error_code()),
            (status, Some(code)),
            "{answer:?}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8"),
            "{code}"
        );
        assert!(
            !answer.text().is_empty() && answer.text().trim_end().lines().count() == 1,
            "{code}: {answer:?}"
        );
        let sdk = ask.target.starts_with("/sdk/") || ask.target.starts_with("/v1/");
        assert_eq!(
            answer.closes(),
            sdk,
            "{code}: Python keeps no broken connection in its pool"
        );
    }
    assert_eq!(cloud.count(Route::All), 0);
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for (path, wanted) in [
        ("/sdk/v2/vardata", ["GET", "HEAD", "OPTIONS", "POST"].as_slice()),
        ("/sdk/v2/flags", &["GET", "HEAD", "OPTIONS"]),
    ] {
        let answer = sidecar.ask(&Ask::new("DELETE", path));
        assert_eq!(answer.status, 405, "{path}");
        let mut allowed: Vec<_> = answer
            .header("allow")
            .unwrap()
            .split(',')
            .map(str::trim)
            .collect();
        allowed.sort_unstable();
        assert_eq!(allowed, wanted, "{path}");
    }
}

#[test]
fn nobody_can_shut_it_down_from_outside() {
    let cloud = FakeUpstream::start();
    let mut sidecar = Sidecar::start(&cloud);
    for method in ["GET", "POST", "PUT", "DELETE"] {
        for address in [sidecar.data(), sidecar.admin()] {
            for path in ["/shutdown", "/quitquitquit", "/debug/pprof"] {
                let answer = Caller::new(address).ask(&Ask::new(method, path));
                assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
            }
        }
    }
    assert!(sidecar.is_running());
}

#[test]
fn upstreams_verdict_is_relayed_byte_for_byte() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let body = "{ \"code\":400,  \"error\" : \"bad \u{e9}\" }";
    cloud.fail_on(
        Route::Vardata,
        Fault::canned(400, "application/problem+json", body),
    );
    let answer = sidecar.ask(&Ask::about("u"));
    assert_eq!((answer.status, answer.text().as_str()), (400, body));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.error_code(), None, "it is upstream's error, not ours");
}

#[test]
fn many_bad_clients_at_once_slow_no_good_one() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("good"));
    let cases = malformed();
    at_once(6, |thread| {
        if thread == 0 {
            let mut caller = sidecar.caller();
            for _ in 0..300 {
                let answer = caller.ask(&Ask::about("good"));
                assert_eq!(answer.source(), "hit");
                assert!(answer.took < Duration::from_secs(1), "{answer:?}");
            }
        } else {
            for case in cases
                .iter()
                .filter(|case| !case.finished && case.bytes.len() < 20_000)
                .skip(thread)
                .step_by(5)
            {
                exchange(sidecar.data(), &case.bytes, PATIENCE);
            }
        }
    });
}
