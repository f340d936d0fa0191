//! `POST /api/public/featureflag/evaluate`: FeatBit's question (FB 3), which goes up the same ladder as Amplitude's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::api::answer::{Answer, AnswerBody, JSON_UTF8, Relayed, Wished};
use crate::api::error::RequestError;
use crate::api::ladder::{Climb, Keeping, Landed};
use crate::api::{Arriving, Worker, upstream};
use crate::evaluate::featbit::{Evaluation, Request as Wanted, RequestFault};
use crate::evaluate::json::{Kind, Outline, Wanted as Shape};
use crate::key::{Asked, Asks, Question};
use crate::metrics::{self, Engine, EvaluatedFlags, Operation, Route, Source};
use crate::store::featbit::Held;
use crate::store::{Accepted, Deployment, Standing};
use crate::sync::Origins;
use crate::upstream::{Ask, Limits, UpstreamError, retry_after};

use super::reply::{bare, message, no_answer, not_json, problem, unauthorized};
use super::{Caller, Found, is_json};

/// Nesting that an answer may have; FeatBit's have four levels.
const ANSWER_DEPTH_MAX: usize = 16;

/// How long the first answer for a secret waits for a sync that proves it: until then it may not be stored.
const PROOF_DEADLINE: Duration = Duration::from_millis(250);

/// How long upstream is left alone after a 429 that names no time, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// An array of evaluated flags.
const RESULTS: Shape<'_> = Shape {
    names: &["variation"],
    may_be_empty: false,
};

/// Answers a request on the evaluate route, in the server's order: 401, 405, 415, 400 (FB 3.3).
pub(in crate::api) async fn evaluate(
    worker: &Rc<Worker>,
    mut request: Box<Request<Arriving>>,
    path: &str,
    wished: &Wished,
    began: Instant,
) -> Result<(Response<AnswerBody>, Source), RequestError> {
    let proxy = &worker.proxy;
    let (caller, home) = match proxy.featbit.caller_at_home(request.headers()) {
        Ok(found) => found,
        Err(code) => return Ok((unauthorized(code), Source::None)),
    };
    if *request.method() != Method::POST {
        let mut response = bare(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return Ok((response, Source::None));
    }
    if !is_json(request.headers()) {
        return Ok((not_json(), Source::None));
    }
    let is_late = request.body().is_late();
    let body = worker.body_of(&mut request, Route::FbEvaluate).await?;
    if is_late && let Some(response) = worker.recall_late(&request, &body) {
        return Ok((response, Source::Hit));
    }
    let wanted = match Wanted::parse(&body) {
        Ok(wanted) => wanted,
        Err(fault @ (RequestFault::NoUser | RequestFault::TagMode(_))) => {
            return Ok((message(&fault.to_string()), Source::None));
        }
        Err(fault) => return Ok((problem(&fault.to_string()), Source::None)),
    };
    let Some(environment) = proxy.environments.get(home.index).cloned() else {
        return Err(RequestError::NotFound);
    };
    let asked = Asked {
        route: Route::FbEvaluate,
        path,
        query: None,
        post: true,
        headers: request.headers(),
        body: &body,
        deployment_key: &caller.key,
        environment: &environment.name,
        ignore_query: &[],
    };
    let question = Question::evaluation(&asked, wanted, &proxy.keyer);
    let climb = Rc::new(Climb {
        worker: Rc::clone(worker),
        deployment: proxy.deployments.get(environment.index, &caller.key),
        environment,
        deployment_key: caller.key,
        route: Route::FbEvaluate,
        question,
    });
    match worker.climb(&request, &body, &climb, wished, began).await {
        Err(RequestError::NoAnswer) => Ok((no_answer(), Source::None)),
        Err(RequestError::RevokedKey) => Ok((unauthorized("revoked_environment_secret"), Source::None)),
        answered => answered,
    }
}

/// What is held for the caller of a question.
fn held(climb: &Climb) -> Option<Arc<Held>> {
    let caller = caller(climb)?;
    let featbit = &climb.worker.proxy.featbit;
    featbit.environments.get(climb.environment.index, caller.id)
}

/// The same, followed from now on with the secret of the question.
fn follow(climb: &Climb) -> Option<Arc<Held>> {
    let caller = caller(climb)?;
    let featbit = &climb.worker.proxy.featbit;
    let held = featbit.held(featbit.home_of(&caller)?, &caller)?;
    // Where there is no room for it, another secret syncs.
    let _ = held.join(&caller.key);
    Some(held)
}

fn caller(climb: &Climb) -> Option<Caller> {
    Caller::of_secret(std::str::from_utf8(climb.deployment_key.expose()).ok()?)
}

/// Whether nothing is held that could answer, and a sync would change that.
pub(in crate::api) fn awaits_sync(climb: &Climb) -> bool {
    held(climb).is_none_or(|held| held.data().is_none() || !climb.may_answer())
}

/// Whether a file has the data of this secret's environment.
pub(in crate::api) fn is_covered(climb: &Climb) -> bool {
    held(climb).is_some_and(|held| held.has_bootstrap())
}

/// Waits until data is there for the secret, and upstream has accepted it.
pub(in crate::api) async fn prove(climb: &Rc<Climb>) -> Landed {
    let featbit = &climb.worker.proxy.featbit;
    let Some(caller) = caller(climb) else {
        return Landed::Failed { status: None };
    };
    let Some(home) = featbit.home_of(&caller) else {
        return Landed::Failed { status: None };
    };
    match featbit.find(home, &caller).await {
        Found::Rejected => Landed::Relayed(Arc::new(Relayed {
            status: StatusCode::UNAUTHORIZED,
            content_type: None,
            body: Bytes::new(),
        })),
        Found::Data(_) | Found::Nothing | Found::Elsewhere => Landed::Failed { status: None },
    }
}

/// The answer that the held data give.
pub(in crate::api) fn local(climb: &Climb, upstream: Option<StatusCode>) -> Option<Answer> {
    let Asks::Evaluation(wanted) = &climb.question.asks else {
        return None;
    };
    let began = Instant::now();
    let data = held(climb)?.data()?;
    let evaluation = data.evaluate(wanted);
    count(climb, &evaluation, began);
    let featbit = &climb.worker.proxy.featbit;
    featbit.unevaluable.tell(&climb.environment.name, &evaluation);
    if featbit.strict && !evaluation.unevaluable().is_empty() {
        // What FeatBit's server says: nothing.
        return Some(Answer {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            content_type: None,
            ..Answer::local(Bytes::new(), None, upstream)
        });
    }
    let mut body = Vec::new();
    evaluation.write_json(&mut body);
    Some(Answer {
        content_type: Some(JSON_UTF8),
        ..Answer::local(body.into(), None, upstream)
    })
}

fn count(climb: &Climb, evaluation: &Evaluation<'_>, began: Instant) {
    let reasons = evaluation.reasons();
    let flags = EvaluatedFlags {
        variant: u64::from(reasons.targeted) + u64::from(reasons.rule),
        off: u64::from(reasons.disabled) + u64::from(reasons.archived),
        default: u64::from(reasons.default),
        failed: evaluation.unevaluable().len() as u64,
        ..EvaluatedFlags::default()
    };
    let result = if flags.failed > 0 {
        metrics::Evaluation::Partial
    } else {
        metrics::Evaluation::Ok
    };
    climb.computed_by(Engine::Featbit, result, began, flags);
}

/// Fetches the answer of a question and stores it.
pub(in crate::api) async fn fetch(climb: &Rc<Climb>) -> Landed {
    let Some(origins) = &climb.environment.origins else {
        return Landed::Failed { status: None };
    };
    let proxy = &climb.worker.proxy;
    let began = proxy.deployments.begin();
    let asked_at = Instant::now();
    let epoch = climb.known().map_or(0, |deployment| deployment.epoch());
    let revisions = held(climb).map(|held| held.revisions());
    let exchange = ask(climb, origins).await;
    let shaped = |body: &[u8]| {
        Outline::of(body, ANSWER_DEPTH_MAX, RESULTS)
            .is_ok_and(|found| found.kind == Kind::Array && found.fits)
    };
    match upstream::judge(exchange, shaped) {
        upstream::Judged::Failure(status) => upstream::failed(&climb.environment, climb.route, status),
        upstream::Judged::Verdict(relayed) => Landed::Relayed(Arc::new(relayed)),
        upstream::Judged::Rejected(relayed) => {
            proxy.reject(&climb.environment, &climb.deployment_key, &relayed);
            Landed::Relayed(Arc::new(relayed))
        }
        upstream::Judged::Answer(response) => {
            let deployment = match proven(climb, began, response.body()).await {
                Ok(deployment) => deployment,
                Err(landed) => return landed,
            };
            // Data that changed meanwhile belong to another answer; of what is not folded nothing is kept.
            let now = held(climb).map_or(0, |held| held.revisions());
            let is_of_now = now == revisions.unwrap_or(0);
            let Some(deployment) = deployment.filter(|_| is_of_now && !climb.question.bypass) else {
                return Landed::Relayed(Arc::new(upstream::relay(response)));
            };
            let content_type = response.headers().get(CONTENT_TYPE).cloned();
            climb.keep(Keeping {
                content_type: content_type.unwrap_or(JSON_UTF8),
                body: response.into_body(),
                etag: None,
                asked_at,
                epoch,
                deployment,
                definitions: None,
            })
        }
    }
}

/// Sends the question to upstream. A 429 keeps everybody from asking for this environment for as long as it says.
async fn ask(climb: &Climb, origins: &Origins) -> Result<Response<Bytes>, UpstreamError> {
    let proxy = &climb.worker.proxy;
    if held(climb).is_some_and(|held| held.is_paused(Instant::now())) {
        return Err(UpstreamError::Busy);
    }
    let limits = Limits {
        deadline: tokio::time::Instant::now() + proxy.total_deadline,
        max_answer: proxy.upstream.max_answer,
        idempotent: true,
    };
    let (worker, origin, gate) = (&climb.worker, &origins.eval, &origins.gate);
    let exchange = async |ask: &Ask<'_>| {
        let operation = Operation::Evaluate;
        worker.client.fetch(origin, gate, operation, ask, limits).await
    };
    let forward = &climb.question.forward;
    let exchange = upstream::send(worker, &climb.environment, origin, forward, exchange).await;
    if let Ok(response) = &exchange
        && response.status() == StatusCode::TOO_MANY_REQUESTS
    {
        let pause = pause_of(response.headers());
        match follow(climb) {
            Some(held) => held.pause(pause, Instant::now()),
            // There is no room to know it by itself.
            None => origins.gate.pause(pause),
        }
    }
    exchange
}

/// The deployment of a secret that upstream has just answered 200 to. A 200 alone proves no secret (FB 2.1): the
/// sync that follows does. Where no sync says anything in time, rows do: without a right secret there are none.
async fn proven(climb: &Rc<Climb>, began: u64, body: &[u8]) -> Result<Option<Arc<Deployment>>, Landed> {
    let proxy = &climb.worker.proxy;
    if let Some(deployment) = climb.known()
        && deployment.standing() == Standing::Accepted
    {
        return Ok(Some(deployment));
    }
    if climb.known().is_none() && proxy.deployments.is_full() {
        // No proof can make room for it: it does not wait for one.
        return Ok(None);
    }
    let featbit = &proxy.featbit;
    // A secret that upstream rejected before and answers now is taken back as what it is: by its answer.
    let was_rejected = climb
        .known()
        .is_some_and(|deployment| deployment.standing() == Standing::Revoked);
    if !was_rejected
        && let Some(caller) = caller(climb)
        && let Some(home) = featbit.home_of(&caller)
    {
        match tokio::time::timeout(PROOF_DEADLINE, featbit.find(home, &caller)).await {
            Ok(Found::Rejected) => return Err(Landed::Revoked),
            Ok(Found::Data(_)) if climb.known().is_some_and(|it| it.in_service()) => return Ok(climb.known()),
            _ => {}
        }
    }
    let has_rows = body.contains(&b'{');
    if !has_rows {
        return Ok(climb.known().filter(|deployment| deployment.in_service()));
    }
    if climb.known().is_none() && !has_place(climb) {
        return Ok(None);
    }
    match proxy.accept(&climb.environment, &climb.deployment_key, began) {
        Accepted::Yes { deployment, fresh } => {
            if fresh && let Some(held) = held(climb) {
                // Its data may be had again.
                held.wake();
            }
            Ok(Some(deployment))
        }
        Accepted::Superseded => Err(Landed::Revoked),
        Accepted::Full => Ok(None),
    }
}

/// Whether its environment has room for the secret. Upstream answers any secret of an environment whose first half
/// is made up: only so many may be learnt, or they would take all places of the key table.
fn has_place(climb: &Climb) -> bool {
    held(climb).is_some_and(|held| held.join(&climb.deployment_key).is_some())
}

/// How long upstream asks to wait.
fn pause_of(headers: &HeaderMap) -> Duration {
    let asked = retry_after(headers, SystemTime::now());
    asked.unwrap_or(PAUSE).min(PAUSE_MAX)
}
