//! What secrets are worth: whether upstream accepts them, and what kinds of stream it admits them to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;

use super::Follower;
use crate::metrics::StreamKind;
use crate::store::featbit::{Admission, Secret};
use crate::store::{Accepted, Standing};
use crate::sync::featbit::link::{Link, LinkError};
use crate::sync::featbit::session;

/// How long upstream may take to admit or refuse a stream that is opened to find out.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

impl<L: Link> Follower<L> {
    /// Upstream took the secret for good, in a request that `began` then.
    pub(super) fn accept(&self, secret: &Secret, began: u64) -> Result<(), String> {
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

    /// A failed poll takes a secret out of service if it was a 401.
    pub(super) fn judge(&self, secret: &Secret, error: &LinkError) {
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

    /// Finds out what is asked about secrets: whether they are accepted, and whether upstream admits them.
    pub(super) async fn learn(&self) {
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
