//! Followers against an upstream in memory, with a paused clock.

mod polls;
mod secrets;
mod streams;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::link::Stream;
use super::*;
use crate::evaluate::featbit::{EnvironmentId, token};
use crate::key::DeploymentKey;
use crate::metrics::{StreamKind, SyncMetrics};
use crate::store::Standing;
use crate::store::featbit::Admission;
use crate::task::Stopper;
use crate::upstream::UpstreamError;

const SECRET: &str = "gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w";
const OTHER: &str = "hpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w";
const ID: &str = "ad99d259-1f50-4ed9-a002-7c65e25487df";
/// Clock of the tests at their beginning.
const BEGIN_MS: i64 = 1_700_000_000_000;
const EVER: Duration = Duration::from_secs(3 * 3600);

/// A stream that the follower opened, seen from upstream.
struct Accepted {
    kind: StreamKind,
    secret: String,
    token_ms: i64,
    socket: WebSocketStream<DuplexStream>,
}

impl Accepted {
    async fn next(&mut self) -> Option<Value> {
        match timeout(EVER, self.socket.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        }
    }

    /// The next message that is no ping, and whose pings are answered.
    async fn asked(&mut self) -> Option<i64> {
        loop {
            let message = self.next().await?;
            if message["messageType"] == "data-sync" {
                return message["data"]["timestamp"].as_i64();
            }
            assert_eq!(message, json!({"messageType": "ping", "data": {}}));
            self.say(&json!({"messageType": "pong", "data": {}})).await;
        }
    }

    async fn say(&mut self, message: &Value) {
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        let _ = self.socket.close(Some(frame)).await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

type Poll = (String, i64, oneshot::Sender<Result<Polled, LinkError>>);

struct FakeLink {
    streams: mpsc::Sender<Accepted>,
    polls: mpsc::Sender<Poll>,
    began: Instant,
    /// Upstream's clock less ours.
    skew_ms: Arc<AtomicI64>,
    /// No stream can be opened.
    no_streams: bool,
}

impl FakeLink {
    fn date(&self) -> Option<SystemTime> {
        let upstream = u64::try_from(self.unix_ms() + self.skew_ms.load(Ordering::SeqCst)).unwrap();
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(upstream / 1000))
    }
}

impl Link for FakeLink {
    type Io = DuplexStream;

    async fn open(&self, kind: StreamKind, token: &str) -> Result<Stream<DuplexStream>, LinkError> {
        if self.no_streams {
            return Err(LinkError::Status {
                status: StatusCode::BAD_GATEWAY,
                retry_after: None,
            });
        }
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        let (secret, token_ms) = token::decode(token).unwrap();
        let accepted = Accepted {
            kind,
            secret,
            token_ms,
            socket: WebSocketStream::from_raw_socket(theirs, Role::Server, None).await,
        };
        self.streams.send(accepted).await.unwrap();
        Ok(Stream {
            socket,
            date: self.date(),
        })
    }

    async fn poll(&self, key: &DeploymentKey, since_ms: i64) -> Result<Polled, LinkError> {
        let (answer, answered) = oneshot::channel();
        let secret = String::from_utf8(key.expose().to_vec()).unwrap();
        self.polls.send((secret, since_ms, answer)).await.unwrap();
        answered
            .await
            .unwrap_or_else(|_| Err(UpstreamError::CircuitOpen.into()))
    }

    fn unix_ms(&self) -> i64 {
        BEGIN_MS + i64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

/// A follower at work, and upstream's end of it.
struct Scene {
    held: Arc<Held>,
    deployments: Arc<Deployments>,
    metrics: Arc<SyncMetrics>,
    streams: mpsc::Receiver<Accepted>,
    polls: mpsc::Receiver<Poll>,
    skew_ms: Arc<AtomicI64>,
    stopper: Stopper,
    running: JoinSet<()>,
    began: Instant,
}

impl Scene {
    fn start(secrets: &[&str]) -> Self {
        Self::start_with(secrets, false)
    }

    fn start_with(secrets: &[&str], no_streams: bool) -> Self {
        let held = Arc::new(Held::new(0, EnvironmentId::parse(ID).unwrap(), None));
        for secret in secrets {
            held.join(&key(secret)).unwrap();
        }
        let keys = config::Keys {
            max_learnt: 8,
            negative_entries: 16,
            negative_ttl: Duration::from_secs(10),
        };
        let deployments = Arc::new(Deployments::new(&keys, []));
        let metrics: Arc<SyncMetrics> = Arc::default();
        let (streams, streams_end) = mpsc::channel(16);
        let (polls, polls_end) = mpsc::channel(16);
        let skew_ms: Arc<AtomicI64> = Arc::default();
        let began = Instant::now();
        let link = FakeLink {
            streams,
            polls,
            began,
            skew_ms: Arc::clone(&skew_ms),
            no_streams,
        };
        let follower = Follower::new(
            Arc::clone(&held),
            link,
            Arc::clone(&deployments),
            Arc::clone(&metrics),
            Arc::from("e"),
            Settings::default(),
        );
        let stopper = Stopper::new();
        let stop = stopper.stop();
        let mut running = JoinSet::new();
        running.spawn(async move { follower.run(&stop).await });
        Self {
            held,
            deployments,
            metrics,
            streams: streams_end,
            polls: polls_end,
            skew_ms,
            stopper,
            running,
            began,
        }
    }

    /// The next stream that is opened; polls meanwhile fail.
    async fn stream(&mut self) -> Accepted {
        timeout(EVER, async {
            loop {
                tokio::select! {
                    Some(stream) = self.streams.recv() => return stream,
                    Some((.., answer)) = self.polls.recv() => {
                        let _ = answer.send(Err(UpstreamError::CircuitOpen.into()));
                    }
                }
            }
        })
        .await
        .unwrap()
    }

    async fn poll(&mut self) -> Poll {
        timeout(EVER, self.polls.recv()).await.unwrap().unwrap()
    }

    /// Waits until the data has this version.
    async fn version(&self, version: i64) {
        let mut changes = self.held.changes();
        let reached = async {
            while self.held.data().is_none_or(|data| data.version() != version) {
                changes.changed().await.unwrap();
            }
        };
        timeout(EVER, reached).await.unwrap();
    }

    fn standing(&self, secret: &str) -> Standing {
        crate::store::featbit::standing(&self.deployments, 0, &key(secret))
    }

    fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Whether no stream was refused.
    fn is_unrefused(&self) -> bool {
        format!("{:?}", self.metrics).contains("refusals: Count(0)")
    }
}

fn key(secret: &str) -> DeploymentKey {
    DeploymentKey::new(secret.as_bytes()).unwrap()
}

/// A message with one flag that was changed at `version`.
fn message(extent: &str, key: &str, version: i64) -> Value {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(version).unwrap());
    let at = time::OffsetDateTime::from(at)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let variation = "11111111-1111-1111-1111-111111111111";
    json!({"messageType": "data-sync", "data": {"eventType": extent, "segments": [], "featureFlags": [{
        "id": format!("id-{key}"), "envId": ID, "key": key, "name": key, "variationType": "boolean",
        "variations": [{"id": variation, "name": "on", "value": "true"}], "targetUsers": [], "rules": [],
        "isEnabled": true, "disabledVariationId": variation, "exptIncludeAllTargets": false, "tags": [],
        "fallthrough": {"dispatchKey": null, "includedInExpt": false,
            "variations": [{"id": variation, "rollout": [0, 1], "exptRollout": 1}]},
        "updatedAt": at, "isArchived": false}]}})
}

fn polled(message: &Value) -> Result<Polled, LinkError> {
    Ok(Polled {
        body: Bytes::from(message.to_string()),
        date: None,
    })
}
