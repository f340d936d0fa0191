//! Asking Amplitude, and telling failures from verdicts (design 5).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};

use crate::api::Worker;
use crate::api::answer::{JSON, REQUEST_ID, Relayed, is_request_id};
use crate::api::ladder::{Climb, Landed};
use crate::api::request_id;
use crate::api::upstream::{Judged, failed, judge, relay};
use crate::cache::{Marks, Stored};
use crate::evaluate::json::{Kind, Outline, Wanted};
use crate::key::Asks;
use crate::key::question::Forward;
use crate::metrics::{Operation, Route};
use crate::store::{Accepted, etag};
use crate::sync::{Environment, flags};
use crate::trace;
use crate::upstream::{Gate, Limits};

/// Nesting that an answer may have; payloads are free-form.
pub(super) const ANSWER_DEPTH_MAX: usize = 512;

/// An object of variants. A variant has at least one of these members, if it has any (API 3.6).
const VARIANTS: Wanted<'_> = Wanted {
    names: &["key", "value", "payload", "metadata"],
    may_be_empty: true,
};

/// An array of flags.
const FLAGS: Wanted<'_> = Wanted {
    names: &["key"],
    may_be_empty: false,
};

/// Whether `body` is what was asked for. What is in variants and flags is upstream's own affair; but
/// `{"error": {"code": 503}}` holds no variant, whatever its status says.
fn is_shaped(body: &[u8], wanted: Kind) -> bool {
    let within = if wanted == Kind::Array { FLAGS } else { VARIANTS };
    Outline::of(body, ANSWER_DEPTH_MAX, within).is_ok_and(|found| found.kind == wanted && found.fits)
}

/// Sends `forward` to the right upstream host of `environment` and judges the outcome.
///
pub async fn ask(
    worker: &Worker,
    environment: &Environment,
    gate: &Arc<Gate>,
    route: Route,
    forward: &Forward,
    deadline: tokio::time::Instant,
) -> Judged {
    let Some(origins) = &environment.origins else {
        return Judged::Failure(None);
    };
    let settings = &worker.proxy.upstream;
    let (wanted, max_answer) = match route {
        Route::FlagsV1 | Route::FlagsV2 => (Kind::Array, settings.max_flags),
        _ => (Kind::Object, settings.max_answer),
    };
    let limits = Limits {
        deadline,
        max_answer,
        idempotent: true,
    };
    let Some(mut request) = request(forward) else {
        return Judged::Failure(None);
    };
    let span = trace::ask(worker.proxy.tracer.as_ref(), &mut request);
    let client = &worker.client;
    let exchange = match route {
        Route::FlagsV2 => origins.fetch_flags(client, gate, request, limits).await,
        Route::FlagsV1 => {
            client
                .fetch(&origins.eval, gate, Operation::Flags, request, limits)
                .await
        }
        _ => {
            client
                .fetch(&origins.eval, gate, Operation::Evaluate, request, limits)
                .await
        }
    };
    if let Some(span) = span {
        let origin = if route == Route::FlagsV2 {
            &origins.flags
        } else {
            &origins.eval
        };
        let status = exchange.as_ref().ok().map(Response::status);
        span.end(origin.host(), &environment.name, status);
    }
    judge(exchange, |body| is_shaped(body, wanted))
}

/// `None` when the target is none that HTTP allows: nothing else may be asked in its place.
fn request(forward: &Forward) -> Option<Request<Bytes>> {
    let mut request = Request::new(forward.body.clone());
    *request.method_mut() = forward.method.clone();
    *request.uri_mut() = forward.target.parse().ok()?;
    *request.headers_mut() = forward.headers.clone();
    if !request.headers().get(REQUEST_ID).is_some_and(is_request_id) {
        request.headers_mut().insert(REQUEST_ID, request_id::fresh());
    }
    Some(request)
}

/// Fetches the answer of a question and stores it.
pub async fn fetch(climb: &Rc<Climb>) -> Landed {
    let Some(origins) = &climb.environment.origins else {
        return Landed::Failed { status: None };
    };
    let proxy = &climb.worker.proxy;
    let began = proxy.deployments.begin();
    let asked_at = Instant::now();
    // Epoch before flags: an answer is never taken for newer than it is. A key that is not known yet begins at 0.
    let known = climb.known();
    let epoch = known.as_ref().map_or(0, |deployment| deployment.epoch());
    let definitions = known.as_ref().and_then(|deployment| {
        let flags = deployment.flags();
        flags.evaluation().map(|data| Arc::clone(&data.definitions))
    });
    let deadline = tokio::time::Instant::now() + proxy.total_deadline;
    let judged = ask(
        &climb.worker,
        &climb.environment,
        &origins.gate,
        climb.route,
        &climb.question.forward,
        deadline,
    )
    .await;
    match judged {
        Judged::Failure(status) => failed(&climb.environment, climb.route, status),
        Judged::Verdict(relayed) => Landed::Relayed(Arc::new(relayed)),
        Judged::Rejected(relayed) => {
            if proves_keys(climb) {
                proxy.reject(&climb.environment, &climb.deployment_key, &relayed);
            }
            Landed::Relayed(Arc::new(relayed))
        }
        Judged::Answer(response) => {
            let deployment = if proves_keys(climb) {
                match proxy.accept(&climb.environment, &climb.deployment_key, began) {
                    Accepted::Yes { deployment, .. } => Some(deployment),
                    Accepted::Superseded => return Landed::Revoked,
                    Accepted::Full => None,
                }
            } else {
                climb.known().filter(|deployment| deployment.in_service())
            };
            let Some(deployment) = deployment else {
                return Landed::Relayed(Arc::new(relay(response)));
            };
            deployment.upstream_answered();
            let content_type = response.headers().get(CONTENT_TYPE).cloned().unwrap_or(JSON);
            let body = response.into_body();
            let entry = Arc::new(Stored {
                etag: climb.question.asks.is_for_flags().then(|| etag(&body)),
                content_type: content_type_of(content_type),
                asked_at,
                fresh_until: asked_at + proxy.lifetimes.fresh_for,
                epoch,
                deployment,
                definitions,
                route: climb.route,
                marks: Marks::default(),
                body,
            });
            let kept = proxy.cache.put(climb.question.key, Arc::clone(&entry));
            Landed::Stored { entry, kept }
        }
    }
}

/// Clients are promised JSON (API 2.7); an upstream that labels JSON as something else is corrected. The usual
/// label is the one that all entries share.
fn content_type_of(value: HeaderValue) -> HeaderValue {
    let is_json = value
        .as_bytes()
        .to_ascii_lowercase()
        .starts_with(b"application/json");
    if is_json && value != JSON { value } else { JSON }
}

/// Whether an answer to this question says that its key is good, and a 401 that it is not: evaluations
/// and plain flags requests do, probes with `eval_mode` do not (design 5).
const fn proves_keys(climb: &Climb) -> bool {
    !matches!(
        climb.question.asks,
        Asks::Flags {
            has_eval_mode: true,
            ..
        }
    )
}

/// `evaluation: local`, a key nothing is known of: one sync of its flags, which also proves the key.
pub async fn prove(climb: &Rc<Climb>) -> Landed {
    let worker = &climb.worker;
    let key = &climb.deployment_key;
    match flags::sync_once(
        &worker.client,
        &worker.proxy.deployments,
        &climb.environment,
        key,
        &worker.proxy.upstream,
    )
    .await
    {
        Ok(synced) => {
            if synced.fresh {
                worker.proxy.flag_sync.follow(Arc::clone(&synced.deployment));
            }
            Landed::Failed { status: None }
        }
        Err(error) => match error.rejection {
            Some(relayed) => Landed::Relayed(Arc::new(Relayed {
                status: StatusCode::UNAUTHORIZED,
                content_type: relayed.0,
                body: relayed.1,
            })),
            None => Landed::Failed { status: error.status },
        },
    }
}
