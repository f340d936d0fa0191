//! Deployments: one per deployment key that is configured or that upstream accepted.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::Notify;

use crate::config;
use crate::key::DeploymentKey;

use super::flags::{Definitions, Flags, Revisions};
use super::rejections::{Rejection, Rejections};

/// What upstream last said of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Standing {
    /// Nothing yet.
    Unknown,
    /// A 200 on an evaluation or plain flags request.
    Accepted,
    /// A 401 on such a request.
    Revoked,
}

/// One deployment: a key, its standing and its flags.
pub struct Deployment {
    /// Index of its environment.
    pub environment: usize,
    /// Its key.
    pub key: DeploymentKey,
    /// Whether the configuration names it.
    pub configured: bool,
    /// Raised by every flag change and revocation: what was asked for under another epoch is not current.
    epoch: AtomicU64,
    standing: AtomicU8,
    flags: ArcSwap<Flags>,
    published: Mutex<Published>,
    /// Definitions of the first flags synced: what was stored before them is taken to show them (design 5).
    first_definitions: OnceLock<Arc<Definitions>>,
    /// Unix milliseconds of the last sync that brought an answer; 0 = never.
    synced_at: AtomicU64,
    /// Unix milliseconds of the last sync that brought other flags; 0 = never.
    changed_at: AtomicU64,
    /// Whether the last sync failed and upstream has not answered since.
    overdue: AtomicBool,
    recovered: Notify,
}

/// What publishing flags must remember.
#[derive(Debug, Default)]
struct Published {
    /// When the sync that brought the flags began.
    began: u64,
    /// Last known revision of either set, also of one that is not there any more.
    revisions: Revisions,
}

impl fmt::Debug for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployment")
            .field("key", &self.key)
            .field("standing", &self.standing())
            .finish_non_exhaustive()
    }
}

impl Deployment {
    /// A deployment that upstream has said nothing of.
    #[must_use]
    pub fn new(environment: usize, key: DeploymentKey, configured: bool) -> Self {
        Self {
            environment,
            key,
            configured,
            epoch: AtomicU64::new(0),
            standing: AtomicU8::new(Standing::Unknown as u8),
            flags: ArcSwap::default(),
            published: Mutex::default(),
            first_definitions: OnceLock::new(),
            synced_at: AtomicU64::new(0),
            changed_at: AtomicU64::new(0),
            overdue: AtomicBool::new(false),
            recovered: Notify::new(),
        }
    }

    /// The current epoch.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Begins a new epoch: nothing stored so far is current any more.
    pub fn renew(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// What upstream last said of the key.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            1 => Standing::Accepted,
            2 => Standing::Revoked,
            _ => Standing::Unknown,
        }
    }

    /// Whether stored and local answers may go to this key.
    #[must_use]
    pub fn in_service(&self) -> bool {
        match self.standing() {
            Standing::Accepted => true,
            Standing::Revoked => false,
            Standing::Unknown => self.configured,
        }
    }

    /// The synced flags.
    #[must_use]
    pub fn flags(&self) -> Guard<Arc<Flags>> {
        self.flags.load()
    }

    /// Definitions that answers stored before the first sync are taken to show.
    #[must_use]
    pub fn first_definitions(&self) -> Option<&Arc<Definitions>> {
        self.first_definitions.get()
    }

    /// Replaces the flags by those of a sync that `began` then (see [`Deployments::begin`]). Says whether they
    /// differ from those before. A known set that changed begins a new epoch; the first of its kind does not: it
    /// adopts what was stored before it, and one that is gone says nothing of what was stored under it.
    ///
    /// Flags that came late, of a sync that began before the last one published, are dropped.
    pub fn publish(&self, flags: Flags, began: u64) -> bool {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if began < published.began {
            return false;
        }
        published.began = began;
        if let Some(data) = flags.evaluation() {
            let _ = self.first_definitions.set(Arc::clone(data.definitions()));
        }
        let (before, after) = (self.flags.load().revisions(), flags.revisions());
        self.flags.store(Arc::new(flags));
        let mut renews = false;
        for (known, revision) in published.revisions.iter_mut().zip(after) {
            if revision.is_some() {
                renews |= known.is_some() && *known != revision;
                *known = revision;
            }
        }
        if renews {
            self.renew();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.synced_at.store(now, Ordering::Relaxed);
        let changed = before != after;
        if changed {
            self.changed_at.store(now, Ordering::Relaxed);
        }
        changed
    }

    /// The last sync failed: the next answer of upstream is worth another one.
    pub fn sync_failed(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Upstream answered for this key, so its flags can probably be had again.
    pub fn upstream_answered(&self) {
        if self.overdue.load(Ordering::Relaxed) && self.overdue.swap(false, Ordering::Relaxed) {
            self.recovered.notify_one();
        }
    }

    /// Waits until upstream answers after a failed sync.
    pub async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// When its flags were last found current.
    #[must_use]
    pub fn last_sync(&self) -> Option<SystemTime> {
        moment(&self.synced_at)
    }

    /// When its flags last changed.
    #[must_use]
    pub fn last_change(&self) -> Option<SystemTime> {
        moment(&self.changed_at)
    }
}

fn moment(millis: &AtomicU64) -> Option<SystemTime> {
    let millis = millis.load(Ordering::Relaxed);
    (millis > 0).then(|| UNIX_EPOCH + Duration::from_millis(millis))
}

/// What an acceptance meant.
#[derive(Debug)]
pub enum Accepted {
    /// The key is in service. `fresh`: it was not before, so its flags should be synced now.
    Yes {
        /// Its deployment.
        deployment: Arc<Deployment>,
        /// Whether this made it so.
        fresh: bool,
    },
    /// The key was rejected after that request began: it stays out of service.
    Superseded,
    /// The table of learnt keys is full: answers are relayed and not stored.
    Full,
}

type Table = HashMap<(usize, DeploymentKey), Arc<Deployment>, foldhash::fast::RandomState>;

/// The deployments of all environments, by key.
pub struct Deployments {
    /// Read by every request that the memo does not know; replaced as a whole, rarely.
    by_key: ArcSwap<Table>,
    writing: Mutex<()>,
    rejections: Rejections,
    sequence: AtomicU64,
    max_learnt: usize,
}

impl fmt::Debug for Deployments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployments")
            .field("n", &self.by_key.load().len())
            .finish_non_exhaustive()
    }
}

impl Deployments {
    /// A table that holds `configured` keys, by environment index.
    #[must_use]
    pub fn new(
        settings: &config::Keys,
        configured: impl IntoIterator<Item = (usize, DeploymentKey)>,
    ) -> Self {
        let by_key = configured.into_iter().map(|(environment, key)| {
            let deployment = Deployment::new(environment, key.clone(), true);
            ((environment, key), Arc::new(deployment))
        });
        Self {
            by_key: ArcSwap::from_pointee(by_key.collect()),
            writing: Mutex::new(()),
            rejections: Rejections::new(settings),
            sequence: AtomicU64::new(1),
            max_learnt: settings.max_learnt,
        }
    }

    /// The deployment of a key.
    #[must_use]
    pub fn get(&self, environment: usize, key: &DeploymentKey) -> Option<Arc<Deployment>> {
        self.by_key.load().get(&(environment, key.clone())).cloned()
    }

    /// All deployments, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Deployment>> {
        self.by_key.load().values().cloned().collect()
    }

    /// Rejected keys.
    #[must_use]
    pub const fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// Marks the beginning of a request to upstream: what it brings is older than all that happens from now on.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::AcqRel)
    }

    /// Whether `key` was rejected after `began`.
    #[must_use]
    pub fn rejected_since(&self, environment: usize, key: &DeploymentKey, began: u64) -> bool {
        self.rejections
            .of(environment, key)
            .is_some_and(|rejection| rejection.sequence > began)
    }

    /// Upstream answered 200 to a request that `began` then.
    pub fn accept(&self, environment: usize, key: &DeploymentKey, began: u64) -> Accepted {
        if let Some(deployment) = self.get(environment, key)
            && deployment.standing() == Standing::Accepted
        {
            return Accepted::Yes {
                deployment,
                fresh: false,
            };
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.rejected_since(environment, key, began) {
            return Accepted::Superseded;
        }
        self.rejections.clear(environment, key);
        let deployment = match self.get(environment, key) {
            Some(deployment) => deployment,
            None => {
                let table = self.by_key.load_full();
                if self.is_full() {
                    return Accepted::Full;
                }
                let deployment = Arc::new(Deployment::new(environment, key.clone(), false));
                let mut table = HashMap::clone(&table);
                table.insert((environment, key.clone()), Arc::clone(&deployment));
                self.by_key.store(Arc::new(table));
                deployment
            }
        };
        let before = deployment
            .standing
            .swap(Standing::Accepted as u8, Ordering::AcqRel);
        Accepted::Yes {
            deployment,
            fresh: before != Standing::Accepted as u8,
        }
    }

    /// Whether no further key can be learnt.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let table = self.by_key.load();
        table.values().filter(|deployment| !deployment.configured).count() >= self.max_learnt
    }

    /// Upstream answered 401: the key is out of service at once. Says whether it was in service before.
    pub fn reject(
        &self,
        environment: usize,
        key: &DeploymentKey,
        at: Instant,
        content_type: HeaderValue,
        body: Bytes,
    ) -> bool {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let rejection = Rejection {
            at,
            sequence: self.begin(),
            content_type,
            body,
        };
        self.rejections.mark(environment, key.clone(), rejection);
        let Some(deployment) = self.get(environment, key) else {
            return false;
        };
        let was = deployment.in_service();
        deployment
            .standing
            .store(Standing::Revoked as u8, Ordering::Release);
        deployment.renew();
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FlagData;

    fn table(max_learnt: usize) -> Deployments {
        let settings = config::Keys {
            max_learnt,
            negative_entries: 16,
            negative_ttl: Duration::from_secs(10),
        };
        Deployments::new(&settings, [(0, key("configured"))])
    }

    fn key(text: &str) -> DeploymentKey {
        DeploymentKey::new(text.as_bytes()).unwrap()
    }

    fn reject(table: &Deployments, text: &str) -> bool {
        let json = HeaderValue::from_static("application/json");
        table.reject(0, &key(text), Instant::now(), json, Bytes::new())
    }

    #[test]
    fn a_key_is_learnt_from_a_200_and_lost_by_a_401() {
        let table = table(4);
        assert!(table.get(0, &key("a")).is_none());
        let began = table.begin();
        let Accepted::Yes {
            deployment,
            fresh: true,
        } = table.accept(0, &key("a"), began)
        else {
            panic!()
        };
        assert!(deployment.in_service());
        assert!(matches!(
            table.accept(0, &key("a"), table.begin()),
            Accepted::Yes { fresh: false, .. }
        ));
        let epoch = deployment.epoch();
        assert!(reject(&table, "a"));
        assert!(!deployment.in_service());
        assert_ne!(
            deployment.epoch(),
            epoch,
            "what was stored is not current any more"
        );
        assert!(matches!(
            table.accept(0, &key("a"), table.begin()),
            Accepted::Yes { fresh: true, .. }
        ));
        assert!(deployment.in_service());
    }

    #[test]
    fn a_late_200_does_not_undo_a_401() {
        let table = table(4);
        let began = table.begin();
        for text in ["unknown", "configured"] {
            reject(&table, text);
            assert!(
                matches!(table.accept(0, &key(text), began), Accepted::Superseded),
                "{text}"
            );
        }
        assert!(!table.get(0, &key("configured")).unwrap().in_service());
    }

    #[test]
    fn a_full_table_drops_nobody() {
        let table = table(2);
        for text in ["a", "b"] {
            assert!(matches!(
                table.accept(0, &key(text), table.begin()),
                Accepted::Yes { .. }
            ));
        }
        assert!(matches!(
            table.accept(0, &key("c"), table.begin()),
            Accepted::Full
        ));
        assert!(
            table
                .get(0, &key("a"))
                .is_some_and(|deployment| deployment.in_service())
        );
        assert!(matches!(
            table.accept(0, &key("configured"), table.begin()),
            Accepted::Yes { .. }
        ));
    }

    #[test]
    fn keys_of_different_environments_are_different() {
        let table = table(4);
        let _ = table.accept(0, &key("a"), table.begin());
        assert!(table.get(1, &key("a")).is_none());
    }

    #[test]
    fn a_401_is_repeated_for_a_while_only() {
        let table = table(4);
        reject(&table, "a");
        let now = Instant::now();
        assert!(table.rejections().answer(0, &key("a"), now).is_some());
        assert!(
            table
                .rejections()
                .answer(0, &key("a"), now + Duration::from_secs(11))
                .is_none()
        );
        assert!(table.rejections().of(0, &key("a")).is_some(), "the mark stays");
        let _ = table.accept(0, &key("a"), table.begin());
        assert!(table.rejections().of(0, &key("a")).is_none());
    }

    fn flags(plain: Option<u32>, remote: Option<u32>) -> Flags {
        let data = |version| {
            let body = format!(
                r#"[{{"key":"f","variants":{{}},"segments":[],"metadata":{{"flagVersion":{version}}}}}]"#
            );
            Arc::new(FlagData::compile(Bytes::from(body)).unwrap())
        };
        Flags {
            plain: plain.map(data),
            remote: remote.map(data),
        }
    }

    #[test]
    fn flags_that_change_begin_an_epoch_and_flags_that_appear_or_vanish_do_not() {
        let deployment = Deployment::new(0, key("a"), false);
        for (at, (plain, remote, changed, epoch, why)) in [
            (Some(1), None, true, 0, "the first set adopts"),
            (Some(1), Some(1), true, 0, "so does the first of the other kind"),
            (Some(1), Some(1), false, 0, "nothing new"),
            (Some(2), Some(1), true, 1, "plain flags changed"),
            (Some(2), Some(2), true, 2, "remote flags changed"),
            (Some(2), None, true, 2, "refused: what was stored is no worse"),
            (Some(2), Some(2), true, 2, "there again, unchanged"),
            (None, None, true, 2, "nothing is known"),
            (Some(2), Some(3), true, 3, "there again, changed meanwhile"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(
                deployment.publish(flags(plain, remote), at as u64),
                changed,
                "{why}"
            );
            assert_eq!(deployment.epoch(), epoch, "{why}");
        }
    }

    #[test]
    fn flags_that_come_late_do_not_replace_newer_ones() {
        let deployment = Deployment::new(0, key("a"), false);
        assert!(deployment.publish(flags(Some(2), None), 7));
        assert!(!deployment.publish(flags(Some(1), None), 6));
        assert_eq!(deployment.flags().revisions(), flags(Some(2), None).revisions());
        assert_eq!(deployment.epoch(), 0);
    }
}
