//! Delivery to a fake upstream over real sockets.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::config::{self, BaseUrl};
use crate::metrics::EventMetrics;
use crate::task::Stopper;
use crate::track::{InsightLane, Insights, QueueLimits};
use crate::upstream::{Gate, NoObserver, Shared};

const EVER: Duration = Duration::from_secs(60);

/// An upstream that answers with the statuses it was given, then with 200.
struct Fake {
    address: SocketAddr,
    /// Authorization and body of every request.
    seen: Arc<Mutex<Vec<(String, String)>>>,
    arrived: Arc<Notify>,
    _serving: JoinSet<()>,
}

impl Fake {
    async fn start(replies: &[(u16, Option<&'static str>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replies: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(replies.iter().copied().collect()));
        let (seen, arrived): (Arc<Mutex<Vec<_>>>, Arc<Notify>) = Default::default();
        let (log, bell) = (Arc::clone(&seen), Arc::clone(&arrived));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (replies, log, bell) = (Arc::clone(&replies), Arc::clone(&log), Arc::clone(&bell));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (replies, log, bell) = (Arc::clone(&replies), Arc::clone(&log), Arc::clone(&bell));
                    async move {
                        let key = request.headers()["authorization"].to_str().unwrap().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        log.lock()
                            .unwrap()
                            .push((key, String::from_utf8(body.to_vec()).unwrap()));
                        bell.notify_one();
                        let (status, after) = replies.lock().unwrap().pop_front().unwrap_or((200, None));
                        let mut response = Response::new(Full::new(Bytes::new()));
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        if let Some(after) = after {
                            let after = HeaderValue::from_static(after);
                            response.headers_mut().insert("retry-after", after);
                        }
                        Ok::<_, Infallible>(response)
                    }
                });
                connections.spawn(async move {
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            arrived,
            _serving: serving,
        }
    }

    /// Waits for so many requests, and gives them.
    async fn requests(&self, n: usize) -> Vec<(String, String)> {
        let all = async {
            while self.seen.lock().unwrap().len() < n {
                self.arrived.notified().await;
            }
        };
        tokio::time::timeout(EVER, all).await.unwrap();
        self.seen.lock().unwrap().clone()
    }
}

fn settings() -> config::Upstream {
    config::Upstream {
        connect_timeout: EVER,
        request_timeout: EVER,
        total_deadline: EVER,
        retries: 0,
        retry_budget: 0.1,
        pool_max_idle: 4,
        max_in_flight: 256,
        circuit_failures: 0,
        circuit_open_for: EVER,
        ca_file: None::<PathBuf>,
        http2: true,
        dns_refresh: EVER,
        max_answer: 1024,
        max_flags: 1024,
    }
}

fn pace(backoff: Duration, grace: Duration) -> Pace {
    Pace {
        attempt: EVER,
        grace,
        backoff: Backoff {
            first: backoff,
            max: backoff,
        },
    }
}

const QUICK: Duration = Duration::from_millis(2);

struct Delivery {
    queue: Arc<Queue<InsightLane>>,
    metrics: Arc<EventMetrics>,
    stopper: Stopper,
    running: JoinSet<()>,
}

impl Delivery {
    fn start(to: SocketAddr, linger: Duration, pace: Pace) -> Self {
        let metrics: Arc<EventMetrics> = Arc::default();
        let limits = QueueLimits {
            linger,
            batch_events: 4,
            ..QueueLimits::default()
        };
        let queue = Arc::new(Queue::new(limits, Arc::clone(&metrics)));
        let shared = Shared::new(&settings(), Arc::new(NoObserver)).unwrap();
        let base = BaseUrl {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: to.port(),
            path: String::new(),
        };
        let origin = shared.origin(&Arc::new(base)).unwrap();
        let form = Insights {
            destinations: vec![None, Some((origin, Gate::new("e", &settings())))],
        };
        let client = Arc::new(Client::new(&shared));
        let stopper = Stopper::new();
        let mut running = JoinSet::new();
        let (delivered, stop) = (Arc::clone(&queue), stopper.stop());
        running.spawn(async move { deliver(delivered, form, client, pace, stop.clone(), stop).await });
        Self {
            queue,
            metrics,
            stopper,
            running,
        }
    }

    fn push(&self, environment: usize, key: &str, texts: &[&'static str]) {
        let lane = InsightLane {
            environment,
            authorization: Arc::from(key),
        };
        let texts = texts.iter().map(|text| Bytes::from_static(text.as_bytes()));
        self.queue.push(&lane, texts, Instant::now());
    }

    async fn stop(mut self) -> Arc<EventMetrics> {
        self.stopper.request();
        let ended = tokio::time::timeout(EVER, self.running.join_next()).await;
        ended.unwrap().unwrap().unwrap();
        self.metrics
    }
}

fn owned(requests: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, body): &(&str, &str)| ((*key).to_owned(), (*body).to_owned());
    requests.iter().map(owned).collect()
}

#[tokio::test]
async fn batches_are_merged_by_secret_and_keep_their_order() {
    let fake = Fake::start(&[]).await;
    let delivery = Delivery::start(fake.address, QUICK, pace(QUICK, EVER));
    delivery.push(1, "s", &["1", "2"]);
    delivery.push(1, "s", &["3", "4", "5"]);
    let requests = fake.requests(2).await;
    assert_eq!(requests, owned(&[("s", "[1,2,3,4]"), ("s", "[5]")]));
    delivery.push(1, "t", &["6"]);
    assert_eq!(fake.requests(3).await[2], ("t".to_owned(), "[6]".to_owned()));
    assert_eq!(delivery.stop().await.sent_total(), 6);
}

#[tokio::test]
async fn what_may_go_better_later_is_repeated_in_order() {
    for status in [408, 421, 425, 429, 500, 502, 503, 504] {
        let fake = Fake::start(&[(status, Some("0")), (status, None)]).await;
        let delivery = Delivery::start(fake.address, QUICK, pace(QUICK, EVER));
        delivery.push(1, "s", &["1", "2", "3", "4", "5"]);
        let requests = fake.requests(4).await;
        let first = ("s", "[1,2,3,4]");
        assert_eq!(requests, owned(&[first, first, first, ("s", "[5]")]), "{status}");
        assert_eq!(delivery.stop().await.sent_total(), 5, "{status}");
    }
}

#[tokio::test]
async fn what_upstream_does_not_want_is_dropped_and_counted() {
    for status in [301, 400, 401, 403, 404, 405, 415, 422] {
        let fake = Fake::start(&[(status, None)]).await;
        let delivery = Delivery::start(fake.address, QUICK, pace(EVER, EVER));
        delivery.push(1, "s", &["1", "2", "3", "4", "5"]);
        assert_eq!(fake.requests(2).await[1].1, "[5]", "{status}");
        let metrics = delivery.stop().await;
        assert_eq!(metrics.dropped_total(EventDrop::Rejected), 4, "{status}");
        assert_eq!(metrics.sent_total(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_batch_too_large_is_halved_until_it_fits() {
    let fake = Fake::start(&[(413, None), (413, None), (413, None)]).await;
    let delivery = Delivery::start(fake.address, QUICK, pace(QUICK, EVER));
    delivery.push(1, "s", &["1", "2", "3", "4"]);
    let bodies: Vec<String> = fake.requests(5).await.into_iter().map(|it| it.1).collect();
    assert_eq!(bodies[..4], ["[1,2,3,4]", "[1,2]", "[1]", "[2]"]);
    let metrics = delivery.stop().await;
    assert_eq!(
        metrics.dropped_total(EventDrop::Rejected),
        1,
        "1 alone was too large"
    );
    assert_eq!(metrics.sent_total(), 3);
}

#[tokio::test]
async fn events_wait_while_upstream_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let delivery = Delivery::start(address, QUICK, pace(QUICK, Duration::from_millis(50)));
    delivery.push(1, "s", &["1", "2"]);
    delivery.push(0, "s", &["3"]);
    while delivery.metrics.dropped_total(EventDrop::Rejected) == 0 {
        tokio::time::sleep(QUICK).await;
    }
    assert_eq!(delivery.queue.len(), 2, "the third leads nowhere");
    let metrics = delivery.stop().await;
    assert_eq!(metrics.dropped_total(EventDrop::Shutdown), 2);
}

#[tokio::test]
async fn the_end_sends_at_once_what_lingers_and_what_pauses() {
    let fake = Fake::start(&[(503, Some("3600"))]).await;
    let delivery = Delivery::start(fake.address, EVER, pace(EVER, EVER));
    delivery.push(1, "pausing", &["1", "2", "3", "4"]);
    fake.requests(1).await;
    for key in ["a", "b", "c"] {
        delivery.push(1, key, &["5"]);
    }
    let began = Instant::now();
    let metrics = delivery.stop().await;
    assert!(began.elapsed() < EVER / 2);
    assert_eq!((metrics.sent_total(), fake.seen.lock().unwrap().len()), (7, 5));
}
