//! A whole proxy in this process, for what cannot be brought about from outside.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::HeaderMap;

use super::Running;
use crate::cache::Joined;
use crate::config::{self, Arguments, Machine, Sources};
use crate::key::{Asked, DeploymentKey, Key, Question};
use crate::metrics::Route;

/// An upstream that answers every request with no variants or no flags. Gives its address and counts questions.
fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = read_head(&mut stream);
            let body = if head.contains("vardata") {
                counter.fetch_add(1, Ordering::Relaxed);
                "{}"
            } else {
                "[]"
            };
            // Who has hung up needs no answer.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    (address, asked)
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn start(upstream: SocketAddr) -> Running {
    let options = [
        ("--upstream", format!("http://{upstream}")),
        ("--listen", "127.0.0.1:0".to_owned()),
        ("--admin-listen", "127.0.0.1:0".to_owned()),
        ("--set", "answer_deadline=1m".to_owned()),
        ("--set", "upstream.total_deadline=1m".to_owned()),
    ];
    let sources = Sources {
        arguments: Arguments {
            files: Vec::new(),
            options: options.into(),
        },
        variables: Vec::new(),
        default_file: PathBuf::new(),
        machine: Machine::detect(),
    };
    Running::start(config::load(&sources).unwrap().config, Arc::default()).unwrap()
}

/// The key of `GET /v1/vardata?user_id=u` for the deployment `k`.
fn key(running: &Running) -> Key {
    let asked = Asked {
        route: Route::VardataV1,
        path: "/v1/vardata",
        query: Some("user_id=u"),
        post: false,
        headers: &HeaderMap::new(),
        body: &Bytes::new(),
        deployment_key: &DeploymentKey::new(b"k").unwrap(),
        environment: &running.proxy.environments[0].name,
        ignore_query: &[],
    };
    Question::vardata(&asked, &running.proxy.keyer).unwrap().key
}

#[test]
fn who_waits_for_a_fetch_that_died_fetches_again() {
    let (upstream, asked) = upstream();
    let running = start(upstream);
    let flight = match running.proxy.flights.join((key(&running), 0)) {
        Joined::Leads(flight, _) => flight,
        Joined::Waits(_) => panic!("nobody else asks"),
    };
    let mut client = TcpStream::connect(running.data[0]).unwrap();
    client
        .write_all(b"GET /v1/vardata?user_id=u HTTP/1.1\r\nHost: a\r\nAuthorization: Api-Key k\r\n\r\n")
        .unwrap();
    while flight.watchers() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0, "it waits for the other");
    drop(flight);
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("fwd=uri-miss; stored"), "{head}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    drop(client);
    assert!(running.stop());
}
