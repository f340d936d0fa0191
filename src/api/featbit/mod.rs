//! Standing in for a FeatBit evaluation server (FB 7): data for SDKs, streams, insights, health.
//!
//! [`Featbit`] is what the workers share; its methods answer one request each. The evaluate endpoint is a question
//! like Amplitude's and goes up the same ladder; it is not here.
//!
//! Invariants: data go only to secrets that are accepted, configured or covered by a bootstrap file, and never to
//! rejected ones; "do not know" is a 503 or close code 1011, never a 401 or 4003; no `ETag`, ever (FeatBit's Node SDK
//! drops its secret after one).

mod health;
mod insight;
mod latest;
pub mod question;
mod reply;
pub mod routes;
pub mod streaming;
#[cfg(test)]
mod tests;
mod unevaluable;

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Response};
use tokio::time::Instant;

use super::answer::AnswerBody;
use crate::evaluate::featbit::{DataSet, EnvironmentId, secret};
use crate::key::DeploymentKey;
use crate::metrics::Source;
use crate::store::featbit::{Environments, Held, standing};
use crate::store::{Deployments, Standing};
use crate::sync::featbit::FeatbitSync;
use crate::track::{InsightLane, Queue};

pub(super) use reply::without_secret;
pub use reply::{is_json, problem};
pub use streaming::{Opening, Streams, Sweep};
pub use unevaluable::Unevaluable;

/// FeatBit's side of the proxy, shared by all workers.
#[derive(Debug)]
pub struct Featbit {
    /// What is held, by configured environment and id.
    pub environments: Arc<Environments>,
    /// Standing of secrets.
    pub deployments: Arc<Deployments>,
    /// FeatBit's among the configured environments.
    pub homes: Vec<Home>,
    /// Keeps the data up to date.
    pub sync: FeatbitSync,
    /// Takes insights on.
    pub events: Arc<Queue<InsightLane>>,
    /// The streams that are served.
    pub streams: Streams,
    /// How long a request waits for data or for what upstream says of its secret.
    pub patience: Duration,
    /// Age of a streaming token, either way.
    pub token_age: Duration,
    /// A flag that cannot be evaluated makes the whole answer a 500, as on FeatBit's server.
    pub strict: bool,
    /// What was told of such flags.
    pub unevaluable: Unevaluable,
}

/// A configured environment of FeatBit.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its index.
    pub index: usize,
    /// Whether it has an upstream.
    pub has_upstream: bool,
    /// Whether unknown secrets may be tried on it.
    pub learns: bool,
}

/// What became of a request.
#[allow(clippy::large_enum_variant, reason = "it is taken apart where it was made")]
#[derive(Debug)]
pub enum Reply {
    /// An answer made here.
    Answer(Response<AnswerBody>, Source),
    /// Nothing is known here that upstream does not know better: it is to be relayed, to the configured environment with
    /// this index.
    Forward(usize),
}

/// A caller: its secret and the environment that the secret names.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The secret.
    pub key: DeploymentKey,
    /// FeatBit's id of the environment.
    pub id: EnvironmentId,
}

impl Caller {
    /// The caller of a request, by its only `Authorization` header, which is a bare secret with blanks around it
    /// at most. None is a 401.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next()?.to_str().ok()?.trim();
        match values.next() {
            None => Self::of_secret(value),
            Some(_) => None,
        }
    }

    /// The caller with this secret.
    #[must_use]
    pub fn of_secret(text: &str) -> Option<Self> {
        let id = secret::environment_of(text)?;
        let key = DeploymentKey::new(text.as_bytes())?;
        Some(Self { key, id })
    }
}

/// Whether a caller may have what is held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Claim {
    Good,
    Rejected,
    Unknown,
}

/// What there is for a caller.
enum Found {
    Data(Arc<DataSet>),
    Rejected,
    /// Neither data nor, in time, word of the secret.
    Nothing,
    /// Upstream is to be asked itself.
    Elsewhere,
}

impl Featbit {
    /// The configured environment of a caller: the one that knows its environment, else the only one that may learn
    /// it (design 5).
    #[must_use]
    pub fn home_of(&self, caller: &Caller) -> Option<&Home> {
        let mut all = self.homes.iter();
        if let Some(known) = all.find(|home| self.environments.get(home.index, caller.id).is_some()) {
            return Some(known);
        }
        let mut learning = self.homes.iter().filter(|home| home.learns);
        match (learning.next(), learning.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// The caller of a request and its configured environment.
    ///
    /// # Errors
    /// The code of the 401: there is no secret, or none that an environment takes.
    pub(super) fn caller_at_home(&self, headers: &HeaderMap) -> Result<(Caller, &Home), &'static str> {
        let caller = Caller::of(headers).ok_or("missing_environment_secret")?;
        let home = self.home_of(&caller).ok_or("unknown_environment_secret")?;
        Ok((caller, home))
    }

    /// What is held for a caller, followed from now on; none if there are as many environments as may be.
    fn held(&self, home: &Home, caller: &Caller) -> Option<Arc<Held>> {
        if !home.has_upstream {
            return self.environments.get(home.index, caller.id);
        }
        let (held, _) = self.environments.get_or_learn(home.index, caller.id)?;
        self.sync.follow(&held);
        Some(held)
    }

    fn claim(&self, held: &Held, caller: &Caller) -> Claim {
        match standing(&self.deployments, held.environment, &caller.key) {
            Standing::Revoked => Claim::Rejected,
            Standing::Accepted => Claim::Good,
            Standing::Unknown => {
                let deployment = self.deployments.get(held.environment, &caller.key);
                let configured = deployment.is_some_and(|deployment| deployment.configured);
                if configured || held.has_bootstrap() {
                    Claim::Good
                } else {
                    Claim::Unknown
                }
            }
        }
    }

    /// The same for somebody who comes anew: what upstream rejected is asked for again after a while, or a secret that
    /// was restored would stay out of service where nobody evaluates.
    fn claim_anew(&self, held: &Held, caller: &Caller) -> Claim {
        let rejections = self.deployments.rejections();
        let now = std::time::Instant::now();
        match self.claim(held, caller) {
            Claim::Rejected if rejections.answer(held.environment, &caller.key, now).is_none() => {
                Claim::Unknown
            }
            claim => claim,
        }
    }

    /// The data for a caller, waited for if need be.
    async fn find(&self, home: &Home, caller: &Caller) -> Found {
        let Some(held) = self.held(home, caller) else {
            return if home.has_upstream {
                Found::Elsewhere
            } else {
                Found::Nothing
            };
        };
        let joined = held.join(&caller.key);
        let give_up_at = Instant::now() + self.patience;
        let (mut changes, mut learning) = (held.changes(), held.learning());
        let mut asked = false;
        loop {
            let (claim, data) = (self.claim_anew(&held, caller), held.data());
            match (claim, data) {
                (Claim::Good, Some(data)) => return Found::Data(data),
                (Claim::Rejected, _) => return Found::Rejected,
                // An environment without anything proves no secret: upstream may know better.
                (Claim::Unknown, Some(data)) if data.is_empty() => return Found::Elsewhere,
                _ if !home.has_upstream || held.is_failing() => return Found::Nothing,
                _ => {}
            }
            let Some(secret) = &joined else {
                return Found::Elsewhere;
            };
            if !std::mem::replace(&mut asked, true) {
                held.ask(secret, None);
            }
            let waited = tokio::time::timeout_at(give_up_at, async {
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = learning.changed() => {}
                }
            });
            if waited.await.is_err() {
                return Found::Nothing;
            }
        }
    }
}
