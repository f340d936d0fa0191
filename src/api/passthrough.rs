//! What is passed through uncached: cohorts, streams, unknown paths, and questions that cannot be read.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use crate::config::Backend;
use crate::key::question::Forward;
use crate::key::{Asked, DeploymentKey, Unreadable, authorization, target};
use crate::metrics::{Operation, Route, Source};
use crate::sync::Environment;
use crate::trace;
use crate::upstream::{Phase, RelayBody, UpstreamError};

use super::amplitude;
use super::answer::{
    Answer, AnswerBody, CACHE_STATUS, Events, JSON, REQUEST_ID, Relayed, is_request_id, status_only,
};
use super::error::RequestError;
use super::featbit::{self, Caller};
use super::upload::{Fate, Upload};
use super::upstream::Judged;
use super::{Arriving, Worker, is_cohort_throttle, only, request_id};

/// SDKs give a stream 1.5 s for its first event (API 4.4).
const STREAM_HEAD_DEADLINE: Duration = Duration::from_millis(1250);

/// Relays a request and its response as streams, nothing buffered.
pub(super) async fn relay(
    worker: &Rc<Worker>,
    request: Request<Arriving>,
    route: Route,
    path: &str,
) -> Result<(Response<AnswerBody>, Source), RequestError> {
    let environment = environment(worker, &request, path)?;
    // Where nobody can be asked, the server's first check is made here (FB 3.1).
    if environment.origins.is_none() && target::is_featbits(path) && Caller::of(request.headers()).is_none() {
        return Ok((featbit::without_secret(), Source::None));
    }
    relay_to(worker, &environment, request, route, path).await
}

/// The same to an environment that is known.
pub(super) async fn relay_to(
    worker: &Rc<Worker>,
    environment: &Environment,
    request: Request<Arriving>,
    route: Route,
    path: &str,
) -> Result<(Response<AnswerBody>, Source), RequestError> {
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > worker.proxy.max_body as u64) {
        return Err(RequestError::BodyTooLarge);
    }
    let none = if route == Route::Stream {
        RequestError::NoStream
    } else {
        RequestError::NoAnswer
    };
    let Some(origins) = &environment.origins else {
        return Err(none);
    };
    let (origin, operation) = match route {
        Route::Stream => (&origins.stream, Operation::Stream),
        Route::Cohort => (&origins.cohort, Operation::Cohort),
        _ => (&origins.eval, Operation::Passthrough),
    };
    let head = *request.method() == Method::HEAD;
    let (mut request, fate) = forwarded(request, path, worker.proxy.max_body);
    let span = trace::ask(worker.proxy.tracer.as_ref(), request.method(), request.headers());
    if let Some(span) = &span {
        span.put(request.headers_mut());
    }
    let deadline = worker.proxy.total_deadline;
    let relaying = worker
        .client
        .relay(origin, &origins.stray_gate, operation, request, deadline);
    let relayed = match route {
        // The short clock is ours alone: when it runs out the exchange is dropped, which no breaker counts.
        Route::Stream => timeout(STREAM_HEAD_DEADLINE, relaying).await.ok(),
        _ => Some(relaying.await),
    };
    if let Some(span) = span {
        let answered = relayed.as_ref().and_then(|relayed| relayed.as_ref().ok());
        span.end(origin.host(), &environment.name, answered.map(Response::status));
    }
    let response = match relayed {
        Some(Ok(response)) => response,
        Some(Err(error)) => return Err(blame(&error, &fate).unwrap_or(none)),
        None => return Err(none),
    };
    let status = response.status();
    // A rejected key is the client's to hear of; everything else means: poll instead.
    if route == Route::Stream && !status.is_success() && !matches!(status.as_u16(), 400 | 401 | 403) {
        return Err(RequestError::NoStream);
    }
    if route == Route::Stream && status.is_success() && !is_event_stream(&response) {
        return Err(RequestError::NoStream);
    }
    if is_cohort_throttle(route, status) {
        // Python and Ruby SDKs repeat these for ever without a pause (API 5.1).
        let mut response = status_only(StatusCode::SERVICE_UNAVAILABLE);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return Ok((response, Source::Passthrough));
    }
    let mut response = with_body(worker, response, route, head);
    response
        .headers_mut()
        .insert(CACHE_STATUS, HeaderValue::from_static("flagside; fwd=bypass"));
    Ok((response, Source::Passthrough))
}

/// The response with the body that its client is to get.
fn with_body(
    worker: &Worker,
    response: Response<RelayBody>,
    route: Route,
    head: bool,
) -> Response<AnswerBody> {
    if head {
        let (parts, _) = response.into_parts();
        Response::from_parts(parts, AnswerBody::Full(None))
    } else {
        match route {
            Route::Stream if response.status().is_success() => {
                let stop = worker.draining.clone();
                response.map(|body| AnswerBody::Events(Box::new(Events::new(body, stop))))
            }
            _ => response.map(AnswerBody::Stream),
        }
    }
}

/// Whether a response is what stream clients can read; a captive portal's page, say, is not.
fn is_event_stream<B>(response: &Response<B>) -> bool {
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    content_type
        .to_ascii_lowercase()
        .starts_with(b"text/event-stream")
}

/// The environment of the request's key; a request without one goes to the only environment of its backend.
fn environment(
    worker: &Worker,
    request: &Request<Arriving>,
    path: &str,
) -> Result<Arc<Environment>, RequestError> {
    let proxy = &worker.proxy;
    if target::is_featbits(path) {
        let home = Caller::of(request.headers()).and_then(|caller| proxy.featbit.home_of(&caller));
        let known = home.and_then(|home| proxy.environments.get(home.index));
        let only = || only(&proxy.environments, Backend::Featbit);
        return known.or_else(only).cloned().ok_or(RequestError::UnknownKey);
    }
    match authorization::deployment_key(request.headers()).and_then(DeploymentKey::new) {
        Some(key) => proxy.environment_of(&key).ok_or(RequestError::UnknownKey),
        None if request.headers().get_all(AUTHORIZATION).iter().count() > 1 => Err(RequestError::MissingKey),
        None => only(&proxy.environments, Backend::Amplitude)
            .cloned()
            .ok_or(RequestError::UnknownKey),
    }
}

/// The error for a client that is to blame itself: its body was too long, broke off or was too slow.
fn blame(error: &UpstreamError, fate: &Fate) -> Option<RequestError> {
    let late = matches!(error, UpstreamError::Timeout(Phase::Head)) && fate.is_under_way();
    fate.blame().or(late.then_some(RequestError::BodyTimeout))
}

fn forwarded(request: Request<Arriving>, path: &str, max_body: usize) -> (Request<Upload>, Fate) {
    let (mut parts, body) = request.into_parts();
    let target = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if let Ok(uri) = target.parse() {
        parts.uri = uri;
    }
    if !parts.headers.get(REQUEST_ID).is_some_and(is_request_id) {
        parts.headers.insert(REQUEST_ID, request_id::fresh());
    }
    let (upload, fate) = Upload::new(body, max_body);
    (Request::from_parts(parts, upload), fate)
}

/// A question that cannot be read: forwarded as it came, the verdict relayed (API 3.7). If upstream gives
/// none in time, it is our own 400.
pub(super) async fn unreadable(
    worker: &Rc<Worker>,
    environment: &Arc<Environment>,
    asked: &Asked<'_>,
    unreadable: Unreadable,
) -> Result<Answer, RequestError> {
    let proxy = &worker.proxy;
    let refused = RequestError::Unreadable(unreadable);
    let now = std::time::Instant::now();
    if let Some(rejection) =
        proxy
            .deployments
            .rejections()
            .answer(environment.index, asked.deployment_key, now)
    {
        let content_type = Some(rejection.content_type.clone());
        let body = rejection.body.clone();
        return Ok(Answer::rejected(&Relayed {
            status: StatusCode::UNAUTHORIZED,
            content_type,
            body,
        }));
    }
    let Some(origins) = &environment.origins else {
        return Err(refused);
    };
    let began = proxy.deployments.begin();
    let forward = Forward::verbatim(asked);
    // An unreadable flags request may be a probe with `eval_mode`, which says nothing of the key.
    let evaluates = !matches!(asked.route, Route::FlagsV1 | Route::FlagsV2);
    let asking = amplitude::ask(
        worker,
        environment,
        &origins.stray_gate,
        asked.route,
        &forward,
        tokio::time::Instant::now() + proxy.total_deadline,
    );
    // Being later than this is no fault of upstream's (design 5): the exchange is dropped, no breaker counts it.
    let Ok(judged) = timeout(proxy.answer_deadline, asking).await else {
        return Err(refused);
    };
    match judged {
        Judged::Answer(response) => {
            if evaluates {
                let _ = proxy.accept(environment, asked.deployment_key, began);
            }
            let content_type = response.headers().get(CONTENT_TYPE).cloned().or(Some(JSON));
            let relayed = Relayed {
                status: response.status(),
                content_type,
                body: response.into_body(),
            };
            Ok(Answer::relayed(&relayed, Source::Passthrough))
        }
        Judged::Verdict(relayed) => Ok(Answer::relayed(&relayed, Source::Passthrough)),
        Judged::Rejected(relayed) => {
            if evaluates {
                proxy.reject(environment, asked.deployment_key, &relayed);
            }
            Ok(Answer::relayed(&relayed, Source::Passthrough))
        }
        Judged::Failure(_) => Err(refused),
    }
}
