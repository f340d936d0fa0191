//! `load PORT --shape SHAPE [options]`: asks a server on loopback and prints one line of JSON.
//!
//! Closed loop (each connection asks again as soon as it is answered) or, with `--rate`, open loop: requests
//! fall due at a fixed rate and their time counts from then, so a server that stalls cannot hide it.

#[path = "../questions.rs"]
mod questions;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local, yield_now};

use questions::{Order, Questions, Shape};

const USAGE: &str = "load PORT --shape v1|sdk|sdk4k|post|spelled|person|flags [--order zipf|uniform|each]
     [--users N] [--first N] [--connections N] [--requests N | --seconds S] [--rate N]";

fn main() {
    let load = Rc::new(Load::from_arguments().unwrap_or_else(|| panic!("{USAGE}")));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async move {
        let began = Instant::now();
        if load.rate > 0.0 {
            Rc::clone(&load).at_a_rate(began).await;
        } else {
            Rc::clone(&load).closed_loop(began).await;
        }
        load.report(began.elapsed());
    });
}

struct Load {
    port: u16,
    connections: usize,
    requests: u64,
    time: Duration,
    rate: f64,
    questions: RefCell<Questions>,
    asked: Cell<u64>,
    answered: Cell<u64>,
    failed: Cell<u64>,
    bytes: Cell<u64>,
    micros: RefCell<Vec<u64>>,
}

impl Load {
    fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args().skip(1);
        let port = arguments.next()?.parse().ok()?;
        let (mut shape, mut order) = (None, Order::Zipf);
        let (mut users, mut first, mut connections) = (10_000, 0, 1);
        let (mut requests, mut seconds, mut rate) = (u64::MAX, 60.0, 0.0);
        while let Some(option) = arguments.next() {
            let value = arguments.next()?;
            match option.as_str() {
                "--shape" => shape = Shape::named(&value),
                "--order" => order = Order::named(&value)?,
                "--users" => users = value.parse().ok()?,
                "--first" => first = value.parse().ok()?,
                "--connections" => connections = value.parse().ok()?,
                "--requests" => requests = value.parse().ok()?,
                "--seconds" => seconds = value.parse().ok()?,
                "--rate" => rate = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(Self {
            port,
            connections,
            requests,
            time: Duration::from_secs_f64(seconds),
            rate,
            questions: RefCell::new(Questions::new(shape?, order, users, first)),
            asked: Cell::new(0),
            answered: Cell::new(0),
            failed: Cell::new(0),
            bytes: Cell::new(0),
            micros: RefCell::default(),
        })
    }

    async fn closed_loop(self: Rc<Self>, began: Instant) {
        let asking: Vec<_> = (0..self.connections)
            .map(|_| {
                let load = Rc::clone(&self);
                spawn_local(async move {
                    let mut connection = Connection::open(load.port).await;
                    while load.asked.get() < load.requests && began.elapsed() < load.time {
                        load.asked.set(load.asked.get() + 1);
                        load.questions.borrow_mut().next(&mut connection.request);
                        let answer = connection.ask().await;
                        load.note(answer);
                    }
                })
            })
            .collect();
        for task in asking {
            task.await.expect("a connection that failed says so");
        }
    }

    async fn at_a_rate(self: Rc<Self>, began: Instant) {
        let idle = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..self.connections {
            idle.borrow_mut().push(Connection::open(self.port).await);
        }
        let total = self.requests.min((self.time.as_secs_f64() * self.rate) as u64);
        for number in 0..total {
            let due = began + Duration::from_secs_f64(number as f64 / self.rate);
            // Waiting for a timer would add its millisecond to what is measured.
            while Instant::now() < due || idle.borrow().is_empty() {
                yield_now().await;
            }
            let mut connection: Connection = idle.borrow_mut().pop().expect("there is one");
            self.questions.borrow_mut().next(&mut connection.request);
            let (load, idle) = (Rc::clone(&self), Rc::clone(&idle));
            spawn_local(async move {
                let answer = connection.ask().await;
                load.note(answer);
                load.micros.borrow_mut().push(due.elapsed().as_micros() as u64);
                idle.borrow_mut().push(connection);
            });
        }
        while self.answered.get() < total {
            yield_now().await;
        }
    }

    fn note(&self, answer: Option<usize>) {
        self.answered.set(self.answered.get() + 1);
        match answer {
            Some(bytes) => self.bytes.set(bytes as u64),
            None => self.failed.set(self.failed.get() + 1),
        }
    }

    fn report(&self, elapsed: Duration) {
        let mut micros = self.micros.borrow_mut();
        micros.sort_unstable();
        let quantile = |of: usize| micros.get(micros.len() * of / 100).copied().unwrap_or(0);
        println!(
            r#"{{"requests":{},"failed":{},"seconds":{:.4},"answer_bytes":{},"p50_us":{},"p99_us":{}}}"#,
            self.answered.get(),
            self.failed.get(),
            elapsed.as_secs_f64(),
            self.bytes.get(),
            quantile(50),
            quantile(99),
        );
    }
}

/// A kept-alive connection with room for one request and one answer.
struct Connection {
    port: u16,
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(port: u16) -> Self {
        Self {
            port,
            stream: connect(port).await,
            request: Vec::new(),
            answer: vec![0; 256 * 1024],
        }
    }

    /// Sends the request and reads the whole answer; bytes of its body if it is a complete 200.
    async fn ask(&mut self) -> Option<usize> {
        let body = self.exchange().await;
        if body.is_none() {
            self.stream = connect(self.port).await;
        }
        body
    }

    async fn exchange(&mut self) -> Option<usize> {
        self.stream.write_all(&self.request).await.ok()?;
        let (mut filled, mut expected) = (0, None);
        while expected.is_none_or(|(head, body)| filled < head + body) {
            let room = self.answer.get_mut(filled..).filter(|room| !room.is_empty())?;
            match self.stream.read(room).await {
                Ok(read) if read > 0 => filled += read,
                _ => return None,
            }
            if expected.is_none() {
                expected = measure(&self.answer[..filled])?;
            }
        }
        expected.map(|(_, body)| body)
    }
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the server's port");
    stream.set_nodelay(true).expect("a TCP stream");
    stream
}

/// Bytes of an answer's head and body, as soon as its head is whole; outer `None` if it is no 200.
fn measure(answer: &[u8]) -> Option<Option<(usize, usize)>> {
    const LENGTH: &[u8] = b"content-length:";
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Some(None);
    };
    let head = &answer[..end];
    if head.get(9..12) != Some(b"200") {
        return None;
    }
    let mut lines = head.split(|&byte| byte == b'\n');
    let line = lines.find(|line| {
        line.get(..LENGTH.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(LENGTH))
    })?;
    let length = str::from_utf8(&line[LENGTH.len()..]).ok()?.trim().parse().ok()?;
    Some(Some((end + 4, length)))
}
