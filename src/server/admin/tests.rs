//! The admin listener over real sockets, and its rules one by one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::*;
use crate::metrics::{CacheName, CacheReading, Circuit, Degraded, Listener, Outcome};
use crate::task::Stopper;

/// A state that tests set.
#[derive(Default)]
struct Fake {
    is_stuck: AtomicBool,
    is_ready: AtomicBool,
}

impl Subject for Fake {
    fn heartbeats(&self) -> Vec<Duration> {
        let stuck = Duration::from_secs(if self.is_stuck.load(Relaxed) { 12 } else { 9 });
        vec![Duration::from_millis(300), stuck]
    }

    fn readiness(&self) -> Readiness {
        let ready = self.is_ready.load(Relaxed);
        let check = |name: &str, ok, detail: &str| Check {
            name: name.to_owned(),
            ok,
            detail: detail.to_owned(),
        };
        let checks = vec![
            check("listeners", true, "bound"),
            check("environment main", ready, "waits for its first sync"),
        ];
        Readiness { ready, checks }
    }

    fn status(&self) -> Status {
        full_status()
    }

    fn metrics(&self) -> String {
        "flagside_build_info 1\n".to_owned()
    }
}

fn full_status() -> Status {
    let at = UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
    let deployment = |fingerprint: &str, origin, last_sync| status::DeploymentStatus {
        segments: 0,
        key_fingerprint: fingerprint.to_owned(),
        flags: 3,
        origin,
        last_sync,
        last_change: Some(at),
        bad_flags: vec![("theme".to_owned(), "unknown operator".to_owned())],
    };
    Status {
        version: "1.2.3".to_owned(),
        revision: String::new(),
        mode: "sidecar",
        started_at: at,
        uptime: Duration::from_millis(1_900),
        workers: 2,
        memory_limit: Some(1 << 26),
        state: status::State::Degraded,
        degraded: vec![Degraded::Upstream],
        config_files: vec!["/etc/flagside.yaml".into()],
        config_loaded_at: at,
        listeners: vec![(Listener::Data, "127.0.0.1:3546".parse().unwrap())],
        upstreams: vec![status::UpstreamStatus {
            name: "main".to_owned(),
            host: "api.lab.amplitude.com".to_owned(),
            circuit: Circuit::HalfOpen,
            last_success: None,
            last_error: Some(Outcome::Timeout),
            latency: Some((Duration::from_millis(20), Duration::from_millis(250))),
        }],
        environments: vec![status::EnvironmentStatus {
            stream: false,
            name: "main".to_owned(),
            backend: "amplitude",
            deployments: vec![
                deployment("0011aabb", status::Origin::Upstream, Some(at)),
                deployment("2233ccdd", status::Origin::Bootstrap, None),
            ],
        }],
        caches: vec![status::CacheStatus {
            name: CacheName::Vardata,
            reading: CacheReading {
                entries: 1,
                weight_bytes: 2,
                max_weight_bytes: 3,
            },
            hit_ratio: Some(0.5),
        }],
    }
}

/// A listener on a free port.
struct Running {
    fake: Arc<Fake>,
    counts: Arc<metrics::Metrics>,
    address: SocketAddr,
    _stopper: Stopper,
    _bound: Bound,
}

fn running() -> Running {
    let fake = Arc::new(Fake::default());
    let counts = metrics::Metrics::new(metrics::Setup::default());
    let stopper = Stopper::new();
    let subject: Arc<dyn Subject> = Arc::<Fake>::clone(&fake);
    let bound = start(
        &["127.0.0.1:0".parse().unwrap()],
        subject,
        counts.admin(),
        counts.tasks(),
        stopper.stop(),
    )
    .unwrap();
    Running {
        fake,
        counts,
        address: bound.addresses()[0],
        _stopper: stopper,
        _bound: bound,
    }
}

fn connect(address: SocketAddr) -> StdStream {
    let stream = StdStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends `head` and gives all that comes until the connection ends.
fn exchange(address: SocketAddr, head: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Status and body of a request.
fn ask(address: SocketAddr, method: &str, target: &str, headers: &str) -> (u16, String) {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    let answer = exchange(address, &head);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn probes_follow_the_state() {
    let admin = running();
    let get = |path: &str| ask(admin.address, "GET", path, "");
    assert_eq!(get("/healthz"), (200, "ok\n".to_owned()));
    let not_ready = "[+] listeners: bound\n[-] environment main: waits for its first sync\nnot ready\n";
    for path in ["/readyz", "/ready", "/readyz?verbose", "/startupz"] {
        assert_eq!(get(path), (503, not_ready.to_owned()), "{path}");
    }
    admin.fake.is_ready.store(true, Relaxed);
    assert_eq!(get("/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(get("/ready?verbose=1").1.lines().last(), Some("ok"));
    assert_eq!(get("/ready?verbose=1").1.lines().count(), 3);
    admin.fake.is_ready.store(false, Relaxed);
    assert_eq!(
        get("/startupz"),
        (200, "ok\n".to_owned()),
        "it has been ready once"
    );
    assert_eq!(get("/readyz").0, 503);
    admin.fake.is_stuck.store(true, Relaxed);
    for path in ["/healthz", "/livez"] {
        assert_eq!(
            get(path),
            (503, "worker 1: no heartbeat for 12 s\n".to_owned()),
            "{path}"
        );
    }
}

#[test]
fn startup_is_over_when_the_startup_probe_itself_finds_it_ready() {
    let admin = running();
    admin.fake.is_ready.store(true, Relaxed);
    assert_eq!(ask(admin.address, "GET", "/startupz", "").0, 200);
    admin.fake.is_ready.store(false, Relaxed);
    assert_eq!(ask(admin.address, "GET", "/startupz", "").0, 200);
}

#[test]
fn metrics_have_their_content_type_and_status_is_json() {
    let admin = running();
    let answer = exchange(
        admin.address,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    let lower = answer.to_ascii_lowercase();
    for wanted in [
        "http/1.1 200 ok\r\n",
        "content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
        "cache-control: no-store\r\n",
        "\r\n\r\nflagside_build_info 1\n",
    ] {
        assert!(lower.contains(wanted), "{wanted:?} in {answer}");
    }
    let (code, body) = ask(admin.address, "GET", "/status", "");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &status["state"]), (200, &serde_json::json!("degraded")));
}

#[test]
fn the_shape_of_status_is_pinned() {
    let mut status = full_status().to_json();
    status["pid"] = 1.into();
    for environment in status["environments"].as_array_mut().unwrap() {
        environment["deployments"][0]["age_s"] = 2.into();
    }
    insta::assert_snapshot!("status", format!("{status:#}"));
}

#[test]
fn an_environment_is_as_old_as_its_oldest_deployment() {
    let now = SystemTime::now();
    let mut environment = full_status().environments.remove(0);
    for (deployment, age_s) in environment.deployments.iter_mut().zip([10, 500]) {
        deployment.last_sync = Some(now - Duration::from_secs(age_s));
    }
    let mut status = full_status();
    status.environments = vec![environment];
    let json = status.to_json();
    assert!(json["environments"][0]["age_s"].as_u64() >= Some(500), "{json}");
    assert_eq!(json["environments"][0]["flags"], 6);
    status.environments[0].deployments.clear();
    let json = status.to_json();
    assert_eq!(json["environments"][0]["origin"], "none");
    assert_eq!(json["environments"][0]["age_s"], serde_json::Value::Null);
}

#[test]
fn other_methods_and_paths_are_refused() {
    let admin = running();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        assert_eq!(
            ask(admin.address, method, "/metrics", ""),
            (405, "use GET, HEAD\n".to_owned()),
            "{method}"
        );
    }
    let answer = exchange(
        admin.address,
        "POST /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(
        answer.to_ascii_lowercase().contains("\r\nallow: get, head\r\n"),
        "{answer}"
    );
    for path in [
        "/",
        "/shutdown",
        "/healthz/",
        "/v1/vardata",
        "//healthz",
        "/metrics%20",
    ] {
        let (code, body) = ask(admin.address, "GET", path, "");
        assert_eq!(code, 404, "{path}");
        assert!(
            body.contains("/healthz /livez /readyz /ready /startupz /metrics /status"),
            "{body}"
        );
    }
}

#[test]
fn head_has_the_head_of_get_and_no_body() {
    let admin = running();
    let answer = exchange(
        admin.address,
        "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    assert!(
        answer.to_ascii_lowercase().contains("content-length: 22\r\n"),
        "{answer}"
    );
}

#[test]
fn web_pages_cannot_read_status_or_metrics_but_probes_do_not_care() {
    let admin = running();
    for (headers, wanted) in [
        ("Host: localhost:3547\r\n", 200),
        ("Host: [::1]:3547\r\nSec-Fetch-Site: none\r\n", 200),
        ("Host: localhost\r\nOrigin: https://evil.example\r\n", 403),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("Host: evil.example:3547\r\n", 403),
    ] {
        for (path, expected) in [("/status", wanted), ("/metrics", wanted), ("/healthz", 200)] {
            let answer = exchange(
                admin.address,
                &format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"),
            );
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {expected} ")),
                "{path} {headers:?}: {answer}"
            );
        }
    }
}

#[test]
fn only_private_names_are_answered_over_loopback() {
    for (host, wanted) in [
        ("127.0.0.1", true),
        ("127.0.0.1:3547", true),
        ("[::1]", true),
        ("[::1]:3547", true),
        ("localhost", true),
        ("LOCALHOST.:3547", true),
        ("app.localhost", true),
        ("flagside:3547", true),
        ("flagside.shop.svc:3547", true),
        ("flagside.shop.svc.cluster.local", true),
        ("ip-10-0-0-1.ec2.internal", true),
        ("evil.example", false),
        ("localhost.evil.example:3547", false),
        ("127.0.0.1.evil.example", false),
    ] {
        assert_eq!(is_private_name(host), wanted, "{host}");
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(
            refusal(&headers, "10.0.0.7".parse().unwrap()),
            None,
            "other peers use any name"
        );
        assert!(refusal(&headers, "::ffff:127.0.0.1".parse().unwrap()).is_some());
    }
}

#[test]
fn heads_are_bounded() {
    let admin = running();
    let long = format!(
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "x".repeat(2 * HEAD_MAX)
    );
    let mut stream = connect(admin.address);
    stream.write_all(long.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The rest of the head is not read, so the end may be a reset.
    let _ = stream.read_to_end(&mut answer);
    assert!(
        answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let answer = exchange(admin.address, "\u{1}\u{2}\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn connections_that_are_held_do_not_keep_a_probe_out() {
    let admin = running();
    let held: Vec<StdStream> = (0..CONNECTIONS_MAX + 10)
        .map(|_| connect(admin.address))
        .collect();
    assert_eq!(ask(admin.address, "GET", "/healthz", "").0, 200);
    // The first ones had to make room.
    for mut stream in held.iter().take(10) {
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    // The last one is still served.
    let mut last = held.last().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut start = [0; 12];
    last.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    let text = admin.counts.render();
    let line = text
        .lines()
        .find(|line| {
            line.starts_with("flagside_http_connections_rejected_total{listener=\"admin\",reason=\"limit\"}")
        })
        .unwrap();
    let rejected: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(rejected >= 10, "{line}");
}

#[test]
fn a_port_in_use_is_an_error_and_says_which() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let counts = metrics::Metrics::new(metrics::Setup::default());
    let stopper = Stopper::new();
    let error = start(
        &[address],
        Arc::new(Fake::default()),
        counts.admin(),
        counts.tasks(),
        stopper.stop(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn loopback_of_both_families_shares_a_port_and_ipv6_may_be_missing() {
    let listeners = bind(&["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()]).unwrap();
    let first = listeners[0].local_addr().unwrap();
    for listener in &listeners {
        assert_eq!(listener.local_addr().unwrap().port(), first.port());
    }
    // `[::1]` is taken now, if there is IPv6 at all: only a warning.
    let port = StdListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _taken = StdListener::bind(("::1", port));
    let both = [
        SocketAddr::from(([127, 0, 0, 1], port)),
        SocketAddr::new("::1".parse().unwrap(), port),
    ];
    assert_eq!(bind(&both).unwrap().len(), 1);
}

#[test]
fn it_ends_when_asked_even_with_a_client_that_stays() {
    let counts = metrics::Metrics::new(metrics::Setup::default());
    let stopper = Stopper::new();
    let addresses = ["127.0.0.1:0".parse().unwrap()];
    let bound = start(
        &addresses,
        Arc::new(Fake::default()),
        counts.admin(),
        counts.tasks(),
        stopper.stop(),
    )
    .unwrap();
    let stays = connect(bound.addresses()[0]);
    let begun = Instant::now();
    stopper.request();
    bound.join();
    assert!(begun.elapsed() < LINGER, "{:?}", begun.elapsed());
    let _ = stays.shutdown(Shutdown::Both);
}
