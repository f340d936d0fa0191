//! Asking Amplitude, and telling failures from verdicts (design 5).

use std::rc::Rc;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use crate::api::Worker;
use crate::api::answer::{JSON, Relayed};
use crate::api::ladder::{Climb, Keeping, Landed};
use crate::api::upstream::{Judged, failed, judge, relay, send};
use crate::evaluate::json::{Kind, Outline, Wanted};
use crate::key::Asks;
use crate::key::question::Forward;
use crate::metrics::{Operation, Route};
use crate::store::{Accepted, etag};
use crate::sync::{Environment, flags};
use crate::upstream::{Ask, Gate, Limits};

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
    let (origin, operation) = match route {
        Route::FlagsV2 => (&origins.flags, Operation::Flags),
        Route::FlagsV1 => (&origins.eval, Operation::Flags),
        _ => (&origins.eval, Operation::Evaluate),
    };
    let exchange = async |ask: &Ask<'_>| match route {
        // With two hosts to ask it would be a larger part of every miss than what those need.
        Route::FlagsV2 => Box::pin(origins.fetch_flags(&worker.client, gate, ask, limits)).await,
        _ => worker.client.fetch(origin, gate, operation, ask, limits).await,
    };
    let exchange = send(worker, environment, origin, forward, exchange).await;
    judge(exchange, |body| is_shaped(body, wanted))
}

/// Fetches the answer of a question and stores it.
pub async fn fetch(climb: &Rc<Climb>) -> Landed {
    let Some(origins) = &climb.environment.origins else {
        return Landed::Failed { status: None };
    };
    let proxy = &climb.worker.proxy;
    let began = proxy.deployments.begin();
    let asked_at = tokio::time::Instant::now();
    // Epoch before flags: an answer is never taken for newer than it is. A key that is not known yet begins at 0.
    let known = climb.known();
    let epoch = known.as_ref().map_or(0, |deployment| deployment.epoch());
    let definitions = known.as_ref().and_then(|deployment| {
        let flags = deployment.flags();
        flags.evaluation().map(|data| Arc::clone(data.definitions()))
    });
    let deadline = asked_at + proxy.total_deadline;
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
            let content_type = response.headers().get(CONTENT_TYPE).cloned().unwrap_or(JSON);
            let body = response.into_body();
            climb.keep(Keeping {
                etag: climb.question.asks.is_for_flags().then(|| etag(&body)),
                content_type: content_type_of(content_type),
                asked_at: asked_at.into_std(),
                epoch,
                deployment,
                definitions,
                body,
            })
        }
    }
}

/// Clients are promised JSON (API 2.7); an upstream that labels JSON as something else is corrected.
fn content_type_of(value: HeaderValue) -> HeaderValue {
    let is_json = value
        .as_bytes()
        .to_ascii_lowercase()
        .starts_with(b"application/json");
    if is_json { value } else { JSON }
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
