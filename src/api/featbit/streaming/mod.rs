//! `/streaming`: websockets of SDKs (FB 6.1 and 7).
//!
//! The request is upgraded whatever it asks for, as FeatBit's server does it; a bad one is then closed with 4003, which
//! SDKs take as final, and one that cannot be served now with a code that they retry after. [`Opening`] is
//! what an upgraded request carries to the connection; [`Opening::serve`] is the rest of the connection's life.

mod serve;
mod sweep;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{Response, StatusCode, Version};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::latest::made;
use super::{Caller, Claim, Featbit, Reply, reply};
use crate::api::answer::status_only;
use crate::evaluate::featbit::token;
use crate::key::query;
use crate::metrics::{Source, StreamEnd, StreamKind, StreamMetrics};
use crate::store::featbit::{Admission, Held};

pub use sweep::Sweep;

/// The streams that are served by all workers.
#[derive(Debug)]
pub struct Streams {
    open: AtomicUsize,
    max: usize,
    metrics: Arc<StreamMetrics>,
}

impl Streams {
    /// No streams, at most `max`.
    #[must_use]
    pub const fn new(max: usize, metrics: Arc<StreamMetrics>) -> Self {
        Self {
            open: AtomicUsize::new(0),
            max,
            metrics,
        }
    }

    /// Streams open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// A place for one, if there is room.
    fn enter(&self) -> Option<Place<'_>> {
        let place = Place(self);
        (self.open.fetch_add(1, Ordering::AcqRel) < self.max).then_some(place)
    }
}

/// A stream's place among all; given back however it ends.
struct Place<'s>(&'s Streams);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A websocket that was asked for. Travels in the extensions of the 101 to the connection, which serves it.
#[derive(Clone, Debug)]
pub struct Opening {
    featbit: Arc<Featbit>,
    kind: Option<StreamKind>,
    version_fits: bool,
    token: Option<Arc<str>>,
}

/// Why a stream is closed before it begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Closed {
    /// 4003: the request is bad, and will be.
    Refused,
    /// 1011: there is nothing to serve it with, now.
    Unavailable,
    /// 1013: there are too many.
    Full,
}

impl Closed {
    const fn code_and_reason(self) -> (u16, &'static str) {
        match self {
            Self::Refused => (4003, "invalid request, close by server"),
            Self::Unavailable => (1011, "no data, try again later"),
            Self::Full => (1013, "too many streams, try again later"),
        }
    }

    const fn end(self) -> StreamEnd {
        match self {
            Self::Refused => StreamEnd::Refused,
            Self::Unavailable => StreamEnd::Unavailable,
            Self::Full => StreamEnd::Limit,
        }
    }
}

impl Featbit {
    /// `GET /streaming`: the upgrade, with an [`Opening`] in the extensions of the response.
    #[must_use]
    pub fn upgrade(self: &Arc<Self>, version: Version, headers: &HeaderMap, query: Option<&str>) -> Reply {
        let Some(accept) = accept_key(version, headers) else {
            let mut response = reply::text(StatusCode::UPGRADE_REQUIRED, "this path speaks websocket\n");
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return made(response);
        };
        let mut response = status_only(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        response.extensions_mut().insert(Opening::read(self, query));
        Reply::Answer(response, Source::None)
    }

    /// Who opens a stream with these parameters, in the order in which FeatBit's server looks at them.
    fn examine(&self, opening: &Opening, unix_ms: i64) -> Result<(StreamKind, Caller), Closed> {
        let kind = opening.kind.ok_or(Closed::Refused)?;
        if !opening.version_fits {
            return Err(Closed::Refused);
        }
        let token = opening.token.as_deref().ok_or(Closed::Refused)?;
        let (secret, made_ms) = token::decode(token).ok_or(Closed::Refused)?;
        let age = unix_ms.saturating_sub(made_ms).unsigned_abs();
        if u128::from(age) > self.token_age.as_millis() {
            return Err(Closed::Refused);
        }
        let caller = Caller::of_secret(&secret).ok_or(Closed::Refused)?;
        Ok((kind, caller))
    }

    /// Whether a stream may be served, and of what. Waits for upstream's word on a secret that is not known.
    async fn admit(&self, kind: StreamKind, caller: &Caller) -> Result<Arc<Held>, Closed> {
        let home = self.home_of(caller).ok_or(Closed::Refused)?;
        let held = match self.held(home, caller) {
            Some(held) => held,
            None if home.has_upstream => return Err(Closed::Unavailable),
            None => return Err(Closed::Refused),
        };
        let secret = held.join(&caller.key);
        let give_up_at = Instant::now() + self.patience;
        let mut learning = held.learning();
        let mut asked = false;
        loop {
            let claim = self.claim_anew(&held, caller);
            let admission = secret
                .as_ref()
                .map_or(Admission::Unknown, |secret| secret.admission(kind));
            let is_asked = secret.as_ref().is_some_and(|secret| secret.is_asked(kind));
            match (claim, admission) {
                (Claim::Rejected, _) | (_, Admission::Refused) => return Err(Closed::Refused),
                (Claim::Good, Admission::Admitted) => return Ok(held),
                // What the operator named needs no word from upstream, nor does what no upstream knows.
                (Claim::Good, Admission::Unknown) if self.is_vouched(&held, caller) => return Ok(held),
                (Claim::Unknown, _) if !home.has_upstream => return Err(Closed::Refused),
                _ => {}
            }
            let over = (asked && !is_asked) || Instant::now() >= give_up_at;
            let Some(secret) = secret.as_ref().filter(|_| !over) else {
                // Upstream did not say: those who were good before stay so.
                return match claim {
                    Claim::Good => Ok(held),
                    _ => Err(Closed::Unavailable),
                };
            };
            if !std::mem::replace(&mut asked, true) {
                held.ask(secret, Some(kind));
            }
            // Late is fine: it is looked at above.
            let _ = tokio::time::timeout_at(give_up_at, learning.changed()).await;
        }
    }

    /// Whether the configuration itself names a secret, or covers its environment with a file.
    fn is_vouched(&self, held: &Held, caller: &Caller) -> bool {
        let deployment = self.deployments.get(held.environment, &caller.key);
        held.has_bootstrap() || deployment.is_some_and(|deployment| deployment.configured)
    }
}

impl Opening {
    fn read(featbit: &Arc<Featbit>, query: Option<&str>) -> Self {
        let pairs = query::pairs(query.unwrap_or_default()).unwrap_or_default();
        let of = |name: &str| {
            let pair = pairs.iter().find(|pair| pair.name.eq_ignore_ascii_case(name));
            pair.map(|pair| &*pair.value)
        };
        Self {
            featbit: Arc::clone(featbit),
            kind: StreamKind::ALL
                .into_iter()
                .find(|kind| of("type") == Some(kind.as_str())),
            version_fits: matches!(of("version").unwrap_or_default(), "" | "1" | "2"),
            token: of("token").filter(|token| !token.is_empty()).map(Arc::from),
        }
    }
}

/// `Sec-WebSocket-Accept` for a request that is a websocket handshake.
fn accept_key(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let names = |name, wanted: &str| {
        headers.get_all(name).iter().any(|value| {
            let text = value.to_str().unwrap_or_default();
            text.split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(wanted))
        })
    };
    let is_handshake = version == Version::HTTP_11
        && names(CONNECTION, "upgrade")
        && names(UPGRADE, "websocket")
        && headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_some_and(|version| version == "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_handshake)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

/// The response that a stream's request gets from [`Featbit::upgrade`], for the connection: the opening is taken out.
pub fn take_opening<B>(response: &mut Response<B>) -> Option<Opening> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    response.extensions_mut().remove()
}
