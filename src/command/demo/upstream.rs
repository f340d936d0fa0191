//! The built-in upstream: a small cloud on loopback that speaks its vendor's protocol.
//!
//! It evaluates its example flags with flagside's own engine, as far away as [`LATENCY`] makes it seem, and
//! can be told to hang, to fail, to refuse connections and to come back.
//!
//! Its port stays its own while it refuses: a socket that is bound and does not listen keeps it.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::task;

use super::client::Person;
use super::vendor::{Flags, Heard, Vendor};

/// How long an answer takes: the way to a cloud and back.
pub(super) const LATENCY: Duration = Duration::from_millis(80);
/// Bytes of a request body.
const BODY_MAX: usize = 1 << 20;
const BACKLOG: i32 = 1024;
/// Pause after the system refused a connection or the port.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the upstream behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mood {
    /// It answers.
    Answers,
    /// It takes requests and says nothing.
    Hangs,
    /// It answers 503.
    Fails,
    /// It refuses connections.
    Refuses,
    /// It has ended.
    Gone,
}

/// The upstream, on a thread of its own; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Whose cloud it is.
    pub(super) vendor: &'static dyn Vendor,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the port.
    _keeper: Socket,
}

#[derive(Debug)]
struct State {
    mood: watch::Sender<Mood>,
    listening: AtomicBool,
    vendor: &'static dyn Vendor,
    flags: ArcSwap<Box<dyn Flags>>,
    evaluations: AtomicU64,
    polls: AtomicU64,
}

impl Upstream {
    /// Starts it on a free port; it listens when this returns.
    pub(super) fn start(vendor: &'static dyn Vendor) -> io::Result<Self> {
        let keeper = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = keeper
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let state = Arc::new(State {
            mood: watch::Sender::new(Mood::Answers),
            listening: AtomicBool::new(true),
            vendor,
            flags: ArcSwap::from_pointee(vendor.example()?),
            evaluations: AtomicU64::new(0),
            polls: AtomicU64::new(0),
        });
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let first = listen(address)?;
        let own = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("demo-upstream".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, run(own, address, first)))?;
        Ok(Self {
            address,
            vendor,
            state,
            thread: Some(thread),
            _keeper: keeper,
        })
    }

    /// Behaves otherwise from now on. `Refuses` and what follows it take a moment: see [`Self::is_listening`].
    pub(super) fn behave(&self, mood: Mood) {
        self.state.mood.send_replace(mood);
    }

    /// Whether connections are accepted.
    pub(super) fn is_listening(&self) -> bool {
        self.state.listening.load(Ordering::Acquire)
    }

    /// Questions about users so far, answered or not.
    pub(super) fn evaluations(&self) -> u64 {
        self.state.evaluations.load(Ordering::Relaxed)
    }

    /// Requests for flags so far.
    pub(super) fn polls(&self) -> u64 {
        self.state.polls.load(Ordering::Relaxed)
    }

    /// How many flags there are.
    pub(super) fn flags(&self) -> usize {
        self.state.flags.load().len()
    }

    /// Changes a flag; says what was done.
    pub(super) fn change_flag(&self) -> io::Result<String> {
        self.state.change_flag()
    }

    /// What it says, or would say, about this person.
    pub(super) fn verdict(&self, person: &Person) -> Option<Vec<u8>> {
        self.state.flags.load().verdict(person)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.behave(Mood::Gone);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A bound socket. Several may be bound to one port: one that listens, one that keeps the port.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn run(state: Arc<State>, address: SocketAddr, first: std::net::TcpListener) {
    let mut mood = state.mood.subscribe();
    let mut first = Some(first);
    loop {
        match first
            .take()
            .map_or_else(|| listen(address), Ok)
            .and_then(TcpListener::from_std)
        {
            Ok(listener) => {
                state.listening.store(true, Ordering::Release);
                tokio::select! {
                    biased;
                    _ = mood.wait_for(|mood| matches!(mood, Mood::Refuses | Mood::Gone)) => {}
                    () = accept(&listener, &state) => {}
                }
                drop(listener);
                state.listening.store(false, Ordering::Release);
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        let next = mood
            .wait_for(|mood| *mood != Mood::Refuses)
            .await
            .map(|mood| *mood);
        if !matches!(next, Ok(Mood::Answers | Mood::Hangs | Mood::Fails)) {
            return;
        }
    }
}

async fn accept(listener: &TcpListener, state: &Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                task::detach(serve(stream, Arc::clone(state)));
            }
            // Out of file descriptors, say: it passes.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves a connection until it ends or connections are refused, which cuts it off.
async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut mood = state.mood.subscribe();
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(state.respond(request).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        _ = mood.wait_for(|mood| matches!(mood, Mood::Refuses | Mood::Gone)) => {}
        _ = connection => {}
    }
}

impl State {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_MAX)
            .collect()
            .await
            .map(|body| body.to_bytes())
        else {
            return plain(StatusCode::BAD_REQUEST, "the body cannot be read\n");
        };
        if let Some(order) = parts.uri.path().strip_prefix("/demo/") {
            return self.obey(&parts.method, order);
        }
        let is_question = self.vendor.is_question(parts.uri.path());
        let counter = if is_question {
            &self.evaluations
        } else {
            &self.polls
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(LATENCY).await;
        let mood = self
            .mood
            .subscribe()
            .wait_for(|mood| *mood != Mood::Hangs)
            .await
            .map(|mood| *mood);
        if !matches!(mood, Ok(Mood::Answers)) {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "try again later\n");
        }
        self.flags.load().answer(&Heard {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
            body: &body,
        })
    }

    /// What people can tell it with curl while the demo is kept running.
    fn obey(&self, method: &Method, order: &str) -> Response<Full<Bytes>> {
        if *method != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "POST it\n");
        }
        let (mood, said) = match order {
            "hang" => (Mood::Hangs, "upstream takes requests and says nothing\n"),
            "fail" => (Mood::Fails, "upstream answers 503\n"),
            "answer" => (Mood::Answers, "upstream answers\n"),
            "change" => {
                return match self.change_flag() {
                    Ok(done) => plain(StatusCode::OK, &format!("{done}\n")),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
                };
            }
            _ => return plain(StatusCode::NOT_FOUND, "tell it to hang, fail, answer or change\n"),
        };
        self.mood.send_replace(mood);
        plain(StatusCode::OK, said)
    }

    fn change_flag(&self) -> io::Result<String> {
        let (changed, done) = self.flags.load().changed()?;
        self.flags.store(Arc::new(changed));
        Ok(done)
    }
}

/// A 200 with JSON.
pub(super) fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A text.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::super::client::{Client, Spelling};
    use super::super::teller::wait_until;
    use super::super::vendor;
    use super::*;
    use crate::command::evaluate::Engine;

    fn ada() -> Person {
        Person::named("ada", "Web", "4.1.9", "free")
    }

    fn ask(upstream: &Upstream, spelling: Spelling) -> io::Result<(u16, Vec<u8>)> {
        let answer = Client::connect(upstream.address, upstream.vendor)?.ask(&ada(), spelling)?;
        Ok((answer.status, answer.body))
    }

    fn verdict(upstream: &Upstream) -> Vec<u8> {
        upstream.verdict(&ada()).unwrap()
    }

    fn upstreams() -> [Upstream; 2] {
        Engine::ALL.map(|engine| Upstream::start(vendor::of(engine)).unwrap())
    }

    #[test]
    fn it_answers_every_spelling_alike_and_other_keys_not() {
        for upstream in upstreams() {
            for spelling in [Spelling::Usual, Spelling::Compact, Spelling::Permuted] {
                let (status, body) = ask(&upstream, spelling).unwrap();
                assert_eq!((status, body), (200, verdict(&upstream)), "{spelling:?}");
            }
            let mut stranger = Client::connect(upstream.address, upstream.vendor).unwrap();
            stranger.key = "another";
            assert_eq!(stranger.ask(&ada(), Spelling::Usual).unwrap().status, 401);
            assert_eq!((upstream.evaluations(), upstream.polls()), (4, 0));
        }
    }

    #[test]
    fn a_changed_flag_changes_what_it_says() {
        for upstream in upstreams() {
            let before = verdict(&upstream);
            upstream.change_flag().unwrap();
            let (_, body) = ask(&upstream, Spelling::Usual).unwrap();
            assert_ne!(body, before);
            assert_eq!(body, verdict(&upstream));
        }
    }

    #[test]
    fn it_fails_refuses_and_comes_back_on_the_same_port() {
        let upstream = Upstream::start(vendor::of(Engine::Amplitude)).unwrap();
        upstream.behave(Mood::Fails);
        assert_eq!(ask(&upstream, Spelling::Usual).unwrap().0, 503);
        for _ in 0..3 {
            upstream.behave(Mood::Refuses);
            wait_until(|| !upstream.is_listening()).unwrap();
            let refused = ask(&upstream, Spelling::Usual).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            upstream.behave(Mood::Answers);
            wait_until(|| upstream.is_listening()).unwrap();
            assert_eq!(ask(&upstream, Spelling::Usual).unwrap().0, 200);
        }
    }

    #[test]
    fn what_it_leaves_hanging_is_answered_when_it_comes_back() {
        let upstream = Upstream::start(vendor::of(Engine::Amplitude)).unwrap();
        upstream.behave(Mood::Hangs);
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| ask(&upstream, Spelling::Usual));
            wait_until(|| upstream.evaluations() == 1).unwrap();
            assert!(!hanging.is_finished());
            upstream.behave(Mood::Answers);
            assert_eq!(hanging.join().unwrap().unwrap().0, 200);
        });
    }
}
