//! Asking upstream, and what its answer means, whoever the vendor is (design 5).

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};

use crate::key::question::Forward;
use crate::metrics::Route;
use crate::sync::Environment;
use crate::telemetry::Suppress;
use crate::trace;
use crate::upstream::{Ask, Origin, UpstreamError};

use super::answer::{REQUEST_ID, Relayed, is_request_id};
use super::ladder::Landed;
use super::{Worker, request_id};

/// Sends `forward` by `exchange`, in a span of its own where the request is traced.
///
/// # Errors
/// Those of `exchange`.
pub async fn send(
    worker: &Worker,
    environment: &Environment,
    origin: &Origin,
    forward: &Forward,
    exchange: impl AsyncFnOnce(&Ask<'_>) -> Result<Response<Bytes>, UpstreamError>,
) -> Result<Response<Bytes>, UpstreamError> {
    let mut headers = Cow::Borrowed(&forward.headers);
    let request_id = match headers.get(REQUEST_ID) {
        Some(id) if is_request_id(id) => None,
        Some(_) => {
            headers.to_mut().remove(REQUEST_ID);
            Some(request_id::fresh())
        }
        None => Some(request_id::fresh()),
    };
    let span = trace::ask(worker.proxy.tracer.as_ref(), &forward.method, &headers);
    if let Some(span) = &span {
        span.put(headers.to_mut());
    }
    let answered = exchange(&Ask {
        method: &forward.method,
        target: &forward.target,
        headers: &headers,
        request_id: request_id.as_ref(),
        body: &forward.body,
    })
    .await;
    if let Some(span) = span {
        let status = answered.as_ref().ok().map(Response::status);
        span.end(origin.host(), &environment.name, status);
    }
    answered
}

/// What an exchange with upstream means.
#[derive(Debug)]
pub enum Judged {
    /// A 200 of the promised shape.
    Answer(Response<Bytes>),
    /// A 401: nobody with this key gets anything.
    Rejected(Relayed),
    /// Another refusal of this request, to be passed on.
    Verdict(Relayed),
    /// Neither: a stand-in is wanted. With upstream's status, if it had one.
    Failure(Option<StatusCode>),
}

/// Tells answers, verdicts and failures apart. `is_shaped`: whether the body of a 200 is what was asked for.
#[must_use]
pub fn judge(exchange: Result<Response<Bytes>, UpstreamError>, is_shaped: impl Fn(&[u8]) -> bool) -> Judged {
    let Ok(response) = exchange else {
        return Judged::Failure(None);
    };
    let status = response.status();
    match status.as_u16() {
        200 => {
            if is_shaped(response.body()) {
                Judged::Answer(response)
            } else {
                Judged::Failure(Some(status))
            }
        }
        404 | 407 | 408 | 421 | 425 | 429 => Judged::Failure(Some(status)),
        401 => Judged::Rejected(relay(response)),
        400..=499 => Judged::Verdict(relay(response)),
        _ => Judged::Failure(Some(status)),
    }
}

/// A response as it is passed on.
pub fn relay(response: Response<Bytes>) -> Relayed {
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    Relayed {
        status: response.status(),
        content_type,
        body: response.into_body(),
    }
}

/// A fetch without use. Where upstream answered, the log says what: else nobody would know why there is a
/// stand-in.
pub fn failed(environment: &Environment, route: Route, status: Option<StatusCode>) -> Landed {
    static LINES: Suppress = Suppress::new(1);
    if let Some(status) = status
        && let Some(suppressed) = LINES.allow(Instant::now())
    {
        let what = match status {
            StatusCode::OK => "200 with a body that is no answer",
            StatusCode::NOT_FOUND => "404, which no question can cause: check the URL",
            _ => "a failure",
        };
        tracing::warn!(
            environment = &*environment.name,
            route = route.as_str(),
            status = status.as_u16(),
            suppressed,
            "an answer of upstream cannot be used: {what}"
        );
    }
    Landed::Failed { status }
}
