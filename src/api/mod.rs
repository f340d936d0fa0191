//! Requests of clients: routing, the fast path, the ladder, what is passed through.
//!
//! The walk of one request: [`Worker::respond`] looks into the memo (nothing is decoded, nothing is
//! formatted); what is not there is routed, read into a question (`question.rs`), taken up the [`ladder`], and remembered.
//!
//! Invariants: no input from the network panics; errors are plain text with a stable code; a response made for one
//! key, user or flag set never reaches another.

pub mod amplitude;
pub mod answer;
pub mod body;
pub mod error;
pub mod featbit;
pub mod hit;
pub mod ladder;
mod passthrough;
mod preflight;
pub mod proxy;
mod question;
pub mod request_id;
mod upload;
pub mod upstream;
mod vendor;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONNECTION, HOST, HeaderValue, IF_NONE_MATCH, ORIGIN};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::cache::Memo;
use crate::config::Backend;
use crate::key::raw;
use crate::key::raw::Noted;
use crate::metrics::{self, Code, Rejection, Route, Source, WorkerMetrics};
use crate::sync::Environment;
use crate::task::Stop;
use crate::trace;
use crate::upstream::Client;

use answer::{AnswerBody, REQUEST_ID, Wished};
use error::RequestError;
use hit::Prepared;

pub use body::Arriving;
pub use proxy::Proxy;

/// One data worker: what it shares with the others, and what is its own.
#[derive(Debug)]
pub struct Worker {
    /// Shared by all workers.
    pub proxy: Arc<Proxy>,
    /// Its connections to upstream.
    pub client: Client,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Told when the proxy begins to drain.
    pub draining: Stop,
    memo: RefCell<Memo>,
    /// Raw parts of the request at hand.
    scratch: RefCell<Vec<u8>>,
    prepared: Prepared,
}

/// A response that is there at once, or comes later. Only the latter costs an allocation.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation per hit")]
pub enum Responding {
    /// At once.
    Ready(Option<Response<AnswerBody>>),
    /// Later.
    Later(Pin<Box<dyn Future<Output = Response<AnswerBody>>>>),
}

impl std::fmt::Debug for Responding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Later(_) => "Later",
        })
    }
}

impl Future for Responding {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(response) => match response.take() {
                Some(response) => std::task::Poll::Ready(Ok(response)),
                // Polled after its end, which its caller promises not to do.
                None => std::task::Poll::Pending,
            },
            Self::Later(future) => future.as_mut().poll(cx).map(Ok),
        }
    }
}

/// What the metrics say of a response.
#[derive(Clone, Copy, Debug)]
struct Said {
    route: Route,
    source: Source,
}

impl Worker {
    /// A worker with `memo_bytes` for its memo.
    #[must_use]
    pub fn new(
        proxy: Arc<Proxy>,
        client: Client,
        metrics: Arc<WorkerMetrics>,
        draining: Stop,
        memo_bytes: usize,
    ) -> Self {
        let memo = RefCell::new(Memo::new(memo_bytes));
        Self {
            proxy,
            client,
            metrics,
            draining,
            memo,
            scratch: RefCell::default(),
            prepared: Prepared::new(),
        }
    }

    /// Answers a request.
    pub fn respond(self: &Rc<Self>, request: Request<Incoming>) -> Responding {
        let began = Instant::now();
        self.metrics.started();
        if matches!(*request.method(), Method::GET | Method::HEAD)
            && let Some(response) = self.recall(&request, &[], began)
        {
            return Responding::Ready(Some(response));
        }
        let counted = self.count(&request, began);
        let request = Box::new(request.map(Arriving::Stream));
        Responding::Later(Box::pin(Rc::clone(self).respond_later(request, counted)))
    }

    /// Answers a request that was read whole at `began`, and that [`Self::recall_plain`] has no answer for.
    pub fn respond_whole(
        self: &Rc<Self>,
        request: Box<Request<Arriving>>,
        began: Instant,
    ) -> impl Future<Output = Response<AnswerBody>> + use<> {
        self.metrics.started();
        let counted = self.count(&request, began);
        Rc::clone(self).respond_later(request, counted)
    }

    /// What counts a request that has begun, even if its response is never asked for.
    fn count<B>(self: &Rc<Self>, request: &Request<B>, began: Instant) -> Aborted {
        Aborted {
            worker: Rc::clone(self),
            route: self.proxy.routing.target(request.uri().path()).route,
            method: metrics::Method::from_http(request.method()),
            began,
            armed: true,
        }
    }

    /// Appends the value of a `Date` header.
    pub fn write_date(&self, out: &mut Vec<u8>) {
        self.prepared.date(Instant::now(), out);
    }

    /// Refuses a request whose connection found it broken.
    pub fn refuse(&self, request: &Request<Incoming>, error: RequestError) -> Responding {
        self.metrics.started();
        self.rejected(&error);
        let mut response = error.into_response();
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        let route = self.proxy.routing.target(request.uri().path()).route;
        self.said(
            request.method(),
            &response,
            Said {
                route,
                source: Source::None,
            },
            Instant::now(),
        );
        Responding::Ready(Some(response))
    }

    /// The answer of a request whose raw parts are known and whose entry is fresh: the hot path.
    #[inline]
    fn recall<B>(&self, request: &Request<B>, body: &[u8], now: Instant) -> Option<Response<AnswerBody>> {
        let (mut response, noted, route) = self.find_fresh(request, body, now)?;
        if let Some(origin) = noted.origin {
            self.proxy.cors.mark(&mut response, origin);
        }
        if let Some(id) = noted.request_id.filter(|id| answer::is_request_id(id))
            && let Ok(id) = HeaderValue::from_bytes(id)
        {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        self.said(
            request.method(),
            &response,
            Said {
                route,
                source: Source::Hit,
            },
            now,
        );
        if let Some(tracer) = &self.proxy.tracer {
            let method = metrics::Method::from_http(request.method());
            tracer.hit(noted.traceparent, method.as_str(), route, now);
        }
        Some(response)
    }

    /// Looks into the memo for a parsed request.
    #[inline]
    fn find_fresh<'r, B>(
        &self,
        request: &'r Request<B>,
        body: &[u8],
        now: Instant,
    ) -> Option<(Response<AnswerBody>, Noted<'r>, Route)> {
        let mut scratch = self.scratch.borrow_mut();
        let noted = raw::write(
            &mut scratch,
            request.method(),
            request.uri(),
            request.headers(),
            body,
        );
        if (request.version() == Version::HTTP_11 && noted.n_hosts != 1)
            || noted.head_bytes > self.proxy.max_headers
        {
            return None;
        }
        let stored = self.find(&scratch, now)?;
        Some((self.hit(&stored, &noted, now), noted, stored.route))
    }

    async fn respond_later(
        self: Rc<Self>,
        mut request: Box<Request<Arriving>>,
        counted: Aborted,
    ) -> Response<AnswerBody> {
        let (route, began) = (counted.route, counted.began);
        let target = self.proxy.routing.target(request.uri().path());
        let method = request.method().clone();
        let version = request.version();
        let path = target.path.into_owned();
        let wished = wished(&request);
        trace::clean(request.headers_mut());
        let tracer = self.proxy.tracer.as_ref();
        let span = tracer.and_then(|tracer| tracer.serve(request.headers_mut(), began));
        let (mut response, source) = match self.dispatch(request, route, &path, &wished, began).await {
            Ok(answered) => answered,
            Err(error) => {
                self.rejected(&error);
                (error.into_response(), Source::None)
            }
        };
        if let Some(origin) = &wished.origin {
            self.proxy.cors.mark(&mut response, origin.as_bytes());
        }
        if let Some(id) = wished.request_id {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        // Python's pool keeps a connection whose error body it did not read (design 7).
        if version < Version::HTTP_2
            && (response.status().is_client_error() || response.status().is_server_error())
            && (path.starts_with("/v1/") || path.starts_with("/sdk/"))
        {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        counted.disarm();
        if let Some(span) = span {
            let method = metrics::Method::from_http(&method);
            span.served(method.as_str(), route, source, response.status().as_u16());
        }
        self.said(&method, &response, Said { route, source }, began);
        response
    }

    async fn dispatch(
        self: &Rc<Self>,
        request: Box<Request<Arriving>>,
        route: Route,
        path: &str,
        wished: &Wished,
        began: Instant,
    ) -> Result<(Response<AnswerBody>, Source), RequestError> {
        let n_hosts = request.headers().get_all(HOST).iter().count();
        if request.version() == Version::HTTP_11 && n_hosts != 1 {
            return Err(RequestError::BadHost);
        }
        if head_bytes(&request) > self.proxy.max_headers {
            return Err(RequestError::HeadersTooLarge);
        }
        if *request.method() == Method::OPTIONS && !matches!(route, Route::Other | Route::Status) {
            return Ok((
                preflight::answer(&self.proxy.cors, request.headers()),
                Source::None,
            ));
        }
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        let post = *request.method() == Method::POST;
        match route {
            Route::VardataV1 | Route::VardataLegacy | Route::VardataV2 if read || post => {
                self.question(request, route, path, wished, began).await
            }
            Route::VardataV1 | Route::VardataLegacy | Route::VardataV2 => {
                Err(RequestError::MethodNotAllowed("GET, HEAD, POST, OPTIONS"))
            }
            Route::FlagsV1 | Route::FlagsV2 if read => {
                self.question(request, route, path, wished, began).await
            }
            Route::Status if read => Ok((preflight::status(), Source::None)),
            Route::Status => Err(RequestError::MethodNotAllowed("GET, HEAD")),
            Route::FlagsV1
            | Route::FlagsV2
            | Route::Cohort
            | Route::Memberships
            | Route::Stream
            | Route::WebConfigs
                if !read =>
            {
                Err(RequestError::MethodNotAllowed("GET, HEAD, OPTIONS"))
            }
            Route::Passthrough if matches!(*request.method(), Method::CONNECT | Method::TRACE) => Err(
                RequestError::MethodNotAllowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            ),
            Route::FbEvaluate => featbit::question::evaluate(self, request, path, wished, began).await,
            Route::Other => Err(RequestError::NotFound),
            // What is asked less often has a place of its own: its state would make every connection larger.
            Route::FbSdk | Route::FbEvents => {
                Box::pin(featbit::routes::answer(self, *request, route, path)).await
            }
            _ => Box::pin(passthrough::relay(self, *request, route, path)).await,
        }
    }

    fn said(&self, method: &Method, response: &Response<AnswerBody>, said: Said, began: Instant) {
        let bytes = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
        let (method, code) = (metrics::Method::from_http(method), Code::from(response.status()));
        self.metrics
            .answered(said.route, method, code, said.source, began.elapsed(), bytes);
    }

    fn rejected(&self, error: &RequestError) {
        let reason = match error {
            RequestError::MissingKey | RequestError::UnknownKey | RequestError::RevokedKey => {
                Rejection::Unauthorized
            }
            RequestError::Unreadable(_) | RequestError::BrokenBody | RequestError::BadHost => {
                Rejection::BadRequest
            }
            RequestError::HeadersTooLarge => Rejection::HeadersTooLarge,
            RequestError::BodyTooLarge => Rejection::BodyTooLarge,
            RequestError::BodyTimeout => Rejection::Timeout,
            RequestError::NotFound
            | RequestError::MethodNotAllowed(_)
            | RequestError::NoAnswer
            | RequestError::NoStream => return,
        };
        self.metrics.rejected(reason);
    }
}

/// Counts a request whose client went away before it was answered as 499, also before it was looked at.
struct Aborted {
    worker: Rc<Worker>,
    route: Route,
    method: metrics::Method,
    began: Instant,
    armed: bool,
}

impl Aborted {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Aborted {
    fn drop(&mut self) {
        if self.armed {
            self.worker.metrics.answered(
                self.route,
                self.method,
                Code::C499,
                Source::None,
                self.began.elapsed(),
                0,
            );
        }
    }
}

/// Bytes of target and headers, about as they came. The connection bounds them only roughly.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request.uri().path().len() + request.uri().query().map_or(0, str::len);
    target
        + request
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum::<usize>()
}

fn wished<B>(request: &Request<B>) -> Wished {
    let mut wished = Wished::default();
    for (name, value) in request.headers() {
        let wish = match *name {
            ORIGIN => &mut wished.origin,
            IF_NONE_MATCH => &mut wished.if_none_match,
            _ if *name == REQUEST_ID => &mut wished.request_id,
            _ => continue,
        };
        wish.get_or_insert_with(|| value.clone());
    }
    wished.request_id = wished.request_id.filter(|id| answer::is_request_id(id));
    wished
}

/// Whether a status is one of ours to soften: see [`passthrough`].
#[must_use]
pub(crate) fn is_cohort_throttle(route: Route, status: StatusCode) -> bool {
    route == Route::Cohort && matches!(status.as_u16(), 202 | 429)
}

/// The environment that a request without key goes to: the only one of its backend.
#[must_use]
pub(crate) fn only(environments: &[Arc<Environment>], backend: Backend) -> Option<&Arc<Environment>> {
    let mut of_backend = environments.iter().filter(|it| it.backend == backend);
    match (of_backend.next(), of_backend.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}
