//! A raw HTTP/1.1 client that hides nothing: it sends the bytes it is given and says what came back, and when.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ask::Ask;
use super::wait::PATIENCE;

/// A client with one keep-alive connection.
#[derive(Debug)]
pub struct Caller {
    address: SocketAddr,
    stream: Option<BufReader<Wire>>,
    patience: Duration,
}

/// A connection that reads until a moment, however the bytes trickle in.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    until: Instant,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// An answer.
#[derive(Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// From the last byte sent to the last byte of the body.
    pub took: Duration,
}

/// How an exchange of raw bytes ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A whole answer.
    Answer(Response),
    /// The connection ended without one.
    Closed,
    /// Nothing came, and the connection stayed open.
    Silence,
    /// Something came that is no whole HTTP answer.
    Broken(String),
}

impl Caller {
    /// A client of `address`; connects when it is first used.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            patience: PATIENCE,
        }
    }

    /// The same, giving up after `patience`.
    pub fn patient(address: SocketAddr, patience: Duration) -> Self {
        Self {
            patience,
            ..Self::new(address)
        }
    }

    /// Asks on the connection there is, or on a new one if there is none or it was closed meanwhile.
    ///
    /// Panics when no answer comes.
    pub fn ask(&mut self, ask: &Ask) -> Response {
        let head_only = ask.method == "HEAD";
        let bytes = ask.bytes();
        if self.stream.is_some() {
            self.send(&bytes);
            match self.receive(head_only) {
                Outcome::Closed => {}
                outcome => return outcome.expect_answer(&bytes),
            }
        }
        self.send(&bytes);
        self.receive(head_only).expect_answer(&bytes)
    }

    /// Sends these bytes; a peer that does not take them all is no failure here.
    pub fn send(&mut self, bytes: &[u8]) {
        let stream = self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect_timeout(&self.address, self.patience).expect("it listens");
            stream.set_nodelay(true).expect("it is a TCP socket");
            stream
                .set_write_timeout(Some(self.patience))
                .expect("it is a TCP socket");
            let until = Instant::now();
            BufReader::new(Wire { stream, until })
        });
        let _ = stream.get_mut().stream.write_all(bytes);
        stream.get_mut().until = Instant::now() + self.patience;
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        if let Some(stream) = &self.stream {
            let _ = stream.get_ref().stream.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Reads one answer; `head_only` = it has no body whatever its headers say.
    pub fn receive(&mut self, head_only: bool) -> Outcome {
        let Some(stream) = &mut self.stream else {
            return Outcome::Closed;
        };
        let outcome = read_response(stream, head_only);
        let stays = match &outcome {
            Outcome::Answer(response) => !response.closes(),
            _ => false,
        };
        if !stays {
            self.stream = None;
        }
        outcome
    }

    /// Reads until at least `needle` was seen, and returns everything read; panics when it does not come.
    pub fn read_until(&mut self, needle: &str) -> String {
        let stream = self.stream.as_mut().expect("something was sent");
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(needle) {
            let part = stream.fill_buf().unwrap_or_default();
            assert!(
                !part.is_empty(),
                "{needle:?} never came: {:?}",
                String::from_utf8_lossy(&seen)
            );
            let length = part.len();
            seen.extend(part);
            stream.consume(length);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Whether a connection is open as far as this client knows.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether the peer closes the connection without sending anything more.
    pub fn is_closed_by_peer(&mut self) -> bool {
        self.stream.as_mut().is_none_or(|stream| match stream.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        })
    }
}

/// Sends `bytes` on a new connection, and says what came back within `patience`.
pub fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> Outcome {
    let mut caller = Caller::patient(address, patience);
    caller.send(bytes);
    caller.receive(bytes.starts_with(b"HEAD "))
}

/// Runs `task` on `count` threads that start together, and returns their results in order.
pub fn at_once<T: Send>(count: usize, task: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        let (task, barrier) = (&task, &barrier);
        let threads: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || {
                    barrier.wait();
                    task(number)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a caller panicked"))
            .collect()
    })
}

fn read_response(stream: &mut BufReader<Wire>, head_only: bool) -> Outcome {
    let started = Instant::now();
    match stream.fill_buf() {
        Ok([]) => return Outcome::Closed,
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return Outcome::Silence;
        }
        Err(_) => return Outcome::Closed,
    }
    let read = || -> Result<Response, String> {
        let status_line = line(stream)?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| format!("no status line: {status_line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = line(stream)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("no header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
            took: Duration::ZERO,
        };
        if !head_only && status != 204 && status != 304 {
            response.body = body(stream, &response)?;
        }
        response.took = started.elapsed();
        Ok(response)
    };
    let read = { read }();
    read.map_or_else(Outcome::Broken, Outcome::Answer)
}

fn body(stream: &mut BufReader<Wire>, response: &Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let exactly = |stream: &mut BufReader<Wire>, length: u64, body: &mut Vec<u8>| {
        let read = stream
            .take(length)
            .read_to_end(body)
            .map_err(|error| format!("the body broke off: {error}"))?;
        if read as u64 == length {
            Ok(())
        } else {
            Err(format!("{read} bytes of body instead of {length}"))
        }
    };
    if response.header("transfer-encoding").is_some() {
        loop {
            let size = line(stream)?;
            let size = u64::from_str_radix(&size, 16).map_err(|_| format!("no chunk size: {size:?}"))?;
            exactly(stream, size, &mut body)?;
            line(stream)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    match response.header("content-length") {
        Some(length) => exactly(
            stream,
            length.parse().map_err(|_| format!("no length: {length:?}"))?,
            &mut body,
        )?,
        None => {
            stream
                .read_to_end(&mut body)
                .map_err(|error| format!("the body broke off: {error}"))?;
        }
    }
    Ok(body)
}

fn line(stream: &mut BufReader<Wire>) -> Result<String, String> {
    let mut line = String::new();
    stream
        .read_line(&mut line)
        .map_err(|error| format!("the head broke off after {line:?}: {error}"))?;
    line.strip_suffix("\r\n")
        .map(str::to_owned)
        .ok_or_else(|| format!("the line broke off: {line:?}"))
}

impl Outcome {
    /// The answer; panics when there is none, saying what was asked.
    pub fn expect_answer(self, asked: &[u8]) -> Response {
        match self {
            Self::Answer(response) => response,
            Self::Broken(fault) => panic!("{fault}, in the answer to {}", String::from_utf8_lossy(asked)),
            other => panic!("no answer but {other:?} to {}", String::from_utf8_lossy(asked)),
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let shown = text
            .char_indices()
            .nth(2000)
            .map_or(text.as_str(), |(end, _)| &text[..end]);
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &shown)
            .field("took", &self.took)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        self.headers
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Who produced the answer, in the words of design 5, read from `Cache-Status` (design 7).
    pub fn source(&self) -> &str {
        let Some(status) = self.header("cache-status") else {
            return "none";
        };
        let mut parts = status.split(';').map(str::trim);
        assert_eq!(parts.next(), Some("flagside"), "the cache has a name: {status}");
        let parts: Vec<_> = parts.collect();
        let detail = parts.iter().find_map(|part| part.strip_prefix("detail="));
        match detail.map(|detail| detail.trim_matches('"')) {
            Some(source @ ("stale" | "stale_error" | "local" | "passthrough" | "none")) => source,
            Some("no_answer") => "none",
            _ if parts.contains(&"hit") => "hit",
            _ if parts.contains(&"collapsed") => "coalesced",
            _ if parts.contains(&"fwd=bypass") => "passthrough",
            _ if parts.iter().any(|part| part.starts_with("fwd=")) => "miss",
            _ => "none",
        }
    }

    /// The stable code of an error that flagside made itself.
    pub fn error_code(&self) -> Option<&str> {
        self.header("x-flagside-error")
    }

    /// Whether the connection ends after this answer.
    pub fn closes(&self) -> bool {
        let unframed = self.header("content-length").is_none() && self.header("transfer-encoding").is_none();
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || (unframed && self.status >= 200 && self.status != 204 && self.status != 304)
    }
}
