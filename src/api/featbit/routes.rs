//! Which handler answers which path of FeatBit's, besides the evaluate endpoint.

use std::rc::Rc;

use http::header::{ALLOW, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::api::answer::AnswerBody;
use crate::api::body::read_body;
use crate::api::error::RequestError;
use crate::api::{Arriving, Worker, passthrough};
use crate::metrics::{Route, Source};

use super::{Caller, Featbit, Reply, reply};

/// Answers a request on one of the routes `fb_sdk` and `fb_events`.
pub(in crate::api) async fn answer(
    worker: &Rc<Worker>,
    request: Request<Arriving>,
    route: Route,
    path: &str,
) -> Result<(Response<AnswerBody>, Source), RequestError> {
    let featbit = &worker.proxy.featbit;
    let lower = path.to_ascii_lowercase();
    let is_get = *request.method() == Method::GET;
    let reply = match lower.as_str() {
        "/health/liveness" if is_get => Featbit::liveness(),
        "/health/readiness" if is_get => featbit.readiness(),
        "/streaming" if is_get => {
            featbit.upgrade(request.version(), request.headers(), request.uri().query())
        }
        "/api/public/sdk/server/latest-all" if is_get => {
            featbit
                .server_latest_all(request.headers(), request.uri().query())
                .await
        }
        "/api/public/sdk/client/latest-all" | "/api/public/insight/track"
            if *request.method() == Method::POST =>
        {
            return with_body(worker, request, route, path, &lower).await;
        }
        // The server looks for a secret before it looks at the method.
        known if known.starts_with("/api/") && Caller::of(request.headers()).is_none() => {
            return Ok((reply::unauthorized("missing_environment_secret"), Source::None));
        }
        _ => return Ok((not_allowed(&lower), Source::None)),
    };
    replied(worker, reply, request, route, path).await
}

/// The routes that take a body.
async fn with_body(
    worker: &Rc<Worker>,
    request: Request<Arriving>,
    route: Route,
    path: &str,
    lower: &str,
) -> Result<(Response<AnswerBody>, Source), RequestError> {
    let featbit = &worker.proxy.featbit;
    if Caller::of(request.headers()).is_none() {
        return Ok((reply::unauthorized("missing_environment_secret"), Source::None));
    }
    let (parts, arriving) = request.into_parts();
    let body = read_body(&parts.headers, arriving, worker.proxy.max_body).await?;
    worker.metrics.request_body(route, body.len() as u64);
    let reply = if lower.ends_with("/track") {
        featbit.track(&parts.headers, &body)
    } else {
        featbit
            .client_latest_all(&parts.headers, parts.uri.query(), &body)
            .await
    };
    let request = Request::from_parts(parts, Arriving::Whole(body));
    replied(worker, reply, request, route, path).await
}

/// The reply, or what upstream says where it knows better.
async fn replied(
    worker: &Rc<Worker>,
    reply: Reply,
    request: Request<Arriving>,
    route: Route,
    path: &str,
) -> Result<(Response<AnswerBody>, Source), RequestError> {
    match reply {
        Reply::Answer(response, source) => Ok((response, source)),
        Reply::Forward(index) => {
            let Some(environment) = worker.proxy.environments.get(index) else {
                return Ok((reply::no_answer(), Source::None));
            };
            match passthrough::relay_to(worker, environment, request, route, path).await {
                Err(RequestError::NoAnswer) => Ok((reply::no_answer(), Source::None)),
                relayed => relayed,
            }
        }
    }
}

fn not_allowed(path: &str) -> Response<AnswerBody> {
    let takes_post = path.ends_with("/client/latest-all") || path.ends_with("/track");
    let mut response = reply::bare(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    response.headers_mut().insert(
        ALLOW,
        HeaderValue::from_static(if takes_post { "POST" } else { "GET" }),
    );
    response
}
