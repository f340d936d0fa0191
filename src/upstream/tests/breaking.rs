//! Retries, breakers, slots, and futures that are dropped.

use std::future::Future;

use super::*;

/// Runs `future` until the fake saw `n` requests, then drops it.
async fn give_up_after<F: Future>(fake: &Fake, n: usize, future: F) {
    tokio::select! {
        biased;
        _ = future => panic!("it ended"),
        () = fake.saw(n) => {}
    }
}

#[tokio::test]
async fn what_may_pass_is_repeated_and_the_rest_is_not() {
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let cases: [(&str, Reply, bool); 9] = [
        ("502", status(502), true),
        ("503", status(503), true),
        ("reset", Reply::Reset, true),
        ("closed", last(""), true),
        ("504", status(504), false),
        ("503 with Retry-After", send(busy), false),
        ("500", status(500), false),
        ("429", status(429), false),
        ("garbage", last("garbage\r\n\r\n"), false),
    ];
    for (name, reply, wanted) in cases {
        let fake = Fake::start(vec![reply, send(OK)]).await;
        let caller = Caller::new(
            &Upstream {
                retries: 1,
                ..patient()
            },
            &fake.base(),
        );
        let answer = caller.get("/").await;
        assert_eq!(
            answer.is_ok_and(|answer| answer.status() == 200),
            wanted,
            "{name}"
        );
        assert_eq!(fake.seen().len(), 1 + usize::from(wanted), "{name}");
        assert_eq!(
            caller.told().contains(&"evaluate again".to_owned()),
            wanted,
            "{name}"
        );
    }
}

#[tokio::test]
async fn retries_are_counted_and_end() {
    let fake = Fake::start(vec![status(502)]).await;
    let caller = Caller::new(
        &Upstream {
            retries: 2,
            ..patient()
        },
        &fake.base(),
    );
    assert_eq!(caller.get("/").await.unwrap().status(), 502);
    assert_eq!(fake.seen().len(), 3);
    // The floor of the budget is three, and two are gone.
    assert_eq!(caller.get("/").await.unwrap().status(), 502);
    assert_eq!(caller.get("/").await.unwrap().status(), 502);
    assert_eq!(fake.seen().len(), 6);
}

#[tokio::test]
async fn failures_in_a_row_open_the_breaker_and_nothing_is_sent_while_it_is_open() {
    let fake = Fake::start(vec![status(503), status(504), last("garbage\r\n\r\n"), send(OK)]).await;
    let caller = Caller::new(
        &Upstream {
            circuit_failures: 3,
            ..patient()
        },
        &fake.base(),
    );
    for _ in 0..3 {
        drop(caller.get("/").await);
    }
    let error = caller.get("/").await.unwrap_err();
    assert!(matches!(error, UpstreamError::CircuitOpen), "{error:?}");
    assert_eq!(fake.seen().len(), 3);
    assert_eq!(caller.origin.breaker_state(), BreakerState::Open);
    let told = [
        "evaluate 5xx",
        "evaluate 5xx",
        "evaluate protocol",
        "origin open",
        "evaluate circuit_open",
    ];
    assert_eq!(caller.told(), told);
}

#[tokio::test]
async fn answers_that_only_displease_us_keep_the_breaker_closed() {
    let encoded = "HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}";
    let fake = Fake::start(vec![last(encoded), status(401), status(429), status(404)]).await;
    let caller = Caller::new(
        &Upstream {
            circuit_failures: 1,
            ..patient()
        },
        &fake.base(),
    );
    for _ in 0..8 {
        drop(caller.get("/").await);
    }
    assert_eq!(fake.seen().len(), 8);
    assert_eq!(caller.origin.breaker_state(), BreakerState::Closed);
}

#[tokio::test]
async fn a_failure_that_opens_the_breaker_is_told_rather_than_the_breaker() {
    let fake = Fake::start(vec![Reply::Reset]).await;
    let settings = Upstream {
        circuit_failures: 1,
        retries: 3,
        ..patient()
    };
    let caller = Caller::new(&settings, &fake.base());
    assert_eq!(caller.get("/").await.unwrap_err().outcome(), Outcome::Reset);
    assert_eq!(caller.get("/").await.unwrap_err().outcome(), Outcome::CircuitOpen);
    assert_eq!(
        caller.told(),
        ["evaluate reset", "origin open", "evaluate circuit_open"]
    );
}

#[tokio::test]
async fn one_probe_at_a_time_and_a_dropped_probe_makes_room() {
    let fake = Fake::start(vec![Reply::Reset, Reply::Silence, Reply::Silence, send(OK)]).await;
    // An open breaker may be probed at once.
    let settings = Upstream {
        circuit_failures: 1,
        circuit_open_for: Duration::ZERO,
        ..patient()
    };
    let caller = Caller::new(&settings, &fake.base());
    assert!(caller.get("/").await.is_err());

    give_up_after(&fake, 2, caller.get("/probe")).await;
    assert_eq!(caller.origin.breaker_state(), BreakerState::Open);

    let both = async {
        let probe = caller.get("/probe");
        let second = async {
            fake.saw(3).await;
            assert_eq!(caller.origin.breaker_state(), BreakerState::HalfOpen);
            assert_eq!(
                caller.get("/second").await.unwrap_err().outcome(),
                Outcome::CircuitOpen
            );
        };
        tokio::select! { biased; _ = probe => panic!("it ended"), () = second => {} }
    };
    both.await;

    assert!(caller.get("/probe").await.is_ok());
    assert_eq!(caller.origin.breaker_state(), BreakerState::Closed);
    assert_eq!((caller.origin.in_flight(), caller.gate.in_flight()), (0, 0));
    let told = [
        "evaluate reset",
        "origin open",
        "origin half_open",
        "evaluate cancelled",
        "origin open",
        "origin half_open",
        "evaluate circuit_open",
        "evaluate cancelled",
        "origin open",
        "origin half_open",
        "evaluate 2xx",
        "origin closed",
    ];
    assert_eq!(caller.told(), told);
}

#[tokio::test]
async fn errors_of_one_environment_stay_its_own() {
    let fake = Fake::start(vec![status(500), status(501), send(OK)]).await;
    let settings = Upstream {
        circuit_failures: 2,
        ..patient()
    };
    let caller = Caller::new(&settings, &fake.base());
    assert_eq!(caller.get("/").await.unwrap().status(), 500);
    assert_eq!(caller.get("/").await.unwrap().status(), 501);
    assert_eq!(caller.get("/").await.unwrap_err().outcome(), Outcome::CircuitOpen);
    assert_eq!(caller.gate.breaker_state(Operation::Evaluate), BreakerState::Open);
    assert_eq!(caller.told()[2], "main evaluate open");

    // Neither the origin, nor other operations, nor other environments suffer.
    assert_eq!(caller.origin.breaker_state(), BreakerState::Closed);
    let limits = Limits {
        deadline: Instant::now() + EVER,
        max_answer: 10,
        idempotent: true,
    };
    let (client, origin) = (&caller.client, &caller.origin);
    let flags = client
        .fetch(
            origin,
            &caller.gate,
            Operation::Flags,
            &Ask::of(&get("/")),
            limits,
        )
        .await;
    assert!(flags.is_ok());
    let other = Gate::new("other", &settings);
    assert!(
        client
            .fetch(origin, &other, Operation::Evaluate, &Ask::of(&get("/")), limits)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_full_gate_refuses_at_once_and_a_dropped_request_makes_room() {
    let fake = Fake::start(vec![Reply::Silence, send(OK)]).await;
    let caller = Caller::new(
        &Upstream {
            max_in_flight: 1,
            ..patient()
        },
        &fake.base(),
    );
    let crowd = async {
        let first = caller.get("/first");
        let second = async {
            fake.saw(1).await;
            assert_eq!((caller.gate.in_flight(), caller.origin.in_flight()), (1, 1));
            let error = caller.get("/second").await.unwrap_err();
            assert!(matches!(error, UpstreamError::Busy), "{error:?}");
        };
        tokio::select! { biased; _ = first => panic!("it ended"), () = second => {} }
    };
    crowd.await;
    assert_eq!((caller.gate.in_flight(), caller.origin.in_flight()), (0, 0));
    assert!(caller.get("/third").await.is_ok());
}

#[tokio::test]
async fn a_request_given_up_closes_its_connection() {
    let fake = Fake::start(vec![Reply::Silence, send(OK)]).await;
    let caller = Caller::new(&patient(), &fake.base());
    give_up_after(&fake, 1, caller.get("/")).await;
    while caller.origin.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(caller.told(), ["evaluate cancelled"]);
}

#[tokio::test]
async fn a_connection_opened_for_one_who_left_serves_the_next() {
    let fake = Fake::start(vec![send(OK)]).await;
    let caller = Caller::new(&patient(), &fake.base());
    {
        let mut left = std::pin::pin!(caller.get("/"));
        let pending =
            std::future::poll_fn(|context| std::task::Poll::Ready(left.as_mut().poll(context).is_pending()));
        assert!(pending.await);
    }
    while caller.origin.connections() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(caller.get("/").await.is_ok());
    assert_eq!((fake.connections(), fake.seen().len()), (1, 1));
}
