//! Bodies streamed both ways.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::mpsc;

use super::*;

/// A body whose pieces the test sends; `Err` breaks it off.
struct Pieces(mpsc::Receiver<Result<&'static str, std::io::Error>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| Some(piece?.map(|text| Frame::data(Bytes::from(text)))))
    }
}

async fn relay<B>(
    caller: &Caller,
    operation: Operation,
    request: Request<B>,
) -> Result<Response<RelayBody>, UpstreamError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    caller
        .client
        .relay(&caller.origin, &caller.gate, operation, request, EVER)
        .await
}

fn empty(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn an_answer_is_relayed_without_what_is_upstreams_own() {
    let fake = Fake::start(vec![send(
        "HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nalt-svc: h3\r\nstrict-transport-security: x\r\n\
         content-encoding: gzip\r\netag: \"e\"\r\nkeep-alive: timeout=5\r\ncontent-length: 5\r\n\r\nhello",
    )])
    .await;
    let caller = Caller::new(&patient(), &fake.base());
    for _ in 0..2 {
        let answer = relay(&caller, Operation::Passthrough, empty("/web/v1/configs"))
            .await
            .unwrap();
        let mut names: Vec<_> = answer
            .headers()
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["content-encoding", "content-length", "etag"]);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    }
    assert_eq!(fake.connections(), 1, "the connection was not used again");
    assert_eq!((caller.origin.in_flight(), caller.gate.in_flight()), (0, 0));
}

#[tokio::test]
async fn a_request_body_is_streamed_as_it_comes() {
    let fake = Fake::start(vec![send(OK)]).await;
    let caller = Caller::new(&patient(), &fake.base());
    let (pieces, body) = mpsc::channel(1);
    let request = Request::post("/v1/anything").body(Pieces(body)).unwrap();
    let (answer, ()) = tokio::join!(relay(&caller, Operation::Passthrough, request), async move {
        for piece in ["one", "two"] {
            pieces.send(Ok(piece)).await.unwrap();
        }
    });
    assert_eq!(answer.unwrap().status(), 200);
    assert!(
        fake.seen()[0].ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        "{}",
        fake.seen()[0]
    );

    // A body of known length keeps it.
    let request = Request::post("/")
        .body(Full::new(Bytes::from_static(b"whole")))
        .unwrap();
    relay(&caller, Operation::Passthrough, request).await.unwrap();
    assert!(fake.seen()[1].contains("content-length: 5\r\n") && fake.seen()[1].ends_with("whole"));
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_upstreams_fault() {
    let fake = Fake::start(vec![send(OK)]).await;
    let caller = Caller::new(
        &Upstream {
            circuit_failures: 1,
            ..patient()
        },
        &fake.base(),
    );
    let (pieces, body) = mpsc::channel(1);
    pieces.send(Err(std::io::Error::other("gone"))).await.unwrap();
    let request = Request::post("/").body(Pieces(body)).unwrap();
    let error = relay(&caller, Operation::Passthrough, request).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Aborted), "{error:?}");
    assert_eq!(caller.origin.breaker_state(), BreakerState::Closed);
}

#[tokio::test]
async fn the_head_and_each_piece_come_before_the_end() {
    let fake = Fake::start(vec![Reply::Stall(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n: hi\n\n\r\n".to_owned(),
    )])
    .await;
    let caller = Caller::new(&patient(), &fake.base());
    let answer = relay(&caller, Operation::Stream, empty("/sdk/stream/v1/flags"))
        .await
        .unwrap();
    assert_eq!(
        caller.gate.in_flight(),
        0,
        "a stream takes a slot only until its head"
    );
    let mut body = answer.into_body();
    let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(piece, ": hi\n\n");
    assert_eq!(caller.origin.connections(), 1);
    drop(body);
    while caller.origin.connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn slots_of_relays_are_held_until_the_body_ends_and_are_not_those_of_evaluation() {
    let stalled = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
    let fake = Fake::start(vec![Reply::Stall(stalled.to_owned()), send(OK)]).await;
    let caller = Caller::new(
        &Upstream {
            max_in_flight: 1,
            ..patient()
        },
        &fake.base(),
    );
    let slow = relay(&caller, Operation::Cohort, empty("/slow")).await.unwrap();
    let error = relay(&caller, Operation::Cohort, empty("/")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Busy), "{error:?}");
    assert!(caller.get("/").await.is_ok());
    drop(slow);
    assert!(relay(&caller, Operation::Cohort, empty("/")).await.is_ok());
}

#[tokio::test]
async fn a_truncated_answer_ends_in_an_error() {
    let fake = Fake::start(vec![last("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")]).await;
    let caller = Caller::new(&patient(), &fake.base());
    let answer = relay(&caller, Operation::Passthrough, empty("/")).await.unwrap();
    let error = answer.into_body().collect().await.unwrap_err();
    assert!(matches!(error, UpstreamError::Truncated), "{error:?}");
}

#[tokio::test]
async fn only_what_is_safe_is_sent_again_over_a_new_connection() {
    let post = || Request::post("/").body(Empty::<Bytes>::new()).unwrap();
    for (request, wanted) in [(empty("/"), true), (post(), false)] {
        let fake = Fake::start(vec![send(OK), last(""), send(OK)]).await;
        let caller = Caller::new(&patient(), &fake.base());
        caller.get("/").await.unwrap();
        let answer = relay(&caller, Operation::Passthrough, request).await;
        assert_eq!(answer.is_ok(), wanted, "{answer:?}");
    }
}

#[tokio::test]
async fn a_silent_upstream_is_waited_for_until_the_head_deadline() {
    let fake = Fake::start(vec![Reply::Silence]).await;
    let caller = Caller::new(&patient(), &fake.base());
    let (client, origin, gate) = (&caller.client, &caller.origin, &caller.gate);
    let wait = Duration::from_millis(40);
    let error = client
        .relay(origin, gate, Operation::Stream, empty("/"), wait)
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout(Phase::Head)), "{error:?}");
}
