//! Calling upstream: connections, deadlines, retries, breakers.
//!
//! Every worker runtime has a [`Client`] with connections of its own; what workers share is in one
//! [`Shared`]: an [`Origin`] per base URL (breaker, addresses, counters) and a [`Gate`] per environment
//! (requests under way, retry budget, breakers of its own). The walk of one request:
//!
//! gate (slot) → breakers → pool (idle connection, or a new one) → headers cleaned → sent → head → body.
//!
//! What it never does: follow a redirect, queue for a slot, wait for a name while an address is known,
//! send a cookie, a client address or a hop-by-hop header, keep an answer. It calls upstream and says
//! truthfully how that ended; whether a status is a failure or a verdict is the caller's to say.
//!
//! Invariants: a dropped future gives back its slot, its probe and its connection; every exchange ends by
//! its deadline; an answer handed out by [`Client::fetch`] is whole; no error text holds a path, a query,
//! a header or a body.
//!
//! The pool is our own, over hyper's connections, for what `hyper_util`'s client does not tell: which
//! request met a connection that upstream had just closed (sent again at once), and which connection
//! went silent (not used again). It also costs less per request.

mod ask;
mod attempt;
mod backoff;
mod breaker;
mod budget;
mod client;
mod connect;
mod direct;
mod error;
mod exchange;
mod framing;
mod gate;
mod headers;
mod observe;
mod origin;
mod pool;
mod relay;
mod resolve;
mod shared;
#[cfg(test)]
mod tests;
mod websocket;

pub use ask::Ask;
pub use backoff::{Backoff, random_unit, retry_after};
pub use breaker::{Admission, Breaker, BreakerState};
pub use client::{Client, Limits};
pub use error::{Cause, Phase, UpstreamError, UpstreamSetupError};
pub use gate::Gate;
pub use observe::{NoObserver, Observer};
pub use origin::Origin;
pub use relay::RelayBody;
pub use shared::Shared;
pub use websocket::{Dialer, Opened, Socket, SocketError, SocketIo, date};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`; a panic elsewhere never makes upstreams unusable: every state behind these locks is
/// whole between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
