//! One stored response and what it may be used for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;

use crate::config;
use crate::metrics::Route;
use crate::store::{Definitions, Deployment};

use super::{Held, Label};

/// A stored response: a 200 of upstream, its content type and body, and when and under which flags it was given.
#[derive(Debug)]
pub struct Stored {
    /// Body, byte for byte as upstream sent it.
    pub body: Box<[u8]>,
    /// Content type as upstream sent it.
    pub content_type: Label,
    /// Strong validator; flags only.
    pub etag: Option<Box<HeaderValue>>,
    /// When the request for it was sent: its age counts from there, so that it is never understated.
    pub asked_at: Instant,
    /// The deployment's epoch when the request for it was sent.
    pub epoch: u64,
    /// Whose flags it shows.
    pub deployment: Arc<Deployment>,
    /// The route that was asked.
    pub route: Route,
    /// Definitions of the flags it shows, where they were known.
    pub definitions: Option<Arc<Definitions>>,
    /// What has happened to it since it was stored.
    pub marks: Marks,
    /// Who counts it, once it is in the store.
    pub held: Option<Arc<Held>>,
}

/// There may be a million of them: with its two counters an entry fills two lines of a processor's cache.
const _: () = assert!(size_of::<Stored>() <= 128 - 2 * size_of::<usize>());

impl Drop for Stored {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.leave(self);
        }
    }
}

/// What has happened to a stored response since it was stored.
#[derive(Debug, Default)]
pub struct Marks {
    /// Whether a newer answer to the same question has taken its place: memos must let go of it.
    superseded: AtomicBool,
    /// Milliseconds after it was asked for before which no further refresh is begun.
    refresh_after_ms: AtomicU64,
}

/// How long a failed refresh is not repeated: a stale response that is wanted often must not become as
/// many requests to an upstream that refuses them.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// How long stored responses may be used, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Freshness lifetime.
    pub fresh_for: Duration,
    /// Past it, while it is refreshed.
    pub while_revalidate: Duration,
    /// Past it, when upstream fails and the flags are unchanged.
    pub on_error: Duration,
    /// Past it, when nothing else is left.
    pub max_stale: Duration,
}

impl From<&config::Cache> for Lifetimes {
    fn from(settings: &config::Cache) -> Self {
        Self {
            fresh_for: settings.fresh_for,
            while_revalidate: settings.stale_while_revalidate,
            on_error: settings.stale_error,
            max_stale: settings.max_stale,
        }
    }
}

/// What a stored response may be used for now, best first (design 5).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Freshness {
    /// Answer with it.
    Fresh,
    /// Answer with it and refresh it in the background.
    WhileRevalidate,
    /// Answer with it if upstream fails or is late.
    OnError,
    /// Answer with it if upstream fails and nothing can be computed either: it is old or shows old flags.
    LastResort,
    /// Nothing.
    Expired,
}

impl Stored {
    /// What this response may be used for at `now`.
    #[must_use]
    pub fn freshness(&self, lifetimes: &Lifetimes, now: Instant) -> Freshness {
        let current = self.is_current();
        let age = now.saturating_duration_since(self.asked_at);
        if current && age < lifetimes.fresh_for {
            return Freshness::Fresh;
        }
        let past = age.saturating_sub(lifetimes.fresh_for);
        if current && past < lifetimes.while_revalidate {
            Freshness::WhileRevalidate
        } else if current && past < lifetimes.on_error {
            Freshness::OnError
        } else if past < lifetimes.max_stale {
            Freshness::LastResort
        } else {
            Freshness::Expired
        }
    }

    /// Whether a newer answer has taken its place.
    #[inline]
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.marks.superseded.load(Ordering::Acquire)
    }

    /// A newer answer takes its place.
    pub fn supersede(&self) {
        self.marks.superseded.store(true, Ordering::Release);
    }

    /// Whether a refresh may begin at `now`.
    #[must_use]
    pub fn may_refresh(&self, now: Instant) -> bool {
        self.millis_at(now) >= self.marks.refresh_after_ms.load(Ordering::Relaxed)
    }

    /// A refresh failed at `now`: the next one waits for a second.
    pub fn refresh_failed(&self, now: Instant) {
        self.marks
            .refresh_after_ms
            .store(self.millis_at(now + REFRESH_PAUSE), Ordering::Relaxed);
    }

    fn millis_at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.asked_at).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether neither the flags of its deployment have changed nor its key was revoked since it was asked for.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.epoch == self.deployment.epoch()
    }

    /// Whole seconds since it was asked for (RFC 9111, 4.2.3).
    #[must_use]
    pub fn age(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.asked_at).as_secs()
    }

    /// How long it is past its freshness lifetime; zero while it is fresh.
    #[must_use]
    pub fn past(&self, lifetimes: &Lifetimes, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked_at)
            .saturating_sub(lifetimes.fresh_for)
    }

    /// Whole seconds of freshness left; negative once it is stale.
    #[must_use]
    pub fn ttl(&self, lifetimes: &Lifetimes, now: Instant) -> i64 {
        let age = now.saturating_duration_since(self.asked_at);
        let left = lifetimes.fresh_for.saturating_sub(age).as_secs();
        let past = age.saturating_sub(lifetimes.fresh_for).as_secs();
        i64::try_from(left).unwrap_or(i64::MAX) - i64::try_from(past).unwrap_or(i64::MAX)
    }

    /// Its body as bytes that may be sent: they are the entry's own, which stays while they do.
    #[must_use]
    pub fn sent(self: &Arc<Self>) -> Bytes {
        Bytes::from_owner(Sent(Arc::clone(self)))
    }

    /// Bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let etag = self
            .etag
            .as_ref()
            .map_or(0, |etag| size_of::<HeaderValue>() + etag.len());
        self.body.len() + self.content_type.bytes() + etag
    }
}

/// An entry whose body is sent.
struct Sent(Arc<Stored>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.0.body
    }
}

#[cfg(test)]
impl Stored {
    /// An answer of some deployment, for tests.
    pub(crate) fn sample(body: &str, asked_at: Instant, route: Route) -> Self {
        let key = crate::key::DeploymentKey::new(b"k").unwrap();
        let deployment = Arc::new(Deployment::new(0, key, false));
        Self {
            body: body.as_bytes().into(),
            content_type: Label::Json,
            etag: None,
            asked_at,
            epoch: deployment.epoch(),
            deployment,
            route,
            definitions: None,
            marks: Marks::default(),
            held: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        fresh_for: Duration::from_secs(60),
        while_revalidate: Duration::from_secs(600),
        on_error: Duration::from_secs(86_400),
        max_stale: Duration::from_secs(604_800),
    };

    fn stored(asked_at: Instant) -> Stored {
        Stored::sample("{}", asked_at, Route::VardataV2)
    }

    #[test]
    fn a_response_passes_through_its_uses_as_it_ages() {
        let start = Instant::now();
        let stored = stored(start);
        for (seconds, wanted, ttl) in [
            (0, Freshness::Fresh, 60),
            (59, Freshness::Fresh, 1),
            (60, Freshness::WhileRevalidate, 0),
            (72, Freshness::WhileRevalidate, -12),
            (659, Freshness::WhileRevalidate, -599),
            (660, Freshness::OnError, -600),
            (86_459, Freshness::OnError, -86_399),
            (86_460, Freshness::LastResort, -86_400),
            (604_859, Freshness::LastResort, -604_799),
            (604_860, Freshness::Expired, -604_800),
        ] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(stored.freshness(&LIFETIMES, now), wanted, "{seconds} s");
            assert_eq!(stored.ttl(&LIFETIMES, now), ttl, "{seconds} s");
            assert_eq!(stored.age(now), seconds);
            let past = Duration::from_secs(seconds.saturating_sub(60));
            assert_eq!(stored.past(&LIFETIMES, now), past, "{seconds} s");
        }
    }

    #[test]
    fn what_it_holds_is_counted() {
        let mut stored = stored(Instant::now());
        assert_eq!(stored.bytes(), 2);
        stored.etag = Some(Box::new(HeaderValue::from_static("\"1234\"")));
        assert_eq!(stored.bytes(), 2 + 40 + 6);
        stored.content_type = HeaderValue::from_static("text/json").into();
        assert_eq!(stored.bytes(), 2 + 40 + 6 + 40 + 9);
    }

    #[test]
    fn a_new_epoch_leaves_the_last_resort_only() {
        let start = Instant::now();
        let stored = stored(start);
        stored.deployment.renew();
        for seconds in [0, 59, 60, 700, 100_000] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(
                stored.freshness(&LIFETIMES, now),
                Freshness::LastResort,
                "{seconds} s"
            );
        }
    }

    #[test]
    fn a_failed_refresh_is_not_repeated_at_once() {
        let start = Instant::now();
        let stored = stored(start);
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(stored.may_refresh(later(60)));
        stored.refresh_failed(later(60));
        assert!(!stored.may_refresh(later(60)));
        assert!(stored.may_refresh(later(61)));
    }
}
