//! Polls while there is no stream: when the next one is due, and what one brings.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Follower, is_promising};
use crate::evaluate::featbit::DataSync;
use crate::metrics::{Refresh, StreamKind, SyncSource};
use crate::store::featbit::{Admission, Secret};
use crate::sync::featbit::link::{Link, LinkError, Polled};
use crate::upstream::UpstreamError;

/// Longest pause between polls that upstream may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

impl<L: Link> Follower<L> {
    /// Polls now and then until `until`, or until a secret comes that may stream.
    pub(super) async fn poll_until(&self, until: Instant, tried: &Arc<Secret>) {
        let was_refused = !is_promising(tried);
        loop {
            let now = Instant::now();
            let times = *self.times();
            // A stream that has just ended leaves data that are good for an interval.
            let stale_at = times.synced.map_or(now, |at| at + self.settings.poll_interval);
            let poll_at = stale_at.max(times.next_poll.unwrap_or(now));
            if now >= until {
                return;
            }
            if now >= poll_at {
                let Some(secret) = self.best() else { return };
                let asked_to_wait = self.poll(&secret).await;
                let failures = self.failed_polls.load(Ordering::Relaxed);
                let pause = if self.held.synced().is_none() && failures > 0 {
                    let soon = self.settings.backoff.pause(failures, self.link.chance());
                    soon.min(self.settings.poll_interval)
                } else {
                    self.jittered(self.settings.poll_interval)
                };
                let pause = pause.max(asked_to_wait.unwrap_or_default());
                self.times().next_poll = Some(Instant::now() + pause);
                continue;
            }
            tokio::select! {
                () = sleep_until(poll_at.min(until)) => {}
                () = self.news.notified() => {
                    if self.has_better_than(tried) || (was_refused && is_promising(tried)) {
                        return;
                    }
                }
            }
        }
    }

    fn jittered(&self, interval: Duration) -> Duration {
        interval.mul_f64(1.0 + self.settings.jitter * (2.0 * self.link.chance() - 1.0))
    }

    /// One poll. Gives how long upstream asks to wait.
    pub(super) async fn poll(&self, secret: &Secret) -> Option<Duration> {
        let (began, asked_at) = (self.deployments.begin(), Instant::now());
        let since = self.since_ms();
        let polled = self.ask(secret, since).await;
        let taken = match &polled {
            Ok(polled) => self.take_polled(secret, polled, since, began),
            Err(error) => {
                self.judge(secret, error);
                Err(error.to_string())
            }
        };
        let result = match &taken {
            Ok(true) => Refresh::Changed,
            Ok(false) => Refresh::Unchanged,
            Err(_) => Refresh::Failed,
        };
        self.metrics.ended(SyncSource::FbPoll, result, asked_at.elapsed());
        match taken {
            Ok(_) => {
                self.failed_polls.store(0, Ordering::Relaxed);
                None
            }
            Err(what) => {
                self.failed(polled.as_ref().err());
                if self.failed_polls.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(environment = &*self.name, key = %secret.key.hint(), "flags could not be synced: {what}");
                }
                let asked = polled.err().and_then(|error| error.retry_after());
                asked.map(|pause| pause.min(RETRY_AFTER_MAX))
            }
        }
    }

    pub(super) async fn ask(&self, secret: &Secret, since: i64) -> Result<Polled, LinkError> {
        if self.held.is_paused(std::time::Instant::now()) {
            return Err(UpstreamError::Busy.into());
        }
        self.link.poll(&secret.key, since).await
    }

    fn take_polled(&self, secret: &Secret, polled: &Polled, since: i64, began: u64) -> Result<bool, String> {
        let message = if polled.body.trim_ascii().is_empty() {
            if since == 0 {
                return Err("upstream answered with nothing where everything was asked for".to_owned());
            }
            None
        } else {
            Some(DataSync::parse(&polled.body).map_err(|error| error.to_string())?)
        };
        // An environment that upstream does not know is an empty one: that proves no secret.
        let proves = since != 0
            || message.as_ref().is_some_and(|message| !message.is_empty())
            || secret.admission(StreamKind::Server) == Admission::Admitted;
        if proves {
            self.accept(secret, began)?;
        }
        match message {
            Some(message) => Ok(self.apply(&message)),
            None => {
                self.confirm();
                Ok(false)
            }
        }
    }

    /// A poll brought nothing: nobody needs to wait for upstream. A rejection says nothing of other secrets.
    pub(super) fn failed(&self, error: Option<&LinkError>) {
        if !matches!(error, Some(LinkError::Rejected { .. })) {
            self.held.sync_failed();
        }
    }
}
