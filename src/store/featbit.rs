//! What flagside knows of FeatBit's environments: their data, and the secrets that lead to them.
//!
//! A [`Held`] is one environment of FeatBit (a GUID) behind one configured environment (an upstream). Its data is
//! replaced as a whole; whoever evaluates works on one set from beginning to end. Secrets have their standing in
//! [`Deployments`], as Amplitude's keys do; here is kept which kind of stream upstream lets them open.

mod messages;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::{Deployments, Standing};
use crate::evaluate::featbit::{Applied, DataSet, EnvironmentId, secret};
use crate::key::DeploymentKey;
use crate::metrics::StreamKind;

pub use messages::Changes;

/// Secrets of one environment; more are not followed.
const SECRETS_MAX: usize = 64;

/// Whether upstream lets a secret open streams of one kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Admission {
    /// It was not asked, or has not answered.
    Unknown,
    /// It did.
    Admitted,
    /// It refused.
    Refused,
}

/// One secret of an environment.
pub struct Secret {
    /// The secret itself.
    pub key: DeploymentKey,
    /// By [`StreamKind`].
    admissions: [AtomicU8; StreamKind::ALL.len()],
    /// Somebody waits to know whether upstream admits it, by [`StreamKind`].
    asked: [AtomicU8; StreamKind::ALL.len()],
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("key", &self.key)
            .field("server", &self.admission(StreamKind::Server))
            .field("client", &self.admission(StreamKind::Client))
            .finish_non_exhaustive()
    }
}

impl Secret {
    fn new(key: DeploymentKey) -> Self {
        Self {
            key,
            admissions: Default::default(),
            asked: Default::default(),
        }
    }

    /// Whether upstream lets it open streams of this kind. A secret has one kind: whoever is admitted with the
    /// other one is refused here.
    #[must_use]
    pub fn admission(&self, kind: StreamKind) -> Admission {
        let of = |kind: StreamKind| match self.admissions[kind.index()].load(Ordering::Acquire) {
            1 => Admission::Admitted,
            2 => Admission::Refused,
            _ => Admission::Unknown,
        };
        match (of(kind), of(other(kind))) {
            (Admission::Unknown, Admission::Admitted) => Admission::Refused,
            (own, _) => own,
        }
    }

    /// Upstream let it open a stream of this kind, or did not.
    pub fn admitted(&self, kind: StreamKind, admission: Admission) {
        self.admissions[kind.index()].store(admission as u8, Ordering::Release);
        self.asked[kind.index()].store(0, Ordering::Release);
    }

    /// Whether somebody waits for the admission.
    #[must_use]
    pub fn is_asked(&self, kind: StreamKind) -> bool {
        self.asked[kind.index()].load(Ordering::Acquire) != 0
    }
}

const fn other(kind: StreamKind) -> StreamKind {
    match kind {
        StreamKind::Server => StreamKind::Client,
        StreamKind::Client => StreamKind::Server,
    }
}

/// One environment of FeatBit: its data and its secrets.
pub struct Held {
    /// Index of the configured environment, which has the upstream.
    pub environment: usize,
    /// FeatBit's id.
    pub id: EnvironmentId,
    /// What was synced.
    synced: ArcSwapOption<DataSet>,
    /// What there was from the beginning, from a file.
    bootstrap: Option<Arc<DataSet>>,
    secrets: Mutex<Vec<Arc<Secret>>>,
    /// Number of changes of the data.
    changes: watch::Sender<u64>,
    messages: messages::Messages,
    /// Number of times that something was learnt of a secret.
    learnt: watch::Sender<u64>,
    wanted: Notify,
    /// Upstream gave nothing when it was last asked.
    failing: AtomicBool,
    synced_at: AtomicU64,
    changed_at: AtomicU64,
    /// Until when upstream wants no request for this environment.
    paused_until: Mutex<Option<Instant>>,
    /// Number of times that synced data gave way to others.
    revisions: AtomicU64,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("environment", &self.environment)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Held {
    /// An environment of which nothing was synced.
    #[must_use]
    pub fn new(environment: usize, id: EnvironmentId, bootstrap: Option<Arc<DataSet>>) -> Self {
        Self {
            environment,
            id,
            synced: ArcSwapOption::empty(),
            bootstrap,
            secrets: Mutex::default(),
            changes: watch::Sender::new(0),
            messages: messages::Messages::default(),
            learnt: watch::Sender::new(0),
            wanted: Notify::new(),
            failing: AtomicBool::new(false),
            synced_at: AtomicU64::new(0),
            changed_at: AtomicU64::new(0),
            paused_until: Mutex::default(),
            revisions: AtomicU64::new(0),
        }
    }

    /// The data to evaluate with: synced before bootstrap.
    #[must_use]
    pub fn data(&self) -> Option<Arc<DataSet>> {
        self.synced.load_full().or_else(|| self.bootstrap.clone())
    }

    /// What was synced.
    #[must_use]
    pub fn synced(&self) -> Option<Arc<DataSet>> {
        self.synced.load_full()
    }

    /// Takes on what a message brought; `applied` must come of the data that is held, so there is one writer. Says
    /// whether anything is other than before.
    ///
    /// A change of synced data begins a new epoch of every deployment of this environment, before anybody can see
    /// it: what was asked of upstream before it is not stored as current. The first sync does not: it adopts what
    /// is stored, as with Amplitude's flags.
    pub fn publish(&self, deployments: &Deployments, applied: Applied) -> bool {
        let before = self.synced();
        let changed = before.is_none() || !applied.is_unchanged();
        let revised = before.is_some_and(|before| before.revision() != applied.set.revision());
        if revised {
            // First: whoever is accepted too late to be renewed below sees that this has begun.
            self.revisions.fetch_add(1, Ordering::AcqRel);
            for deployment in deployments.all() {
                if deployment.environment == self.environment && self.is_led_to_by(&deployment.key) {
                    deployment.renew();
                }
            }
        }
        self.sync_succeeded();
        let now = unix_millis(SystemTime::now());
        self.synced_at.store(now, Ordering::Relaxed);
        if changed {
            self.synced.store(Some(Arc::new(applied.set)));
            self.changed_at.store(now, Ordering::Relaxed);
            self.changes.send_modify(|n| *n += 1);
        }
        changed
    }

    /// Number of times that synced data gave way to others: an answer that was asked for before is not current after.
    #[must_use]
    pub fn revisions(&self) -> u64 {
        self.revisions.load(Ordering::Acquire)
    }

    /// Whether a key is a secret of this environment, also one that there was no room to follow.
    fn is_led_to_by(&self, key: &DeploymentKey) -> bool {
        let text = std::str::from_utf8(key.expose()).unwrap_or_default();
        secret::environment_of(text) == Some(self.id)
    }

    /// Upstream wants no request for this environment for so long (FB 3.3).
    pub fn pause(&self, pause: Duration, now: Instant) {
        let mut until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Some(now + pause));
    }

    /// Whether upstream wants no request for this environment.
    #[must_use]
    pub fn is_paused(&self, now: Instant) -> bool {
        let until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    /// The data was found to be current.
    pub fn confirm(&self) {
        self.sync_succeeded();
        self.synced_at
            .store(unix_millis(SystemTime::now()), Ordering::Relaxed);
    }

    /// Whether it had data from the beginning: then any secret of it that upstream has not rejected is good.
    #[must_use]
    pub const fn has_bootstrap(&self) -> bool {
        self.bootstrap.is_some()
    }

    /// The message that tells a server SDK all of `data`.
    #[must_use]
    pub fn full_message(&self, data: &Arc<DataSet>) -> Bytes {
        self.messages.full(data)
    }

    /// What `to` has that `from` has not.
    #[must_use]
    pub fn changes_between(&self, from: &Arc<DataSet>, to: &Arc<DataSet>) -> Arc<Changes> {
        self.messages.changes(from, to)
    }

    /// Upstream gave nothing when it was asked: nobody needs to wait for it. Until it gives something.
    pub fn sync_failed(&self) {
        self.failing.store(true, Ordering::Release);
        self.learnt();
    }

    /// Upstream gave what it was asked for.
    pub fn sync_succeeded(&self) {
        self.failing.store(false, Ordering::Release);
    }

    /// Whether upstream gave nothing when it was last asked.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Learns of changes of the data.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Learns when something is learnt of a secret: its standing, or whether it is admitted.
    #[must_use]
    pub fn learning(&self) -> watch::Receiver<u64> {
        self.learnt.subscribe()
    }

    /// Tells those who wait that something was learnt.
    pub fn learnt(&self) {
        self.learnt.send_modify(|n| *n += 1);
    }

    /// A secret of this environment, if it is known.
    #[must_use]
    pub fn secret(&self, key: &DeploymentKey) -> Option<Arc<Secret>> {
        let secrets = self.secrets();
        secrets.iter().find(|secret| secret.key == *key).cloned()
    }

    /// A secret of this environment, known from now on; none if there are as many as may be.
    #[must_use]
    pub fn join(&self, key: &DeploymentKey) -> Option<Arc<Secret>> {
        let mut secrets = self.secrets();
        if let Some(known) = secrets.iter().find(|secret| secret.key == *key) {
            return Some(Arc::clone(known));
        }
        if secrets.len() >= SECRETS_MAX {
            return None;
        }
        let secret = Arc::new(Secret::new(key.clone()));
        secrets.push(Arc::clone(&secret));
        drop(secrets);
        self.wanted.notify_one();
        Some(secret)
    }

    /// Forgets a secret that upstream rejected and nobody configured.
    pub fn leave(&self, key: &DeploymentKey) {
        self.secrets().retain(|secret| secret.key != *key);
    }

    /// Asks for what is not known of a secret: whether it is accepted and, where `kind` is given, admitted.
    /// The answer comes through [`Self::learning`].
    pub fn ask(&self, secret: &Secret, kind: Option<StreamKind>) {
        if let Some(kind) = kind {
            secret.asked[kind.index()].store(1, Ordering::Release);
        }
        self.wanted.notify_one();
    }

    /// Lets the follower look at all secrets again.
    pub fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody asks. One wait may stand for many; for one waiter.
    pub async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// All secrets, in the order in which they became known.
    #[must_use]
    pub fn all_secrets(&self) -> Vec<Arc<Secret>> {
        self.secrets().clone()
    }

    /// When its data was last found current.
    #[must_use]
    pub fn last_sync(&self) -> Option<SystemTime> {
        moment(&self.synced_at)
    }

    /// When its data last changed.
    #[must_use]
    pub fn last_change(&self) -> Option<SystemTime> {
        moment(&self.changed_at)
    }

    fn secrets(&self) -> MutexGuard<'_, Vec<Arc<Secret>>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What upstream last said of a key; unknown where it is in no table.
#[must_use]
pub fn standing(deployments: &Deployments, environment: usize, key: &DeploymentKey) -> Standing {
    match deployments.get(environment, key) {
        Some(deployment) => deployment.standing(),
        None if deployments.rejections().of(environment, key).is_some() => Standing::Revoked,
        None => Standing::Unknown,
    }
}

fn unix_millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn moment(millis: &AtomicU64) -> Option<SystemTime> {
    let millis = millis.load(Ordering::Relaxed);
    (millis > 0).then(|| UNIX_EPOCH + Duration::from_millis(millis))
}

/// All environments of FeatBit, by configured environment and id.
pub struct Environments {
    by_id: ArcSwap<HashMap<(usize, EnvironmentId), Arc<Held>>>,
    writing: Mutex<()>,
    max: usize,
}

impl fmt::Debug for Environments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environments")
            .field("n", &self.by_id.load().len())
            .finish_non_exhaustive()
    }
}

impl Environments {
    /// A table of the `known` ones that may learn of others, up to `max` in all.
    #[must_use]
    pub fn new(known: impl IntoIterator<Item = Held>, max: usize) -> Self {
        let by_id = known
            .into_iter()
            .map(|held| ((held.environment, held.id), Arc::new(held)));
        Self {
            by_id: ArcSwap::from_pointee(by_id.collect()),
            writing: Mutex::new(()),
            max,
        }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, environment: usize, id: EnvironmentId) -> Option<Arc<Held>> {
        self.by_id.load().get(&(environment, id)).cloned()
    }

    /// One of them, known from now on. The flag says that it was not before: it wants to be followed. None
    /// if there are as many as may be.
    #[must_use]
    pub fn get_or_learn(&self, environment: usize, id: EnvironmentId) -> Option<(Arc<Held>, bool)> {
        if let Some(known) = self.get(environment, id) {
            return Some((known, false));
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.by_id.load_full();
        if let Some(known) = table.get(&(environment, id)) {
            return Some((Arc::clone(known), false));
        }
        if table.len() >= self.max {
            return None;
        }
        let held = Arc::new(Held::new(environment, id, None));
        let mut table = HashMap::clone(&table);
        table.insert((environment, id), Arc::clone(&held));
        self.by_id.store(Arc::new(table));
        Some((held, true))
    }

    /// All of them, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Held>> {
        self.by_id.load().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(last: u8) -> EnvironmentId {
        EnvironmentId::parse(&format!("ad99d259-1f50-4ed9-a002-7c65e25487{last:02x}")).unwrap()
    }

    fn key(n: usize) -> DeploymentKey {
        DeploymentKey::new(format!("secret-{n}").as_bytes()).unwrap()
    }

    #[test]
    fn a_secret_has_one_kind() {
        use Admission::{Admitted, Refused, Unknown};
        let secret = Secret::new(key(0));
        let both = || StreamKind::ALL.map(|kind| secret.admission(kind));
        assert_eq!(both(), [Unknown, Unknown]);
        secret.admitted(StreamKind::Server, Refused);
        assert_eq!(both(), [Refused, Unknown]);
        secret.admitted(StreamKind::Client, Admitted);
        assert_eq!(both(), [Refused, Admitted]);
        secret.admitted(StreamKind::Server, Unknown);
        assert_eq!(both(), [Refused, Admitted], "a client's secret is no server's");
    }

    #[test]
    fn environments_and_secrets_are_bounded_and_found_again() {
        let table = Environments::new([Held::new(0, id(1), None)], 2);
        assert!(!table.get_or_learn(0, id(1)).unwrap().1);
        let (learnt, is_new) = table.get_or_learn(0, id(2)).unwrap();
        assert!(is_new);
        let (again, is_new) = table.get_or_learn(0, id(2)).unwrap();
        assert!(!is_new && Arc::ptr_eq(&learnt, &again));
        assert!(table.get_or_learn(0, id(3)).is_none(), "there are two already");
        assert!(
            table.get(1, id(1)).is_none(),
            "behind another upstream it is another one"
        );
        for n in 0..SECRETS_MAX {
            assert!(learnt.join(&key(n)).is_some());
        }
        assert!(learnt.join(&key(SECRETS_MAX)).is_none());
        assert!(learnt.join(&key(0)).is_some(), "a known one is found");
        learnt.leave(&key(0));
        assert!(learnt.secret(&key(0)).is_none());
        assert!(learnt.join(&key(SECRETS_MAX)).is_some());
    }

    #[test]
    fn a_change_renews_all_secrets_of_its_environment_and_no_others() {
        let settings = crate::config::Keys {
            max_learnt: 4,
            negative_entries: 4,
            negative_ttl: Duration::from_secs(1),
        };
        let deployments = Deployments::new(&settings, []);
        // Nobody joined: there may have been no room.
        let epochs = [
            "gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w",
            "v3faJy3RCUO8d-EJiVdN6waRfGjfNan02Ms9c0LiTD6w",
        ]
        .map(|text| {
            let key = DeploymentKey::new(text.as_bytes()).unwrap();
            match deployments.accept(0, &key, deployments.begin()) {
                crate::store::Accepted::Yes { deployment, .. } => deployment,
                other => panic!("{other:?}"),
            }
        });
        let id = EnvironmentId::parse("ad99d259-1f50-4ed9-a002-7c65e25487df").unwrap();
        let held = Held::new(0, id, None);
        let message = |flags: &str| {
            let text = format!(
                r#"{{"messageType":"data-sync","data":{{"eventType":"full","featureFlags":[{flags}]}}}}"#
            );
            crate::evaluate::featbit::DataSync::parse(text.as_bytes()).unwrap()
        };
        let first = DataSet::empty().apply(&message(""));
        assert!(held.publish(&deployments, first));
        assert_eq!(held.revisions(), 0, "the first sync adopts what is stored");
        let flag = r#"{"id":"f","envId":"ad99d259-1f50-4ed9-a002-7c65e25487df","key":"k","variations":[],
            "fallthrough":{"variations":[]},"updatedAt":"2025-01-01T00:00:00Z"}"#;
        let second = held.synced().unwrap().apply(&message(flag));
        assert!(held.publish(&deployments, second));
        assert_eq!(held.revisions(), 1);
        assert_eq!(epochs.map(|deployment| deployment.epoch()), [1, 0]);
    }

    #[test]
    fn what_is_synced_comes_before_the_bootstrap() {
        let settings = crate::config::Keys {
            max_learnt: 4,
            negative_entries: 4,
            negative_ttl: Duration::from_secs(1),
        };
        let deployments = Deployments::new(&settings, []);
        let bootstrap = Arc::new(DataSet::empty());
        let held = Held::new(0, id(1), Some(Arc::clone(&bootstrap)));
        assert!(Arc::ptr_eq(&held.data().unwrap(), &bootstrap));
        assert!(held.synced().is_none() && held.last_sync().is_none());
        let empty = br#"{"messageType":"data-sync","data":{"eventType":"full","featureFlags":[]}}"#;
        let message = crate::evaluate::featbit::DataSync::parse(empty).unwrap();
        let changes = held.changes();
        assert!(held.publish(&deployments, DataSet::empty().apply(&message)));
        assert!(changes.has_changed().unwrap());
        assert!(!Arc::ptr_eq(&held.data().unwrap(), &bootstrap));
        let synced = held.synced().unwrap();
        assert!(!held.publish(&deployments, synced.apply(&message)), "nothing new");
        assert!(
            Arc::ptr_eq(&held.synced().unwrap(), &synced),
            "the same set goes on"
        );
    }
}
