//! The HTTP of the data listener: connections, limits, smuggling, HTTP/2.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::caller::exchange;
use crate::support::upstream::KEY;
use crate::support::{Ask, Caller, FakeUpstream, Outcome, Route, Sidecar, eventually};

#[test]
fn a_connection_carries_many_questions() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let mut caller = sidecar.caller();
    for number in 0..200 {
        assert_eq!(caller.ask(&Ask::about(&format!("u-{}", number % 7))).status, 200);
        assert!(caller.is_connected());
    }
    sidecar.wait_for_metric("flagside_http_connections_total", &[("listener", "data")], 1.0);
    assert_eq!(
        sidecar.metric("flagside_http_connections_total", &[("listener", "data")]),
        1.0
    );
}

#[test]
fn pipelined_questions_are_answered_in_order() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let asks: Vec<_> = (0..10).map(|number| Ask::about(&format!("u-{number}"))).collect();
    let mut caller = sidecar.caller();
    caller.send(&asks.iter().flat_map(Ask::bytes).collect::<Vec<_>>());
    for (number, ask) in asks.iter().enumerate() {
        let answer = caller.receive(false).expect_answer(&ask.bytes());
        assert_eq!(
            answer.json()["who"]["payload"]["user"]["user_id"],
            format!("u-{number}")
        );
    }
}

#[test]
fn half_of_a_second_question_holds_up_no_answer_to_the_first() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("u"));
    let bytes = Ask::about("u").bytes();
    let mut caller = Caller::patient(sidecar.data(), Duration::from_secs(3));
    caller.send(&[&bytes, &bytes[..30]].concat());
    assert_eq!(caller.receive(false).expect_answer(&bytes).status, 200);
    caller.send(&bytes[30..]);
    assert_eq!(caller.receive(false).expect_answer(&bytes).status, 200);
}

#[test]
fn a_request_may_come_in_single_bytes() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let bytes = Ask::sdk_post(r#"{"user_id":"u"}"#).bytes();
    let mut caller = sidecar.caller();
    for byte in &bytes {
        caller.send(&[*byte]);
    }
    assert_eq!(caller.receive(false).expect_answer(&bytes).status, 200);
}

#[test]
fn a_client_may_ask_for_the_end_of_the_connection() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    // From upstream first, then stored answers.
    for number in 0..4 {
        let closing = Ask::about("u").header("Connection", "close");
        assert!(sidecar.caller().ask(&closing).closes(), "{number}");
        assert!(!sidecar.caller().ask(&Ask::about("u")).closes(), "{number}");
    }
    let old = String::from_utf8(Ask::about("u").bytes())
        .unwrap()
        .replace("HTTP/1.1", "HTTP/1.0")
        .into_bytes();
    let mut caller = sidecar.caller();
    caller.send(&old);
    let head = caller.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 "), "{head}");
}

#[test]
fn an_expecting_client_is_told_to_go_on() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let bytes = Ask::sdk_post(r#"{"user_id":"u"}"#)
        .header("Expect", "100-continue")
        .bytes();
    let (head, body) = bytes.split_at(bytes.len() - r#"{"user_id":"u"}"#.len());
    let mut caller = sidecar.caller();
    caller.send(head);
    let interim = caller.read_until("\r\n\r\n");
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    caller.send(body);
    assert_eq!(caller.receive(false).expect_answer(&bytes).status, 200);
}

#[test]
fn no_request_is_smuggled_through() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let evil = "GET /web/v1/evil HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = |lines: &str, body: &str| {
        format!(
            "POST /sdk/v2/vardata HTTP/1.1\r\nHost: a\r\nAuthorization: Api-Key {KEY}\r\n{lines}\r\n{body}"
        )
        .into_bytes()
    };
    let length = evil.len() + 5;
    let attempts = [
        post(
            &format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            &format!("0\r\n\r\n{evil}"),
        ),
        post(
            &format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            &format!("0\r\n\r\n{evil}"),
        ),
        post(
            &format!("Content-Length: 0\r\nContent-Length: {}\r\n", evil.len()),
            evil,
        ),
        post(&format!("Content-Length: 0, {}\r\n", evil.len()), evil),
        post("Transfer-Encoding: xchunked\r\n", evil),
        post(
            "Transfer-Encoding: chunked, identity\r\n",
            &format!("0\r\n\r\n{evil}"),
        ),
        post("Transfer-Encoding : chunked\r\n", &format!("0\r\n\r\n{evil}")),
        post("Transfer-Encoding:\x0bchunked\r\n", &format!("0\r\n\r\n{evil}")),
        post("Content-Length: 1\r\n folded: 5\r\n", evil),
        post("Content-Length: +0\r\n", evil),
        post("Transfer-Encoding: chunked\r\n", &format!("0;\r\n{evil}\r\n\r\n")),
    ];
    for (number, attempt) in attempts.iter().enumerate() {
        // The bytes of `evil` are the body of the first request, or they are never read.
        let mut caller = Caller::patient(sidecar.data(), Duration::from_millis(500));
        caller.send(attempt);
        if let Outcome::Answer(answer) = caller.receive(false) {
            assert!(answer.status < 500, "attempt {number}: {answer:?}");
        }
        let second = caller.receive(false);
        assert!(
            matches!(second, Outcome::Closed | Outcome::Silence),
            "attempt {number}: {second:?}"
        );
    }
    sidecar.ask(&Ask::about("after"));
    let seen = cloud.requests();
    assert!(
        seen.iter().all(|request| !request.target.contains("evil")),
        "{seen:#?}"
    );
}

#[test]
fn what_a_client_puts_into_a_header_makes_no_header_upstream() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for target in [
        "/web/v1/configs%0d%0aX-Evil:%201",
        "/web/v1/configs?a=%0d%0aX-Evil:%201",
        "/sdk/v2/vardata?user_id=%0d%0aX-Evil:1",
    ] {
        sidecar.ask(&Ask::get(target));
    }
    assert!(
        cloud
            .requests()
            .iter()
            .all(|request| request.header("x-evil").is_none())
    );
}

#[test]
fn a_slow_head_is_not_waited_for() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("listen.header_timeout", "200ms")
        .start();
    let bytes = Ask::about("u").bytes();
    let mut caller = sidecar.caller();
    caller.send(&bytes[..50]);
    match caller.receive(false) {
        Outcome::Answer(answer) => assert_eq!(answer.status, 408),
        Outcome::Closed => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_silent_connection_is_closed() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("listen.idle_timeout", "1s")
        .start();
    let mut caller = sidecar.caller();
    caller.ask(&Ask::about("u"));
    assert!(caller.is_closed_by_peer());
}

#[test]
fn connections_beyond_the_limit_are_turned_away_and_later_ones_served() {
    let cloud = FakeUpstream::start();
    let settings = Sidecar::in_front_of(&cloud)
        .set("listen.max_connections", "4")
        .set("workers", "1");
    let sidecar = settings.start();
    let mut open: Vec<_> = (0..4)
        .map(|_| {
            let mut caller = sidecar.caller();
            assert_eq!(caller.ask(&Ask::about("u")).status, 200);
            caller
        })
        .collect();
    let bytes = Ask::about("u").bytes();
    match exchange(sidecar.data(), &bytes, Duration::from_millis(500)) {
        Outcome::Answer(answer) => assert_eq!(answer.status, 503),
        Outcome::Closed | Outcome::Silence => {}
        other @ Outcome::Broken(_) => panic!("{other:?}"),
    }
    for caller in &mut open {
        assert_eq!(caller.ask(&Ask::about("u")).status, 200, "who is there stays");
    }
    open.clear();
    eventually("room", || {
        match exchange(sidecar.data(), &bytes, Duration::from_secs(1)) {
            Outcome::Answer(answer) if answer.status == 200 => Some(()),
            _ => None,
        }
    });
}

#[test]
fn large_users_are_welcome() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let user = |size: usize| {
        serde_json::json!({"user_id": "u", "user_properties": {"long": "x".repeat(size)}}).to_string()
    };
    for (ask, what) in [
        (Ask::sdk_get(&user(16 << 10)), "16 KiB in a header"),
        (Ask::sdk_get(&user(40 << 10)), "53 KiB of base64 in a header"),
        (Ask::sdk_post(&user(900 << 10)), "900 KiB in a body"),
        (
            Ask::v1(&format!(
                "context={}",
                crate::support::codec::percent(&user(20 << 10))
            )),
            "20 KiB in the query",
        ),
    ] {
        assert_eq!(sidecar.ask(&ask).status, 200, "{what}");
        assert_eq!(sidecar.ask(&ask).status, 200, "{what}");
    }
}

#[test]
fn http_2_without_tls_is_spoken_by_prior_knowledge() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let sources = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(sidecar.data()).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.await;
            String::new()
        });
        for number in 0..50 {
            let mut sender = sender.clone();
            tasks.spawn(async move {
                let user = format!(r#"{{"user_id":"u-{}"}}"#, number % 5);
                let request = hyper::Request::post("http://flags.test/sdk/v2/vardata?v=0")
                    .header("authorization", format!("Api-Key {KEY}"))
                    .body(Full::new(Bytes::from(user.clone())))
                    .unwrap();
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                let source = answer.headers()["cache-status"].to_str().unwrap().to_owned();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let asked: serde_json::Value = serde_json::from_str(&user).unwrap();
                assert_eq!(body["who"]["payload"]["user"], asked);
                source
            });
        }
        drop(sender);
        let sources = tasks.join_all().await;
        sources
            .into_iter()
            .filter(|source| source.ends_with("stored"))
            .count()
    });
    assert_eq!((sources, cloud.count(Route::Vardata)), (5, 5));
}

#[test]
fn a_request_that_drips_in_is_answered_like_any_other() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let asks = [Ask::about("u"), Ask::sdk_post(r#"{"user_id":"u"}"#)];
    for ask in &asks {
        assert_eq!(sidecar.ask(ask).status, 200);
    }
    let mut caller = sidecar.caller();
    for ask in asks.iter().cycle().take(4) {
        let bytes = ask.bytes();
        for byte in &bytes {
            caller.send(std::slice::from_ref(byte));
        }
        let answer = caller.receive(false).expect_answer(&bytes);
        assert_eq!((answer.status, answer.source()), (200, "hit"), "{answer:?}");
    }
}

#[test]
fn a_client_that_ends_in_the_middle_of_its_body_is_told() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let whole = Ask::sdk_post(r#"{"user_id":"u"}"#).bytes();
    let bytes = &whole[..whole.len() - 3];
    let mut caller = sidecar.caller();
    caller.send(bytes);
    caller.finish();
    let answer = caller.receive(false).expect_answer(bytes);
    assert_eq!((answer.status, answer.error_code()), (400, Some("broken_body")));
}
