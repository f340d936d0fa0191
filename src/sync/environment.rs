//! An environment at run time: where its requests go and what stands in for them.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use crate::config::{self, Bases, Evaluation};
use crate::metrics::{Operation, SyncMetrics};
use crate::store::{Deployment, FlagData};
use crate::upstream::{Client, Gate, Limits, Origin, Shared, UpstreamError, UpstreamSetupError};

/// One configured environment.
#[derive(Debug)]
pub struct Environment {
    /// Position in the configuration.
    pub index: usize,
    /// Its name.
    pub name: Arc<str>,
    /// Where its requests go; `None` = answers come from `bootstrap` alone.
    pub origins: Option<Origins>,
    /// When answers are computed here.
    pub evaluation: Evaluation,
    /// Whether an unknown key may be tried on it.
    pub learn_keys: bool,
    /// Flags to start from, for every key that upstream has not rejected.
    pub bootstrap: Option<Arc<FlagData>>,
    /// Its sync metrics.
    pub metrics: Arc<SyncMetrics>,
}

/// The upstream of an environment.
#[derive(Debug)]
pub struct Origins {
    /// vardata, `/v1/*`, `/web/*`
    pub eval: Arc<Origin>,
    /// `/sdk/v2/flags`
    pub flags: Arc<Origin>,
    /// `/sdk/stream/*`
    pub stream: Arc<Origin>,
    /// `/sdk/v1/cohort/*`
    pub cohort: Arc<Origin>,
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
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, UpstreamError> {
        let again = (!Arc::ptr_eq(&self.flags, &self.eval)).then(|| request.clone());
        let first = client
            .fetch(&self.flags, gate, Operation::Flags, request, limits)
            .await;
        let elsewhere = match &first {
            Ok(response) => response.status() == StatusCode::NOT_FOUND,
            Err(error) => error.is_unreachable(),
        };
        match again.filter(|_| elsewhere) {
            Some(request) => {
                client
                    .fetch(&self.eval, gate, Operation::Flags, request, limits)
                    .await
            }
            None => first,
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
        let origins = match settings.urls.as_ref().and_then(Bases::amplitude) {
            Some(urls) => Some(Origins {
                eval: shared.origin(&urls.eval)?,
                flags: shared.origin(&urls.flags)?,
                stream: shared.origin(&urls.stream)?,
                cohort: shared.origin(&urls.cohort)?,
                gate: Gate::new(&settings.name, upstream),
                stray_gate: Gate::new(&settings.name, upstream),
            }),
            None => None,
        };
        Ok(Self {
            index,
            name: Arc::from(settings.name.as_str()),
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
