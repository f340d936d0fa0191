//! One stream: its token and the clock that counts for it, what it brings, how it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Follower;
use crate::evaluate::featbit::{DataSync, token};
use crate::key::DeploymentKey;
use crate::metrics::{Refresh, StreamKind, SyncSource};
use crate::store::Standing;
use crate::store::featbit::{Admission, Secret};
use crate::sync::featbit::link::{Link, unix_ms};
use crate::sync::featbit::session::{self, End, Sink};

/// A difference of clocks that explains a refused token; `Date` tells whole seconds.
const SKEW_MIN: Duration = Duration::from_secs(2);

/// How a turn with a stream ended.
pub(super) struct Turn {
    /// Whether the stream brought data.
    pub(super) synced: bool,
    /// Whether upstream refused the token or what the secret is for.
    pub(super) refused: bool,
    /// Why it ended, in words for the log.
    pub(super) what: String,
}

impl<L: Link> Follower<L> {
    /// One stream, from its opening to its end.
    pub(super) async fn stream(&self, secret: &Arc<Secret>) -> Turn {
        let began = self.deployments.begin();
        let opening = Instant::now();
        let stream = match self.link.open(StreamKind::Server, &self.token(&secret.key)).await {
            Ok(stream) => stream,
            Err(error) => {
                self.metrics
                    .ended(SyncSource::FbStream, Refresh::Failed, opening.elapsed());
                return Turn {
                    synced: false,
                    refused: false,
                    what: error.to_string(),
                };
            }
        };
        let answered = self.link.unix_ms();
        let mut sink = StreamSink {
            follower: self,
            secret,
            began,
            connected: false,
        };
        let (end, synced) = session::run(stream.socket, &mut sink, &self.settings).await;
        if sink.connected {
            self.metrics.stream_closed();
        }
        if !synced {
            self.metrics
                .ended(SyncSource::FbStream, Refresh::Failed, opening.elapsed());
        }
        let refused = matches!(end, End::Refused);
        if refused {
            self.correct_clock(stream.date, answered);
        }
        Turn {
            synced,
            refused,
            what: end.to_string(),
        }
    }

    /// A new token: it is good for 30 s only.
    pub(super) fn token(&self, key: &DeploymentKey) -> String {
        let secret = String::from_utf8_lossy(key.expose());
        let now = self.link.unix_ms() + self.clock_ms.load(Ordering::Relaxed);
        let length = secret.trim_end_matches('=').len();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number from 2 to the length of a secret"
        )]
        let start = 2 + (self.link.chance() * length.saturating_sub(3) as f64) as usize;
        token::encode(&secret, u64::try_from(now).unwrap_or_default(), start)
    }

    /// A token was refused: if upstream's clock said something else than ours, it is believed from now on.
    pub(super) fn correct_clock(&self, date: Option<SystemTime>, our_ms: i64) {
        let Some(date) = date else { return };
        // Half a second on average is cut off.
        let difference = unix_ms(date) + 500 - our_ms;
        let known = self.clock_ms.load(Ordering::Relaxed);
        if (difference - known).unsigned_abs() < u64::try_from(SKEW_MIN.as_millis()).unwrap_or(u64::MAX) {
            return;
        }
        self.clock_ms.store(difference, Ordering::Relaxed);
        self.metrics.clock_corrected();
        tracing::warn!(
            environment = &*self.name,
            difference_ms = difference,
            "upstream refused a stream and its clock differs from this machine's: its clock is used for tokens"
        );
    }
}

/// Takes what a stream brings.
struct StreamSink<'a, L> {
    follower: &'a Follower<L>,
    secret: &'a Arc<Secret>,
    began: u64,
    connected: bool,
}

impl<L: Link> Sink for StreamSink<'_, L> {
    fn since_ms(&self) -> i64 {
        self.follower.since_ms()
    }

    fn take(&mut self, message: &DataSync, took: Option<Duration>) {
        let follower = self.follower;
        let is_first = !std::mem::replace(&mut self.connected, true);
        if is_first {
            self.secret.admitted(StreamKind::Server, Admission::Admitted);
            if let Err(what) = follower.accept(self.secret, self.began) {
                tracing::debug!(environment = &*follower.name, "{what}");
            }
            follower.held.learnt();
            follower.failed_polls.store(0, Ordering::Relaxed);
        }
        let changed = follower.apply(message);
        if is_first {
            // Whoever waits for this waits for the data.
            follower.metrics.stream_opened();
        }
        let result = if changed {
            Refresh::Changed
        } else {
            Refresh::Unchanged
        };
        follower
            .metrics
            .ended(SyncSource::FbStream, result, took.unwrap_or_default());
    }

    fn confirm(&self) {
        self.follower.confirm();
        self.follower.metrics.confirmed(SyncSource::FbStream);
    }

    fn is_wanted(&self) -> bool {
        self.follower.standing(&self.secret.key) != Standing::Revoked
    }

    fn resync_in(&self) -> Duration {
        self.follower.resync_in()
    }
}
