//! What the fake cloud knows: its keys and flags, the rules in force, and every request it received.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::answer;
use super::fault::{Answer, Door, Fault, Rule};
use super::request::{Question, Recorded};
use crate::support::fake::{self, Knowledge};
use crate::support::flags;

/// Makes the body of a vardata answer from the question and the flags of its key.
pub type AnswerFn = dyn Fn(&Question, &Value) -> Value + Send + Sync;

/// Everything that changes while the fake cloud runs.
pub struct State {
    /// Every request, in the order in which they were read.
    pub requests: Vec<Recorded>,
    /// Rules in force, the latest last; the latest that applies wins.
    pub rules: Vec<Rule>,
    /// Deployment keys that are accepted; `None` = any that begins with `server-` or `client-`.
    pub keys: Option<BTreeSet<String>>,
    /// Keys that are refused whatever `keys` says.
    pub revoked: BTreeSet<String>,
    /// Flags of the deployments that have none of their own.
    pub flags: Value,
    /// Flags of single deployments.
    pub own_flags: BTreeMap<String, Value>,
    /// Whether flags carry an `ETag`.
    pub etags: bool,
    /// Headers on every proper answer.
    pub headers: Vec<(String, String)>,
    /// Makes vardata answers.
    pub answer: Arc<AnswerFn>,
    /// The door as the listener has it now.
    pub door: Door,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections open now.
    pub open: usize,
}

impl State {
    /// Whether a request with this deployment key is let in.
    pub fn accepts(&self, key: Option<&str>) -> bool {
        let Some(key) = key.filter(|key| !self.revoked.contains(*key)) else {
            return false;
        };
        self.keys.as_ref().map_or_else(
            || key.starts_with("server-") || key.starts_with("client-"),
            |keys| keys.contains(key),
        )
    }

    /// The flags of a deployment.
    pub fn flags_of(&self, key: &str) -> &Value {
        self.own_flags.get(key).unwrap_or(&self.flags)
    }
}

impl Knowledge for State {
    fn seen(&self) -> Vec<String> {
        let line = |request: &Recorded| format!("{} {}", request.method, request.target);
        self.requests.iter().map(line).collect()
    }
}

/// The signals between the test and the listener's thread.
pub struct Signals {
    /// The door as the test wants it.
    pub door: watch::Sender<Door>,
    /// Counts the times that all connections were cut.
    pub cut: watch::Sender<u64>,
    /// Counts the times that idle connections were closed.
    pub idle: watch::Sender<u64>,
    /// Counts the times that held answers were released.
    pub released: watch::Sender<u64>,
    /// Frames for every open stream.
    pub frames: broadcast::Sender<String>,
}

/// What the test and the listener's thread share.
pub type Shared = fake::Shared<State, Signals>;

/// A cloud in good health with the usual flags.
pub fn healthy() -> Shared {
    let state = State {
        requests: Vec::new(),
        rules: Vec::new(),
        keys: None,
        revoked: BTreeSet::new(),
        flags: flags::flags(1),
        own_flags: BTreeMap::new(),
        etags: false,
        headers: Vec::new(),
        answer: Arc::new(answer::evaluated_and_who),
        door: Door::Refused,
        accepted: 0,
        open: 0,
    };
    let signals = Signals {
        door: watch::Sender::new(Door::Open),
        cut: watch::Sender::new(0),
        idle: watch::Sender::new(0),
        released: watch::Sender::new(0),
        frames: broadcast::Sender::new(64),
    };
    Shared::new(state, signals)
}

impl Shared {
    /// Records `request` and says what it gets: the proper answer and the fault that strikes it, if any.
    pub fn receive(&self, request: &Recorded) -> (Answer, Option<Fault>) {
        self.update(|state| {
            let answer = answer::answer(state, request);
            let route = request.route();
            let rules = state.rules.iter_mut().rev();
            let fault = rules
                .filter(|rule| rule.route.covers(route))
                .find_map(|rule| rule.strikes().then(|| rule.fault.clone()));
            state.requests.push(request.clone());
            (answer, fault)
        })
    }
}
