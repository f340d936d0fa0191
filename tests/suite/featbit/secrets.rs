//! Secrets: who may have what, and when no longer.

use super::{about, ask_until, body, configured, evaluate, gist};
use crate::support::featbit::{Failure, Route};
use crate::support::stream::Stream;
use crate::support::{Ask, FakeFeatbit, eventually};

#[test]
fn answers_of_two_secrets_do_not_mix() {
    let featbit = FakeFeatbit::start();
    featbit.number_answers();
    let sidecar = featbit.synced(featbit.proxied());
    let (server, client) = (featbit.secret("server"), featbit.secret("client"));
    let question = body("ada").to_string();
    let bodies = [&server, &client].map(|secret| {
        let answers = ["miss", "hit"].map(|source| {
            let answer = sidecar.ask(&evaluate(secret, question.clone()));
            assert_eq!(gist(&answer), (200, source));
            answer.body
        });
        assert_eq!(answers[0], answers[1]);
        answers[0].clone()
    });
    assert_ne!(bodies[0], bodies[1]);
    let asked = featbit.requests(Route::Evaluate);
    let by: Vec<_> = asked
        .iter()
        .map(|request| request.header("authorization").unwrap())
        .collect();
    assert_eq!(by, [&*server, &*client]);
}

#[test]
fn a_secret_that_traffic_brings_is_learnt() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.proxied_without_secret().start();
    for kind in ["server", "client"] {
        let ask = evaluate(&featbit.secret(kind), body("ada").to_string());
        assert_eq!(gist(&sidecar.ask(&ask)), (200, "miss"), "{kind}");
        assert_eq!(gist(&sidecar.ask(&ask)), (200, "hit"), "{kind}");
    }
    featbit.go_down();
    for kind in ["server", "client"] {
        let ask = evaluate(&featbit.secret(kind), body("unseen").to_string());
        assert_eq!(gist(&sidecar.ask(&ask)), (200, "local"), "{kind}");
    }
}

#[test]
fn a_secret_that_was_never_seen_is_not_called_wrong_in_an_outage() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "ada"))), (200, "miss"));
    featbit.go_down();
    let unknown = featbit
        .secret("server")
        .replacen(&featbit.secret("server")[..4], "AAAA", 1);
    for user in ["ada", "ben"] {
        let answer = sidecar.ask(&evaluate(&unknown, body(user).to_string()));
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, Some("1")),
            "neither its neighbour's answers nor a no: {answer:?}"
        );
    }
}

/// Everything that flagside answers for a secret.
fn everything(secret: &str) -> [Ask; 4] {
    [
        evaluate(secret, body("seen").to_string()),
        evaluate(secret, body("unseen").to_string()),
        Ask::new("GET", "/api/public/sdk/server/latest-all?timestamp=0").header("Authorization", secret),
        evaluate(secret, r#"{"keyId":"ada"}"#).to("/api/public/sdk/client/latest-all?timestamp=0"),
    ]
}

#[test]
fn a_rejected_secret_is_out_of_service_at_once_and_until_it_is_accepted() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied().set("keys.negative_ttl", "50ms"));
    let (server, client) = (featbit.secret("server"), featbit.secret("client"));
    for ask in everything(&server).iter().chain(&everything(&client)) {
        assert_eq!(sidecar.ask(ask).status, 200, "{ask:?}");
    }
    featbit.revoke(&server);
    assert_eq!(
        gist(&sidecar.ask(&about(&featbit, "seen"))),
        (200, "hit"),
        "nobody told us yet"
    );
    let told = sidecar.ask(&about(&featbit, "new"));
    assert_eq!((told.status, told.text()), (401, String::new()));
    for ask in everything(&server) {
        assert_eq!(sidecar.ask(&ask).status, 401, "{ask:?}");
    }
    for ask in everything(&client) {
        assert_eq!(
            sidecar.ask(&ask).status,
            200,
            "the other one is another matter: {ask:?}"
        );
    }
    featbit.fail(Route::Evaluate, Failure::Status(503));
    for ask in everything(&server) {
        let answer = sidecar.ask(&ask);
        assert_eq!(answer.status, 401, "an outage restores nobody: {answer:?}");
    }
    featbit.heal();
    featbit.restore(&server);
    ask_until(&sidecar, &about(&featbit, "again"), "miss");
    for ask in everything(&server) {
        eventually("service", || (sidecar.ask(&ask).status == 200).then_some(()));
    }
}

#[test]
fn a_restored_secret_is_served_again_where_nobody_evaluates() {
    let featbit = FakeFeatbit::start();
    featbit.fail(Route::Streaming, Failure::Status(404));
    let sidecar = featbit.proxied().set("keys.negative_ttl", "50ms").start();
    let secret = featbit.secret("server");
    let latest = || {
        let ask = Ask::new("GET", "/api/public/sdk/server/latest-all?timestamp=0");
        sidecar.ask(&ask.header("Authorization", &secret)).status
    };
    assert_eq!(latest(), 200);
    featbit.revoke(&secret);
    eventually("the rejection", || (latest() == 401).then_some(()));
    featbit.restore(&secret);
    eventually("service", || (latest() == 200).then_some(()));
}

#[test]
fn a_restored_secret_may_stream_again() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied().set("keys.negative_ttl", "50ms"));
    let secret = featbit.secret("server");
    let open = || Stream::open(sidecar.data(), "server", &secret);
    open().sync(0).unwrap();
    featbit.revoke(&secret);
    assert_eq!(sidecar.ask(&about(&featbit, "ada")).status, 401);
    assert_eq!(open().close_code(), 4003);
    featbit.restore(&secret);
    eventually("a stream", || open().sync(0).ok());
}

#[test]
fn a_rejected_stranger_stands_in_nobodys_way() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    let latest = |secret: &str| {
        let ask = Ask::new("GET", "/api/public/sdk/server/latest-all?timestamp=0");
        sidecar.ask(&ask.header("Authorization", secret)).status
    };
    let server = featbit.secret("server");
    let stranger = server.replacen(&server[..4], "AAAA", 1);
    featbit.revoke(&stranger);
    assert_eq!(latest(&stranger), 401);
    assert_eq!(
        latest(&featbit.secret("client")),
        200,
        "upstream is asked about it"
    );
}

#[test]
fn a_rejection_is_remembered_for_a_short_time() {
    let featbit = FakeFeatbit::start();
    featbit.fail(Route::Streaming, Failure::Status(404));
    let sidecar = featbit
        .proxied_without_secret()
        .set("keys.negative_ttl", "20s")
        .start();
    featbit.revoke(&featbit.secret("server"));
    for user in ["a", "b", "c", "d"] {
        let answer = sidecar.ask(&about(&featbit, user));
        assert_eq!((answer.status, answer.text()), (401, String::new()));
    }
    assert_eq!(featbit.count(Route::Evaluate), 1);
    let other = evaluate(&featbit.secret("client"), body("a").to_string());
    assert_eq!(
        sidecar.ask(&other).status,
        200,
        "another secret is another matter"
    );
}

#[test]
fn an_answer_under_way_when_its_secret_is_revoked_reaches_nobody() {
    let featbit = FakeFeatbit::start();
    let settings = featbit.proxied().patient().set("keys.negative_ttl", "0ms");
    let sidecar = featbit.synced(settings);
    assert_eq!(sidecar.ask(&about(&featbit, "somebody")).status, 200);
    featbit.fail_times(Route::Evaluate, Failure::Hold, 1);
    let bytes = about(&featbit, "early").bytes();
    let mut early = sidecar.caller();
    early.send(&bytes);
    featbit.wait_for(Route::Evaluate, 2);
    featbit.revoke(&featbit.secret("server"));
    assert_eq!(sidecar.ask(&about(&featbit, "late")).status, 401);
    featbit.release();
    assert_eq!(early.receive(false).expect_answer(&bytes).status, 401);
    assert_eq!(
        sidecar.ask(&about(&featbit, "early")).status,
        401,
        "nor was it stored"
    );
}

#[test]
fn a_403_revokes_nothing() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied());
    sidecar.ask(&about(&featbit, "seen"));
    featbit.fail_times(Route::Evaluate, Failure::Says(403, "text/html", "<p>No"), 1);
    let answer = sidecar.ask(&about(&featbit, "unseen"));
    assert_eq!((answer.status, answer.text()), (403, "<p>No".to_owned()));
    assert_eq!(gist(&sidecar.ask(&about(&featbit, "seen"))), (200, "hit"));
}

#[test]
fn a_rejected_secret_gets_no_local_answers_in_local_mode() {
    let featbit = FakeFeatbit::start();
    featbit.fail(Route::Streaming, Failure::Status(404));
    let sidecar = configured(&featbit, "    evaluation: local\n")
        .set("keys.negative_ttl", "50ms")
        .start();
    ask_until(&sidecar, &about(&featbit, "ada"), "local");
    featbit.revoke(&featbit.secret("server"));
    eventually("the rejection", || {
        (sidecar.ask(&about(&featbit, "ada")).status == 401).then_some(())
    });
    featbit.restore(&featbit.secret("server"));
    ask_until(&sidecar, &about(&featbit, "ada"), "local");
}

#[test]
fn secrets_are_shown_nowhere() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit.synced(featbit.proxied().arg("--log-level").arg("trace"));
    let (server, client) = (featbit.secret("server"), featbit.secret("client"));
    for secret in [&server, &client] {
        for ask in everything(secret) {
            sidecar.ask(&ask);
        }
        sidecar.ask(&evaluate(secret, "[{\"user\":{\"keyId\":\"a\"}}]").to("/api/public/insight/track"));
    }
    sidecar.ask(&evaluate(&format!("Bearer {server}"), body("a").to_string()));
    sidecar.ask(&about(&featbit, "a").to(&format!("/api/public/other?token={server}")));
    featbit.revoke(&client);
    sidecar.ask(&evaluate(&client, body("new").to_string()));
    featbit.fail(Route::Evaluate, Failure::Nonsense);
    sidecar.ask(&about(&featbit, "b"));
    featbit.close_streams(1011);
    featbit.wait_for(Route::Streaming, 2);
    featbit.go_down();
    sidecar.ask(&about(&featbit, "c"));
    let shown = [
        ("the log", sidecar.everything_written()),
        ("/metrics", sidecar.admin_get("/metrics").text()),
        ("/status", sidecar.admin_get("/status").text()),
        ("/readyz", sidecar.admin_get("/readyz").text()),
    ];
    for (place, text) in shown {
        assert!(!text.is_empty(), "{place}");
        for secret in [&server, &client] {
            // Its first half is the secret part; the second says which environment it is of.
            assert!(!text.contains(&secret[..22]), "{place} has a secret");
        }
    }
}

#[test]
fn made_up_secrets_of_an_environment_take_few_places() {
    let featbit = FakeFeatbit::start();
    let sidecar = featbit
        .proxied_without_secret()
        .set("sync.streaming", "false")
        .start();
    let real = featbit.secret("server");
    assert_eq!(
        gist(&sidecar.ask(&evaluate(&real, body("ada").to_string()))),
        (200, "miss")
    );
    for n in 0..100 {
        let forged = format!("{n:022}{}", &real[22..]);
        assert_eq!(
            sidecar.ask(&evaluate(&forged, body("ada").to_string())).status,
            200
        );
    }
    let status = sidecar.admin_get("/status").json();
    let learnt = status["environments"][0]["deployments"].as_array().unwrap().len();
    assert!(learnt <= 64, "{learnt}");
    assert_eq!(
        gist(&sidecar.ask(&evaluate(&real, body("ada").to_string()))),
        (200, "hit")
    );
}
