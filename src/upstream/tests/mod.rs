//! The client against real sockets that behave badly on purpose.

mod asking;
mod breaking;
mod failures;
mod relaying;
mod secure;
mod websockets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;
use crate::config::{BaseUrl, Upstream};
use crate::metrics::{Operation, Outcome};

/// Longer than any test takes.
const EVER: Duration = Duration::from_secs(60);

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// Settings under which nothing times out, nothing is repeated and no breaker opens.
fn patient() -> Upstream {
    Upstream {
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

/// What a fake does with a request.
#[derive(Clone, Debug)]
enum Reply {
    /// Sends this, keeps the connection.
    Send(String),
    /// Sends this, ends the connection.
    Last(String),
    /// Says nothing, for ever.
    Silence,
    /// Sends this, then says nothing more, for ever.
    Stall(String),
    /// Resets the connection.
    Reset,
}

fn send(text: &str) -> Reply {
    Reply::Send(text.to_owned())
}

fn last(text: &str) -> Reply {
    Reply::Last(text.to_owned())
}

fn status(code: u16) -> Reply {
    send(&format!("HTTP/1.1 {code} Whatever\r\ncontent-length: 0\r\n\r\n"))
}

/// An upstream over cleartext HTTP/1.1.
struct Fake {
    address: SocketAddr,
    /// Heads and bodies of requests, as they came.
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    arrived: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Fake {
    /// Replies to the `n`-th request (from 0, over all connections) with the `n`-th reply, and with the
    /// last one from then on.
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let arrived = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let (log, count, bell) = (Arc::clone(&seen), Arc::clone(&connections), Arc::clone(&arrived));
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (log, bell, replies) = (Arc::clone(&log), Arc::clone(&bell), replies.clone());
                served.spawn(async move { serve(stream, &replies, &log, &bell).await });
            }
        });
        Self {
            address,
            seen,
            connections,
            arrived,
            _tasks: tasks,
        }
    }

    fn base(&self) -> Arc<BaseUrl> {
        Arc::new(BaseUrl {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: self.address.port(),
            path: String::new(),
        })
    }

    fn seen(&self) -> Vec<String> {
        lock(&self.seen).clone()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until `n` requests were seen.
    async fn saw(&self, n: usize) {
        while lock(&self.seen).len() < n {
            self.arrived.notified().await;
        }
    }
}

async fn serve(mut stream: TcpStream, replies: &[Reply], log: &Mutex<Vec<String>>, bell: &Notify) {
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut log = lock(log);
            log.push(request);
            log.len() - 1
        };
        bell.notify_one();
        match replies.get(number).or_else(|| replies.last()).unwrap() {
            Reply::Send(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Reply::Last(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                return;
            }
            Reply::Stall(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                std::future::pending::<()>().await;
            }
            Reply::Silence => std::future::pending().await,
            Reply::Reset => {
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return;
            }
        }
    }
}

/// One request with its body, if it came whole; chunked bodies are read to the last chunk.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let whole = match length {
                Some(length) => body.len() >= length.parse().unwrap(),
                None => !head.contains("chunked") || body.ends_with("0\r\n\r\n"),
            };
            if whole {
                return Some(text);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => text.push_str(std::str::from_utf8(&buffer[..n]).unwrap()),
        }
    }
}

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn told(&self) -> Vec<String> {
        lock(&self.0).clone()
    }
}

impl Observer for Recorder {
    fn exchanged(&self, _: &Origin, operation: Operation, outcome: Outcome, _: Duration) {
        lock(&self.0).push(format!("{} {}", operation.as_str(), outcome.as_str()));
    }
    fn failed(&self, _: &Origin, _: &UpstreamError) {}
    fn retried(&self, _: &Origin, operation: Operation) {
        lock(&self.0).push(format!("{} again", operation.as_str()));
    }
    fn breaker(&self, _: &Origin, state: BreakerState) {
        lock(&self.0).push(format!("origin {}", state.as_str()));
    }
    fn gate_breaker(&self, gate: &Gate, operation: Operation, state: BreakerState) {
        lock(&self.0).push(format!(
            "{} {} {}",
            gate.name(),
            operation.as_str(),
            state.as_str()
        ));
    }
}

/// A client of one environment at one origin.
struct Caller {
    client: Client,
    origin: Arc<Origin>,
    gate: Arc<Gate>,
    recorder: Arc<Recorder>,
    deadline: Duration,
    max_answer: usize,
    idempotent: bool,
}

impl Caller {
    fn new(settings: &Upstream, base: &Arc<BaseUrl>) -> Self {
        let recorder = Arc::new(Recorder::default());
        let observer: Arc<dyn Observer> = Arc::<Recorder>::clone(&recorder);
        let shared = Shared::new(settings, observer).unwrap();
        Self::over(&shared, recorder, settings, base)
    }

    fn over(shared: &Arc<Shared>, recorder: Arc<Recorder>, settings: &Upstream, base: &Arc<BaseUrl>) -> Self {
        let origin = shared.origin(base).unwrap();
        let gate = Gate::new("main", settings);
        let client = Client::new(shared);
        Self {
            client,
            origin,
            gate,
            recorder,
            deadline: EVER,
            max_answer: 1024,
            idempotent: true,
        }
    }

    async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, UpstreamError> {
        let limits = Limits {
            deadline: Instant::now() + self.deadline,
            max_answer: self.max_answer,
            idempotent: self.idempotent,
        };
        self.client
            .fetch(
                &self.origin,
                &self.gate,
                Operation::Evaluate,
                &Ask::of(&request),
                limits,
            )
            .await
    }

    async fn get(&self, path: &str) -> Result<Response<Bytes>, UpstreamError> {
        self.fetch(get(path)).await
    }

    fn told(&self) -> Vec<String> {
        self.recorder.told()
    }
}

fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

/// An address where nobody listens.
async fn nobody() -> Arc<BaseUrl> {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    Arc::new(BaseUrl {
        tls: false,
        host: "127.0.0.1".to_owned(),
        port,
        path: String::new(),
    })
}
