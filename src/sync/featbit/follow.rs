//! Following one environment: which secret streams, what happens between two streams, what becomes of messages.

mod polling;
mod secrets;
mod streaming;

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Settings;
use super::link::Link;
use crate::evaluate::featbit::{DataSet, DataSync, Extent};
use crate::key::DeploymentKey;
use crate::metrics::{StreamKind, SyncMetrics};
use crate::store::featbit::{Admission, Held, Secret, standing};
use crate::store::{Deployments, Standing};
use crate::task::Stop;

/// How often a follower without any usable secret looks again.
const IDLE_LOOK: Duration = Duration::from_secs(60);

/// Follows one environment.
pub(super) struct Follower<L> {
    held: Arc<Held>,
    link: L,
    deployments: Arc<Deployments>,
    metrics: Arc<SyncMetrics>,
    /// Name of the configured environment, for log lines.
    name: Arc<str>,
    settings: Settings,
    /// Upstream's clock less ours, in milliseconds; 0 until a refusal made it worth knowing.
    clock_ms: AtomicI64,
    /// Secrets that something was learnt of; the sync may go on with a better one.
    news: Notify,
    failed_polls: AtomicU32,
    times: Mutex<Times>,
}

/// When things happened; none = never.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// Everything was synced.
    full: Option<Instant>,
    /// The data was found to be current.
    synced: Option<Instant>,
    /// No poll is due before.
    next_poll: Option<Instant>,
}

impl<L: Link> Follower<L> {
    pub(super) fn new(
        held: Arc<Held>,
        link: L,
        deployments: Arc<Deployments>,
        metrics: Arc<SyncMetrics>,
        name: Arc<str>,
        settings: Settings,
    ) -> Self {
        Self {
            held,
            link,
            deployments,
            metrics,
            name,
            settings,
            clock_ms: AtomicI64::new(0),
            news: Notify::new(),
            failed_polls: AtomicU32::new(0),
            times: Mutex::default(),
        }
    }

    /// Follows until told to stop.
    pub(super) async fn run(&self, stop: &Stop) {
        tokio::select! {
            biased;
            () = stop.requested() => {}
            () = self.sync() => {}
            () = self.learn() => {}
        }
    }

    /// Keeps the data up to date: a stream, and polls while there is none.
    async fn sync(&self) {
        let (mut failures, mut refusals) = (0u32, 0u32);
        let mut opened_before = false;
        loop {
            let Some(secret) = self.best() else {
                self.idle().await;
                continue;
            };
            if !self.settings.streaming {
                self.poll_until(Instant::now() + self.settings.resync_interval, &secret)
                    .await;
                continue;
            }
            if opened_before {
                self.metrics.reconnecting();
            }
            opened_before = true;
            let corrected = self.clock_ms.load(Ordering::Relaxed);
            let turn = self.stream(&secret).await;
            if secret.is_asked(StreamKind::Server) && !turn.refused {
                // Whoever waits to know is told that it is not known.
                secret.admitted(StreamKind::Server, secret.admission(StreamKind::Server));
                self.held.learnt();
            }
            if turn.synced {
                (failures, refusals) = (0, 0);
            }
            if turn.refused && self.clock_ms.load(Ordering::Relaxed) != corrected {
                // With the clock put right it may go better at once.
                continue;
            }
            let pause = if turn.refused {
                refusals = refusals.saturating_add(1);
                self.refused(&secret, refusals);
                if self.has_better_than(&secret) {
                    continue;
                }
                self.settings.refused_backoff.pause(refusals, self.link.chance())
            } else {
                failures = failures.saturating_add(1);
                self.settings.backoff.pause(failures, self.link.chance())
            };
            if failures == 1 && !turn.refused {
                tracing::info!(
                    environment = &*self.name,
                    "no stream from upstream, trying again: {}",
                    turn.what
                );
            } else {
                tracing::debug!(environment = &*self.name, "no stream: {}", turn.what);
            }
            self.poll_until(Instant::now() + pause, &secret).await;
        }
    }

    /// The secret to stream or poll with: one that upstream admits as a server's before one that is not known, and
    /// both before one that it refused; of equals the first known.
    fn best(&self) -> Option<Arc<Secret>> {
        let usable = |secret: &Arc<Secret>| self.standing(&secret.key) != Standing::Revoked;
        let secrets = self.held.all_secrets();
        secrets
            .into_iter()
            .filter(usable)
            .min_by_key(|secret| match secret.admission(StreamKind::Server) {
                Admission::Admitted => 0,
                Admission::Unknown => 1,
                Admission::Refused => 2,
            })
    }

    fn standing(&self, key: &DeploymentKey) -> Standing {
        standing(&self.deployments, self.held.environment, key)
    }

    /// Waits until there may be a secret to go on with.
    async fn idle(&self) {
        let _ = timeout(IDLE_LOOK, self.news.notified()).await;
    }

    fn refused(&self, secret: &Secret, times: u32) {
        self.metrics.refused();
        secret.admitted(StreamKind::Server, Admission::Refused);
        self.held.learnt();
        if times == 1 {
            tracing::warn!(
                environment = &*self.name,
                key = %secret.key.hint(),
                "upstream refuses to stream to this secret: polling instead; a server secret is wanted"
            );
        }
    }

    /// Whether there is another secret that a stream may be opened with.
    fn has_better_than(&self, tried: &Arc<Secret>) -> bool {
        self.best()
            .is_some_and(|best| !Arc::ptr_eq(&best, tried) && is_promising(&best))
    }

    /// Takes a message on. Says whether it changed anything.
    fn apply(&self, message: &DataSync) -> bool {
        if message.environment().is_some_and(|id| id != self.held.id) {
            tracing::debug!(
                environment = &*self.name,
                "upstream sent flags that name another environment"
            );
        }
        for rejected in message.rejected() {
            tracing::warn!(environment = &*self.name, flag = %rejected.name, "a flag or segment cannot be read: {}", rejected.why);
        }
        {
            let mut times = self.times();
            times.synced = Some(Instant::now());
            if message.extent() == Extent::Full {
                times.full = times.synced;
            }
        }
        let before = self.held.synced();
        let applied = match &before {
            Some(held) => held.apply(message),
            None => DataSet::empty().apply(message),
        };
        // The patterns are compiled here, not in a request.
        for problem in applied.set.problems() {
            let is_new = applied.flags.iter().any(|flag| flag.key() == &*problem.flag);
            if is_new {
                tracing::warn!(environment = &*self.name, flag = %problem.flag, "a flag cannot be evaluated here as upstream would: {}", problem.why);
            }
        }
        let (flags, segments) = (applied.set.flags().len(), applied.set.segments().len());
        let changed = self.held.publish(&self.deployments, applied);
        if before.is_none() {
            // Secrets that came before can be proved now.
            self.held.wake();
            tracing::info!(environment = &*self.name, id = %self.held.id, flags, segments, "flags synced");
        }
        changed
    }

    /// Upstream had nothing newer.
    fn confirm(&self) {
        self.held.confirm();
        self.times().synced = Some(Instant::now());
    }

    /// What to ask for changes since; 0 for everything: at first, and when that is due.
    fn since_ms(&self) -> i64 {
        match self.held.synced() {
            Some(held) if !self.resync_in().is_zero() => held.version(),
            _ => 0,
        }
    }

    fn resync_in(&self) -> Duration {
        let full = self.times().full;
        full.map_or(Duration::ZERO, |at| {
            self.settings.resync_interval.saturating_sub(at.elapsed())
        })
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a stream with it has not been refused.
fn is_promising(secret: &Secret) -> bool {
    secret.admission(StreamKind::Server) != Admission::Refused
}
