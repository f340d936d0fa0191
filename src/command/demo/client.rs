//! The application of the tour: users, the requests that SDKs send for them, and what comes back.
//!
//! Blocking sockets and as little as possible around them, so that the times shown are the proxy's.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::metrics::Source;

use super::vendor::Vendor;

/// For connecting, and for each read: longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A user of the application.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) id: String,
    pub(super) platform: &'static str,
    pub(super) version: &'static str,
    pub(super) plan: &'static str,
}

/// How a request says the same thing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Spelling {
    /// As one SDK does.
    Usual,
    /// Members in another order.
    Permuted,
    /// With as little as possible.
    Compact,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: u16,
    /// Where it came from, as its `Cache-Status` says.
    pub(super) source: Source,
    /// Body.
    pub(super) body: Vec<u8>,
    /// From the first byte sent to the last one received.
    pub(super) took: Duration,
}

/// One client with one connection, kept between requests.
#[derive(Debug)]
pub(super) struct Client {
    /// Whose questions it asks.
    vendor: &'static dyn Vendor,
    /// The key that it shows.
    pub(super) key: &'static str,
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Person {
    /// A user by name.
    pub(super) fn named(id: &str, platform: &'static str, version: &'static str, plan: &'static str) -> Self {
        let id = id.to_owned();
        Self {
            id,
            platform,
            version,
            plan,
        }
    }

    /// The `n`th of many users; all of them differ.
    pub(super) fn nth(n: usize) -> Self {
        let platform = ["Web", "iOS", "Android"][n % 3];
        let version = ["4.1.9", "4.2.0", "5.0.1", "4.10.2"][n % 4];
        let plan = ["free", "pro", "free", "business", "free"][n % 5];
        Self::named(&format!("user-{n:03}"), platform, version, plan)
    }
}

impl Client {
    /// Connects to the proxy.
    pub(super) fn connect(address: SocketAddr, vendor: &'static dyn Vendor) -> io::Result<Self> {
        let mut client = Self {
            vendor,
            key: vendor.key(),
            address,
            connection: None,
        };
        client.connection = Some(client.open()?);
        Ok(client)
    }

    fn open(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(BufReader::new(stream))
    }

    /// Asks for all flags of `person`.
    ///
    /// # Errors
    /// When there is no answer, or none that can be read.
    pub(super) fn ask(&mut self, person: &Person, spelling: Spelling) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        let request = self.vendor.request(person, spelling, self.key);
        let began = Instant::now();
        connection.get_mut().write_all(request.as_bytes())?;
        let head = Head::read(&mut connection)?;
        let mut body = vec![0; head.length];
        connection.read_exact(&mut body)?;
        let took = began.elapsed();
        if !head.closes {
            self.connection = Some(connection);
        }
        Ok(Answer {
            status: head.status,
            source: head.source,
            body,
            took,
        })
    }
}

/// The answers to `people`, in their order, asked over so many connections at once.
///
/// # Errors
/// When one of them gets none.
pub(super) fn ask_together(
    address: SocketAddr,
    people: &[Person],
    clients: usize,
    vendor: &'static dyn Vendor,
) -> io::Result<Vec<Answer>> {
    // Connected beforehand, so that all ask at the same time.
    let shares = people.chunks(people.len().div_ceil(clients).max(1));
    let shares: Vec<(Client, &[Person])> = shares
        .map(|share| Ok((Client::connect(address, vendor)?, share)))
        .collect::<io::Result<_>>()?;
    std::thread::scope(|scope| {
        let asking: Vec<_> = shares
            .into_iter()
            .map(|(mut client, share)| {
                std::thread::Builder::new().spawn_scoped(scope, move || {
                    let answers = share.iter().map(|person| client.ask(person, Spelling::Compact));
                    answers.collect::<io::Result<Vec<Answer>>>()
                })
            })
            .collect::<io::Result<_>>()?;
        let mut answers = Vec::with_capacity(people.len());
        for thread in asking {
            let share = thread
                .join()
                .map_err(|_| io::Error::other("a client of the demo panicked"))??;
            answers.extend(share);
        }
        Ok(answers)
    })
}

/// What matters of the head of a response.
#[derive(Debug, Eq, PartialEq)]
struct Head {
    status: u16,
    length: usize,
    source: Source,
    closes: bool,
}

impl Head {
    fn read(connection: &mut impl io::BufRead) -> io::Result<Self> {
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
        let mut line = String::new();
        connection.read_line(&mut line)?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        let mut head = Self {
            status: status.ok_or_else(unreadable)?,
            length: 0,
            source: Source::None,
            closes: false,
        };
        loop {
            line.clear();
            connection.read_line(&mut line)?;
            if line == "\r\n" {
                return Ok(head);
            }
            let (name, value) = line.split_once(':').ok_or_else(unreadable)?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse().map_err(|_| unreadable())?,
                "cache-status" => head.source = source(value),
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
}

/// Where an answer came from, by its `Cache-Status` (design 7).
fn source(cache_status: &str) -> Source {
    let mut parts = cache_status.split(';').map(str::trim);
    if parts.next() != Some("flagside") {
        return Source::None;
    }
    let mut source = Source::None;
    for part in parts {
        match part.split_once('=') {
            Some(("detail", detail)) => {
                return Source::ALL
                    .into_iter()
                    .find(|source| source.as_str() == detail)
                    .unwrap_or(Source::None);
            }
            Some(("fwd", "bypass")) => source = Source::Passthrough,
            Some(("fwd", _)) => source = Source::Miss,
            None if part == "hit" => source = Source::Hit,
            None if part == "collapsed" => source = Source::Coalesced,
            _ => {}
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_from_cache_status() {
        for (header, wanted) in [
            ("flagside; hit; ttl=41", Source::Hit),
            ("flagside; hit; ttl=-12; detail=stale", Source::Stale),
            ("flagside; hit; ttl=-12; detail=stale_error", Source::StaleError),
            ("flagside; fwd=uri-miss; stored", Source::Miss),
            ("flagside; fwd=uri-miss; collapsed", Source::Coalesced),
            ("flagside; fwd=miss; detail=local", Source::Local),
            ("flagside; fwd=miss; fwd-status=503; detail=local", Source::Local),
            ("flagside; fwd=bypass; fwd-status=200", Source::Passthrough),
            ("other; hit", Source::None),
            ("", Source::None),
        ] {
            assert_eq!(source(header), wanted, "{header}");
        }
    }

    #[test]
    fn heads_are_read_and_other_things_refused() {
        let text = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\nconnection: close\r\n\r\nbody";
        let wanted = Head {
            status: 503,
            length: 12,
            source: Source::None,
            closes: true,
        };
        assert_eq!(Head::read(&mut text.as_bytes()).unwrap(), wanted);
        for text in [
            "",
            "SSH-2.0-OpenSSH_9\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
        ] {
            assert!(Head::read(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn many_users_differ() {
        let users: std::collections::HashSet<String> = (0..500).map(|n| Person::nth(n).id).collect();
        assert_eq!(users.len(), 500);
    }
}
