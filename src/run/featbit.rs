//! FeatBit's part of the wiring: what is held from files, what is followed, where insights go.

use std::sync::Arc;

use crate::api::featbit::{Featbit, Home, Streams, Unevaluable};
use crate::config::{Backend, Config};
use crate::evaluate::featbit::{DataSet, DataSync, secret};
use crate::key::DeploymentKey;
use crate::metrics::{EventKind, Metrics};
use crate::store::Deployments;
use crate::store::featbit::{Environments, Held};
use crate::sync::Environment;
use crate::sync::featbit::{FeatbitSync, Settings};
use crate::track::{InsightLane, Insights, Queue, QueueLimits};

use super::StartError;

/// Environments of FeatBit that may be learnt from traffic, beside configured ones.
const LEARNT_MAX: usize = 64;

/// Age of a streaming token, either way (FB 2.2).
const TOKEN_AGE: std::time::Duration = std::time::Duration::from_secs(30);

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
