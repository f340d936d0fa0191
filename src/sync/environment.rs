//! An environment at run time: where its requests go and what stands in for them.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::config::{self, Backend, Bases, Evaluation};
use crate::metrics::{Operation, SyncMetrics};
use crate::store::{Deployment, FlagData};
use crate::upstream::{Ask, Client, Gate, Limits, Origin, Shared, UpstreamError, UpstreamSetupError};

/// One configured environment.
#[derive(Debug)]
pub struct Environment {
    /// Position in the configuration.
    pub index: usize,
    /// Its name.
    pub name: Arc<str>,
    /// Whose protocol its upstream speaks.
    pub backend: Backend,
    /// Where its requests go; `None` = answers come from `bootstrap` alone.
    pub origins: Option<Origins>,
    /// When answers are computed here.
    pub evaluation: Evaluation,
    /// Whether an unknown key may be tried on it.
    pub learn_keys: bool,
    /// Amplitude's flags to start from, for every key that upstream has not rejected. FeatBit's data are held by
    /// [`crate::store::featbit`].
    pub bootstrap: Option<Arc<FlagData>>,
    /// Its sync metrics.
    pub metrics: Arc<SyncMetrics>,
}

/// The upstream of an environment. Bases that are equal are one origin.
#[derive(Debug)]
pub struct Origins {
    /// Where questions go, and whatever has no host of its own.
    pub eval: Arc<Origin>,
    /// Amplitude's `/sdk/v2/flags`; for FeatBit the same as `eval`.
    pub flags: Arc<Origin>,
    /// Amplitude's `/sdk/stream/*`, FeatBit's `/streaming`.
    pub stream: Arc<Origin>,
    /// Amplitude's `/sdk/v1/cohort/*`; for FeatBit the same as `eval`.
    pub cohort: Arc<Origin>,
    /// FeatBit's insights. Amplitude's assignments are not sent yet: the same as `eval`.
    pub events: Arc<Origin>,
    /// Requests under way, retry budget and breakers for readable questions and syncs.
    pub gate: Arc<Gate>,
    /// The same for everything that could not be read here: what a client breaks must not close the other.
    pub stray_gate: Arc<Gate>,
}

impl Origins {
    /// Fetches flags from the flags host; where that cannot be reached or does not know the path, the
    /// evaluation host has them too (API 11).
    ///
    /// # Errors
    /// When neither gives an answer.
    pub async fn fetch_flags(
        &self,
        client: &Client,
        gate: &Arc<Gate>,
        ask: &Ask<'_>,
        limits: Limits,
    ) -> Result<Response<Bytes>, UpstreamError> {
        let first = client
            .fetch(&self.flags, gate, Operation::Flags, ask, limits)
            .await;
        if Arc::ptr_eq(&self.flags, &self.eval) {
            return first;
        }
        let elsewhere = match &first {
            Ok(response) => response.status() == StatusCode::NOT_FOUND,
            Err(error) => error.is_unreachable(),
        };
        if elsewhere {
            let again = client.fetch(&self.eval, gate, Operation::Flags, ask, limits);
            Box::pin(again).await
        } else {
            first
        }
    }
}

impl Environment {
    /// Connects a configured environment with the upstream side.
    ///
    /// # Errors
    /// When one of its URLs cannot be used.
    pub fn new(
        index: usize,
        settings: &config::Environment,
        upstream: &config::Upstream,
        shared: &Arc<Shared>,
        bootstrap: Option<Arc<FlagData>>,
        metrics: Arc<SyncMetrics>,
    ) -> Result<Self, UpstreamSetupError> {
        let hosts = match &settings.urls {
            Some(Bases::Amplitude(urls)) => {
                Some([&urls.eval, &urls.flags, &urls.stream, &urls.cohort, &urls.eval])
            }
            Some(Bases::Featbit(urls)) => Some([
                &urls.evaluate,
                &urls.evaluate,
                &urls.stream,
                &urls.evaluate,
                &urls.event,
            ]),
            None => None,
        };
        let origins = match hosts {
            Some([eval, flags, stream, cohort, events]) => Some(Origins {
                eval: shared.origin(eval)?,
                flags: shared.origin(flags)?,
                stream: shared.origin(stream)?,
                cohort: shared.origin(cohort)?,
                events: shared.origin(events)?,
                gate: Gate::new(&settings.name, upstream),
                stray_gate: Gate::new(&settings.name, upstream),
            }),
            None => None,
        };
        Ok(Self {
            index,
            name: Arc::from(settings.name.as_str()),
            backend: settings.backend,
            origins,
            evaluation: settings.evaluation,
            learn_keys: settings.learn_keys,
            bootstrap,
            metrics,
        })
    }

    /// The set to evaluate a deployment's questions with: synced before bootstrap.
    #[must_use]
    pub fn evaluation_set(&self, deployment: Option<&Deployment>) -> Option<Arc<FlagData>> {
        let synced = deployment.and_then(|deployment| deployment.flags().evaluation().cloned());
        synced.or_else(|| self.bootstrap.clone())
    }
}
