//! The admin listener: probes, metrics and status, on a thread and runtime of its own, so that they answer when
//! the data workers do not.
//!
//! It only reads. What it shows comes through [`Subject`]. It is bounded in everything: connections, heads, time;
//! when all connections are taken the oldest one makes room, so that nobody can keep a probe out by holding them.
//! A web page that a user has open cannot read status or metrics.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use super::roster::{Place, Roster};
use crate::metrics::{self, Closed, ListenerMetrics, TaskMetrics};
use crate::task::{Stop, Tasks};

pub mod status;

pub use status::Status;

/// A worker whose heartbeat is older is stuck (OPS 7.1).
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);
/// Open connections.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request head.
const HEAD_MAX: usize = 8 * 1024;
/// For a request head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Life of a connection, after which it is closed between two requests.
const LIFE: Duration = Duration::from_secs(30);
/// For the response that is under way at the end of its connection's life.
const LINGER: Duration = Duration::from_secs(10);
/// The same at the end of the process.
const GRACE: Duration = Duration::from_secs(1);
/// Before the next accept when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METHODS: &str = "GET, HEAD";

/// What the admin listener shows. Called on its thread: implementations must not wait for a data worker.
pub trait Subject: Send + Sync {
    /// Time since each data worker's last heartbeat.
    fn heartbeats(&self) -> Vec<Duration>;
    /// Whether traffic may come, and why.
    fn readiness(&self) -> Readiness;
    /// The whole state, for people.
    fn status(&self) -> Status;
    /// Prometheus text format 0.0.4.
    fn metrics(&self) -> String;
}

/// Whether traffic may come, and why.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Readiness {
    /// The verdict.
    pub ready: bool,
    /// What it was made of.
    pub checks: Vec<Check>,
}

/// One condition of readiness.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// What was looked at, as `listeners` or `environment main`.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// In what state it is, a few words.
    pub detail: String,
}

/// A running admin listener.
#[derive(Debug)]
pub struct Bound {
    addresses: Vec<SocketAddr>,
    thread: thread::JoinHandle<()>,
}

impl Bound {
    /// The addresses that it listens on, ports picked by the system included.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until it has ended, about a second after its stop was asked for at the latest.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the admin thread panicked");
        }
    }
}

/// Listens on `addresses` and serves until `stop`. Every address is bound when this returns, with one
/// exception: without `[::1]` beside an IPv4 address it goes on, with a warning.
///
/// # Errors
///
/// When an address is in use or cannot be bound, or the thread cannot be started.
pub fn start(
    addresses: &[SocketAddr],
    subject: Arc<dyn Subject>,
    connections: Arc<ListenerMetrics>,
    tasks: Arc<TaskMetrics>,
    stop: Stop,
) -> io::Result<Bound> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut listeners = Vec::new();
    let mut bound = Vec::new();
    for listener in bind(addresses)? {
        bound.push(listener.local_addr()?);
        let _context = runtime.enter();
        listeners.push(TcpListener::from_std(listener)?);
    }
    let admin = Arc::new(Admin {
        subject,
        has_started: AtomicBool::new(false),
        roster: Roster::new(CONNECTIONS_MAX),
        connections,
    });
    let thread = thread::Builder::new()
        .name("flagside-admin".to_owned())
        .spawn(move || run(&runtime, listeners, &admin, tasks, &stop))?;
    Ok(Bound {
        addresses: bound,
        thread,
    })
}

/// Binds every address. A port 0 after the first one stands for the port that the first one got.
fn bind(addresses: &[SocketAddr]) -> io::Result<Vec<StdListener>> {
    let has_v4 = addresses.iter().any(SocketAddr::is_ipv4);
    let mut listeners: Vec<StdListener> = Vec::new();
    for address in addresses {
        let mut address = *address;
        if let (0, Some(first)) = (address.port(), listeners.first()) {
            address.set_port(first.local_addr()?.port());
        }
        match bind_one(address, has_v4) {
            Ok(listener) => listeners.push(listener),
            Err(error) if has_v4 && address.ip() == IpAddr::from(std::net::Ipv6Addr::LOCALHOST) => {
                tracing::warn!(address = %address, error.msg = %error, "no admin listener on IPv6 loopback");
            }
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("admin listener {address}: {error}"),
                ));
            }
        }
    }
    Ok(listeners)
}

/// One listening socket. Beside an IPv4 address an IPv6 one takes IPv6 only, or the two would collide.
fn bind_one(address: SocketAddr, only_v6: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Connections of a former process that are still closing do not hold the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// What the connections share.
struct Admin {
    subject: Arc<dyn Subject>,
    /// It has been ready once; never turns back.
    has_started: AtomicBool,
    roster: Arc<Roster>,
    connections: Arc<ListenerMetrics>,
}

/// Serves on this thread until `stop`.
fn run(
    runtime: &Runtime,
    listeners: Vec<TcpListener>,
    admin: &Arc<Admin>,
    panics: Arc<TaskMetrics>,
    stop: &Stop,
) {
    runtime.block_on(async {
        let tasks = Tasks::new(runtime.handle().clone(), panics);
        for listener in listeners {
            let (admin, owner) = (Arc::clone(admin), tasks.clone());
            tasks.spawn("admin listener", |stop| accept(listener, admin, owner, stop));
        }
        stop.requested().await;
        tasks.drain(GRACE).await;
    });
}

/// Accepts until `stop`.
async fn accept(listener: TcpListener, admin: Arc<Admin>, tasks: Tasks, stop: Stop) {
    loop {
        let accepted = tokio::select! {
            () = stop.requested() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let admitted = Admitted::new(&admin);
                tasks.spawn("admin connection", |stop| serve(stream, peer, admitted, stop));
            }
            Err(error) => {
                tracing::debug!(error.msg = %error, "an admin connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, peer: SocketAddr, admitted: Admitted, stop: Stop) {
    let (admin, closed) = (&admitted.admin, admitted.place.closed());
    // Without it answers only come later.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let response = admin.answer(&request, peer.ip());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let patience = tokio::select! {
        ended = connection.as_mut() => return admin.ended(ended),
        () = closed.requested() => return admin.connections.connection_rejected(Closed::Limit),
        () = stop.requested() => GRACE,
        () = tokio::time::sleep(LIFE) => LINGER,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => admin.ended(ended),
        () = closed.requested() => admin.connections.connection_rejected(Closed::Limit),
        () = tokio::time::sleep(patience) => admin.connections.connection_rejected(Closed::Idle),
    }
}

/// A connection that has its place; the end of it is counted, whatever way it ends.
struct Admitted {
    admin: Arc<Admin>,
    place: Place,
}

impl Admitted {
    fn new(admin: &Arc<Admin>) -> Self {
        let place = admin.roster.admit();
        admin.connections.connection_opened();
        Self {
            admin: Arc::clone(admin),
            place,
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admin.connections.connection_closed();
    }
}

impl Admin {
    /// Counts why a connection ended, if it was not its client's wish.
    fn ended(&self, ended: hyper::Result<()>) {
        let Err(error) = ended else { return };
        if error.is_timeout() {
            self.connections.connection_rejected(Closed::Idle);
        } else if error.is_parse() {
            self.connections.connection_rejected(Closed::Protocol);
        }
    }

    /// Answers a request; its body is not looked at.
    fn answer<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        let Some(endpoint) = Endpoint::of(request.uri().path()) else {
            return response(StatusCode::NOT_FOUND, TEXT, list_of_paths());
        };
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let text = format!("use {METHODS}\n");
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(METHODS));
            return response;
        }
        match endpoint {
            Endpoint::Health => self.health(),
            Endpoint::Ready => self.ready(is_verbose(request.uri().query())),
            Endpoint::Startup => self.startup(),
            Endpoint::Metrics | Endpoint::Status => match refusal(request.headers(), peer) {
                Some(why) => response(StatusCode::FORBIDDEN, TEXT, format!("{why}\n")),
                None if endpoint == Endpoint::Metrics => {
                    response(StatusCode::OK, metrics::CONTENT_TYPE, self.subject.metrics())
                }
                None => response(
                    StatusCode::OK,
                    JSON,
                    format!("{:#}\n", self.subject.status().to_json()),
                ),
            },
        }
    }

    /// 200 while every worker turns; upstreams have no part in it.
    fn health(&self) -> Response<Full<Bytes>> {
        let ages = self.subject.heartbeats().into_iter().enumerate();
        let stuck: Vec<String> = ages
            .filter(|(_, age)| *age >= HEARTBEAT_MAX)
            .map(|(worker, age)| format!("worker {worker}: no heartbeat for {} s\n", age.as_secs()))
            .collect();
        verdict(
            stuck.is_empty(),
            if stuck.is_empty() {
                "ok\n".to_owned()
            } else {
                stuck.concat()
            },
        )
    }

    /// 200 while traffic may come. A refusal says why; so does `?verbose`.
    fn ready(&self, is_verbose: bool) -> Response<Full<Bytes>> {
        let readiness = self.subject.readiness();
        if readiness.ready {
            self.has_started.store(true, Relaxed);
        }
        let mut text = String::new();
        if is_verbose || !readiness.ready {
            text = readiness.checks.iter().map(ToString::to_string).collect();
        }
        text.push_str(if readiness.ready { "ok\n" } else { "not ready\n" });
        verdict(readiness.ready, text)
    }

    /// 200 for ever once it has been ready.
    fn startup(&self) -> Response<Full<Bytes>> {
        if self.has_started.load(Relaxed) {
            return verdict(true, "ok\n".to_owned());
        }
        self.ready(false)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "[{}] {}: {}",
            if self.ok { '+' } else { '-' },
            self.name,
            self.detail
        )
    }
}

/// What can be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Endpoint {
    Health,
    Ready,
    Startup,
    Metrics,
    Status,
}

/// Where it can be asked.
const PATHS: [(&str, Endpoint); 7] = [
    ("/healthz", Endpoint::Health),
    ("/livez", Endpoint::Health),
    ("/readyz", Endpoint::Ready),
    ("/ready", Endpoint::Ready),
    ("/startupz", Endpoint::Startup),
    ("/metrics", Endpoint::Metrics),
    ("/status", Endpoint::Status),
];

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        PATHS
            .iter()
            .find(|(known, _)| *known == path)
            .map(|(_, endpoint)| *endpoint)
    }
}

fn list_of_paths() -> String {
    let paths: Vec<&str> = PATHS.iter().map(|(path, _)| *path).collect();
    format!("nothing here; there is {}\n", paths.join(" "))
}

/// Whether a query has `verbose`.
fn is_verbose(query: Option<&str>) -> bool {
    query
        .unwrap_or_default()
        .split('&')
        .any(|pair| pair.split('=').next() == Some("verbose"))
}

/// Why a browser must not read this, if it must not.
///
/// A page of another site can make a browser ask here. Such a request has an `Origin` or says that it is
/// cross-site. Where the page's own name has been pointed at a loopback address, it has neither, but its `Host` is a
/// public name. Scrapers and people on the same machine use an address, `localhost` or a private name.
fn refusal(headers: &HeaderMap, peer: IpAddr) -> Option<&'static str> {
    if headers.contains_key(ORIGIN) {
        return Some("requests with an Origin are not answered here");
    }
    if headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site" || site == "same-site")
    {
        return Some("requests of other sites are not answered here");
    }
    let host = headers.get(HOST)?;
    let is_foreign = host.to_str().map_or(true, |host| !is_private_name(host));
    (peer.to_canonical().is_loopback() && is_foreign).then_some("this Host is not answered over loopback")
}

/// Whether `host` (with or without port) is an address, or a name that no public name server can point anywhere.
fn is_private_name(host: &str) -> bool {
    if host.parse::<SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit_once('.').map(|(_, last)| last);
    last.is_none_or(|last| matches!(last, "localhost" | "local" | "internal" | "svc"))
        || name.parse::<IpAddr>().is_ok()
}

fn verdict(is_well: bool, text: String) -> Response<Full<Bytes>> {
    response(
        if is_well {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        TEXT,
        text,
    )
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
