//! Every way an exchange can end, and what crosses the proxy.

use std::io;

use super::super::resolve::Lookup;
use super::*;

fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn answers_come_whole_over_one_connection() {
    let fake = Fake::start(vec![
        send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        send("HTTP/1.1 404 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
        send("HTTP/1.1 204 No Content\r\n\r\n"),
        send("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"),
    ])
    .await;
    let caller = Caller::new(&patient(), &fake.base());
    for (status, body) in [(200, "hello"), (404, "abcdefg"), (204, ""), (302, "")] {
        let answer = is_send(caller.get("/v1/vardata?user_id=a")).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.body().as_ref()),
            (status, body.as_bytes())
        );
    }
    assert_eq!(fake.connections(), 1);
    assert_eq!(fake.seen().len(), 4, "a redirect was followed");
    let told = ["evaluate 2xx", "evaluate 4xx", "evaluate 2xx", "evaluate 3xx"];
    assert_eq!(caller.told(), told);
    assert_eq!((caller.origin.in_flight(), caller.gate.in_flight()), (0, 0));
    assert_eq!(caller.origin.connections(), 1);
    assert!(caller.origin.last_success().is_some() && caller.origin.last_failure().is_none());
}

/// What a fake does, and how the exchange ends then.
fn misbehaviour() -> Vec<(&'static str, Reply, Outcome)> {
    let long_head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let big = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n401\r\n{}\r\n0\r\n\r\n",
        "z".repeat(0x401)
    );
    vec![
        ("reset", Reply::Reset, Outcome::Reset),
        ("closed without a word", last(""), Outcome::Reset),
        (
            "closed in the head",
            last("HTTP/1.1 200 OK\r\ncontent-"),
            Outcome::Reset,
        ),
        ("silent", Reply::Silence, Outcome::Timeout),
        (
            "silent in the head",
            Reply::Stall("HTTP/1.1 200 OK\r\n".to_owned()),
            Outcome::Timeout,
        ),
        (
            "silent in the body",
            Reply::Stall("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_owned()),
            Outcome::Timeout,
        ),
        (
            "truncated",
            last("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
            Outcome::Protocol,
        ),
        (
            "truncated chunks",
            last("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc"),
            Outcome::Protocol,
        ),
        (
            "broken chunks",
            last("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nabc"),
            Outcome::Protocol,
        ),
        (
            "announced too large",
            last("HTTP/1.1 200 OK\r\ncontent-length: 1025\r\n\r\n"),
            Outcome::Protocol,
        ),
        ("too large", Reply::Last(big), Outcome::Protocol),
        ("garbage", last("SSH-2.0-OpenSSH_9.6\r\n\r\n"), Outcome::Protocol),
        (
            "two lengths",
            last("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
            Outcome::Protocol,
        ),
        ("a head without end", Reply::Last(long_head), Outcome::Protocol),
        (
            "compressed",
            last("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}"),
            Outcome::Protocol,
        ),
        (
            "an upgrade",
            last("HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
            Outcome::Protocol,
        ),
    ]
}

#[tokio::test]
async fn every_failure_has_its_outcome() {
    for (name, reply, wanted) in misbehaviour() {
        let fake = Fake::start(vec![reply]).await;
        let settings = Upstream {
            request_timeout: Duration::from_millis(60),
            ..patient()
        };
        let mut caller = Caller::new(&settings, &fake.base());
        caller.deadline = Duration::from_millis(if name == "silent in the body" { 60 } else { 60_000 });
        let error = caller
            .get("/v1/vardata?user_id=secret-user")
            .await
            .expect_err(name);
        assert_eq!(error.outcome(), wanted, "{name}: {error:?}");
        assert_eq!(caller.told(), [format!("evaluate {}", wanted.as_str())], "{name}");
        assert!(!error.to_string().contains("secret-user"), "{name}: {error}");
        assert_eq!(
            (caller.origin.in_flight(), caller.gate.in_flight()),
            (0, 0),
            "{name}"
        );
        assert_eq!(fake.seen().len(), 1, "{name}: asked again");
        assert!(caller.origin.last_failure().is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_large_answer_comes_whole_however_it_is_cut() {
    let large: String = ('a'..='z').cycle().take(3 * 1024 * 1024).collect();
    let announced = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{large}",
        large.len()
    );
    let chunks: String = large.as_bytes().chunks(700_001).map(chunk).collect();
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    let until_closed = format!("HTTP/1.1 200 OK\r\n\r\n{large}");
    let fake = Fake::start(vec![
        Reply::Send(announced),
        Reply::Send(chunked),
        Reply::Last(until_closed),
    ])
    .await;
    let mut caller = Caller::new(&patient(), &fake.base());
    caller.max_answer = large.len();
    for _ in 0..3 {
        assert!(caller.get("/").await.unwrap().body() == &large);
    }
    assert_eq!(fake.connections(), 1);
}

fn chunk(piece: &[u8]) -> String {
    format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece))
}

#[tokio::test]
async fn nobody_listening_is_a_connect_failure_for_all_who_wait() {
    let caller = Caller::new(&patient(), &nobody().await);
    let (first, second) = tokio::join!(caller.get("/"), caller.get("/"));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.outcome(), Outcome::Connect);
        assert!(error.to_string().contains("refused"), "{error}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_dns_failure() {
    let lookup: Lookup = Arc::new(|_, _| Err(io::Error::other("no such name")));
    let recorder = Arc::new(Recorder::default());
    let observer: Arc<dyn Observer> = Arc::<Recorder>::clone(&recorder);
    let shared = Shared::with_lookup(&patient(), observer, lookup).unwrap();
    let base = BaseUrl {
        tls: true,
        host: "api.example".to_owned(),
        port: 443,
        path: String::new(),
    };
    let caller = Caller::over(&shared, recorder, &patient(), &Arc::new(base));
    assert_eq!(caller.get("/").await.unwrap_err().outcome(), Outcome::Dns);
}

#[tokio::test]
async fn a_look_up_that_hangs_is_bounded_by_the_connect_timeout() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let lookup: Lookup = Arc::new(move |_, _| {
        let _ = lock(&held).recv();
        Ok(Vec::new())
    });
    let settings = Upstream {
        connect_timeout: Duration::from_millis(30),
        ..patient()
    };
    let shared = Shared::with_lookup(&settings, Arc::new(NoObserver), lookup).unwrap();
    let base = BaseUrl {
        tls: false,
        host: "api.example".to_owned(),
        port: 80,
        path: String::new(),
    };
    let caller = Caller::over(&shared, Arc::default(), &settings, &Arc::new(base));
    let error = caller.get("/").await.unwrap_err();
    assert!(
        matches!(error, UpstreamError::Timeout(Phase::Connect)),
        "{error:?}"
    );
    drop(release);
}

#[tokio::test]
async fn a_deadline_that_has_passed_ends_it_at_once() {
    let fake = Fake::start(vec![Reply::Silence]).await;
    let mut caller = Caller::new(&patient(), &fake.base());
    caller.deadline = Duration::ZERO;
    assert_eq!(caller.get("/").await.unwrap_err().outcome(), Outcome::Timeout);
}

#[tokio::test]
async fn bytes_after_an_answer_never_become_the_next_one() {
    let poisoned = format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison");
    let fake = Fake::start(vec![Reply::Send(poisoned), send(OK)]).await;
    let caller = Caller::new(&patient(), &fake.base());
    for _ in 0..2 {
        assert_eq!(caller.get("/").await.unwrap().body().as_ref(), b"{}");
    }
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn a_connection_closed_between_requests_is_no_failure() {
    for (name, then) in [("closed", last("")), ("reset", Reply::Reset)] {
        let fake = Fake::start(vec![send(OK), then, send(OK)]).await;
        let caller = Caller::new(&patient(), &fake.base());
        for _ in 0..2 {
            assert_eq!(caller.get("/").await.unwrap().status(), 200, "{name}");
        }
        assert_eq!(caller.told(), ["evaluate 2xx", "evaluate 2xx"], "{name}");
        assert_eq!((fake.connections(), fake.seen().len()), (2, 3), "{name}");
    }
    // The connection is closed right after the answer.
    let fake = Fake::start(vec![last(OK)]).await;
    let caller = Caller::new(&patient(), &fake.base());
    for _ in 0..20 {
        assert_eq!(caller.get("/").await.unwrap().status(), 200);
    }
    assert_eq!(caller.told(), ["evaluate 2xx"; 20]);
}

#[tokio::test]
async fn what_is_not_idempotent_is_not_sent_twice() {
    let fake = Fake::start(vec![send(OK), last(""), send(OK)]).await;
    let settings = Upstream {
        retries: 3,
        ..patient()
    };
    let mut caller = Caller::new(&settings, &fake.base());
    caller.idempotent = false;
    assert!(caller.get("/").await.is_ok());
    assert_eq!(caller.get("/").await.unwrap_err().outcome(), Outcome::Reset);
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn the_request_goes_to_the_base_with_our_host_and_without_the_clients_own() {
    let fake = Fake::start(vec![send(OK)]).await;
    let base = BaseUrl {
        path: "/eu/api".to_owned(),
        ..(*fake.base()).clone()
    };
    let caller = Caller::new(&patient(), &Arc::new(base));
    let request = Request::post("http://evil.example/sdk/v2/vardata?v=0")
        .version(http::Version::HTTP_2)
        .header("host", "evil.example")
        .header("authorization", "Api-Key k")
        .header("content-length", "999")
        .header("transfer-encoding", "chunked")
        .header("connection", "x-secret-hop")
        .header("x-secret-hop", "1")
        .header("x-forwarded-for", "10.0.0.1")
        .header("cookie", "a=b")
        .header("accept-encoding", "gzip")
        .header("traceparent", "00-a-b-01")
        .body(Bytes::from_static(b"{\"a\":1}"))
        .unwrap();
    caller.fetch(request).await.unwrap();
    let seen = fake.seen().remove(0);
    let mut lines: Vec<&str> = seen.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.remove(0), "POST /eu/api/sdk/v2/vardata?v=0 HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: 127.0.0.1:{}", fake.address.port());
    let agent = format!("user-agent: flagside/{}", env!("CARGO_PKG_VERSION"));
    let wanted = [
        "accept-encoding: identity",
        "authorization: Api-Key k",
        "content-length: 7",
        &host,
        "traceparent: 00-a-b-01",
        &agent,
        "{\"a\":1}",
    ];
    assert_eq!(lines, wanted);
}

#[tokio::test]
async fn methods_and_targets_that_are_no_questions_are_not_sent() {
    let fake = Fake::start(vec![send(OK)]).await;
    let caller = Caller::new(&patient(), &fake.base());
    for (method, target) in [
        ("CONNECT", "host:443"),
        ("TRACE", "/v1/vardata"),
        ("OPTIONS", "*"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .body(Bytes::new())
            .unwrap();
        let error = caller.fetch(request).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Unsendable), "{method}: {error:?}");
    }
    assert_eq!(fake.connections(), 0);
}

#[tokio::test]
async fn a_connection_each_while_busy_and_no_more_idle_than_allowed() {
    let fake = Fake::start(vec![send(OK)]).await;
    let settings = Upstream {
        pool_max_idle: 2,
        ..patient()
    };
    let caller = Caller::new(&settings, &fake.base());
    let (a, b, c) = tokio::join!(caller.get("/a"), caller.get("/b"), caller.get("/c"));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(fake.connections(), 3);
    // The third is kept a moment for the next burst.
    caller.client.close_idle(Instant::now());
    assert_eq!(caller.origin.connections(), 3);
    caller.client.close_idle(Instant::now() + Duration::from_secs(2));
    assert_eq!(caller.origin.connections(), 2);
    caller.client.close_idle(Instant::now() + EVER);
    while caller.origin.connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn equal_bases_are_one_origin() {
    let shared = Shared::new(&patient(), Arc::new(NoObserver)).unwrap();
    let base = |path: &str| {
        let (host, path) = ("api.example".to_owned(), path.to_owned());
        Arc::new(BaseUrl {
            tls: true,
            host,
            port: 8443,
            path,
        })
    };
    let (one, same, other) = (base(""), base(""), base("/eu"));
    let origins = [&one, &same, &other].map(|base| shared.origin(base).unwrap());
    assert!(Arc::ptr_eq(&origins[0], &origins[1]));
    assert_eq!(origins.each_ref().map(|origin| origin.index()), [0, 0, 1]);
    assert_eq!(origins[0].host(), "api.example:8443");
    assert_eq!(shared.origins().len(), 2);
    let wrong = BaseUrl {
        host: "no host".to_owned(),
        ..(*one).clone()
    };
    assert!(shared.origin(&Arc::new(wrong)).is_err());
}
