//! What the fake evaluation server knows, and every request that it received.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use flagside::evaluate::featbit::{DataSet, DataSync, EnvironmentId, Request, secret};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::support::fake::{self, Knowledge};

/// Which requests are meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    /// All of them.
    All,
    /// `POST /api/public/featureflag/evaluate`
    Evaluate,
    /// `GET /api/public/sdk/server/latest-all`
    Server,
    /// `POST /api/public/sdk/client/latest-all`
    Client,
    /// `/streaming`
    Streaming,
    /// `POST /api/public/insight/track`
    Insight,
    /// Anything else.
    Other,
}

impl Route {
    /// Whether a request of `other` is meant.
    pub fn covers(self, other: Self) -> bool {
        self == Self::All || self == other
    }
}

/// How a request fails.
#[derive(Clone, Debug)]
pub enum Failure {
    /// With this status and no body.
    Status(u16),
    /// 429 that asks to wait so many seconds.
    Throttle(u64),
    /// It gets no answer.
    Hang,
    /// The answer is made at once and sent when the test calls `release`.
    Hold,
    /// This status with a body of this content type.
    Says(u16, &'static str, &'static str),
    /// Its connection is closed without an answer.
    Reset,
    /// 200 with a body that is none.
    Nonsense,
    /// A stream is opened and closed with this code.
    Close(u16),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Query.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Recorded {
    /// Its route.
    pub fn route(&self) -> Route {
        match self.path.to_ascii_lowercase().as_str() {
            "/api/public/featureflag/evaluate" => Route::Evaluate,
            "/api/public/sdk/server/latest-all" => Route::Server,
            "/api/public/sdk/client/latest-all" => Route::Client,
            "/api/public/insight/track" => Route::Insight,
            "/streaming" => Route::Streaming,
            _ => Route::Other,
        }
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A parameter of the query, as it came.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(found, value)| (found == name).then_some(value))
    }
}

/// Everything that changes while the server runs.
pub struct State {
    pub id: EnvironmentId,
    secrets: Vec<(String, String)>,
    pub revoked: BTreeSet<String>,
    pub flags: Vec<Value>,
    pub segments: Vec<Value>,
    pub requests: Vec<Recorded>,
    pub insights: Vec<Value>,
    pub failures: Vec<(Route, Failure, Option<usize>)>,
    pub ahead_seconds: i64,
    /// Evaluate answers are not evaluated but numbered.
    pub numbers: Option<u32>,
    pub is_listening: bool,
    /// Streams open now.
    pub streams: usize,
    n_updates: u32,
}

impl State {
    pub fn new(env: &Value) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let secrets: Vec<(String, String)> = list(&env["secrets"])
            .iter()
            .map(|secret| (text(&secret["type"]), text(&secret["value"])))
            .collect();
        Self {
            id: secret::environment_of(&secrets[0].1).expect("the vector's secrets are good"),
            secrets,
            revoked: BTreeSet::new(),
            flags: list(&env["payload"]["data"]["featureFlags"]),
            segments: list(&env["payload"]["data"]["segments"]),
            requests: Vec::new(),
            insights: Vec::new(),
            failures: Vec::new(),
            ahead_seconds: 0,
            numbers: None,
            is_listening: false,
            streams: 0,
            n_updates: 0,
        }
    }

    pub fn secret(&self, kind: &str) -> &str {
        let found = self.secrets.iter().find(|(of, _)| of == kind);
        &found.expect("there is one of each kind").1
    }

    /// Whether HTTP requests with this secret are let in: any well-formed one is.
    pub fn lets_in(&self, secret: &str) -> bool {
        secret::environment_of(secret).is_some() && !self.revoked.contains(secret)
    }

    /// Whether it may open streams of a kind: it must be known, and of that kind.
    pub fn admits(&self, kind: &str, secret: &str) -> bool {
        let known = self
            .secrets
            .iter()
            .any(|(of, value)| of == kind && value == secret);
        known && !self.revoked.contains(secret)
    }

    pub fn now(&self) -> SystemTime {
        let ahead = Duration::from_secs(self.ahead_seconds.unsigned_abs());
        if self.ahead_seconds < 0 {
            SystemTime::now() - ahead
        } else {
            SystemTime::now() + ahead
        }
    }

    /// A time later than all updates so far.
    pub fn next_update(&mut self) -> String {
        self.n_updates += 1;
        format!("2035-01-01T00:00:00.{:03}Z", self.n_updates)
    }

    /// The failure that strikes a request, if any: the latest that applies.
    pub fn failure(&mut self, route: Route) -> Option<Failure> {
        let at = self
            .failures
            .iter()
            .rposition(|(of, _, left)| of.covers(route) && *left != Some(0))?;
        let (_, failure, left) = &mut self.failures[at];
        if let Some(left) = left {
            *left -= 1;
        }
        Some(failure.clone())
    }

    /// Its data for requests with secrets of environment `id`.
    pub fn data(&self, id: Option<EnvironmentId>) -> DataSet {
        if id != Some(self.id) {
            return DataSet::empty();
        }
        let message = json!({"eventType": "full", "featureFlags": self.flags, "segments": self.segments});
        let message = DataSync::parse(message.to_string().as_bytes()).expect("its flags are good");
        DataSet::empty().apply(&message).set
    }

    pub fn evaluate(&self, body: &[u8]) -> Value {
        let request = Request::parse(body).expect("the request is good");
        let mut out = Vec::new();
        self.data(Some(self.id)).evaluate(&request).write_json(&mut out);
        serde_json::from_slice(&out).expect("the engine writes JSON")
    }
}

impl Knowledge for State {
    fn seen(&self) -> Vec<String> {
        let line = |request: &Recorded| format!("{} {}", request.method, request.path);
        self.requests.iter().map(line).collect()
    }
}

/// The signals between the test and the server's thread.
pub struct Signals {
    /// Whether it is to listen.
    pub door: watch::Sender<bool>,
    /// Flags for everybody who streams.
    pub pushed: broadcast::Sender<Vec<Value>>,
    /// The code to close streams with.
    pub closed: broadcast::Sender<u16>,
    /// Counts the times that held answers were released.
    pub released: watch::Sender<u64>,
}

/// What the test and the server's thread share.
pub type Shared = fake::Shared<State, Signals>;

/// A server in good health with the data of a recorded environment.
pub fn healthy(env: &Value) -> Shared {
    let signals = Signals {
        door: watch::Sender::new(true),
        pushed: broadcast::Sender::new(64),
        closed: broadcast::Sender::new(16),
        released: watch::Sender::new(0),
    };
    Shared::new(State::new(env), signals)
}

impl Shared {
    /// The data of its environment.
    pub fn data(&self) -> DataSet {
        let state = self.lock();
        state.data(Some(state.id))
    }
}
