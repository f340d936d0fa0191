//! Standing in for an evaluation server, without sockets and with a paused clock.

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

#[tokio::test(start_paused = true)]
async fn whole_requests_are_answered_as_upstream_does() {
    let file: Value = serde_json::from_str(HTTP).unwrap();
    let mut n_seen = 0;
    for case in file["cases"].as_array().unwrap() {
        let path = case["path"].as_str().unwrap();
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let lines = case["headers"].as_object().unwrap();
        let lines: Vec<(&str, &str)> = lines
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        let (headers, body) = (headers(&lines), case["body"].as_str().unwrap_or_default());
        let secrets = [secret_of("server"), secret_of("client")];
        let scene = Scene::start(&secrets.each_ref().map(String::as_str));
        scene.sync_all();
        let reply = match path {
            "/api/public/insight/track" => scene.featbit.track(&headers, body.as_bytes()),
            "/api/public/sdk/server/latest-all" => scene.featbit.server_latest_all(&headers, query).await,
            "/api/public/sdk/client/latest-all" => {
                let (featbit, body) = (&scene.featbit, body.as_bytes());
                featbit.client_latest_all(&headers, query, body).await
            }
            "/health/liveness" => Featbit::liveness(),
            _ => continue,
        };
        n_seen += 1;
        let (status, headers, body) = taken(reply).await;
        let (id, wanted) = (&case["id"], &case["expect"]);
        assert_eq!(json!(status.as_u16()), wanted["status"], "{id}");
        if wanted["emptyBody"] == true {
            assert_eq!(body, "", "{id}");
        } else {
            assert_eq!(json!(body), wanted["text"], "{id}");
        }
        assert!(!headers.contains_key("www-authenticate") && !headers.contains_key(ETAG));
    }
    assert_eq!(n_seen, 9);
}

#[tokio::test(start_paused = true)]
async fn servers_get_the_data_unchanged() {
    let secret = secret_of("server");
    let scene = Scene::start(&[&secret]);
    scene.sync_all();
    let asked = headers(&[("authorization", &format!(" {secret} "))]);
    let latest = async |query: &str| {
        let (status, headers, body) = taken(scene.featbit.server_latest_all(&asked, Some(query)).await).await;
        assert_eq!(status, 200);
        assert!(!headers.contains_key(ETAG));
        assert_eq!(headers[CACHE_CONTROL], "private, no-store");
        (headers.get(CONTENT_TYPE).cloned(), body)
    };
    let (content_type, all) = latest("timestamp=0").await;
    assert_eq!(content_type.unwrap(), "application/json; charset=utf-8");
    let all: Value = serde_json::from_str(&all).unwrap();
    assert_eq!(all["data"]["eventType"], "full");
    let sorted = |list: &Value| {
        let mut list = list.as_array().unwrap().clone();
        list.sort_by_key(|item| item["id"].as_str().unwrap().to_owned());
        list
    };
    for name in ["featureFlags", "segments"] {
        assert_eq!(
            sorted(&all["data"][name]),
            sorted(&env()["payload"]["data"][name]),
            "{name}"
        );
    }
    let version = scene.held.data().unwrap().version();
    let (_, newer) = latest(&format!("timestamp={}", version - 1)).await;
    let newer: Value = serde_json::from_str(&newer).unwrap();
    assert_eq!(newer["data"]["eventType"], "patch");
    assert_eq!(
        latest(&format!("timestamp={version}")).await,
        (None, String::new())
    );
}

#[tokio::test(start_paused = true)]
async fn data_go_only_to_those_who_may_have_them() {
    let secret = secret_of("server");
    let asked = headers(&[("authorization", &secret)]);
    let status = async |scene: &Scene| {
        let reply = scene.featbit.server_latest_all(&asked, None).await;
        match reply {
            Reply::Answer(..) => taken(reply).await.0.as_u16(),
            Reply::Forward(3) => 1,
            Reply::Forward(_) => 0,
        }
    };
    let scene = Scene::start(&[]);
    assert_eq!(
        status(&scene).await,
        503,
        "nothing is there, and upstream says nothing"
    );
    scene.sync_all();
    assert_eq!(status(&scene).await, 503, "upstream says nothing of the secret");
    scene.accept(&secret);
    assert_eq!(status(&scene).await, 200);
    scene.reject(&secret);
    assert_eq!(status(&scene).await, 401);
    let scene = Scene::start(&[]);
    scene.sync(&json!({"messageType": "data-sync", "data": {"eventType": "full", "featureFlags": []}}));
    assert_eq!(
        status(&scene).await,
        1,
        "an empty environment: upstream may know better"
    );
    let scene = Scene::start_with(&[], false, 1);
    assert_eq!(status(&scene).await, 503, "there is no upstream");
    let scene = Scene::start(&[&secret]);
    let (found, ()) = tokio::join!(status(&scene), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.sync_all();
    });
    assert_eq!(found, 200, "the first sync is waited for");
    let scene = Scene::start(&[&secret]);
    let began = Instant::now();
    let (found, ()) = tokio::join!(status(&scene), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.held.sync_failed();
    });
    assert_eq!(
        (found, began.elapsed().as_secs()),
        (503, 1),
        "there is nothing to wait for"
    );
}

#[tokio::test(start_paused = true)]
async fn insights_are_taken_on_at_once() {
    let scene = Scene::start(&[]);
    let secret = secret_of("client");
    let json = ("content-type", "application/json");
    let asked = headers(&[("authorization", &secret), json]);
    let body = br#"[{"user":{"keyId":"a"},"variations":[]},{"user":{}},{"user":{"keyId":"b"}}]"#;
    let (status, _, text) = taken(scene.featbit.track(&asked, body)).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, ""));
    assert_eq!(scene.featbit.events.len(), 2);
    assert!(format!("{:?}", scene.events).contains("received: Count(2)"));
    let (status, headers, _) = taken(scene.featbit.track(&asked, b"[1,")).await;
    assert_eq!(status, 400);
    assert_eq!(headers[CONTENT_TYPE], "application/problem+json; charset=utf-8");
    let asked = self::headers(&[("authorization", &secret), ("content-type", "text/plain")]);
    assert_eq!(taken(scene.featbit.track(&asked, body)).await.0, 415);
}

#[tokio::test(start_paused = true)]
async fn readiness_says_whether_the_data_are_there() {
    let secret = secret_of("server");
    let readiness = async |scene: &Scene| {
        let (status, _, text) = taken(scene.featbit.readiness()).await;
        (status.as_u16(), text)
    };
    let scene = Scene::start(&[]);
    assert_eq!(
        readiness(&scene).await,
        (200, "Healthy".to_owned()),
        "nothing is needed"
    );
    let scene = Scene::start(&[&secret]);
    assert_eq!(readiness(&scene).await, (503, "Unhealthy".to_owned()));
    scene.sync_all();
    assert_eq!(readiness(&scene).await, (200, "Healthy".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_handshake_is_told_so() {
    let scene = Scene::start(&[]);
    let status = async |version, headers: &HeaderMap| {
        taken(scene.featbit.upgrade(version, headers, None))
            .await
            .0
            .as_u16()
    };
    assert_eq!(status(Version::HTTP_11, &handshake()).await, 101);
    assert_eq!(status(Version::HTTP_2, &handshake()).await, 426);
    for name in [
        "connection",
        "upgrade",
        "sec-websocket-version",
        "sec-websocket-key",
    ] {
        let mut headers = handshake();
        headers.remove(name);
        assert_eq!(status(Version::HTTP_11, &headers).await, 426, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_closed_with_4003() {
    let (server, client) = (secret_of("server"), secret_of("client"));
    local(async {
        let scene = Scene::start(&[&server, &client]);
        scene.sync_all();
        let kind = |text: &str, kind| {
            let secret = scene.held.secret(&key(text)).unwrap();
            secret.admitted(kind, Admission::Admitted);
        };
        kind(&server, StreamKind::Server);
        kind(&client, StreamKind::Client);
        let token = |secret: &str, age: i64| {
            let made = i64::try_from(unix_ms()).unwrap() - age;
            token::encode(secret, u64::try_from(made).unwrap(), 10)
        };
        for (query, wanted) in [
            ("type=server&token=TOKEN".to_owned(), None),
            ("type=server&version=&token=TOKEN".to_owned(), None),
            ("TYPE=server&Version=2&token=TOKEN".to_owned(), None),
            (format!("type=client&token={}", token(&client, 0)), None),
            (format!("type=server&token={}", token(&server, 29_000)), None),
            (format!("type=server&token={}", token(&server, -29_000)), None),
            (
                format!("type=server&token={}", token(&server, 31_000)),
                Some(4003),
            ),
            (
                format!("type=server&token={}", token(&server, -31_000)),
                Some(4003),
            ),
            ("token=TOKEN".to_owned(), Some(4003)),
            ("type=Server&token=TOKEN".to_owned(), Some(4003)),
            ("type=relay-proxy&token=TOKEN".to_owned(), Some(4003)),
            ("type=server&version=3&token=TOKEN".to_owned(), Some(4003)),
            ("type=server".to_owned(), Some(4003)),
            ("type=server&token=".to_owned(), Some(4003)),
            ("type=server&token=QQQQQ".to_owned(), Some(4003)),
            ("type=client&token=TOKEN".to_owned(), Some(4003)),
            (format!("type=server&token={}", token(&client, 0)), Some(4003)),
            (String::new(), Some(4003)),
        ] {
            let mut stream = scene.stream(&query);
            let ping = Message::text(r#"{"messageType":"ping","data":{}}"#);
            // Of a closed stream the ping may not go out.
            let _ = stream.socket().await.send(ping).await;
            assert_eq!(stream.next().await.err(), wanted, "{query}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_served_now_is_closed_so_that_it_is_tried_again() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[]);
        scene.sync_all();
        let close = async |scene: &Scene| scene.stream("type=server&token=TOKEN").next().await.unwrap_err();
        assert_eq!(close(&scene).await, 1011, "upstream says nothing of the secret");
        scene.accept(&server);
        let mut stream = scene.stream("type=server&token=TOKEN");
        assert!(stream.asks(0).await.is_ok(), "it was good before");
        scene.reject(&server);
        assert_eq!(close(&scene).await, 4003);
        assert_eq!(
            stream.asks(0).await,
            Err(4003),
            "and so for streams that are open"
        );
        let scene = Scene::start(&[&server]);
        let mut stream = scene.stream("type=server&token=TOKEN");
        assert_eq!(stream.asks(0).await, Err(1011), "no data came");
        let scene = Scene::start_with(&[&server], true, 1);
        scene.sync_all();
        let mut first = scene.stream("type=server&token=TOKEN");
        assert!(first.asks(0).await.is_ok());
        assert_eq!(close(&scene).await, 1013, "there is room for one");
        drop(first.socket);
        first.served.await.unwrap();
        assert_eq!(scene.featbit.streams.open(), 0);
        assert!(scene.stream("type=server&token=TOKEN").asks(0).await.is_ok());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_secret_is_served_once_upstream_admits_it() {
    let server = secret_of("server");
    local(async {
        for (admission, wanted) in [(Admission::Admitted, None), (Admission::Refused, Some(4003))] {
            let scene = Scene::start(&[]);
            scene.sync_all();
            let mut stream = scene.stream("type=server&token=TOKEN");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let secret = scene.held.secret(&key(&server)).unwrap();
            assert!(secret.is_asked(StreamKind::Server));
            secret.admitted(StreamKind::Server, admission);
            scene.accept(&server);
            assert_eq!(stream.asks(0).await.err(), wanted);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_told_everything_and_then_what_changes() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[&server]);
        scene.sync_all();
        let mut stream = scene.stream("type=server&token=TOKEN");
        let all = stream.asks(0).await.unwrap();
        assert_eq!(all["data"]["eventType"], "full");
        let version = scene.held.data().unwrap().version();
        let nothing = stream.asks(version).await.unwrap();
        assert_eq!(
            nothing["data"],
            json!({"eventType": "patch", "featureFlags": [], "segments": []})
        );
        let flag = changed_flag(0, "2031-01-01T00:00:00Z");
        scene.sync(&patch(std::slice::from_ref(&flag), &[]));
        assert_eq!(stream.next().await.unwrap(), patch(&[flag], &[]));
        let mut segment = env()["payload"]["data"]["segments"][0].take();
        segment["updatedAt"] = json!("2031-01-01T00:00:01Z");
        scene.sync(&patch(&[], std::slice::from_ref(&segment)));
        assert_eq!(stream.next().await.unwrap(), patch(&[], &[segment]));
        let mut fewer = env()["payload"].take();
        fewer["data"]["featureFlags"].as_array_mut().unwrap().truncate(3);
        scene.sync(&fewer);
        let all = stream.next().await.unwrap();
        assert_eq!(
            all["data"]["eventType"], "full",
            "a patch cannot tell what is gone"
        );
        assert_eq!(all["data"]["featureFlags"].as_array().unwrap().len(), 3);
        let echo = json!({"messageType": "echo", "data": {"a": [1, "x"]}});
        stream.say(&echo).await;
        assert_eq!(stream.next().await.unwrap(), echo);
        for odd in [
            json!({"messageType": "news", "data": 1}),
            json!({"messageType": "ping"}),
            json!(7),
        ] {
            stream.say(&odd).await;
        }
        stream.socket().await.send(Message::text("{")).await.unwrap();
        assert!(stream.is_quiet().await, "what is not known is passed over");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_what_concerns_its_user() {
    let client = secret_of("client");
    local(async {
        let scene = Scene::start(&[&client]);
        scene.sync_all();
        let token = token::encode(&client, unix_ms(), 9);
        let mut stream = scene.stream(&format!("type=client&token={token}"));
        scene.sync(&patch(&[changed_flag(0, "2031-01-01T00:00:00Z")], &[]));
        stream
            .say(&json!({"messageType": "data-sync", "data": {"timestamp": 0}}))
            .await;
        assert!(stream.is_quiet().await, "without a user there is nothing to tell");
        let all = stream.asks_for("ada", 0).await.unwrap();
        let data = scene.held.data().unwrap();
        assert_eq!(
            (&all["data"]["eventType"], &all["data"]["userKeyId"]),
            (&json!("full"), &json!("ada"))
        );
        let flags = all["data"]["featureFlags"].as_array().unwrap();
        assert!(!flags.is_empty() && flags.len() <= data.flags().len());
        let nothing = stream.asks_for("ada", data.version()).await.unwrap();
        assert_eq!(
            nothing["data"],
            json!({"eventType": "patch", "userKeyId": "ada", "featureFlags": []})
        );
        let flag = changed_flag(1, "2031-01-01T00:00:01Z");
        scene.sync(&patch(std::slice::from_ref(&flag), &[]));
        let told = stream.next().await.unwrap();
        assert_eq!(told["data"]["featureFlags"][0]["id"], flag["key"]);
        assert_eq!(told["data"]["featureFlags"].as_array().unwrap().len(), 1);
        stream.asks_for("bob", 0).await.unwrap();
        let flag = changed_flag(2, "2031-01-01T00:00:02Z");
        scene.sync(&patch(&[flag], &[]));
        let told = stream.next().await.unwrap();
        assert_eq!(told["data"]["userKeyId"], "bob", "it is bob's stream now");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_concerns_the_flags_that_name_it() {
    let client = secret_of("client");
    local(async {
        let scene = Scene::start(&[&client]);
        scene.sync_all();
        let token = token::encode(&client, unix_ms(), 9);
        let mut stream = scene.stream(&format!("type=client&token={token}"));
        stream.asks_for("ada", 0).await.unwrap();
        let segments = env()["payload"]["data"]["segments"].take();
        for (at, segment) in segments.as_array().unwrap().iter().enumerate() {
            let mut segment = segment.clone();
            segment["updatedAt"] = json!(format!("2031-01-01T00:00:{at:02}Z"));
            let data = scene.held.data().unwrap();
            let id = segment["id"].as_str().unwrap();
            let named: Vec<String> = data
                .flags_of_segment(id)
                .map(|flag| flag.key().to_owned())
                .collect();
            scene.sync(&patch(&[], &[segment.clone()]));
            if named.is_empty() {
                assert!(stream.is_quiet().await, "{id}");
                continue;
            }
            let told = stream.next().await.unwrap();
            let told = told["data"]["featureFlags"].as_array().unwrap();
            assert!(!told.is_empty(), "{id}");
            for flag in told {
                assert!(named.iter().any(|key| flag["id"] == json!(key)), "{id}");
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn data_that_come_late_are_told_to_those_who_wait() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[&server]);
        let mut stream = scene.stream("type=server&token=TOKEN");
        stream
            .say(&json!({"messageType": "data-sync", "data": {"timestamp": 0}}))
            .await;
        assert!(stream.is_quiet().await);
        scene.sync_all();
        assert_eq!(stream.next().await.unwrap()["data"]["eventType"], "full");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slow_and_silent_clients_are_cut_off() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[&server]);
        scene.sync_all();
        let query = format!("type=server&token={}", token::encode(&server, unix_ms(), 9));
        let mut slow = scene.stream_with(&query, 256);
        slow.say(&json!({"messageType": "data-sync", "data": {"timestamp": 0}}))
            .await;
        let began = Instant::now();
        timeout(EVER, &mut slow.served).await.unwrap().unwrap();
        assert_eq!(began.elapsed().as_secs(), 30);
        // It reads, as its library does for it, but its application says nothing: that is enough.
        let mut quiet = scene.stream_with(&query, 1 << 20);
        let reading = timeout(Duration::from_secs(600), quiet.next()).await;
        assert!(reading.is_err());
        // It does not read, so that it answers no ping either.
        let mut gone = scene.stream_with(&query, 1 << 20);
        let began = Instant::now();
        timeout(EVER, &mut gone.served).await.unwrap().unwrap();
        assert!((120..=123).contains(&began.elapsed().as_secs()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn messages_too_large_or_broken_end_a_stream() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[&server]);
        scene.sync_all();
        let mut stream = scene.stream("type=server&token=TOKEN");
        let echo = json!({"messageType": "echo", "data": "x".repeat((64 << 10) - 40)});
        stream.say(&echo).await;
        assert_eq!(stream.next().await.unwrap(), echo, "64 KiB are taken");
        let text = Message::text("x".repeat((64 << 10) + 1));
        stream.socket().await.send(text).await.unwrap();
        assert_eq!(stream.next().await, Err(1009));
    })
    .await;
}
