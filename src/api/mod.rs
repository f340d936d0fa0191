//! Requests of clients: routing, the fast path, the ladder, what is passed through.
//!
//! The walk of one request: [`Worker::respond`] looks into the memo (nothing is decoded, nothing is
//! formatted); what is not there is routed, read into a [`Question`], taken up the [`ladder`], and remembered.
//!
//! Invariants: no input from the network panics; errors are plain text with a stable code; a response made for one
//! key, user or flag set never reaches another.

pub mod amplitude;
pub mod answer;
pub mod error;
pub mod featbit;
pub mod hit;
pub mod ladder;
mod passthrough;
mod preflight;
pub mod proxy;
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
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, IF_NONE_MATCH, ORIGIN};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::cache::{Memo, Stored};
use crate::config::Backend;
use crate::key::raw::Noted;
use crate::key::{Asked, DeploymentKey, Question, Unreadable, authorization, raw};
use crate::metrics::{self, Code, Rejection, Route, Source, WorkerMetrics};
use crate::sync::Environment;
use crate::task::Stop;
use crate::trace;
use crate::upstream::Client;

use answer::{AnswerBody, REQUEST_ID, Wished};
use error::RequestError;
use hit::Prepared;
use ladder::Climb;

pub use proxy::Proxy;

/// How long a request body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// A cacheable route: read the body, look into the memo once more, read the question, climb.
    async fn question(
        self: &Rc<Self>,
        mut request: Box<Request<Arriving>>,
        route: Route,
        path: &str,
        wished: &Wished,
        began: Instant,
    ) -> Result<(Response<AnswerBody>, Source), RequestError> {
        let mut body = Bytes::new();
        if *request.method() == Method::POST {
            body = self.body_of(&mut request, route).await?;
            if let Some(response) = self.recall_whole(&request, &body, began) {
                return Ok((response, Source::Hit));
            }
        }
        match self.read(&request, &body, route, path)? {
            Ok(climb) => self.climb(&request, &body, &climb, wished, began).await,
            Err(stray) => {
                let (key, environment) = (&stray.deployment_key, &stray.environment);
                let asked = self.asked(&request, &body, key, environment, route, path);
                let answer = passthrough::unreadable(self, environment, &asked, stray.unreadable);
                let answer = Box::pin(answer).await?;
                let source = answer.source;
                Ok((answer.into_response(wished, is_flags(route)), source))
            }
        }
    }

    /// Takes the body out of a request.
    async fn body_of(&self, request: &mut Request<Arriving>, route: Route) -> Result<Bytes, RequestError> {
        let arriving = std::mem::replace(request.body_mut(), Arriving::Whole(Bytes::new()));
        let body = match arriving {
            Arriving::Whole(body) if body.len() <= self.proxy.max_body => body,
            late => Box::pin(read_body(request.headers(), late, self.proxy.max_body)).await?,
        };
        self.metrics.request_body(route, body.len() as u64);
        Ok(body)
    }

    /// Reads what a request on a cacheable route asks.
    ///
    /// # Errors
    /// When it has no key, or one that no environment takes.
    fn read(
        self: &Rc<Self>,
        request: &Request<Arriving>,
        body: &Bytes,
        route: Route,
        path: &str,
    ) -> Result<Result<Rc<Climb>, Stray>, RequestError> {
        let deployment_key = authorization::deployment_key(request.headers())
            .and_then(DeploymentKey::new)
            .ok_or(RequestError::MissingKey)?;
        let environment = self
            .proxy
            .environment_of(&deployment_key)
            .ok_or(RequestError::UnknownKey)?;
        let asked = self.asked(request, body, &deployment_key, &environment, route, path);
        let question = if is_flags(route) {
            Question::flags(&asked, &self.proxy.keyer)
        } else {
            Question::vardata(&asked, &self.proxy.keyer)
        };
        let question = match question {
            Ok(question) => question,
            Err(unreadable) => {
                return Ok(Err(Stray {
                    deployment_key,
                    environment,
                    unreadable,
                }));
            }
        };
        let deployment = self.proxy.deployments.get(environment.index, &deployment_key);
        Ok(Ok(Rc::new(Climb {
            worker: Rc::clone(self),
            environment,
            deployment_key,
            deployment,
            route,
            question,
        })))
    }

    fn asked<'r>(
        &'r self,
        request: &'r Request<Arriving>,
        body: &'r Bytes,
        deployment_key: &'r DeploymentKey,
        environment: &'r Environment,
        route: Route,
        path: &'r str,
    ) -> Asked<'r> {
        Asked {
            route,
            path,
            query: request.uri().query(),
            post: *request.method() == Method::POST,
            headers: request.headers(),
            body,
            deployment_key,
            environment: &environment.name,
            ignore_query: &self.proxy.ignore_query,
        }
    }

    /// Takes a question up the ladder, and remembers where its raw parts lead.
    async fn climb(
        self: &Rc<Self>,
        request: &Request<Arriving>,
        body: &Bytes,
        climb: &Rc<Climb>,
        wished: &Wished,
        began: Instant,
    ) -> Result<(Response<AnswerBody>, Source), RequestError> {
        let climbed = Rc::clone(climb).answer().await?;
        if let Some(entry) = &climbed.entry {
            self.remember(request, body, climb.question.key, entry);
        }
        let source = climbed.answer.source;
        tracing::debug!(
            route = climb.route.as_str(),
            source = source.as_str(),
            duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
        let flags = climb.question.asks.is_for_flags();
        Ok((climbed.answer.into_response(wished, flags), source))
    }

    /// The answer of a request whose body has come, if the memo knows it and its entry is fresh.
    fn recall_whole(
        &self,
        request: &Request<Arriving>,
        body: &[u8],
        now: Instant,
    ) -> Option<Response<AnswerBody>> {
        self.find_fresh(request, body, now).map(|(response, ..)| response)
    }

    /// Lets the memo know where these raw parts lead.
    fn remember(&self, request: &Request<Arriving>, body: &Bytes, key: crate::key::Key, entry: &Arc<Stored>) {
        let mut scratch = self.scratch.borrow_mut();
        raw::write(
            &mut scratch,
            request.method(),
            request.uri(),
            request.headers(),
            body,
        );
        self.memo.borrow_mut().learn(&scratch, key, entry);
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

/// A request on a cacheable route that cannot be read exactly.
struct Stray {
    deployment_key: DeploymentKey,
    environment: Arc<Environment>,
    unreadable: Unreadable,
}

const fn is_flags(route: Route) -> bool {
    matches!(route, Route::FlagsV1 | Route::FlagsV2)
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

/// A request body: here already, or still coming.
#[derive(Debug)]
pub enum Arriving {
    /// All of it.
    Whole(Bytes),
    /// As it comes.
    Stream(Incoming),
}

/// The whole body, if it is no longer than `max` and comes in time.
async fn read_body(headers: &http::HeaderMap, arriving: Arriving, max: usize) -> Result<Bytes, RequestError> {
    let incoming = match arriving {
        Arriving::Whole(body) if body.len() > max => return Err(RequestError::BodyTooLarge),
        Arriving::Whole(body) => return Ok(body),
        Arriving::Stream(incoming) => incoming,
    };
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max as u64) {
        return Err(RequestError::BodyTooLarge);
    }
    let whole = tokio::time::timeout(BODY_TIMEOUT, Limited::new(incoming, max).collect());
    match whole.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(RequestError::BodyTooLarge),
        Ok(Err(_)) => Err(RequestError::BrokenBody),
        Err(_) => Err(RequestError::BodyTimeout),
    }
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
