//! Followers against an upstream in memory, with a paused clock.

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

#[tokio::test(start_paused = true)]
async fn a_stream_brings_everything_and_then_what_changes() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    assert_eq!(
        (stream.kind, stream.secret.as_str(), stream.token_ms),
        (StreamKind::Server, SECRET, BEGIN_MS)
    );
    assert_eq!(stream.asked().await, Some(0));
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    assert_eq!(scene.standing(SECRET), Standing::Accepted);
    let deployment = scene.deployments.get(0, &key(SECRET)).unwrap();
    assert_eq!(deployment.epoch(), 0, "the first sync adopts what is stored");
    stream.say(&message("patch", "b", 2000)).await;
    scene.version(2000).await;
    assert_eq!(scene.held.data().unwrap().flags().len(), 2);
    assert_eq!(deployment.epoch(), 1, "what is stored is no longer current");
    stream.say(&json!({"messageType": "news", "data": 1})).await;
    stream.say(&message("patch", "c", 3000)).await;
    scene.version(3000).await;
    let secret = scene.held.secret(&key(SECRET)).unwrap();
    assert_eq!(secret.admission(StreamKind::Server), Admission::Admitted);
    assert_eq!(secret.admission(StreamKind::Client), Admission::Refused);
    scene.stopper.request();
    timeout(EVER, scene.running.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_ten_minutes_everything_is_asked_for_and_what_is_gone_goes() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    let mut both = message("full", "a", 1000);
    let b = message("full", "b", 1000)["data"]["featureFlags"][0].take();
    both["data"]["featureFlags"].as_array_mut().unwrap().push(b);
    stream.say(&both).await;
    assert_eq!(stream.asked().await, Some(0));
    assert_eq!(scene.seconds(), 600);
    assert_eq!(scene.held.data().unwrap().flags().len(), 2);
    let mut changes = scene.held.changes();
    stream.say(&message("full", "a", 1000)).await;
    timeout(EVER, changes.changed()).await.unwrap().unwrap();
    assert_eq!(scene.held.data().unwrap().flags().len(), 1);
    stream.say(&message("full", "a", 1000)).await;
    assert_eq!(stream.asked().await, Some(0));
    assert_eq!(scene.seconds(), 1200);
    assert!(!changes.has_changed().unwrap(), "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn whatever_ends_a_stream_another_one_follows() {
    let mut scene = Scene::start(&[SECRET]);
    let mut waits = Vec::new();
    for code in [1000, 1001, 1006, 1011, 4000] {
        let mut stream = scene.stream().await;
        stream.asked().await;
        stream.say(&message("full", "a", 1000)).await;
        scene.version(1000).await;
        let ended = Instant::now();
        if code == 1006 {
            drop(stream);
        } else {
            stream.close(code).await;
        }
        let stream = scene.stream().await;
        waits.push(ended.elapsed().as_millis());
        drop(stream);
    }
    // 1 s with half of the jitter, and twice that after the stream that was dropped without having brought anything.
    assert!(waits.iter().all(|wait| (500..=1500).contains(wait)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn pauses_between_failing_streams_grow_to_a_minute_and_a_good_one_resets_them() {
    let mut scene = Scene::start(&[SECRET]);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        drop(scene.stream().await);
        let ended = Instant::now();
        let mut stream = scene.stream().await;
        pauses.push(ended.elapsed().as_millis());
        assert!(stream.asked().await.is_some());
        drop(stream);
        if pauses.len() == 4 {
            let mut stream = scene.stream().await;
            stream.asked().await;
            stream.say(&message("full", "a", 1000)).await;
            scene.version(1000).await;
        }
    }
    assert_eq!(
        pauses,
        [750, 3_000, 12_000, 45_000, 1_500, 6_000, 24_000, 45_000, 45_000]
    );
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_stream_after_two_pings() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    let ping = json!({"messageType": "ping", "data": {}});
    assert_eq!(stream.next().await, Some(ping.clone()));
    assert_eq!(scene.seconds(), 15);
    stream.say(&json!({"messageType": "pong", "data": {}})).await;
    assert_eq!(stream.next().await, Some(ping));
    assert_eq!(stream.next().await, None);
    assert_eq!(scene.seconds(), 45);
}

#[tokio::test(start_paused = true)]
async fn a_refused_secret_polls_and_tries_again_with_a_new_token() {
    let mut scene = Scene::start(&[SECRET]);
    let stream = scene.stream().await;
    stream.close(4003).await;
    let (secret, since, answer) = scene.poll().await;
    assert_eq!((secret.as_str(), since, scene.seconds()), (SECRET, 0, 0));
    answer.send(polled(&message("full", "a", 1000))).unwrap();
    scene.version(1000).await;
    assert_eq!(scene.standing(SECRET), Standing::Accepted);
    let secret = scene.held.secret(&key(SECRET)).unwrap();
    assert_eq!(secret.admission(StreamKind::Server), Admission::Refused);
    let (_, since, answer) = scene.poll().await;
    assert_eq!((since, scene.seconds()), (1000, 30));
    answer.send(polled(&message("patch", "b", 2000))).unwrap();
    scene.version(2000).await;
    let (_, since, answer) = scene.poll().await;
    assert_eq!((since, scene.seconds()), (2000, 60));
    let nothing = Polled {
        body: Bytes::new(),
        date: None,
    };
    answer.send(Ok(nothing)).unwrap();
    let mut stream = scene.stream().await;
    assert_eq!(scene.seconds(), 90, "at least a minute later");
    assert_eq!(stream.token_ms, BEGIN_MS + 90_000);
    assert_eq!(stream.asked().await, Some(2000));
    stream.say(&message("patch", "c", 3000)).await;
    scene.version(3000).await;
    assert_eq!(secret.admission(StreamKind::Server), Admission::Admitted);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_differs_is_reckoned_with() {
    let mut scene = Scene::start(&[SECRET]);
    scene.skew_ms.store(-3_600_000, Ordering::SeqCst);
    let stream = scene.stream().await;
    assert_eq!(stream.token_ms, BEGIN_MS);
    stream.close(4003).await;
    let mut stream = scene.stream().await;
    assert_eq!(scene.seconds(), 0, "at once");
    let off = stream.token_ms - (BEGIN_MS - 3_600_000);
    assert!((-1_000..=1_000).contains(&off), "{off}");
    stream.asked().await;
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    // The same again is no news: the secret is refused.
    stream.close(4003).await;
    let (.., answer) = scene.poll().await;
    drop(answer);
    assert!(scene.seconds() > 0);
}

#[tokio::test(start_paused = true)]
async fn where_no_stream_can_be_had_polling_goes_on() {
    let mut scene = Scene::start_with(&[SECRET], true);
    let (_, since, answer) = scene.poll().await;
    assert_eq!((since, scene.seconds()), (0, 0));
    answer.send(polled(&message("full", "a", 1000))).unwrap();
    let mut at = Vec::new();
    for _ in 0..25 {
        let (_, since, answer) = scene.poll().await;
        at.push((scene.seconds(), since));
        let body = if since == 0 {
            message("full", "a", 1000).to_string()
        } else {
            String::new()
        };
        let body = Bytes::from(body);
        answer.send(Ok(Polled { body, date: None })).unwrap();
    }
    let wanted: Vec<(u64, i64)> = (1..=25)
        .map(|n| (30 * n, if n == 20 { 0 } else { 1000 }))
        .collect();
    assert_eq!(at, wanted, "every 30 s, and after ten minutes everything");
}

#[tokio::test(start_paused = true)]
async fn polls_pause_as_long_as_upstream_asks() {
    for (asked, paused) in [(200, 200), (u64::MAX, 600)] {
        let mut scene = Scene::start_with(&[SECRET], true);
        let (.., answer) = scene.poll().await;
        let throttled = LinkError::Status {
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(Duration::from_secs(asked)),
        };
        answer.send(Err(throttled)).unwrap();
        let _poll = scene.poll().await;
        assert_eq!(scene.seconds(), paused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_takes_the_secret_out_of_service_and_another_one_goes_on() {
    let mut scene = Scene::start(&[SECRET, OTHER]);
    scene.stream().await.close(4003).await;
    scene.stream().await.close(4003).await;
    let (secret, since, answer) = scene.poll().await;
    assert_eq!((secret.as_str(), since), (SECRET, 0));
    let rejected = LinkError::Rejected {
        content_type: None,
        body: Bytes::new(),
    };
    answer.send(Err(rejected)).unwrap();
    let (secret, _, answer) = scene.poll().await;
    assert_eq!(secret, OTHER);
    assert_eq!(scene.standing(SECRET), Standing::Revoked);
    answer.send(polled(&message("full", "a", 1000))).unwrap();
    scene.version(1000).await;
    assert_eq!(scene.standing(OTHER), Standing::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_secret_that_is_rejected_ends() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    let json = http::HeaderValue::from_static("application/json");
    let now = std::time::Instant::now();
    scene.deployments.reject(0, &key(SECRET), now, json, Bytes::new());
    let mut last = stream.next().await;
    while let Some(message) = last {
        assert_eq!(message["messageType"], "ping");
        last = stream.next().await;
    }
    assert!(scene.seconds() <= 15);
    let none = timeout(Duration::from_secs(600), scene.streams.recv()).await;
    assert!(none.is_err(), "and no other one follows");
    assert!(scene.polls.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_empty_environment_proves_no_secret_but_a_stream_does() {
    let empty = json!({"messageType": "data-sync",
        "data": {"eventType": "full", "featureFlags": [], "segments": []}});
    let mut scene = Scene::start_with(&[SECRET], true);
    let (.., answer) = scene.poll().await;
    answer.send(polled(&empty)).unwrap();
    scene.version(0).await;
    assert_eq!(scene.standing(SECRET), Standing::Unknown);
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    stream.say(&empty).await;
    scene.version(0).await;
    assert_eq!(scene.standing(SECRET), Standing::Accepted);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_about_a_secret_is_found_out() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    let other = scene.held.join(&key(OTHER)).unwrap();
    scene.held.ask(&other, Some(StreamKind::Client));
    let (secret, since, answer) = scene.poll().await;
    assert_eq!((secret.as_str(), since), (OTHER, 1000));
    let body = Bytes::new();
    answer.send(Ok(Polled { body, date: None })).unwrap();
    let mut learning = scene.held.learning();
    let mut probe = scene.stream().await;
    assert_eq!((probe.kind, probe.secret.as_str()), (StreamKind::Client, OTHER));
    assert_eq!(probe.next().await.unwrap()["messageType"], "ping");
    probe.say(&json!({"messageType": "pong", "data": {}})).await;
    while other.is_asked(StreamKind::Client) {
        timeout(EVER, learning.changed()).await.unwrap().unwrap();
    }
    assert_eq!(other.admission(StreamKind::Client), Admission::Admitted);
    assert_eq!(other.admission(StreamKind::Server), Admission::Refused);
    assert_eq!(scene.standing(OTHER), Standing::Accepted);
    assert!(scene.metrics_are_quiet());
}

impl Scene {
    fn metrics_are_quiet(&self) -> bool {
        format!("{:?}", self.metrics).contains("refusals: Count(0)")
    }
}

#[tokio::test(start_paused = true)]
async fn the_sync_itself_finds_out_about_its_own_secret() {
    let mut scene = Scene::start(&[]);
    let secret = scene.held.join(&key(SECRET)).unwrap();
    scene.held.ask(&secret, Some(StreamKind::Server));
    let mut learning = scene.held.learning();
    drop(scene.stream().await);
    timeout(EVER, learning.changed()).await.unwrap().unwrap();
    assert!(
        !secret.is_asked(StreamKind::Server),
        "it is not known, and told so"
    );
    assert_eq!(secret.admission(StreamKind::Server), Admission::Unknown);
    scene.held.ask(&secret, Some(StreamKind::Server));
    let mut stream = scene.stream().await;
    assert_eq!(stream.asked().await, Some(0), "no other stream asks for it");
    stream.say(&message("full", "a", 1000)).await;
    while secret.is_asked(StreamKind::Server) {
        timeout(EVER, learning.changed()).await.unwrap().unwrap();
    }
    assert_eq!(secret.admission(StreamKind::Server), Admission::Admitted);
}

#[tokio::test(start_paused = true)]
async fn messages_that_cannot_be_read_change_nothing() {
    let mut scene = Scene::start(&[SECRET]);
    for bad in [
        json!("x"),
        json!({"messageType": "data-sync", "data": 7}),
        Value::Null,
    ] {
        let mut stream = scene.stream().await;
        stream.asked().await;
        stream.say(&message("full", "a", 1000)).await;
        scene.version(1000).await;
        stream.say(&bad).await;
        if bad.is_object() {
            assert_eq!(stream.next().await, None, "{bad}: another stream is opened");
        } else {
            drop(stream);
        }
        assert_eq!(scene.held.data().unwrap().version(), 1000);
    }
}
