//! Whether the upstreams of a configuration can be reached: Amplitude's by connecting, FeatBit's by the health
//! path of its server.

use std::fmt::Display;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};

use super::roles;
use crate::config::{BaseUrl, Bases, Config};
use crate::metrics::Operation;
use crate::upstream::{Ask, Client, Gate, Limits, NoObserver, Shared};

/// For one connection, or one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// FeatBit's evaluation server, agent and this proxy have it alike (FB 7).
const HEALTH: &str = "/health/liveness";
/// Bytes of a health answer; it is one word.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Tries every upstream once and says how that went; whether all were reached.
pub(super) fn reach(config: &Config) -> bool {
    let mut all = true;
    for (host, port) in hosts(config) {
        all &= told(&format!("{host}:{port}"), &connect(&host, port));
    }
    let bases = featbit_bases(config);
    if bases.is_empty() {
        return all;
    }
    match prepared(config) {
        Ok((runtime, shared)) => {
            // Its connections live on the runtime.
            let client = runtime.block_on(async { Client::new(&shared) });
            for base in bases {
                let health = runtime.block_on(health(&base, &client, &shared, config));
                all &= told(&format!("{base}{HEALTH}"), &health);
            }
        }
        Err(problem) => all &= told("FeatBit", &Err::<(), _>(problem)),
    }
    all
}

fn told(what: &str, result: &Result<(), impl Display>) -> bool {
    let line = match result {
        Ok(()) => format!("reached      {what}\n"),
        Err(problem) => format!("not reached  {what}: {problem}\n"),
    };
    crate::command::say(&line);
    result.is_ok()
}

/// Host and port of every Amplitude upstream, once.
pub(super) fn hosts(config: &Config) -> Vec<(String, u16)> {
    let mut hosts = Vec::new();
    let bases = config.environments.iter().filter_map(|e| e.urls.as_ref());
    for bases in bases.filter(|bases| bases.amplitude().is_some()) {
        for (url, _) in roles(bases) {
            let host = (url.host.clone(), url.port);
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    hosts
}

/// Every base of FeatBit, once.
fn featbit_bases(config: &Config) -> Vec<Arc<BaseUrl>> {
    let mut bases: Vec<Arc<BaseUrl>> = Vec::new();
    let urls = config.environments.iter().filter_map(|e| e.urls.as_ref());
    for urls in urls.filter_map(Bases::featbit) {
        for base in [&urls.evaluate, &urls.stream, &urls.event] {
            if !bases.contains(base) {
                bases.push(Arc::clone(base));
            }
        }
    }
    bases
}

/// Connects to the first address that answers.
fn connect(host: &str, port: u16) -> std::io::Result<()> {
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn prepared(config: &Config) -> Result<(tokio::runtime::Runtime, Arc<Shared>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let shared = Shared::new(&config.upstream, Arc::new(NoObserver)).map_err(|error| error.to_string())?;
    Ok((runtime, shared))
}

/// Asks the health path below `base`, as the proxy would call it: with its roots and timeouts.
async fn health(
    base: &Arc<BaseUrl>,
    client: &Client,
    shared: &Shared,
    config: &Config,
) -> Result<(), String> {
    let origin = shared.origin(base).map_err(|error| error.to_string())?;
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = Uri::from_static(HEALTH);
    let limits = Limits {
        deadline: tokio::time::Instant::now() + PATIENCE,
        max_answer: ANSWER_BYTES_MAX,
        idempotent: true,
    };
    let gate = Gate::new("check", &config.upstream);
    let answer = client
        .fetch(&origin, &gate, Operation::Passthrough, &Ask::of(&request), limits)
        .await;
    match answer {
        Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
        Ok(answer) => Err(format!("answered {}", answer.status().as_u16())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::config::load_text;

    /// Whether a server that answers the health path with `status` counts as reached, and what it was asked.
    fn asked(status: &str) -> (bool, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut part = [0; 1024];
            while !head.ends_with(b"\r\n\r\n") {
                let length = stream.read(&mut part).unwrap();
                assert!(length > 0, "the request is cut short");
                head.extend_from_slice(&part[..length]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&head).into_owned()
        });
        let text = format!("environments: [{{urls: {{featbit: \"http://{address}/p\"}}}}]");
        let reached = reach(&load_text(&text).unwrap().config);
        let head = server.join().unwrap();
        (reached, head.lines().next().unwrap_or_default().to_owned())
    }

    #[test]
    fn featbit_is_reached_when_its_health_path_answers_200() {
        let line = "GET /p/health/liveness HTTP/1.1".to_owned();
        assert_eq!(asked("200 OK"), (true, line.clone()));
        assert_eq!(asked("404 Not Found"), (false, line));
    }

    #[test]
    fn each_base_of_featbit_is_asked_once() {
        let text = "environments: [{name: a, urls: {featbit: http://x, featbit_stream: ws://x, featbit_event: http://y}}, \
                    {name: b, urls: {featbit: http://x/}}, {region: us}]";
        let bases = featbit_bases(&load_text(text).unwrap().config);
        let bases: Vec<_> = bases.iter().map(ToString::to_string).collect();
        assert_eq!(bases, ["http://x", "http://y"]);
    }
}
