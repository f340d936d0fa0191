//! A fake Amplitude cloud on loopback: it answers as the contract says (API 2 to 5), fails as it is told to, and
//! remembers every request.

mod answer;
mod fault;
mod listener;
mod request;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

pub use answer::COHORT_SECRET;
use fault::Rule;
pub use fault::{Door, Fault, Route};
pub use request::{Question, Recorded};
use state::Shared;

use crate::support::fake::Server;
use crate::support::opinion::{self, Shape};

/// A deployment key that the fake cloud accepts unless a test says otherwise.
pub const KEY: &str = "server-0123456789abcdef";

/// A fake cloud in a thread of its own; dropping it ends it.
#[derive(Debug)]
pub struct FakeUpstream {
    shared: Arc<Shared>,
    server: Server,
}

impl FakeUpstream {
    /// Starts a healthy cloud on a free port of `127.0.0.1`.
    pub fn start() -> Self {
        let shared = Arc::new(state::healthy());
        let inner = Arc::clone(&shared);
        let server = Server::start(|address| listener::accept(address, inner));
        shared.wait("its listener", |state| state.door == Door::Open);
        Self { shared, server }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Its base URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    // What it knows.

    /// Accepts exactly these deployment keys from now on.
    pub fn accept_keys(&self, keys: &[&str]) {
        self.shared
            .update(|state| state.keys = Some(keys.iter().map(|key| (*key).to_owned()).collect()));
    }

    /// Refuses this key with 401 from now on.
    pub fn revoke(&self, key: &str) {
        self.shared.update(|state| state.revoked.insert(key.to_owned()));
    }

    /// Takes a revocation back.
    pub fn restore(&self, key: &str) {
        self.shared.update(|state| state.revoked.remove(key));
    }

    /// Replaces the flags of all deployments that have none of their own.
    pub fn set_flags(&self, flags: Value) {
        self.shared.update(|state| state.flags = flags);
    }

    /// Gives one deployment flags of its own.
    pub fn set_flags_of(&self, key: &str, flags: Value) {
        self.shared
            .update(|state| state.own_flags.insert(key.to_owned(), flags));
    }

    /// The flags that a deployment has now.
    pub fn flags_of(&self, key: &str) -> Value {
        self.shared.lock().flags_of(key).clone()
    }

    /// What its flags give this user on a route of this shape, by the second opinion; empty `keys` = all.
    pub fn verdict(&self, user: &str, keys: &[&str], shape: Shape) -> Value {
        let user = serde_json::from_str(user).expect("the user is JSON");
        let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        opinion::shape(opinion::evaluate(&self.flags_of(KEY), &user, &keys), shape)
    }

    /// Sends an `ETag` with flags, and honours `If-None-Match`.
    pub fn use_etags(&self) {
        self.shared.update(|state| state.etags = true);
    }

    /// Adds a header to every proper answer.
    pub fn add_header(&self, name: &str, value: &str) {
        self.shared
            .update(|state| state.headers.push((name.to_owned(), value.to_owned())));
    }

    /// Answers vardata with `answer` from now on.
    pub fn answer_with(&self, answer: impl Fn(&Question, &Value) -> Value + Send + Sync + 'static) {
        self.shared.update(|state| state.answer = Arc::new(answer));
    }

    // How it fails.

    /// Strikes every request with `fault` until [`Self::heal`].
    pub fn fail(&self, fault: Fault) {
        self.fail_on(Route::All, fault);
    }

    /// Strikes every request of a route.
    pub fn fail_on(&self, route: Route, fault: Fault) {
        self.rule(Rule {
            route,
            fault,
            skip: 0,
            times: None,
        });
    }

    /// Strikes the next `times` requests of a route, then no more.
    pub fn fail_times(&self, route: Route, fault: Fault, times: usize) {
        self.rule(Rule {
            route,
            fault,
            skip: 0,
            times: Some(times),
        });
    }

    /// Answers `count` more requests of a route, then strikes all others.
    pub fn fail_after(&self, count: usize, route: Route, fault: Fault) {
        self.rule(Rule {
            route,
            fault,
            skip: count,
            times: None,
        });
    }

    fn rule(&self, rule: Rule) {
        self.shared.update(|state| state.rules.push(rule));
    }

    /// Changes the state of the listener, ends the connections there are, and waits until it is so.
    pub fn set_door(&self, door: Door) {
        self.shared.signals.door.send_replace(door);
        self.shared.wait("the door", |state| state.door == door);
        self.cut();
    }

    /// Closes the listener and every connection: the port refuses.
    pub fn go_down(&self) {
        self.set_door(Door::Refused);
    }

    /// Ends every fault, releases what is held, and listens again on the same port.
    pub fn heal(&self) {
        self.shared.update(|state| state.rules.clear());
        self.release();
        if self.shared.lock().door != Door::Open {
            self.set_door(Door::Open);
        }
    }

    /// Sends the answers that [`Fault::Hold`] holds back, and ends that fault.
    pub fn release(&self) {
        self.shared
            .update(|state| state.rules.retain(|rule| !matches!(rule.fault, Fault::Hold)));
        self.shared.signals.released.send_modify(|count| *count += 1);
    }

    /// Breaks every open connection and waits until they are gone.
    pub fn cut(&self) {
        let accepted = self.shared.lock().accepted;
        self.shared.signals.cut.send_modify(|count| *count += 1);
        // Connections accepted after the cut may be open; with none of those, all are gone.
        self.shared.wait("its connections to end", |state| {
            state.open == 0 || state.accepted > accepted
        });
    }

    /// Closes the connections that wait for a request, as a cloud does after its idle time.
    pub fn close_idle(&self) {
        self.shared.signals.idle.send_modify(|count| *count += 1);
    }

    /// Sends a server-sent event with this data on every open stream.
    pub fn push(&self, data: &str) {
        let _ = self.shared.signals.frames.send(data.to_owned());
    }

    // What it saw.

    /// Every request so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().requests.clone()
    }

    /// The requests of a route so far.
    pub fn requests_on(&self, route: Route) -> Vec<Recorded> {
        self.requests()
            .into_iter()
            .filter(|request| route.covers(request.route()))
            .collect()
    }

    /// How many requests of a route there were.
    pub fn count(&self, route: Route) -> usize {
        self.requests_on(route).len()
    }

    /// Waits until there were at least `count` requests of a route, and returns them.
    pub fn wait_for(&self, route: Route, count: usize) -> Vec<Recorded> {
        self.shared
            .wait(&format!("{count} requests on {route:?}"), |state| {
                state
                    .requests
                    .iter()
                    .filter(|request| route.covers(request.route()))
                    .count()
                    >= count
            });
        self.requests_on(route)
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.update(|state| state.requests.clear());
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Waits until no more than `count` connections are open.
    pub fn wait_for_open_at_most(&self, count: usize) {
        self.shared
            .wait("its connections to end", |state| state.open <= count);
    }
}
