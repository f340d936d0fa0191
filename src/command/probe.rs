//! `flagside probe`: one HTTP request and an exit code, for images without a shell.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::{self, Arguments, BaseUrl, Sources};

/// For connecting, and for each read.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts of `--wait`.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to ask: host, port and request target.
#[derive(Debug, Eq, PartialEq)]
struct Target {
    host: String,
    port: u16,
    path: String,
}

/// Asks `ready`, `live`, `startup` or a URL until the answer is 200 or `wait` is over; 0 for 200, else 1.
pub(super) fn run(target: &str, wait: Duration) -> ExitCode {
    let target = match Target::parse(target, admin_address) {
        Ok(target) => target,
        Err(problem) => {
            super::complain(&format!("flagside: {problem}\n"));
            return ExitCode::from(super::USAGE);
        }
    };
    let deadline = Instant::now() + wait;
    loop {
        let problem = match target.ask() {
            Ok(200) => return ExitCode::SUCCESS,
            Ok(status) => format!("answered {status}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            let Target { host, port, path } = target;
            super::complain(&format!("flagside: http://{host}:{port}{path}: {problem}\n"));
            return ExitCode::FAILURE;
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// The admin listener as files and environment configure it, else where it is by default.
fn admin_address() -> SocketAddr {
    let sources = Sources::of_process(Arguments::default());
    let configured = config::load(&sources)
        .ok()
        .and_then(|loaded| loaded.config.listen.admin.first().copied());
    let address = configured.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 3547)));
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(host, address.port())
}

impl Target {
    fn parse(text: &str, admin: impl Fn() -> SocketAddr) -> Result<Self, String> {
        let path = match text {
            "ready" => "/readyz",
            "live" => "/healthz",
            "startup" => "/startupz",
            url => return Self::url(url),
        };
        let address = admin();
        Ok(Self {
            host: address.ip().to_string(),
            port: address.port(),
            path: path.to_owned(),
        })
    }

    fn url(text: &str) -> Result<Self, String> {
        let expected = "expected ready, live, startup or an http:// URL";
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| format!("cannot probe {text}; {expected}"))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (base, _) = BaseUrl::parse(&format!("http://{authority}")).map_err(|fault| fault.to_string())?;
        if path.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(format!("cannot probe {text}; {expected}"));
        }
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            host: base.host,
            port: base.port,
            path,
        })
    }

    /// The status of the answer.
    fn ask(&self) -> io::Result<u16> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return self.exchange(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn exchange(&self, mut stream: TcpStream) -> io::Result<u16> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {host}:{}\r\nUser-Agent: flagside-probe\r\nConnection: close\r\n\r\n",
            self.path, self.port
        );
        stream.write_all(request.as_bytes())?;
        // "HTTP/1.1 200" is all that matters; the rest is left unread.
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        std::str::from_utf8(&head)
            .ok()
            .and_then(|head| head.strip_prefix("HTTP/1."))
            .and_then(|rest| rest.get(2..)?.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn targets_are_read() {
        let admin = || SocketAddr::from(([127, 0, 0, 1], 3547));
        for (text, host, port, path) in [
            ("ready", "127.0.0.1", 3547, "/readyz"),
            ("live", "127.0.0.1", 3547, "/healthz"),
            ("startup", "127.0.0.1", 3547, "/startupz"),
            ("http://h:1/a?b=c", "h", 1, "/a?b=c"),
            ("http://[::1]:1", "::1", 1, "/"),
            ("http://h?x", "h", 80, "/?x"),
        ] {
            let wanted = Target {
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            };
            assert_eq!(Target::parse(text, admin), Ok(wanted), "{text}");
        }
        for text in ["raedy", "https://h", "http://", "http://h/a b", "http://u@h/"] {
            assert!(Target::parse(text, admin).is_err(), "{text}");
        }
    }

    #[test]
    fn the_status_is_read_from_the_first_line() {
        for (answer, wanted) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\n", Some(503)),
            ("SSH-2.0-OpenSSH_9", None),
            ("HTTP", None),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let target = Target {
                host: "127.0.0.1".to_owned(),
                port,
                path: "/readyz".to_owned(),
            };
            assert_eq!(target.ask().ok(), wanted, "{answer}");
            server.join().unwrap();
        }
    }
}
