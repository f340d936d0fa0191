//! The answer ladder (design 5): one question, the best source there is.
//!
//! Fresh stored response; stale one while it is refreshed; upstream; and when upstream fails or is late, a
//! stand-in: stored response of the same flags, local evaluation, an older stored response. The upstream request goes on
//! in the background whoever leaves, and fills the cache; each waiting request has its own clocks.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::time::timeout_at;

use crate::cache::flight::Waiter;
use crate::cache::{self, Flight, Freshness, Joined, Marks, Stored};
use crate::config::Evaluation;
use crate::key::{DeploymentKey, Question};
use crate::metrics::{self, CacheName, CacheResult, Engine, EvaluatedFlags, Route, Source, Trigger};
use crate::store::{Definitions, Deployment};
use crate::sync::Environment;
use crate::task::{self, Lasting};

use super::Worker;
use super::answer::{Answer, Relayed};
use super::error::RequestError;
use super::vendor;

/// How often a request that waits past its answer deadline looks for a stand-in again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One question and all that is known about who asks.
#[derive(Debug)]
pub struct Climb {
    /// The worker it came to.
    pub worker: Rc<Worker>,
    /// Whose upstream.
    pub environment: Arc<Environment>,
    /// Whose flags.
    pub deployment_key: DeploymentKey,
    /// Its deployment, if it is known.
    pub deployment: Option<Arc<Deployment>>,
    /// The route it came by.
    pub route: Route,
    /// What is asked.
    pub question: Question,
}

/// What a fetch brought.
#[derive(Clone, Debug)]
pub enum Landed {
    /// An answer. `kept`: it is in the cache.
    Stored {
        /// The response.
        entry: Arc<Stored>,
        /// Whether the store took it.
        kept: bool,
    },
    /// A verdict, or an answer that may not be stored.
    Relayed(Arc<Relayed>),
    /// Upstream rejected the key after the fetch began.
    Revoked,
    /// No answer, or none that can be trusted.
    Failed {
        /// Upstream's status, if it had one.
        status: Option<StatusCode>,
    },
}

/// An answer of upstream that may be stored.
#[derive(Debug)]
pub struct Keeping {
    /// Body.
    pub body: Bytes,
    /// Content type.
    pub content_type: HeaderValue,
    /// Strong validator; flags only.
    pub etag: Option<HeaderValue>,
    /// When upstream was asked for it.
    pub asked_at: Instant,
    /// The deployment's epoch at that time.
    pub epoch: u64,
    /// Whose flags it shows.
    pub deployment: Arc<Deployment>,
    /// Definitions of the flags it shows, where they were known.
    pub definitions: Option<Arc<Definitions>>,
}

/// A request's place in a flight.
struct Place {
    waiter: Waiter<Landed>,
    source: Source,
    /// The fetch, if it makes it for all who wait: a task for each miss would cost more. No leaving ends it; its own
    /// deadline does.
    fetching: Option<Lasting>,
}

impl Place {
    /// What the flight brought; `None` when it died. May be called again after it was cancelled.
    async fn landed(&mut self) -> Option<Landed> {
        let mut landed = pin!(self.waiter.landed());
        poll_fn(|context| {
            // Nobody need be woken for what is fetched here.
            if let Some(fetching) = &mut self.fetching
                && Pin::new(fetching).poll(context).is_pending()
            {
                return Poll::Pending;
            }
            landed.as_mut().poll(context)
        })
        .await
    }
}

/// How a question was answered, and by which entry, for the memo.
#[derive(Debug)]
pub struct Climbed {
    /// The answer.
    pub answer: Answer,
    /// The entry that the same request will find again, if the memo should know.
    pub entry: Option<Arc<Stored>>,
}

impl From<Answer> for Climbed {
    fn from(answer: Answer) -> Self {
        Self { answer, entry: None }
    }
}

impl Climb {
    /// Answers the question.
    ///
    /// # Errors
    /// [`RequestError::NoAnswer`] when every rung failed, [`RequestError::RevokedKey`] when upstream rejected
    /// the key meanwhile.
    pub async fn answer(self: Rc<Self>) -> Result<Climbed, RequestError> {
        let began = tokio::time::Instant::now();
        let mut now = began.into_std();
        if self.computes_first() {
            if let Some(climbed) = self.answer_locally(began).await? {
                return Ok(climbed);
            }
            now = Instant::now();
        }
        let n_ended = self.worker.proxy.flights.n_ended(self.question.key);
        let stored = self.worker.proxy.cache.get(self.question.key);
        if let Some(stored) = stored
            .as_ref()
            .filter(|_| !self.question.bypass && self.may_answer())
        {
            match stored.freshness(&self.worker.proxy.lifetimes, now) {
                Freshness::Fresh => {
                    self.count(CacheResult::Hit);
                    return Ok(self.hit(stored, now));
                }
                Freshness::WhileRevalidate => {
                    self.count(CacheResult::Stale);
                    self.refresh(stored, now);
                    return Ok(self.stale(stored, Source::Stale, now));
                }
                Freshness::OnError | Freshness::LastResort | Freshness::Expired => {}
            }
        }
        if let Some(answer) = self.rejected(now) {
            return Ok(answer.into());
        }
        self.ask(stored.as_ref(), n_ended, began).await
    }

    /// Asks upstream and waits: until the answer deadline if there is a stand-in by then, else to the last.
    async fn ask(
        self: &Rc<Self>,
        stored: Option<&Arc<Stored>>,
        n_ended: u64,
        began: tokio::time::Instant,
    ) -> Result<Climbed, RequestError> {
        let proxy = &self.worker.proxy;
        let last = began + proxy.total_deadline;
        let mut next = began + proxy.answer_deadline.min(proxy.total_deadline);
        let mut place = self.join(n_ended);
        self.count(match &place {
            Err(_) => CacheResult::Hit,
            Ok(_) if self.question.bypass => CacheResult::Bypass,
            Ok(place) if place.fetching.is_none() => CacheResult::Coalesced,
            Ok(_) => CacheResult::Miss,
        });
        let mut has_died = false;
        loop {
            let flying = match &mut place {
                Ok(flying) => flying,
                Err(stored) => return Ok(self.hit(stored, Instant::now())),
            };
            match timeout_at(next, flying.landed()).await {
                Ok(Some(landed)) => return self.land(landed, flying.source, stored),
                // It died with the worker that ran it, which may have drained before this one. Once is bad luck.
                Ok(None) if !has_died => {
                    has_died = true;
                    place = self.join(n_ended);
                }
                Ok(None) => return self.stand_in(stored, None).ok_or(RequestError::NoAnswer),
                Err(_) => {
                    if let Some(answer) = self.stand_in(stored, None) {
                        return Ok(answer);
                    }
                    if next >= last {
                        return Err(RequestError::NoAnswer);
                    }
                    next = (tokio::time::Instant::now() + LOOK_AGAIN).min(last);
                }
            }
        }
    }

    /// A place in the fetch of this question; begins it if there is none. `Err` with the entry, if a fetch
    /// has just ended between the look into the cache and now: since `n_ended` was read.
    fn join(self: &Rc<Self>, n_ended: u64) -> Result<Place, Arc<Stored>> {
        let proxy = &self.worker.proxy;
        if self.question.bypass {
            let (flight, waiter) = Flight::alone();
            return Ok(self.lead(flight, waiter));
        }
        match proxy.flights.join((self.question.key, self.epoch())) {
            Joined::Waits(waiter) => Ok(Place {
                waiter,
                source: Source::Coalesced,
                fetching: None,
            }),
            Joined::Leads(flight, waiter) => {
                if proxy.flights.n_ended(self.question.key) != n_ended
                    && let Some(stored) = proxy.cache.get(self.question.key)
                    && stored.freshness(&proxy.lifetimes, Instant::now()) == Freshness::Fresh
                    && self.may_answer()
                {
                    return Err(stored);
                }
                Ok(self.lead(flight, waiter))
            }
        }
    }

    /// Fetches in the background, unless somebody does already or has just failed to.
    fn refresh(self: &Rc<Self>, stored: &Arc<Stored>, now: Instant) {
        if !stored.may_refresh(now) {
            return;
        }
        if let Joined::Leads(flight, _) = self.worker.proxy.flights.join((self.question.key, self.epoch())) {
            let (climb, stored) = (Rc::clone(self), Arc::clone(stored));
            task::detach(async move {
                let landed = vendor::fetch(&climb).await;
                let after = match &landed {
                    Landed::Stored { entry, .. } => Some(&**entry),
                    _ => None,
                };
                if after.is_none() {
                    stored.refresh_failed(Instant::now());
                }
                climb.worker.proxy.cache.refreshed(&stored, after);
                flight.land(landed);
            });
        }
    }

    /// The deployment's epoch; that of a key which is not known yet is the one it will begin with.
    fn epoch(&self) -> u64 {
        self.known().map_or(0, |deployment| deployment.epoch())
    }

    /// The place of whoever fetches.
    fn lead(self: &Rc<Self>, flight: Flight<Landed>, waiter: Waiter<Landed>) -> Place {
        let climb = Rc::clone(self);
        Place {
            waiter,
            source: Source::Miss,
            fetching: Some(Lasting::new(async move {
                flight.land(vendor::fetch(&climb).await);
            })),
        }
    }

    /// What upstream brought, for this request.
    fn land(
        &self,
        landed: Landed,
        source: Source,
        stored: Option<&Arc<Stored>>,
    ) -> Result<Climbed, RequestError> {
        match landed {
            Landed::Stored { entry, kept } => {
                let answer = Answer::fetched(&entry, source, kept);
                // What is cheap to read takes a place in the memo only when it is asked again.
                let is_learnt = kept && !self.question.bypass && self.question.is_costly();
                Ok(Climbed {
                    answer,
                    entry: Some(entry).filter(|_| is_learnt),
                })
            }
            Landed::Relayed(relayed) => Ok(Answer::relayed(&relayed, source).into()),
            Landed::Revoked => Err(RequestError::RevokedKey),
            Landed::Failed { status } => self.stand_in(stored, status).ok_or(RequestError::NoAnswer),
        }
    }

    /// What is answered in upstream's place, if there is something and this key may have it.
    fn stand_in(&self, stored: Option<&Arc<Stored>>, upstream: Option<StatusCode>) -> Option<Climbed> {
        if !self.may_answer() {
            return None;
        }
        let now = Instant::now();
        let fetched_meanwhile = self.worker.proxy.cache.get(self.question.key);
        let stored = fetched_meanwhile.as_ref().or(stored);
        let freshness = stored.map(|stored| stored.freshness(&self.worker.proxy.lifetimes, now));
        if vendor::computes_exactly(self)
            && self.may_compute()
            && let Some(answer) = vendor::local(self, None, upstream)
        {
            return Some(answer.into());
        }
        if let (Some(stored), Some(Freshness::Fresh | Freshness::WhileRevalidate | Freshness::OnError)) =
            (stored, freshness)
        {
            return Some(self.stale(stored, Source::StaleError, now));
        }
        let kept = stored.filter(|_| freshness == Some(Freshness::LastResort));
        if self.may_compute()
            && let Some(answer) = vendor::local(self, kept, upstream)
        {
            return Some(answer.into());
        }
        kept.map(|stored| self.stale(stored, Source::StaleError, now))
    }

    /// Whether answers may be computed here. Handing out synced flags computes nothing.
    fn may_compute(&self) -> bool {
        self.environment.evaluation != Evaluation::Off || self.question.asks.is_for_flags()
    }

    /// `evaluation: local` and environments without upstream: computed here, first and always. Only a key
    /// that nothing is known of waits for one sync, which is also what proves it. `None`: a set of flags
    /// that is not synced, so that only upstream has it.
    async fn answer_locally(
        self: &Rc<Self>,
        began: tokio::time::Instant,
    ) -> Result<Option<Climbed>, RequestError> {
        let computed = self.computed();
        if self.environment.origins.is_none() {
            return computed.map(Some).ok_or(RequestError::NoAnswer);
        }
        // No room to learn this key and its flags: they are not synced.
        let is_strange = self.known().is_none() && self.worker.proxy.deployments.is_full();
        if computed.is_some() {
            if self.known().is_none() && !is_strange {
                // The flags file answers meanwhile; what is synced will come before it.
                let _ = self.prove();
            }
            return Ok(computed);
        }
        if let Some(answer) = self.rejected(Instant::now()) {
            return Ok(Some(answer.into()));
        }
        if is_strange {
            return Ok(None);
        }
        if vendor::awaits_sync(self) {
            let last = began + self.worker.proxy.total_deadline;
            match timeout_at(last, self.prove().landed()).await {
                Ok(Some(Landed::Relayed(relayed))) => {
                    return Ok(Some(Answer::relayed(&relayed, Source::Passthrough).into()));
                }
                Ok(Some(Landed::Revoked)) => return Err(RequestError::RevokedKey),
                _ => {}
            }
            if let Some(climbed) = self.computed() {
                return Ok(Some(climbed));
            }
        }
        if self.question.asks.is_for_flags() {
            Ok(None)
        } else {
            Err(RequestError::NoAnswer)
        }
    }

    /// What can be computed here without looking at what is stored, if this key may have it.
    fn computed(&self) -> Option<Climbed> {
        let answer = self
            .may_answer()
            .then(|| vendor::local(self, None, None))
            .flatten();
        answer.map(Climbed::from)
    }

    /// Syncs the flags of this key once in the background, unless somebody does already.
    fn prove(self: &Rc<Self>) -> Waiter<Landed> {
        let proxy = &self.worker.proxy;
        let key = proxy.sync_key(&self.environment, &self.deployment_key);
        match proxy.flights.join((key, 0)) {
            Joined::Waits(waiter) => waiter,
            Joined::Leads(flight, waiter) => {
                let climb = Rc::clone(self);
                task::detach(async move { flight.land(vendor::prove(&climb).await) });
                waiter
            }
        }
    }

    /// Whether stored and local answers may go to this key (design 5, "Keys").
    #[must_use]
    pub fn may_answer(&self) -> bool {
        match self.known() {
            Some(deployment) if deployment.standing() != crate::store::Standing::Unknown => {
                deployment.in_service()
            }
            Some(deployment) if deployment.configured => true,
            _ => {
                let rejections = self.worker.proxy.deployments.rejections();
                vendor::is_covered(self)
                    && rejections
                        .of(self.environment.index, &self.deployment_key)
                        .is_none()
            }
        }
    }

    /// The deployment, also if it was learnt after this request came.
    #[must_use]
    pub fn known(&self) -> Option<Arc<Deployment>> {
        let known = self.deployment.clone();
        known.or_else(|| {
            self.worker
                .proxy
                .deployments
                .get(self.environment.index, &self.deployment_key)
        })
    }

    /// The 401 that upstream gave a moment ago.
    fn rejected(&self, now: Instant) -> Option<Answer> {
        let proxy = &self.worker.proxy;
        let rejection =
            proxy
                .deployments
                .rejections()
                .answer(self.environment.index, &self.deployment_key, now)?;
        self.worker.metrics.cache(CacheName::Negative, CacheResult::Hit);
        let relayed = Relayed {
            status: StatusCode::UNAUTHORIZED,
            content_type: Some(rejection.content_type.clone()),
            body: rejection.body.clone(),
        };
        Some(Answer::rejected(&relayed))
    }

    /// Stores an answer of upstream.
    pub(super) fn keep(&self, answer: Keeping) -> Landed {
        let proxy = &self.worker.proxy;
        answer.deployment.upstream_answered();
        let stored = Stored {
            // Without what a reader may have had room for beyond it.
            body: Vec::from(answer.body).into_boxed_slice(),
            content_type: answer.content_type.into(),
            etag: answer.etag.map(Box::new),
            asked_at: answer.asked_at,
            epoch: answer.epoch,
            deployment: answer.deployment,
            route: self.route,
            definitions: answer.definitions,
            marks: Marks::default(),
            held: None,
        };
        let (entry, kept) = proxy.cache.put(self.question.key, stored);
        Landed::Stored { entry, kept }
    }

    /// Counts an answer that was computed here since `began`, and makes its span.
    pub(super) fn computed_by(
        &self,
        engine: Engine,
        result: metrics::Evaluation,
        began: Instant,
        flags: EvaluatedFlags,
    ) {
        let trigger = if self.computes_first() {
            Trigger::LocalMode
        } else {
            Trigger::Outage
        };
        let metrics = &self.worker.metrics;
        metrics.evaluated(engine, trigger, result, began.elapsed(), flags);
        if let Some(tracer) = &self.worker.proxy.tracer
            && let Some(span) = tracer.inside(&self.question.forward.headers, began)
        {
            span.evaluated(&self.environment.name);
        }
    }

    /// Whether answers are computed here before anybody is asked.
    fn computes_first(&self) -> bool {
        self.environment.evaluation == Evaluation::Local || self.environment.origins.is_none()
    }

    /// A fresh stored response.
    fn hit(&self, stored: &Arc<Stored>, now: Instant) -> Climbed {
        Climbed {
            answer: Answer::stored(stored, &self.worker.proxy.lifetimes, Source::Hit, now),
            entry: Some(Arc::clone(stored)),
        }
    }

    fn stale(&self, stored: &Arc<Stored>, source: Source, now: Instant) -> Climbed {
        let lifetimes = &self.worker.proxy.lifetimes;
        let past = stored.past(lifetimes, now);
        self.worker.metrics.stale_used(cache::name_of(self.route), past);
        Answer::stored(stored, lifetimes, source, now).into()
    }

    fn count(&self, result: CacheResult) {
        self.worker.metrics.cache(cache::name_of(self.route), result);
    }
}
