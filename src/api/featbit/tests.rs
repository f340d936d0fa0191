//! Standing in for an evaluation server, without sockets and with a paused clock.

mod requests;
mod streams;

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::streaming::take_opening;
use super::*;
use crate::config;
use crate::evaluate::featbit::{DataSync, token};
use crate::metrics::StreamKind;
use crate::metrics::{EventMetrics, StreamMetrics};
use crate::store::featbit::Admission;
use crate::track::QueueLimits;

const ENV: &str = include_str!("../../../tests/vectors/featbit/env-shop-production-1.json");
const HTTP: &str = include_str!("../../../tests/vectors/featbit/http.json");
const EVER: Duration = Duration::from_secs(3_600);

fn env() -> Value {
    serde_json::from_str(ENV).unwrap()
}

fn secret_of(kind: &str) -> String {
    let env = env();
    let secrets = env["secrets"].as_array().unwrap();
    let found = secrets.iter().find(|secret| secret["type"] == kind).unwrap();
    found["value"].as_str().unwrap().to_owned()
}

/// A stand-in whose follower is the test.
struct Scene {
    featbit: Arc<Featbit>,
    held: Arc<Held>,
    events: Arc<EventMetrics>,
    _followed: mpsc::Receiver<Arc<Held>>,
}

impl Scene {
    /// With an upstream and these configured secrets; nothing is synced yet.
    fn start(configured: &[&str]) -> Self {
        Self::start_with(configured, true, 100)
    }

    fn start_with(configured: &[&str], has_upstream: bool, max_streams: usize) -> Self {
        let keys = config::Keys {
            max_learnt: 8,
            negative_entries: 16,
            negative_ttl: Duration::from_secs(10),
        };
        let named = configured.iter().map(|text| (3, key(text)));
        let deployments = Arc::new(Deployments::new(&keys, named));
        let id = secret::environment_of(&secret_of("server")).unwrap();
        let environments = Arc::new(Environments::new([Held::new(3, id, None)], 4));
        let held = environments.get(3, id).unwrap();
        for text in configured {
            held.join(&key(text)).unwrap();
        }
        let events: Arc<EventMetrics> = Arc::default();
        let queue = Queue::new(QueueLimits::default(), Arc::clone(&events));
        let (sync, followed) = FeatbitSync::new(4);
        let home = Home {
            index: 3,
            has_upstream,
            learns: has_upstream,
        };
        let featbit = Featbit {
            strict: false,
            unevaluable: Unevaluable::default(),
            environments,
            deployments,
            homes: vec![home],
            sync,
            events: Arc::new(queue),
            streams: Streams::new(max_streams, Arc::new(StreamMetrics::default())),
            patience: Duration::from_secs(5),
            token_age: Duration::from_secs(30),
        };
        Self {
            featbit: Arc::new(featbit),
            held,
            events,
            _followed: followed,
        }
    }

    fn sync(&self, message: &Value) {
        let message = DataSync::parse(message.to_string().as_bytes()).unwrap();
        let before = self.held.synced().unwrap_or_default();
        self.held
            .publish(&self.featbit.deployments, before.apply(&message));
    }

    fn sync_all(&self) {
        self.sync(&env()["payload"]);
    }

    fn accept(&self, text: &str) {
        let deployments = &self.featbit.deployments;
        deployments.accept(3, &key(text), deployments.begin());
        self.held.learnt();
    }

    fn reject(&self, text: &str) {
        let json = HeaderValue::from_static("application/json");
        let now = std::time::Instant::now();
        self.featbit
            .deployments
            .reject(3, &key(text), now, json, Bytes::new());
    }

    /// Opens a stream with these parameters.
    fn stream(&self, query: &str) -> Client {
        let query = query.replace("TOKEN", &token::encode(&secret_of("server"), unix_ms(), 20));
        self.stream_with(&query, 1 << 20)
    }

    /// Opens a stream of a client.
    fn client_stream(&self, secret: &str) -> Client {
        let token = token::encode(secret, unix_ms(), 9);
        self.stream(&format!("type=client&token={token}"))
    }

    fn stream_with(&self, query: &str, pipe: usize) -> Client {
        let reply = self.featbit.upgrade(Version::HTTP_11, &handshake(), Some(query));
        let Reply::Answer(mut response, _) = reply else {
            panic!()
        };
        let opening = take_opening(&mut response).unwrap();
        let (ours, theirs) = tokio::io::duplex(pipe);
        let served = tokio::task::spawn_local(async move {
            let sweep = Sweep::default();
            let ticking = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    sweep.tick();
                }
            };
            tokio::select! {
                () = opening.serve(ours, Bytes::new(), &sweep) => {}
                () = ticking => {}
            }
        });
        Client {
            io: Some(theirs),
            socket: None,
            served,
        }
    }
}

/// A client's end of a stream.
struct Client {
    io: Option<DuplexStream>,
    socket: Option<WebSocketStream<DuplexStream>>,
    served: JoinHandle<()>,
}

impl Client {
    async fn socket(&mut self) -> &mut WebSocketStream<DuplexStream> {
        if let Some(io) = self.io.take() {
            self.socket = Some(WebSocketStream::from_raw_socket(io, Role::Client, None).await);
        }
        self.socket.as_mut().unwrap()
    }

    async fn say(&mut self, message: &Value) {
        let text = Message::text(message.to_string());
        self.socket().await.send(text).await.unwrap();
    }

    /// The next message, or the close code.
    async fn next(&mut self) -> Result<Value, u16> {
        let socket = self.socket().await;
        loop {
            match timeout(EVER, socket.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(0, |it| it.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1),
            }
        }
    }

    async fn asks(&mut self, timestamp: i64) -> Result<Value, u16> {
        self.say(&json!({"messageType": "data-sync", "data": {"timestamp": timestamp}}))
            .await;
        self.next().await
    }

    async fn asks_for(&mut self, user: &str, timestamp: i64) -> Result<Value, u16> {
        let data = json!({"timestamp": timestamp, "user": {"keyId": user, "name": user}});
        self.say(&json!({"messageType": "data-sync", "data": data})).await;
        self.next().await
    }

    /// Whether nothing comes but an answer to a ping.
    async fn is_quiet(&mut self) -> bool {
        self.say(&json!({"messageType": "PING", "data": {}})).await;
        self.next().await == Ok(json!({"messageType": "pong", "data": {}}))
    }
}

fn key(text: &str) -> DeploymentKey {
    DeploymentKey::new(text.as_bytes()).unwrap()
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    };
    lines.iter().map(line).collect()
}

fn handshake() -> HeaderMap {
    headers(&[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ])
}

async fn taken(reply: Reply) -> (StatusCode, HeaderMap, String) {
    let Reply::Answer(response, _) = reply else {
        panic!("{reply:?}")
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (parts.status, parts.headers, body)
}

async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

/// A flag of the payload, changed now.
fn changed_flag(at: usize, updated_at: &str) -> Value {
    let mut flag = env()["payload"]["data"]["featureFlags"][at].take();
    flag["updatedAt"] = json!(updated_at);
    flag
}

fn patch(flags: &[Value], segments: &[Value]) -> Value {
    json!({"messageType": "data-sync",
        "data": {"eventType": "patch", "featureFlags": flags, "segments": segments}})
}
