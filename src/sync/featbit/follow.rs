//! Following one environment: which secret streams, what happens between two streams, what secrets are worth.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Settings;
use super::link::{Link, LinkError, Polled, unix_ms};
use super::session::{self, End, Sink};
use crate::evaluate::featbit::{DataSet, DataSync, Extent, token};
use crate::key::DeploymentKey;
use crate::metrics::{Refresh, StreamKind, SyncMetrics, SyncSource};
use crate::store::featbit::{Admission, Held, Secret, standing};
use crate::store::{Accepted, Deployments, Standing};
use crate::task::Stop;
use crate::upstream::UpstreamError;

/// A difference of clocks that explains a refused token; `Date` tells whole seconds.
const SKEW_MIN: Duration = Duration::from_secs(2);
/// How long upstream may take to admit or refuse a stream that is opened to find out.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause between polls that upstream may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
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

/// How a turn with a stream ended.
struct Turn {
    /// Whether the stream brought data.
    synced: bool,
    refused: bool,
    what: String,
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
                if self
                    .best()
                    .is_some_and(|next| !Arc::ptr_eq(&next, &secret) && is_promising(&next))
                {
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

    /// One stream, from its opening to its end.
    async fn stream(&self, secret: &Arc<Secret>) -> Turn {
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
    fn token(&self, key: &DeploymentKey) -> String {
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
    fn correct_clock(&self, date: Option<SystemTime>, our_ms: i64) {
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

    /// Polls now and then until `until`, or until a secret comes that may stream.
    async fn poll_until(&self, until: Instant, tried: &Arc<Secret>) {
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
    async fn poll(&self, secret: &Secret) -> Option<Duration> {
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

    async fn ask(&self, secret: &Secret, since: i64) -> Result<Polled, LinkError> {
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
                self.held.confirm();
                self.times().synced = Some(Instant::now());
                Ok(false)
            }
        }
    }

    /// Upstream took the secret for good, in a request that `began` then.
    fn accept(&self, secret: &Secret, began: u64) -> Result<(), String> {
        match self.deployments.accept(self.held.environment, &secret.key, began) {
            Accepted::Yes { fresh, .. } => {
                if fresh {
                    tracing::info!(environment = &*self.name, key = %secret.key.hint(), "environment secret accepted by upstream");
                    self.held.learnt();
                }
                Ok(())
            }
            Accepted::Superseded => Err("the secret was rejected meanwhile".to_owned()),
            Accepted::Full => Err("the table of learnt keys is full (keys.max_learnt)".to_owned()),
        }
    }

    /// A poll brought nothing: nobody needs to wait for upstream. A rejection says nothing of other secrets.
    fn failed(&self, error: Option<&LinkError>) {
        if !matches!(error, Some(LinkError::Rejected { .. })) {
            self.held.sync_failed();
        }
    }

    /// A failed poll takes a secret out of service if it was a 401.
    fn judge(&self, secret: &Secret, error: &LinkError) {
        let LinkError::Rejected { content_type, body } = error else {
            return;
        };
        let json = HeaderValue::from_static("application/json");
        let content_type = content_type.clone().unwrap_or(json);
        let now = std::time::Instant::now();
        let was = self.deployments.reject(
            self.held.environment,
            &secret.key,
            now,
            content_type,
            body.clone(),
        );
        if was {
            tracing::warn!(environment = &*self.name, key = %secret.key.hint(), "environment secret rejected by upstream: out of service until it is accepted again");
        }
        let deployment = self.deployments.get(self.held.environment, &secret.key);
        if !deployment.is_some_and(|deployment| deployment.configured) {
            self.held.leave(&secret.key);
        }
        self.held.learnt();
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

    /// Waits until there may be a secret to go on with.
    async fn idle(&self) {
        let look_again = pin!(tokio::time::sleep(IDLE_LOOK));
        tokio::select! {
            () = look_again => {}
            () = self.news.notified() => {}
        }
    }

    /// Finds out what is asked about secrets: whether they are accepted, and whether upstream admits them.
    async fn learn(&self) {
        loop {
            for secret in self.held.all_secrets() {
                self.learn_of(&secret).await;
            }
            self.held.asked().await;
        }
    }

    async fn learn_of(&self, secret: &Arc<Secret>) {
        let is_new = self.standing(&secret.key) == Standing::Unknown;
        // The first sync proves the secret that it is made with.
        let is_leading = self.best().is_some_and(|best| Arc::ptr_eq(&best, secret));
        if is_new && is_leading {
            self.news.notify_one();
        }
        // Once there are data, the sync may be busy with the stream of a secret that was rejected meanwhile.
        if is_new && self.held.synced().is_some() {
            self.prove(secret).await;
        }
        if self.may_be_restored(secret) {
            if self.held.synced().is_some() {
                self.prove(secret).await;
            } else {
                // Only what data come of proves a secret.
                self.poll(secret).await;
                self.news.notify_one();
            }
        }
        for kind in StreamKind::ALL {
            if secret.is_asked(kind) {
                let unknown = secret.admission(kind) == Admission::Unknown;
                // The sync finds out itself whether its own secret may stream as a server's.
                if unknown && kind == StreamKind::Server && is_leading {
                    continue;
                }
                if unknown {
                    self.find_out(secret, kind).await;
                }
                // Whoever waits is told, even if there is nothing new.
                secret.admitted(kind, secret.admission(kind));
                self.held.learnt();
            }
        }
    }

    /// Whether upstream rejected it so long ago that it may be asked again.
    fn may_be_restored(&self, secret: &Secret) -> bool {
        let rejections = self.deployments.rejections();
        let now = std::time::Instant::now();
        self.standing(&secret.key) == Standing::Revoked
            && rejections
                .answer(self.held.environment, &secret.key, now)
                .is_none()
    }

    /// One poll with a secret that does not sync: for its standing alone.
    async fn prove(&self, secret: &Arc<Secret>) {
        let began = self.deployments.begin();
        // What comes is not applied: the sync has it already, or will.
        let since = self.held.synced().map_or(0, |held| held.version().max(1));
        match self.ask(secret, since).await {
            Ok(_) => {
                if let Err(what) = self.accept(secret, began) {
                    tracing::debug!(environment = &*self.name, key = %secret.key.hint(), "{what}");
                }
                self.held.sync_succeeded();
                self.news.notify_one();
            }
            Err(error) => {
                self.judge(secret, &error);
                self.failed(Some(&error));
                tracing::debug!(environment = &*self.name, key = %secret.key.hint(), "a secret could not be proved: {error}");
            }
        }
    }

    /// Opens a stream only to see whether upstream admits it.
    async fn find_out(&self, secret: &Arc<Secret>, kind: StreamKind) {
        for _ in 0..2 {
            let corrected = self.clock_ms.load(Ordering::Relaxed);
            let stream = match self.link.open(kind, &self.token(&secret.key)).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(
                        environment = &*self.name,
                        "a secret's kind could not be found out: {error}"
                    );
                    return;
                }
            };
            let answered = self.link.unix_ms();
            match session::is_admitted(stream.socket, ADMISSION_TIMEOUT).await {
                Ok(true) => {
                    secret.admitted(kind, Admission::Admitted);
                    self.news.notify_one();
                    return;
                }
                Ok(false) => {
                    self.correct_clock(stream.date, answered);
                    if self.clock_ms.load(Ordering::Relaxed) == corrected {
                        secret.admitted(kind, Admission::Refused);
                        return;
                    }
                }
                Err(end) => {
                    tracing::debug!(
                        environment = &*self.name,
                        "a secret's kind could not be found out: {end}"
                    );
                    return;
                }
            }
        }
    }
}

/// Whether a stream with it has not been refused.
fn is_promising(secret: &Secret) -> bool {
    secret.admission(StreamKind::Server) != Admission::Refused
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
        self.follower.held.confirm();
        self.follower.times().synced = Some(Instant::now());
        self.follower.metrics.confirmed(SyncSource::FbStream);
    }

    fn is_wanted(&self) -> bool {
        self.follower.standing(&self.secret.key) != Standing::Revoked
    }

    fn resync_in(&self) -> Duration {
        self.follower.resync_in()
    }
}
