//! The admission webhook: HTTPS on one thread, with an admin listener beside it (OPS 5).
//!
//! It asks nobody anything: all it needs is in the request and its template. Bounded in everything: connections,
//! heads, bodies, time; when all connections are taken the oldest one makes room.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

use super::certificate::{Certificate, CertificateError};
use super::review::{self, Admission, Failure};
use super::skip::Skip;
use super::template::Template;
use crate::metrics::{InjectorMetrics, Listener, LogMetrics};
use crate::server::admin::status::State;
use crate::server::admin::{self, Check, Readiness, Status, Subject};
use crate::server::listen::{self, BindError};
use crate::server::roster::{Place, Roster};
use crate::task::{Stop, Stopper, Tasks};

/// Bytes of a review (OPS 5).
const BODY_MAX: usize = 3 << 20;
/// Bytes of a request head.
const HEAD_MAX: usize = 16 << 10;
/// Open connections.
const CONNECTIONS_MAX: usize = 512;
/// For a TLS handshake, and for a body.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a request head, and between two requests: longer than the API server keeps an idle connection (90 s), so
/// that it is the one that closes it, and never sends a request to a connection that is closing.
const IDLE: Duration = Duration::from_secs(120);
/// Before the next accept when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What the webhook is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sidecar, unless a pod says otherwise.
    pub template: Template,
    /// Namespaces that are left alone besides [`super::pod::EXCLUDED`].
    pub excluded: Vec<String>,
    /// Where the API server asks.
    pub listen: SocketAddr,
    /// Where probes and metrics are served.
    pub admin: SocketAddr,
    /// PEM file of the certificate chain.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// After being told to stop: unready, but still accepting.
    pub drain_delay: Duration,
    /// Then: how long requests in flight may take.
    pub drain_timeout: Duration,
}

/// Why the webhook cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate cannot be used.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// An address cannot be had.
    #[error("{0}; free it, or choose another with --listen")]
    Listen(#[from] BindError),
    /// The admin address cannot be had.
    #[error("{0}; free the address, or choose another with --admin-listen")]
    Admin(#[source] io::Error),
    /// The system refused something.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// Whether somebody else has the port.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::Listen(error) => error.is_in_use(),
            Self::Admin(error) => error.kind() == io::ErrorKind::AddrInUse,
            _ => false,
        }
    }
}

/// A webhook that listens; it serves once [`Self::run`] is called.
pub struct Injector {
    runtime: Runtime,
    shared: Arc<Shared>,
    certificate: Arc<Certificate>,
    acceptor: TlsAcceptor,
    listeners: Vec<StdListener>,
    address: SocketAddr,
    admin: admin::Bound,
    admin_stop: Stopper,
    settings: Settings,
}

/// What the connections share.
#[derive(Debug)]
struct Shared {
    template: Template,
    excluded: Vec<String>,
    metrics: InjectorMetrics,
    draining: AtomicBool,
    began: Instant,
    /// Milliseconds after `began` of the last sign of life.
    alive: AtomicU64,
    address: SocketAddr,
    roster: Arc<Roster>,
}

impl Injector {
    /// Reads the certificate and listens on both addresses.
    ///
    /// # Errors
    ///
    /// When one of that cannot be had.
    pub fn start(settings: Settings, logs: Arc<LogMetrics>) -> Result<Self, StartError> {
        let certificate = Arc::new(Certificate::read(&settings.certificate, &settings.key)?);
        let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config()?));
        let mut bound = listen::bind(&[settings.listen], 1)?;
        let address = bound.addresses.first().copied().unwrap_or(settings.listen);
        let revision = option_env!("FLAGSIDE_REVISION").unwrap_or_default();
        let ends = Admission::ALL.map(Admission::labels);
        let metrics = InjectorMetrics::new(revision, ends, logs);
        let watched = Arc::clone(&certificate);
        metrics.observe_certificate(move || watched.not_after());
        let shared = Arc::new(Shared {
            template: settings.template.clone(),
            excluded: settings.excluded.clone(),
            metrics,
            draining: AtomicBool::new(false),
            began: Instant::now(),
            alive: AtomicU64::new(0),
            address,
            roster: Roster::new(CONNECTIONS_MAX),
        });
        let admin_stop = Stopper::new();
        let admin = admin::start(
            &[settings.admin],
            Arc::clone(&shared) as Arc<dyn Subject>,
            shared.metrics.admin(),
            shared.metrics.tasks(),
            admin_stop.stop(),
        )
        .map_err(StartError::Admin)?;
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            shared,
            certificate,
            acceptor,
            listeners: bound.listeners.pop().unwrap_or_default(),
            address,
            admin,
            admin_stop,
            settings,
        })
    }

    /// Where the API server asks.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where probes and metrics are served.
    #[must_use]
    pub fn admin(&self) -> &[SocketAddr] {
        self.admin.addresses()
    }

    /// The runtime that it serves on, for waiting for signals.
    #[must_use]
    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Serves until `stop`, then drains. Says whether every request was finished.
    #[must_use]
    pub fn run(self, stop: &Stop) -> bool {
        let shared = Arc::clone(&self.shared);
        let runtime = &self.runtime;
        let clean = runtime.block_on(async {
            let background = Tasks::new(runtime.handle().clone(), shared.metrics.tasks());
            let certificate = Arc::clone(&self.certificate);
            background.spawn("certificate", |stop| certificate.watch(stop));
            let pulse = Arc::clone(&shared);
            background.spawn("heartbeat", |stop| async move { pulse.beat(stop).await });
            let accepting = Tasks::new(runtime.handle().clone(), shared.metrics.tasks());
            let connections = Tasks::new(runtime.handle().clone(), shared.metrics.tasks());
            for listener in self.listeners {
                let parts = (Arc::clone(&shared), self.acceptor.clone(), connections.clone());
                accepting.spawn("webhook listener", |stop| accept(listener, parts, stop));
            }
            stop.requested().await;
            shared.draining.store(true, Relaxed);
            tokio::time::sleep(self.settings.drain_delay).await;
            accepting.drain(HEARTBEAT).await;
            let left = connections.drain(self.settings.drain_timeout).await;
            background.drain(HEARTBEAT).await;
            left.is_empty()
        });
        self.admin_stop.request();
        self.admin.join();
        clean
    }
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Accepts until `stop`.
async fn accept(
    listener: StdListener,
    (shared, acceptor, tasks): (Arc<Shared>, TlsAcceptor, Tasks),
    stop: Stop,
) {
    let listener = match listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
    {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(error.msg = %error, "the webhook listener cannot be used");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = stop.requested() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let place = shared.roster.admit();
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tasks.spawn("webhook connection", |stop| async move {
                    serve(stream, &acceptor, &shared, &place, stop).await;
                });
            }
            Err(error) => {
                tracing::debug!(error.msg = %error, "a webhook connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, shared: &Arc<Shared>, place: &Place, stop: Stop) {
    let closed = place.closed();
    // Without it answers only come later.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::select! {
        done = tokio::time::timeout(PATIENCE, acceptor.accept(stream)) => done,
        () = closed.requested() => return,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(error.msg = %error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let service = service_fn(|request| {
        let shared = Arc::clone(shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = closed.requested() => return,
        () = stop.requested() => {}
    }
    connection.as_mut().graceful_shutdown();
    log_end(connection.await);
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error.msg = %error, "a webhook connection ended early");
    }
}

impl Shared {
    async fn beat(&self, stop: Stop) {
        loop {
            let age = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.alive.store(age, Relaxed);
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = if request.method() == Method::POST {
            self.review(request.into_body()).await
        } else {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "post an AdmissionReview here");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            response
        };
        if self.draining.load(Relaxed) {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn review(&self, body: Incoming) -> Response<Full<Bytes>> {
        let whole = tokio::time::timeout(PATIENCE, Limited::new(body, BODY_MAX).collect()).await;
        let began = Instant::now();
        let ended = |admission: Admission| self.metrics.admitted(admission.index(), began.elapsed());
        let body = match whole {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                ended(Admission::Failed(Failure::TooLarge));
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "a review has 3 MiB at most");
            }
            Ok(Err(_)) | Err(_) => {
                ended(Admission::Failed(Failure::Malformed));
                return plain(StatusCode::REQUEST_TIMEOUT, "the body did not come whole");
            }
        };
        match review::answer(&body, &self.template, &self.excluded) {
            Err(malformed) => {
                ended(Admission::Failed(Failure::Malformed));
                plain(StatusCode::BAD_REQUEST, &malformed.to_string())
            }
            Ok(answer) => {
                ended(answer.admission);
                log(&answer);
                let mut response = Response::new(Full::new(Bytes::from(answer.review.to_string())));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
        }
    }
}

/// Names of pods are not logged: they come from the request, and the API server's audit log has them.
fn log(answer: &review::Answer) {
    let [result, reason] = answer.admission.labels();
    let why = answer.why.as_deref().unwrap_or_default();
    match answer.admission {
        Admission::Failed(_) => tracing::warn!(result, reason, why, "a pod could not be looked at"),
        Admission::Skipped(Skip::BadAnnotation | Skip::PortConflict | Skip::HostNetwork) => {
            tracing::info!(result, reason, why, "a pod was left alone");
        }
        Admission::Skipped(_) | Admission::Injected => {
            tracing::debug!(result, reason, why, "a pod was admitted")
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

impl Subject for Shared {
    fn heartbeats(&self) -> Vec<Duration> {
        let alive = Duration::from_millis(self.alive.load(Relaxed));
        vec![self.began.elapsed().saturating_sub(alive)]
    }

    fn readiness(&self) -> Readiness {
        let draining = self.draining.load(Relaxed);
        let check = |name: &str, ok: bool, detail: &str| Check {
            name: name.to_owned(),
            ok,
            detail: detail.to_owned(),
        };
        Readiness {
            ready: !draining,
            checks: vec![
                check("listeners", true, "bound"),
                check("certificate", true, "loaded"),
                check("draining", !draining, if draining { "yes" } else { "no" }),
            ],
        }
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("FLAGSIDE_REVISION").unwrap_or_default().to_owned(),
            mode: "injector",
            started_at: self.metrics.started_at(),
            uptime: SystemTime::now()
                .duration_since(self.metrics.started_at())
                .unwrap_or_default(),
            workers: 1,
            memory_limit: None,
            state: if self.draining.load(Relaxed) {
                State::Draining
            } else {
                State::Ready
            },
            degraded: Vec::new(),
            config_files: Vec::new(),
            config_loaded_at: self.metrics.started_at(),
            listeners: vec![(Listener::Data, self.address)],
            upstreams: Vec::new(),
            environments: Vec::new(),
            caches: Vec::new(),
        }
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }
}
