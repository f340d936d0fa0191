//! The built-in upstream: a small cloud that speaks Amplitude's protocol on loopback (API 3, 4).
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

use crate::key::question::FlagsMode;
use crate::key::{Asked, Asks, DeploymentKey, Keyer, Question, Routing, authorization};
use crate::metrics::Route;
use crate::task;

use super::flags::Flags;

/// The deployment key that this upstream knows.
pub(super) const KEY: &str = "demo-key";
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
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the port.
    _keeper: Socket,
}

#[derive(Debug)]
struct State {
    mood: watch::Sender<Mood>,
    listening: AtomicBool,
    flags: ArcSwap<Flags>,
    evaluations: AtomicU64,
    polls: AtomicU64,
    keyer: Keyer,
}

impl Upstream {
    /// Starts it on a free port; it listens when this returns.
    pub(super) fn start() -> io::Result<Self> {
        let keeper = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = keeper
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let flags = Flags::example().map_err(io::Error::other)?;
        let state = Arc::new(State {
            mood: watch::Sender::new(Mood::Answers),
            listening: AtomicBool::new(true),
            flags: ArcSwap::from_pointee(flags),
            evaluations: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            keyer: Keyer::random().map_err(|error| io::Error::other(error.to_string()))?,
        });
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let first = listen(address)?;
        let own = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("demo-upstream".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, run(own, address, first)))?;
        Ok(Self {
            address,
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
    pub(super) fn change_flag(&self) -> io::Result<&'static str> {
        self.state.change_flag()
    }

    /// What it says, or would say, about this user.
    pub(super) fn verdict(&self, user: &str) -> Option<Vec<u8>> {
        self.state.flags.load().evaluate(user.as_bytes(), &[], false)
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
        let routing = Routing {
            amplitude: true,
            ..Routing::default()
        };
        let target = routing.target(parts.uri.path());
        let flags = matches!(target.route, Route::FlagsV1 | Route::FlagsV2);
        let counter = if flags { &self.polls } else { &self.evaluations };
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
        let key = authorization::deployment_key(&parts.headers).and_then(DeploymentKey::new);
        let Some(key) = key.filter(|key| key.expose() == KEY.as_bytes()) else {
            return plain(StatusCode::UNAUTHORIZED, "invalid deployment key\n");
        };
        let asked = Asked {
            route: target.route,
            path: &target.path,
            query: parts.uri.query(),
            post: parts.method == Method::POST,
            headers: &parts.headers,
            body: &body,
            deployment_key: &key,
            environment: "demo",
            ignore_query: &[],
        };
        self.answer(&asked)
    }

    fn answer(&self, asked: &Asked<'_>) -> Response<Full<Bytes>> {
        let flags = self.flags.load();
        let v1 = match asked.route {
            Route::FlagsV1 | Route::FlagsV2 => {
                let question = Question::flags(asked, &self.keyer);
                let remote = question.is_ok_and(|question| {
                    let mode = Some(FlagsMode::Remote);
                    matches!(question.asks, Asks::Flags { mode: asked, .. } if asked == mode)
                });
                return json(if remote {
                    flags.all.clone()
                } else {
                    flags.local.clone()
                });
            }
            Route::VardataV1 | Route::VardataLegacy => true,
            Route::VardataV2 => false,
            _ => return plain(StatusCode::NOT_FOUND, "no such path\n"),
        };
        let question = Question::vardata(asked, &self.keyer).ok();
        let body = question.and_then(|question| match &question.asks {
            Asks::Variants { user, flag_keys } => {
                let wanted: Vec<&str> = flag_keys.as_slice().iter().map(String::as_str).collect();
                flags.evaluate(user, &wanted, v1)
            }
            _ => None,
        });
        match body {
            Some(body) => json(body.into()),
            None => plain(StatusCode::BAD_REQUEST, "invalid user\n"),
        }
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

    fn change_flag(&self) -> io::Result<&'static str> {
        let (changed, done) = self.flags.load().changed().map_err(io::Error::other)?;
        self.flags.store(Arc::new(changed));
        Ok(done)
    }
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
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
    use super::super::client::{Client, Person, Spelling};
    use super::super::teller::wait_until;
    use super::*;

    fn ask(upstream: &Upstream, spelling: Spelling, key: &str) -> io::Result<(u16, Vec<u8>)> {
        let ada = Person::named("ada", "Web", "4.1.9", "free");
        let answer = Client::connect(upstream.address)?.ask(&ada, spelling, key)?;
        Ok((answer.status, answer.body))
    }

    fn verdict(upstream: &Upstream) -> Vec<u8> {
        let ada = Person::named("ada", "Web", "4.1.9", "free");
        upstream.verdict(&ada.json()).unwrap()
    }

    #[test]
    fn it_answers_every_spelling_alike_and_other_keys_not() {
        let upstream = Upstream::start().unwrap();
        for spelling in [Spelling::Padded, Spelling::Unpadded, Spelling::Body] {
            let (status, body) = ask(&upstream, spelling, KEY).unwrap();
            assert_eq!((status, body), (200, verdict(&upstream)), "{spelling:?}");
        }
        assert_eq!(ask(&upstream, Spelling::Body, "another").unwrap().0, 401);
        assert_eq!(upstream.evaluations(), 4);
    }

    #[test]
    fn a_changed_flag_changes_what_it_says() {
        let upstream = Upstream::start().unwrap();
        let before = verdict(&upstream);
        upstream.change_flag().unwrap();
        let (_, body) = ask(&upstream, Spelling::Padded, KEY).unwrap();
        assert_ne!(body, before);
        assert_eq!(body, verdict(&upstream));
    }

    #[test]
    fn it_fails_refuses_and_comes_back_on_the_same_port() {
        let upstream = Upstream::start().unwrap();
        upstream.behave(Mood::Fails);
        assert_eq!(ask(&upstream, Spelling::Padded, KEY).unwrap().0, 503);
        for _ in 0..3 {
            upstream.behave(Mood::Refuses);
            wait_until(|| !upstream.is_listening()).unwrap();
            let refused = ask(&upstream, Spelling::Padded, KEY).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            upstream.behave(Mood::Answers);
            wait_until(|| upstream.is_listening()).unwrap();
            assert_eq!(ask(&upstream, Spelling::Padded, KEY).unwrap().0, 200);
        }
    }

    #[test]
    fn what_it_leaves_hanging_is_answered_when_it_comes_back() {
        let upstream = Upstream::start().unwrap();
        upstream.behave(Mood::Hangs);
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| ask(&upstream, Spelling::Padded, KEY));
            wait_until(|| upstream.evaluations() == 1).unwrap();
            assert!(!hanging.is_finished());
            upstream.behave(Mood::Answers);
            assert_eq!(hanging.join().unwrap().unwrap().0, 200);
        });
    }
}
