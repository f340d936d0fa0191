//! One upstream host as all workers see it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use rustls_pki_types::ServerName;

use super::breaker::{Breaker, BreakerState};
use super::error::{UpstreamError, UpstreamSetupError};
use super::lock;
use super::resolve::{Lookup, Resolver};
use crate::config::{self, BaseUrl};
use crate::metrics::Outcome;

/// One base URL: its breaker, its addresses, and what a request to it needs, prepared.
#[derive(Debug)]
pub struct Origin {
    /// Position in [`super::Shared`], and in every client's pools.
    index: usize,
    base: Arc<BaseUrl>,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    server_name: Option<ServerName<'static>>,
    resolver: Resolver,
    pub(super) breaker: Breaker,
    pub(super) in_flight: AtomicUsize,
    pub(super) connections: AtomicUsize,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    success: Option<SystemTime>,
    failure: Option<(Outcome, SystemTime)>,
}

impl Origin {
    pub(super) fn new(
        index: usize,
        base: &Arc<BaseUrl>,
        settings: &config::Upstream,
        lookup: Lookup,
    ) -> Result<Self, UpstreamSetupError> {
        let wrong = || UpstreamSetupError::Host {
            base: base.to_string(),
        };
        let bracketed = if base.host.contains(':') {
            format!("[{}]", base.host)
        } else {
            base.host.clone()
        };
        let default_port = if base.tls { 443 } else { 80 };
        let authority = if base.port == default_port {
            bracketed
        } else {
            format!("{bracketed}:{}", base.port)
        };
        let server_name = if base.tls {
            Some(ServerName::try_from(base.host.clone()).map_err(|_| wrong())?)
        } else {
            None
        };
        Ok(Self {
            index,
            base: Arc::clone(base),
            scheme: if base.tls { Scheme::HTTPS } else { Scheme::HTTP },
            host: HeaderValue::from_str(&authority).map_err(|_| wrong())?,
            authority: Authority::try_from(authority).map_err(|_| wrong())?,
            server_name,
            resolver: Resolver::new(&base.host, base.port, settings.dns_refresh, lookup),
            breaker: Breaker::new(
                settings.circuit_failures,
                settings.circuit_open_for,
                RandomState::new().hash_one(index),
            ),
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            last: Mutex::new(Last::default()),
        })
    }

    /// The base URL.
    #[must_use]
    pub fn base(&self) -> &Arc<BaseUrl> {
        &self.base
    }

    /// Host and, unless it is the scheme's own, port: for logs and `/status`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// Position among the origins, from 0: metrics keep their handles in an array by it.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// State of the breaker.
    #[must_use]
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Attempts under way, all workers together.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections, idle ones included, all workers together.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// When an answer below 500 last came, if ever.
    #[must_use]
    pub fn last_success(&self) -> Option<SystemTime> {
        lock(&self.last).success
    }

    /// How and when the last failure was, if ever: anything but an answer below 500.
    #[must_use]
    pub fn last_failure(&self) -> Option<(Outcome, SystemTime)> {
        lock(&self.last).failure
    }

    /// Whether a failure of this kind would be the first since an answer.
    pub(super) fn is_news(&self, outcome: Outcome) -> bool {
        let last = lock(&self.last);
        let known = last
            .failure
            .filter(|(_, at)| last.success.is_none_or(|success| success <= *at));
        known.is_none_or(|(kind, _)| kind != outcome)
    }

    /// Notes how an attempt ended, for the three above.
    pub(super) fn note(&self, outcome: Outcome) {
        let now = SystemTime::now();
        let mut last = lock(&self.last);
        match outcome {
            Outcome::Success
            | Outcome::Redirect
            | Outcome::ClientError
            | Outcome::Rejected
            | Outcome::Throttled => last.success = Some(now),
            Outcome::Cancelled | Outcome::CircuitOpen => {}
            Outcome::ServerError
            | Outcome::Dns
            | Outcome::Connect
            | Outcome::Tls
            | Outcome::Timeout
            | Outcome::Reset
            | Outcome::Protocol => last.failure = Some((outcome, now)),
        }
    }

    pub(super) const fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The name to ask TLS for; `None`: no TLS.
    pub(super) const fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// The `Host` header.
    pub(super) const fn host_header(&self) -> &HeaderValue {
        &self.host
    }

    /// Path and query at upstream, the base's prefix in front.
    ///
    /// # Errors
    ///
    /// `Unsendable` unless the target has a path (`*` and authority-form have none).
    pub(super) fn target(&self, wanted: &Uri) -> Result<PathAndQuery, UpstreamError> {
        let target = wanted.path_and_query().ok_or(UpstreamError::Unsendable)?;
        if !target.as_str().starts_with('/') {
            return Err(UpstreamError::Unsendable);
        }
        if self.base.path.is_empty() {
            return Ok(target.clone());
        }
        let joined = [self.base.path.as_str(), target.as_str()].concat();
        PathAndQuery::from_maybe_shared(Bytes::from(joined)).map_err(|_| UpstreamError::Unsendable)
    }

    /// The URI to send: origin-form over HTTP/1.1, with scheme and authority over HTTP/2.
    pub(super) fn uri(&self, target: &PathAndQuery, http2: bool) -> Result<Uri, UpstreamError> {
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(target.clone());
        if http2 {
            parts.scheme = Some(self.scheme.clone());
            parts.authority = Some(self.authority.clone());
        }
        Uri::from_parts(parts).map_err(|_| UpstreamError::Unsendable)
    }
}
