//! Bytes on a connection to a whole proxy in this process, with an upstream behind it.
//!
//! Every input is sent three times: to fill the cache, to the fast lane that reads requests itself, and to the HTTP
//! library behind it. Lane and library must see the same requests and give the same answers; a difference would be
//! an answer to a question that was not asked, or a request where there is none.

#![no_main]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use flagside::config::{Arguments, Machine, Sources, load};
use flagside::run::Running;
use libfuzzer_sys::fuzz_target;

/// Ends every exchange.
const LAST: &[u8] = b"GET /status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
/// The lane does not read such a `Connection`: the library serves the connection from here on.
const LIBRARY: &[u8] = b"GET /status HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, x\r\n\r\n";

static PROXY: LazyLock<SocketAddr> = LazyLock::new(start);

fuzz_target!(|bytes: &[u8]| {
    // What waits for more bytes would wait twice more.
    if exchange(&[bytes, LAST]).is_none() {
        return;
    }
    let lane = exchange(&[bytes, LAST]);
    let library = exchange(&[LIBRARY, bytes, LAST]);
    let (Some(lane), Some(library)) = (lane, library) else {
        return;
    };
    let Some((first, library)) = library.split_first() else {
        return;
    };
    assert_eq!(first.status, "200");
    assert_eq!(lane.len(), library.len(), "{lane:?}\n{library:?}");
    for (lane, library) in lane.iter().zip(library) {
        assert_eq!(lane.status, library.status, "{lane:?}\n{library:?}");
        if lane.is_hit && library.is_hit {
            assert_eq!(lane.body, library.body, "{lane:?}\n{library:?}");
        }
    }
});

#[derive(Debug, Default)]
struct Response {
    status: String,
    is_hit: bool,
    body: Vec<u8>,
}

/// What the proxy answers to `parts`; `None` if it cannot be told, as when it waits for more.
fn exchange(parts: &[&[u8]]) -> Option<Vec<Response>> {
    let mut stream = TcpStream::connect(*PROXY).expect("the proxy listens");
    stream.set_read_timeout(Some(Duration::from_millis(100))).ok()?;
    stream.write_all(&parts.concat()).ok()?;
    let mut answered = Vec::new();
    stream.read_to_end(&mut answered).ok()?;
    responses(&answered)
}

fn responses(mut rest: &[u8]) -> Option<Vec<Response>> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&rest[..end]).ok()?.to_ascii_lowercase();
        rest = &rest[end + 4..];
        let mut response = Response {
            status: head.split(' ').nth(1)?.to_owned(),
            ..Response::default()
        };
        for line in head.lines() {
            match line.split_once(": ") {
                Some(("content-length", length)) => {
                    // The answer to a HEAD says how long its body would be.
                    let length = if rest.starts_with(b"HTTP/1.1 ") {
                        0
                    } else {
                        length.parse().ok()?
                    };
                    response.body = rest.get(..length)?.to_vec();
                }
                Some(("transfer-encoding", _)) => return None,
                Some(("cache-status", status)) => response.is_hit = status.contains("; hit"),
                _ => {}
            }
        }
        rest = &rest[response.body.len()..];
        all.push(response);
    }
    Some(all)
}

fn start() -> SocketAddr {
    let upstream = upstream();
    let options = [
        ("--upstream", format!("http://{upstream}")),
        ("--listen", "127.0.0.1:0".to_owned()),
        ("--admin-listen", "127.0.0.1:0".to_owned()),
        ("--set", "workers=1".to_owned()),
        ("--set", "cache.fresh_for=24h".to_owned()),
        ("--set", "sync.flags_interval=24h".to_owned()),
    ];
    let sources = Sources {
        arguments: Arguments {
            files: Vec::new(),
            options: options.into(),
        },
        variables: Vec::new(),
        default_file: PathBuf::from("/nonexistent"),
        machine: Machine {
            cpus: NonZeroUsize::MIN,
            memory_limit: None,
            terminal: false,
        },
    };
    let config = load(&sources).expect("the options are right").config;
    let running = Running::start(config, Arc::default()).expect("the proxy starts");
    let address = running.data[0];
    // It runs for as long as the process does.
    std::mem::forget(running);
    address
}

/// An upstream that answers every question with another body.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = listener.local_addr().expect("it is bound");
    let count = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || serve(stream, &count));
        }
    });
    address
}

/// Serves one connection. A client that goes away ends it.
fn serve(mut stream: TcpStream, count: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut first, mut length, mut close) = (String::new(), 0, "keep-alive");
        reader.read_line(&mut first).ok().filter(|n| *n > 0)?;
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line).ok().filter(|n| *n > 1)?;
            if line == b"\r\n" {
                break;
            }
            let line = String::from_utf8_lossy(&line).to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.starts_with("transfer-encoding:") {
                close = "close";
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        let body = if first.contains("vardata") {
            format!(
                "{{\"n\":{{\"key\":\"{}\"}}}}",
                count.fetch_add(1, Ordering::Relaxed)
            )
        } else {
            "[]".to_owned()
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {close}\r\n\r\n",
            body.len()
        )
        .ok()?;
        if !first.starts_with("HEAD ") {
            stream.write_all(body.as_bytes()).ok()?;
        }
        if close == "close" {
            return None;
        }
    }
}
