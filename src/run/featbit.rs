//! FeatBit's part of the wiring: what is held from files, what is followed, where insights go.

use std::sync::Arc;
use std::time::Duration;

use crate::api::Proxy;
use crate::api::featbit::{Featbit, Home, Streams, Unevaluable};
use crate::config::{Backend, Config};
use crate::evaluate::featbit::{DataSet, DataSync, secret};
use crate::key::DeploymentKey;
use crate::metrics::{EventKind, Metrics};
use crate::server::admin::status::{DeploymentStatus, Origin as FlagsOrigin};
use crate::store::Deployments;
use crate::store::featbit::{Environments, Held, Secret};
use crate::sync::Environment;
use crate::sync::featbit::{FeatbitSync, Settings};
use crate::track::{InsightLane, Insights, Queue, QueueLimits};

use super::StartError;
use super::subject::fingerprint;

/// Environments of FeatBit that may be learnt from traffic, beside configured ones.
const LEARNT_MAX: usize = 64;

/// Age of a streaming token, either way (FB 2.2).
const TOKEN_AGE: Duration = Duration::from_secs(30);

/// What FeatBit needs before there are threads.
pub(super) struct Built {
    pub(super) featbit: Arc<Featbit>,
    /// Environments to follow.
    pub(super) wanted: tokio::sync::mpsc::Receiver<Arc<Held>>,
    pub(super) insights: Insights,
}

/// Reads the data of a bootstrap file.
///
/// # Errors
/// What is wrong with it, as a sentence's end.
pub(super) fn bootstrap(text: &[u8]) -> Result<DataSet, String> {
    let message = DataSync::parse(text).map_err(|error| error.to_string())?;
    for rejected in message.rejected() {
        tracing::warn!("an item of a flags file is left out: {rejected:?}");
    }
    let set = DataSet::empty().apply(&message).set;
    if set.environment().is_none() {
        return Err("no flag in it names its environment (envId)".to_owned());
    }
    Ok(set)
}

/// Puts FeatBit's side together. `files`: data from bootstrap files, by index of the environment.
pub(super) fn build(
    config: &Config,
    environments: &Arc<[Arc<Environment>]>,
    deployments: &Arc<Deployments>,
    files: Vec<(usize, DataSet)>,
    metrics: &Metrics,
) -> Result<Built, StartError> {
    let known = files.into_iter().filter_map(|(index, set)| {
        let id = set.environment()?;
        Some(Held::new(index, id, Some(Arc::new(set))))
    });
    let held = Arc::new(Environments::new(known, config.environments.len() + LEARNT_MAX));
    let (sync, wanted) = FeatbitSync::new(config.environments.len() + LEARNT_MAX);
    let of_backend = || {
        let environments = environments.iter();
        environments.filter(|it| it.backend == Backend::Featbit)
    };
    let homes: Vec<Home> = of_backend()
        .map(|environment| Home {
            index: environment.index,
            has_upstream: environment.origins.is_some(),
            learns: environment.learn_keys,
        })
        .collect();
    for environment in of_backend() {
        let keys = config
            .environments
            .get(environment.index)
            .map_or(&[][..], |it| &it.keys);
        for key in keys {
            let (Some(id), Some(key)) = (
                secret::environment_of(key.expose()),
                DeploymentKey::new(key.expose().as_bytes()),
            ) else {
                continue;
            };
            if let Some((held, _)) = held.get_or_learn(environment.index, id) {
                let _ = held.join(&key);
                if environment.origins.is_some() {
                    sync.follow(&held);
                }
            }
        }
    }
    let destinations = environments
        .iter()
        .map(|environment| {
            let origins = environment.origins.as_ref();
            origins
                .filter(|_| environment.backend == Backend::Featbit)
                .map(|origins| (Arc::clone(&origins.events), Arc::clone(&origins.stray_gate)))
        })
        .collect();
    let events: Arc<Queue<InsightLane>> = Arc::new(Queue::new(
        QueueLimits::default(),
        metrics.events(EventKind::Insight),
    ));
    let featbit = Arc::new(Featbit {
        environments: held,
        deployments: Arc::clone(deployments),
        homes,
        sync,
        events,
        streams: Streams::new(config.listen.max_connections, metrics.streams()),
        patience: config.upstream.total_deadline,
        token_age: TOKEN_AGE,
        strict: config.featbit.strict,
        unevaluable: Unevaluable::default(),
    });
    Ok(Built {
        featbit,
        wanted,
        insights: Insights { destinations },
    })
}

/// Clocks of syncing, as configured.
pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        poll_interval: config.sync.featbit_poll_interval,
        resync_interval: config.sync.featbit_resync_interval,
        streaming: config.sync.streaming,
        jitter: config.sync.jitter,
        ..Settings::default()
    }
}

/// Whether an environment has what it needs to answer by itself, for `/readyz`.
pub(super) fn has_data(featbit: &Featbit, environment: &Environment) -> (bool, &'static str) {
    let held: Vec<_> = of(featbit, environment);
    if held.iter().any(|held| held.synced().is_some()) {
        (true, "data synced")
    } else if held.iter().any(|held| held.has_bootstrap()) {
        (true, "data from file")
    } else if held.iter().all(|held| !is_configured(featbit, held)) {
        (true, "secrets are learnt from traffic")
    } else {
        (false, "waiting for the first sync")
    }
}

fn of(featbit: &Featbit, environment: &Environment) -> Vec<Arc<Held>> {
    let mut held = featbit.environments.all();
    held.retain(|held| held.environment == environment.index);
    held.sort_by_key(|held| held.id);
    held
}

fn is_configured(featbit: &Featbit, held: &Held) -> bool {
    let of_secret = |secret: &Arc<Secret>| featbit.deployments.get(held.environment, &secret.key);
    let secrets = held.all_secrets();
    let mut known = secrets.iter().filter_map(of_secret);
    known.any(|deployment| deployment.configured)
}

/// Whether data that somebody may have was not found current for longer than `limit`.
pub(super) fn is_stale(proxy: &Proxy, held: &Held, running: Duration, limit: Duration) -> bool {
    let has_upstream = proxy
        .environments
        .get(held.environment)
        .is_some_and(|environment| environment.origins.is_some());
    let synced = held
        .last_sync()
        .map_or(running, |at| at.elapsed().unwrap_or_default());
    let in_service = |secret: &Arc<Secret>| {
        let deployment = proxy.deployments.get(held.environment, &secret.key);
        deployment.is_some_and(|deployment| deployment.in_service())
    };
    has_upstream && synced > limit && held.all_secrets().iter().any(in_service)
}

/// What `/status` says of an environment: a row for each secret, and one for data from a file that nobody has
/// asked for yet.
pub(super) fn deployments(proxy: &Proxy, environment: &Environment) -> Vec<DeploymentStatus> {
    let mut rows = Vec::new();
    for held in of(&proxy.featbit, environment) {
        let secrets = held.all_secrets();
        let mut keys: Vec<String> = secrets
            .iter()
            .map(|secret| fingerprint(secret.key.expose()))
            .collect();
        if keys.is_empty() {
            keys.push("*".to_owned());
        }
        let data = held.data();
        let bad = |data: &Arc<DataSet>| {
            let problems = data.problems().iter();
            problems
                .map(|problem| (problem.flag.to_string(), problem.why.clone()))
                .collect()
        };
        for key_fingerprint in keys {
            rows.push(DeploymentStatus {
                key_fingerprint,
                flags: data.as_ref().map_or(0, |data| data.flags().len()),
                segments: data.as_ref().map_or(0, |data| data.segments().len()),
                origin: match (&data, held.synced().is_some()) {
                    (None, _) => FlagsOrigin::None,
                    (Some(_), true) => FlagsOrigin::Upstream,
                    (Some(_), false) => FlagsOrigin::Bootstrap,
                },
                last_sync: held.last_sync(),
                last_change: held.last_change(),
                bad_flags: data.as_ref().map_or_else(Vec::new, bad),
            });
        }
    }
    rows
}
