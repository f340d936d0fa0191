//! Flags of every deployment, polled: what `/sdk/v2/flags` gives, and what `eval_mode=remote` gives.
//!
//! The remote set is what makes local evaluation of remote-mode flags possible (API 4.2); where upstream
//! refuses it, the plain set stands in.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{Request, Response, StatusCode};
use tokio::sync::mpsc;

use crate::config;
use crate::evaluate::amplitude::ProblemKind;
use crate::key::DeploymentKey;
use crate::metrics::{Refresh, SyncSource};
use crate::store::{Accepted, Deployment, Deployments, FlagData, Flags};
use crate::task::{Stop, Tasks};
use crate::upstream::{Ask, Client, Limits, UpstreamError};

use super::Environment;

/// `X-Amp-Exp-Library` of our own requests.
const LIBRARY: &str = concat!("flagside/", env!("CARGO_PKG_VERSION"));
/// Path of both sets.
const PLAIN: &str = "/sdk/v2/flags?v=0";
const REMOTE: &str = "/sdk/v2/flags?v=0&eval_mode=remote";
/// First pause after a failure while nothing is held; it doubles up to the interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause while something is held.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// A sync that brought data.
#[derive(Debug)]
pub struct Synced {
    /// Whose.
    pub deployment: Arc<Deployment>,
    /// Whether the key came into service by it.
    pub fresh: bool,
    /// Whether the flags differ from those before.
    pub changed: bool,
}

/// A sync that brought none.
#[derive(Debug, thiserror::Error)]
#[error("flags could not be synced: {what}")]
pub struct SyncError {
    /// Upstream's status, if it had one.
    pub status: Option<StatusCode>,
    /// Content type and body of a 401.
    pub rejection: Option<(Option<HeaderValue>, Bytes)>,
    /// What happened.
    pub what: String,
}

impl SyncError {
    fn of(what: impl Into<String>, status: Option<StatusCode>) -> Self {
        Self {
            status,
            rejection: None,
            what: what.into(),
        }
    }
}

/// One set, fetched.
enum Fetched {
    Changed(Arc<FlagData>),
    Unchanged,
}

/// Fetches both sets of a key once and publishes them; proves the key on the way.
///
/// # Errors
/// When the plain set cannot be had. A remote set that fails keeps the one that is held.
pub async fn sync_once(
    client: &Client,
    deployments: &Deployments,
    environment: &Environment,
    key: &DeploymentKey,
    settings: &config::Upstream,
) -> Result<Synced, SyncError> {
    let began = deployments.begin();
    let held = deployments
        .get(environment.index, key)
        .map(|deployment| Flags::clone(&deployment.flags()))
        .unwrap_or_default();
    let (plain, remote) = tokio::join!(
        fetch(client, environment, key, PLAIN, held.plain.as_ref(), settings),
        fetch(client, environment, key, REMOTE, held.remote.as_ref(), settings),
    );
    let plain = match plain {
        Ok(plain) => plain,
        Err(error) => {
            if let Some((content_type, body)) = &error.rejection {
                let json = HeaderValue::from_static("application/json");
                let content_type = content_type.clone().unwrap_or(json);
                deployments.reject(environment.index, key, Instant::now(), content_type, body.clone());
            }
            return Err(error);
        }
    };
    let (deployment, fresh) = match deployments.accept(environment.index, key, began) {
        Accepted::Yes { deployment, fresh } => (deployment, fresh),
        Accepted::Superseded => return Err(SyncError::of("the key was rejected meanwhile", None)),
        Accepted::Full => {
            return Err(SyncError::of(
                "the table of learnt keys is full (keys.max_learnt)",
                None,
            ));
        }
    };
    let flags = Flags {
        plain: match plain {
            Fetched::Changed(data) => Some(data),
            Fetched::Unchanged => held.plain,
        },
        remote: match remote {
            Ok(Fetched::Changed(data)) => Some(data),
            // A refusal means that there is no such set; a failure says nothing.
            Err(error) if error.status.is_some_and(refuses) => None,
            Ok(Fetched::Unchanged) | Err(_) => held.remote,
        },
    };
    let changed = deployment.publish(flags, began);
    Ok(Synced {
        deployment,
        fresh,
        changed,
    })
}

fn refuses(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 404 | 405 | 410 | 422)
}

async fn fetch(
    client: &Client,
    environment: &Environment,
    key: &DeploymentKey,
    target: &'static str,
    held: Option<&Arc<FlagData>>,
    settings: &config::Upstream,
) -> Result<Fetched, SyncError> {
    let origins = environment
        .origins
        .as_ref()
        .ok_or_else(|| SyncError::of("there is no upstream", None))?;
    let limits = Limits {
        deadline: tokio::time::Instant::now() + settings.total_deadline,
        max_answer: settings.max_flags,
        idempotent: true,
    };
    let request = request(key, target, held);
    let answered = origins
        .fetch_flags(client, &origins.gate, &Ask::of(&request), limits)
        .await;
    read(answered, held)
}

fn request(key: &DeploymentKey, target: &'static str, held: Option<&Arc<FlagData>>) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = http::Uri::from_static(target);
    let headers = request.headers_mut();
    if let Some(value) = key.authorization() {
        headers.insert(AUTHORIZATION, value);
    }
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert("x-amp-exp-library", HeaderValue::from_static(LIBRARY));
    if let Some(etag) = held.and_then(|data| data.upstream_etag.clone()) {
        headers.insert(IF_NONE_MATCH, etag);
    }
    request
}

fn read(
    answered: Result<Response<Bytes>, UpstreamError>,
    held: Option<&Arc<FlagData>>,
) -> Result<Fetched, SyncError> {
    let response = answered.map_err(|error| SyncError::of(error.to_string(), None))?;
    let status = response.status();
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if held.is_some() => return Ok(Fetched::Unchanged),
        StatusCode::UNAUTHORIZED => {
            let content_type = response.headers().get(CONTENT_TYPE).cloned();
            let rejection = Some((content_type, response.into_body()));
            return Err(SyncError {
                status: Some(status),
                rejection,
                what: "the key was rejected (401)".to_owned(),
            });
        }
        other => {
            return Err(SyncError::of(
                format!("upstream answered {}", other.as_u16()),
                Some(other),
            ));
        }
    }
    let etag = response.headers().get(ETAG).cloned();
    let body = response.into_body();
    if held.is_some_and(|held| held.body == body) {
        return Ok(Fetched::Unchanged);
    }
    let mut data = FlagData::compile(body).map_err(|error| SyncError::of(error.to_string(), None))?;
    // One bad flag is that flag's affair. An array of nothing else is no flag set, and takes no good one's place.
    let mut problems = data.set.problems().iter().peekable();
    if data.set.is_empty()
        && problems.peek().is_some()
        && problems.all(|it| it.kind == ProblemKind::Malformed)
    {
        return Err(SyncError::of("none of the flags can be read", None));
    }
    data.upstream_etag = etag;
    Ok(Fetched::Changed(Arc::new(data)))
}

/// Follows deployments: each one is polled for as long as the process lives.
#[derive(Clone, Debug)]
pub struct FlagSync {
    wanted: mpsc::Sender<Arc<Deployment>>,
    followed: Arc<Mutex<HashSet<(usize, DeploymentKey)>>>,
}

impl FlagSync {
    /// A handle for the workers, and what [`run`] takes on the background thread.
    #[must_use]
    pub fn new(max_deployments: usize) -> (Self, mpsc::Receiver<Arc<Deployment>>) {
        let (wanted, receiver) = mpsc::channel(max_deployments.max(16));
        (
            Self {
                wanted,
                followed: Arc::default(),
            },
            receiver,
        )
    }

    /// Begins to poll a deployment, unless it is polled already.
    pub fn follow(&self, deployment: Arc<Deployment>) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (deployment.environment, deployment.key.clone());
        if !followed.contains(&name) && self.wanted.try_send(deployment).is_ok() {
            followed.insert(name);
        }
    }
}

/// Polls every deployment that comes through `wanted` until told to stop.
pub async fn run(
    mut wanted: mpsc::Receiver<Arc<Deployment>>,
    client: Arc<Client>,
    deployments: Arc<Deployments>,
    environments: Arc<[Arc<Environment>]>,
    settings: Arc<config::Config>,
    tasks: Tasks,
    stop: Stop,
) {
    loop {
        let deployment = tokio::select! {
            biased;
            () = stop.requested() => return,
            deployment = wanted.recv() => match deployment {
                Some(deployment) => deployment,
                None => return,
            },
        };
        let Some(environment) = environments.get(deployment.environment).cloned() else {
            continue;
        };
        if environment.origins.is_none() {
            continue;
        }
        let (client, deployments, settings) = (
            Arc::clone(&client),
            Arc::clone(&deployments),
            Arc::clone(&settings),
        );
        tasks.spawn("flags", move |stop| async move {
            poll(
                &client,
                &deployments,
                &environment,
                &deployment.key,
                &settings,
                &stop,
            )
            .await;
        });
    }
}

async fn poll(
    client: &Client,
    deployments: &Deployments,
    environment: &Environment,
    key: &DeploymentKey,
    settings: &config::Config,
    stop: &Stop,
) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let synced = sync_once(client, deployments, environment, key, &settings.upstream).await;
        report(environment, key, &synced, failures, began.elapsed());
        failures = if synced.is_ok() { 0 } else { failures + 1 };
        let deployment = deployments.get(environment.index, key);
        if let (Err(_), Some(deployment)) = (&synced, &deployment) {
            deployment.sync_failed();
        }
        let holds = deployment.as_ref().is_some_and(|it| it.flags().plain.is_some());
        let (interval, jitter) = (settings.sync.flags_interval, settings.sync.jitter);
        let pause = jittered(pause(interval, failures, holds), jitter);
        tokio::select! {
            () = stop.requested() => return,
            () = rest(pause, interval, deployment.as_deref()) => {}
        }
    }
}

/// Sleeps for `pause`. What of it is longer than `interval` ends when upstream answers again: after an outage
/// flags are not old for longer than they need be.
async fn rest(pause: Duration, interval: Duration, deployment: Option<&Deployment>) {
    let regular = pause.min(interval);
    tokio::time::sleep(regular).await;
    let longer = tokio::time::sleep(pause.saturating_sub(regular));
    match deployment {
        Some(deployment) if pause > regular => tokio::select! {
            () = longer => {}
            () = deployment.recovered() => {}
        },
        _ => longer.await,
    }
}

/// The pause before the next poll, after so many failures in a row.
fn pause(interval: Duration, failures: u32, holds: bool) -> Duration {
    let doubled = 1u32
        .checked_shl(failures.saturating_sub(1).min(16))
        .unwrap_or(u32::MAX);
    match (failures, holds) {
        (0, _) => interval,
        (_, false) => FIRST_PAUSE.min(interval).saturating_mul(doubled).min(interval),
        (_, true) => interval.saturating_mul(doubled).min(PAUSE_MAX.max(interval)),
    }
}

fn jittered(pause: Duration, share: f64) -> Duration {
    let mut random = [0u8; 4];
    // Without random numbers there is no jitter; the pause is right all the same.
    if getrandom::fill(&mut random).is_err() {
        return pause;
    }
    let unit = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
    pause.mul_f64(1.0 + share * (2.0 * unit - 1.0))
}

fn report(
    environment: &Environment,
    key: &DeploymentKey,
    synced: &Result<Synced, SyncError>,
    failures: u32,
    took: Duration,
) {
    let refresh = match synced {
        Ok(synced) if synced.changed => Refresh::Changed,
        Ok(_) => Refresh::Unchanged,
        Err(_) => Refresh::Failed,
    };
    environment.metrics.ended(SyncSource::Flags, refresh, took);
    match synced {
        Ok(synced) if synced.changed => {
            let flags = synced.deployment.flags();
            let Some(data) = flags.evaluation() else { return };
            tracing::info!(environment = &*environment.name, key = %key.hint(), flags = data.set.len(), remote = flags.remote.is_some(), "flags synced");
            for problem in data.set.problems() {
                tracing::warn!(environment = &*environment.name, flag = %problem.flag, "a flag cannot be evaluated here as upstream would: {}", problem.detail);
            }
        }
        Ok(_) => {
            if failures > 0 {
                tracing::info!(environment = &*environment.name, key = %key.hint(), "flags can be synced again");
            }
        }
        // Once per outage: the metrics count the rest.
        Err(error) if failures == 0 => {
            tracing::warn!(environment = &*environment.name, key = %key.hint(), "{error}");
        }
        Err(error) => tracing::debug!(environment = &*environment.name, key = %key.hint(), "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let interval = Duration::from_secs(30);
        for (failures, holds, wanted) in [
            (0, true, 30),
            (0, false, 30),
            (1, false, 1),
            (2, false, 2),
            (5, false, 16),
            (6, false, 30),
            (1, true, 30),
            (2, true, 60),
            (5, true, 300),
            (40, true, 300),
            (40, false, 30),
        ] {
            assert_eq!(
                pause(interval, failures, holds).as_secs(),
                wanted,
                "{failures} {holds}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_pause_ends_when_upstream_answers_again() {
        let seconds = Duration::from_secs;
        let key = DeploymentKey::new(b"k").unwrap();
        let deployment = Arc::new(Deployment::new(0, key, false));
        let rested = async |pause| {
            let began = tokio::time::Instant::now();
            rest(pause, seconds(30), Some(&deployment)).await;
            began.elapsed().as_secs()
        };
        assert_eq!(rested(seconds(120)).await, 120, "nothing is heard of upstream");
        deployment.upstream_answered();
        assert_eq!(rested(seconds(120)).await, 120, "no sync had failed");
        deployment.sync_failed();
        deployment.upstream_answered();
        assert_eq!(rested(seconds(120)).await, 30, "but never before its time");
        deployment.sync_failed();
        let answering = Arc::clone(&deployment);
        tokio::join!(async { assert_eq!(rested(seconds(120)).await, 50) }, async move {
            tokio::time::sleep(seconds(50)).await;
            answering.upstream_answered();
        });
        assert_eq!(rested(seconds(10)).await, 10);
    }

    #[test]
    fn jitter_stays_in_its_share() {
        for _ in 0..1000 {
            let pause = jittered(Duration::from_secs(10), 0.1).as_secs_f64();
            assert!((9.0..=11.0).contains(&pause), "{pause}");
        }
    }
}
