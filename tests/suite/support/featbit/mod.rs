//! A fake FeatBit evaluation server on loopback: it answers as the contract says (FB 2, 3, 6 and 7), fails as it is
//! told to, and remembers every request.
//!
//! Its flags are those of a recorded environment; what it evaluates, the program's own engine evaluates, which has
//! its golden data elsewhere. What tests look at here is who was asked what, and which data an answer shows.

mod serve;
mod state;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::fake::Server;
use super::sidecar::{Builder, Sidecar};
use state::Shared;
pub use state::{Failure, Recorded, Route};

/// The environment that it serves.
const ENV: &str = include_str!("../../../vectors/featbit/env-shop-production-1.json");

/// A fake evaluation server in a thread of its own; dropping it ends it.
#[derive(Debug)]
pub struct FakeFeatbit {
    shared: Arc<Shared>,
    server: Server,
}

impl FakeFeatbit {
    /// Starts a healthy server on a free port of `127.0.0.1`.
    pub fn start() -> Self {
        let env: Value = serde_json::from_str(ENV).expect("the vector is JSON");
        let shared = Arc::new(state::healthy(&env));
        let inner = Arc::clone(&shared);
        let server = Server::start(|address| serve::listen(address, inner));
        shared.wait("its listener", |state| state.is_listening);
        Self { shared, server }
    }

    /// Its base URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The program in front of it, on free ports, with its server secret.
    pub fn proxied(&self) -> Builder {
        self.proxied_without_secret()
            .env("FLAGSIDE_FEATBIT_SECRET", &self.secret("server"))
    }

    /// The same without any secret.
    pub fn proxied_without_secret(&self) -> Builder {
        Sidecar::alone()
            .arg("--featbit-upstream")
            .arg(&self.url())
            .set("sync.featbit_poll_interval", "1s")
    }

    /// The program in front of it with the data of its environment, which `builder` gives it a secret for.
    pub fn synced(&self, builder: Builder) -> Sidecar {
        let sidecar = builder.start();
        let changed = [("source", "fb_stream"), ("result", "changed")];
        sidecar.wait_for_metric("flagside_sync_runs_total", &changed, 1.0);
        sidecar
    }

    /// The configuration file of one environment with it as upstream and its server secret, and these lines more.
    pub fn environment(&self, lines: &str) -> String {
        format!(
            "environments:\n  - name: fb\n    backend: featbit\n    urls: {{featbit: \"{}\"}}\n    env_secrets: [{}]\n{lines}",
            self.url(),
            self.secret("server")
        )
    }

    // What it knows.

    /// Its secret of a kind, `server` or `client`.
    pub fn secret(&self, kind: &str) -> String {
        self.shared.lock().secret(kind).to_owned()
    }

    /// Refuses a secret with 401, and its streams with 4003, from now on.
    pub fn revoke(&self, secret: &str) {
        self.shared
            .update(|state| state.revoked.insert(secret.to_owned()));
    }

    /// Takes a revocation back.
    pub fn restore(&self, secret: &str) {
        self.shared.update(|state| state.revoked.remove(secret));
    }

    /// Numbers its answers to evaluate requests from now on, so that each tells which request it was made for.
    pub fn number_answers(&self) {
        self.shared.update(|state| state.numbers = Some(0));
    }

    /// Its whole data, as a data-sync message.
    pub fn payload(&self) -> Value {
        let state = self.shared.lock();
        json!({"messageType": "data-sync", "data":
            {"eventType": "full", "featureFlags": state.flags, "segments": state.segments}})
    }

    /// A flag as it has it now.
    pub fn flag(&self, key: &str) -> Value {
        let state = self.shared.lock();
        let flag = state.flags.iter().find(|flag| flag["key"] == key);
        flag.unwrap_or_else(|| panic!("there is no flag {key}")).clone()
    }

    /// The keys of its flags.
    pub fn keys(&self) -> Vec<String> {
        let state = self.shared.lock();
        let key = |flag: &Value| flag["key"].as_str().unwrap_or_default().to_owned();
        state.flags.iter().map(key).collect()
    }

    /// What it answers to an evaluate request with this body, now.
    pub fn verdict(&self, body: &Value) -> Value {
        self.shared.lock().evaluate(body.to_string().as_bytes())
    }

    /// Changes a flag: it is updated now, and told to everybody who streams.
    pub fn change(&self, key: &str, change: impl FnOnce(&mut Value)) {
        let mut flag = self.flag(key);
        change(&mut flag);
        self.shared.update(|state| {
            flag["updatedAt"] = json!(state.next_update());
            let place = state.flags.iter_mut().find(|held| held["key"] == key);
            *place.expect("it was there") = flag.clone();
        });
        let _ = self.shared.signals.pushed.send(vec![flag]);
    }

    /// Turns a flag on or off.
    pub fn turn(&self, key: &str, on: bool) {
        self.change(key, |flag| flag["isEnabled"] = json!(on));
    }

    /// Deletes a flag, which is told to nobody.
    pub fn delete(&self, key: &str) {
        self.shared
            .update(|state| state.flags.retain(|flag| flag["key"] != key));
    }

    /// Sets its clock: streams want tokens of its time, and its answers tell it.
    pub fn set_clock(&self, ahead_seconds: i64) {
        self.shared.update(|state| state.ahead_seconds = ahead_seconds);
    }

    // How it fails.

    /// Lets requests of a route fail until [`Self::heal`].
    pub fn fail(&self, route: Route, failure: Failure) {
        self.shared
            .update(|state| state.failures.push((route, failure, None)));
    }

    /// Lets the next `times` requests of a route fail.
    pub fn fail_times(&self, route: Route, failure: Failure, times: usize) {
        self.shared
            .update(|state| state.failures.push((route, failure, Some(times))));
    }

    /// Sends the answers that [`Failure::Hold`] holds back, and ends that failure.
    pub fn release(&self) {
        let is_hold = |failure: &Failure| matches!(failure, Failure::Hold);
        self.shared
            .update(|state| state.failures.retain(|(_, failure, _)| !is_hold(failure)));
        self.shared.signals.released.send_modify(|count| *count += 1);
    }

    /// Closes its listener and every connection: the port refuses.
    pub fn go_down(&self) {
        self.shared.signals.door.send_replace(false);
        self.shared.wait("its listener to close", |state| {
            !state.is_listening && state.streams == 0
        });
    }

    /// Ends every failure, and listens again on the same port.
    pub fn heal(&self) {
        self.shared.update(|state| state.failures.clear());
        self.shared.signals.door.send_replace(true);
        self.shared.wait("its listener", |state| state.is_listening);
    }

    /// Closes every stream with this code.
    pub fn close_streams(&self, code: u16) {
        let _ = self.shared.signals.closed.send(code);
    }

    // What it saw.

    /// The requests of a route so far.
    pub fn requests(&self, route: Route) -> Vec<Recorded> {
        let state = self.shared.lock();
        let of_route = |request: &&Recorded| route.covers(request.route());
        state.requests.iter().filter(of_route).cloned().collect()
    }

    /// How many requests of a route there were.
    pub fn count(&self, route: Route) -> usize {
        self.requests(route).len()
    }

    /// Waits until there were at least `count` requests of a route, and returns them.
    pub fn wait_for(&self, route: Route, count: usize) -> Vec<Recorded> {
        self.shared
            .wait(&format!("{count} requests on {route:?}"), |state| {
                let of_route = |request: &&Recorded| route.covers(request.route());
                state.requests.iter().filter(of_route).count() >= count
            });
        self.requests(route)
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.update(|state| state.requests.clear());
    }

    /// Waits until so many streams are open.
    pub fn wait_for_streams(&self, count: usize) {
        self.shared
            .wait(&format!("{count} streams"), |state| state.streams == count);
    }

    /// Every element of every insight body that it took, in their order.
    pub fn insights(&self) -> Vec<Value> {
        self.shared.lock().insights.clone()
    }

    /// Waits until it took at least `count` insights, and returns them.
    pub fn wait_for_insights(&self, count: usize) -> Vec<Value> {
        self.shared.wait(&format!("{count} insights"), |state| {
            state.insights.len() >= count
        });
        self.insights()
    }
}

/// How long tokens are good for.
const TOKEN_AGE: Duration = Duration::from_secs(30);
