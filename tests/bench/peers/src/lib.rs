//! What the bench programs share: one single-threaded HTTP/1.1 server on loopback.

use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

/// The content type of everything that is answered here.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Serves 127.0.0.1:`port` on this thread for ever; `answer` gives the body of each request.
///
/// # Panics
/// When the port cannot be had.
pub fn serve<F, A>(port: u16, answer: F) -> !
where
    F: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port");
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let answer = answer.clone();
            spawn_local(async move {
                let service = service_fn(move |request| {
                    let answering = answer(request);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// A 200 with `body`.
#[must_use]
pub fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The command line: a port, then the contents of files.
///
/// # Panics
/// When an argument is missing or a file cannot be read.
#[must_use]
pub fn port_and_files() -> (u16, Vec<Bytes>) {
    let mut arguments = std::env::args().skip(1);
    let port = arguments
        .next()
        .and_then(|port| port.parse().ok())
        .expect("PORT FILE...");
    let read = |path: String| Bytes::from(std::fs::read(&path).expect(&path));
    (port, arguments.map(read).collect())
}
