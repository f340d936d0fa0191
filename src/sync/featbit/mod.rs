//! FeatBit's data, kept up to date (FB 6): announced over a websocket, or else polled.
//!
//! Every environment of FeatBit has one follower, a task that lasts as long as the process (`follow`). It opens a
//! stream with the secret that upstream takes for a server's (`session`), polls while there is none, asks for
//! everything now and then because deletions are never announced, and finds out about secrets that requests
//! bring. What it needs of the world (connections, the clock, random numbers) is a [`Link`], so that all of it runs in
//! tests with a paused clock.
//!
//! Invariants: one writer per environment; a message is applied whole or not at all; no end of a stream is
//! final, not even 1000 or 4003; only a 401 takes a secret out of service; every message is bounded.

mod follow;
mod link;
mod session;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config;
use crate::evaluate::featbit::EnvironmentId;
use crate::store::Deployments;
use crate::store::featbit::Held;
use crate::task::{Stop, Tasks};
use crate::upstream::{Backoff, Client, Dialer};

use super::Environment;
use follow::Follower;

pub use link::{Link, LinkError, Polled, UpstreamLink};

/// Clocks and bounds of syncing.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether streams are opened at all; else data is polled alone.
    pub streaming: bool,
    /// Between two polls while there is no stream.
    pub poll_interval: Duration,
    /// Between two syncs of everything: deletions are never announced.
    pub resync_interval: Duration,
    /// Between two pings; silence of two of these ends a stream.
    pub ping_interval: Duration,
    /// For a stream to bring its first message.
    pub first_sync: Duration,
    /// Between two streams.
    pub backoff: Backoff,
    /// Between two streams after upstream refused one.
    pub refused_backoff: Backoff,
    /// Share of a poll interval by which it may come earlier or later.
    pub jitter: f64,
}

impl Default for Settings {
    /// FB 6: polls every 30 s, everything every 10 min, pings every 15 s, 1 to 60 s between two streams, and a
    /// minute or more after a refusal.
    fn default() -> Self {
        Self {
            streaming: true,
            poll_interval: Duration::from_secs(30),
            resync_interval: Duration::from_secs(600),
            ping_interval: Duration::from_secs(15),
            first_sync: Duration::from_secs(15),
            backoff: Backoff {
                first: Duration::from_secs(1),
                max: Duration::from_secs(60),
            },
            refused_backoff: Backoff {
                first: Duration::from_secs(120),
                max: Duration::from_secs(600),
            },
            jitter: 0.1,
        }
    }
}

/// Bytes of one message of a stream.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Follows environments of FeatBit; cheap to clone, for every worker.
#[derive(Clone, Debug)]
pub struct FeatbitSync {
    wanted: mpsc::Sender<Arc<Held>>,
    followed: Arc<Mutex<HashSet<(usize, EnvironmentId)>>>,
}

impl FeatbitSync {
    /// A handle for the workers, and what [`run`] takes on the background thread.
    #[must_use]
    pub fn new(max_environments: usize) -> (Self, mpsc::Receiver<Arc<Held>>) {
        let (wanted, receiver) = mpsc::channel(max_environments.max(16));
        let followed = Arc::default();
        (Self { wanted, followed }, receiver)
    }

    /// Begins to follow an environment, unless it is followed already.
    pub fn follow(&self, held: &Arc<Held>) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (held.environment, held.id);
        if !followed.contains(&name) && self.wanted.try_send(Arc::clone(held)).is_ok() {
            followed.insert(name);
        }
    }
}

/// What following needs, shared by all followers.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Requests; of the background thread.
    pub client: Arc<Client>,
    /// Websockets.
    pub dialer: Arc<Dialer>,
    /// Standing of secrets.
    pub deployments: Arc<Deployments>,
    /// The configured environments, by index.
    pub environments: Arc<[Arc<Environment>]>,
    /// How upstream is called.
    pub upstream: config::Upstream,
    /// Clocks.
    pub settings: Settings,
}

/// Follows every environment that comes through `wanted` until told to stop. `links` says how upstream is reached
/// from a configured environment; none where it is not FeatBit's or has no upstream.
pub async fn run<L: Link>(
    mut wanted: mpsc::Receiver<Arc<Held>>,
    shared: Shared,
    links: impl Fn(&Shared, &Environment) -> Option<L>,
    tasks: Tasks,
    stop: Stop,
) {
    loop {
        let held = tokio::select! {
            biased;
            () = stop.requested() => return,
            held = wanted.recv() => match held {
                Some(held) => held,
                None => return,
            },
        };
        let Some(environment) = shared.environments.get(held.environment) else {
            continue;
        };
        let Some(link) = links(&shared, environment) else {
            continue;
        };
        let follower = Follower::new(
            held,
            link,
            Arc::clone(&shared.deployments),
            Arc::clone(&environment.metrics),
            Arc::clone(&environment.name),
            shared.settings,
        );
        tasks.spawn("featbit", move |stop| async move { follower.run(&stop).await });
    }
}
