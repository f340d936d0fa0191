//! Addresses of an origin, looked up off the request path.
//!
//! An address that is known is used at once; a look-up goes on beside it. Only the very first look-up,
//! and one after a long silence, is waited for. A failed look-up keeps the old addresses. There is one
//! look-up per origin at a time, on a thread of its own that nothing waits for when the program ends:
//! `getaddrinfo` blocks as long as it likes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::lock;

/// Turns a host name and port into addresses, blocking; replaced in tests.
pub(super) type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The addresses, in the order to try them.
pub(super) type Addresses = Arc<[SocketAddr]>;

/// Addresses older than this many refresh intervals are used only if a look-up does not answer soon.
const OLD_AFTER: u32 = 10;

/// How long a look-up may hold up a connection for which old addresses are there.
const OLD_WAIT: Duration = Duration::from_millis(300);

/// Addresses of one answer that are used.
const MAX_ADDRESSES: usize = 16;

/// Stack of the look-up thread; `getaddrinfo` keeps its answers on the stack.
const STACK_BYTES: usize = 512 * 1024;

/// Largest hosts file that is read, in bytes.
const HOSTS_BYTES_MAX: u64 = 1024 * 1024;

/// The addresses of one host.
pub(super) struct Resolver {
    target: Target,
    refresh: Duration,
}

enum Target {
    /// An address, or `localhost`: never looked up.
    Fixed(Addresses),
    Name(Arc<Name>),
}

struct Name {
    host: String,
    port: u16,
    lookup: Lookup,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<(Addresses, Instant)>,
    /// When the last look-up began.
    asked_at: Option<Instant>,
    running: bool,
    waiting: Vec<oneshot::Sender<Result<Addresses, Arc<io::Error>>>>,
}

impl Resolver {
    /// A resolver for `host`, which is a name or an address without brackets.
    pub(super) fn new(host: &str, port: u16, refresh: Duration, lookup: Lookup) -> Self {
        let fixed = |addresses: &[IpAddr]| {
            Target::Fixed(
                addresses
                    .iter()
                    .map(|address| SocketAddr::new(*address, port))
                    .collect(),
            )
        };
        let target = if let Ok(address) = host.parse::<IpAddr>() {
            fixed(&[address])
        } else if is_localhost(host) {
            fixed(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
        } else {
            let state = Mutex::new(State::default());
            Target::Name(Arc::new(Name {
                host: host.to_owned(),
                port,
                lookup,
                state,
            }))
        };
        Self { target, refresh }
    }

    /// Begins a look-up in the background when the known addresses are due for one. Called for every
    /// request, so that addresses are kept up to date exactly while the origin is in use.
    pub(super) fn touch(&self, now: Instant) {
        let Target::Name(name) = &self.target else { return };
        let mut state = lock(&name.state);
        if state.known.is_some() && self.is_due(&state, now) {
            Name::start(name, &mut state, now);
        }
    }

    /// The addresses to connect to. Waits only when none are known, or only old ones; the caller bounds
    /// the wait.
    ///
    /// # Errors
    ///
    /// What the look-up reported, when no address is known.
    pub(super) async fn addresses(&self, now: Instant) -> Result<Addresses, Arc<io::Error>> {
        let name = match &self.target {
            Target::Fixed(addresses) => return Ok(Addresses::clone(addresses)),
            Target::Name(name) => name,
        };
        let (answer, old) = {
            let mut state = lock(&name.state);
            let known = state.known.clone();
            if let Some((addresses, known_at)) = &known {
                if self.is_due(&state, now) {
                    Name::start(name, &mut state, now);
                }
                let age = now.saturating_duration_since(*known_at);
                if !state.running || age < self.refresh.saturating_mul(OLD_AFTER) {
                    return Ok(Addresses::clone(addresses));
                }
            }
            let (sender, answer) = oneshot::channel();
            state.waiting.push(sender);
            Name::start(name, &mut state, now);
            (answer, known.map(|(addresses, _)| addresses))
        };
        let gone = || Err(Arc::new(io::Error::other("the look-up was lost")));
        match old {
            None => answer.await.unwrap_or_else(|_| gone()),
            Some(old) => match tokio::time::timeout(OLD_WAIT, answer).await {
                Ok(Ok(Ok(new))) => Ok(new),
                _ => Ok(old),
            },
        }
    }

    fn is_due(&self, state: &State, now: Instant) -> bool {
        !state.running
            && state
                .asked_at
                .is_none_or(|asked_at| now.saturating_duration_since(asked_at) >= self.refresh)
    }
}

impl Name {
    /// Begins a look-up unless one is running.
    fn start(name: &Arc<Self>, state: &mut State, now: Instant) {
        if state.running {
            return;
        }
        state.running = true;
        state.asked_at = Some(now);
        let task = Arc::clone(name);
        let thread = std::thread::Builder::new()
            .name("flagside-dns".to_owned())
            .stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || task.look_up(now)) {
            name.settle(state, Err(error), now);
        }
    }

    fn look_up(&self, now: Instant) {
        // A panic in the look-up must not leave it running for ever.
        struct Unwind<'a>(&'a Name, Instant);
        impl Drop for Unwind<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let lost = Err(io::Error::other("the look-up panicked"));
                    self.0.settle(&mut lock(&self.0.state), lost, self.1);
                }
            }
        }
        let unwind = Unwind(self, now);
        let found = (self.lookup)(&self.host, self.port);
        self.settle(&mut lock(&self.state), found, now);
        drop(unwind);
    }

    fn settle(&self, state: &mut State, found: io::Result<Vec<SocketAddr>>, now: Instant) {
        let found = found.and_then(|found| match order(found) {
            empty if empty.is_empty() => Err(io::Error::other("the name has no address")),
            addresses => Ok(Addresses::from(addresses)),
        });
        let answer = found.map_err(Arc::new);
        if let Ok(addresses) = &answer {
            state.known = Some((Addresses::clone(addresses), now));
        }
        state.running = false;
        for waiting in state.waiting.drain(..) {
            // The one who waited may have left; the answer is kept all the same.
            let _ = waiting.send(answer.clone());
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.target {
            Target::Fixed(addresses) => f.debug_tuple("Resolver").field(addresses).finish(),
            Target::Name(name) => f.debug_tuple("Resolver").field(&name.host).finish(),
        }
    }
}

/// `localhost` means the machine itself whatever a resolver says (RFC 6761), and in an image without a
/// hosts file no resolver knows it.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Without duplicates, families in turns (RFC 8305, 4), the system's order kept within each.
fn order(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut ordered: Vec<SocketAddr> = Vec::with_capacity(found.len());
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut leading, mut other): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    leading.reverse();
    other.reverse();
    while ordered.len() < MAX_ADDRESSES {
        let next = [leading.pop(), other.pop()];
        if next == [None, None] {
            break;
        }
        for address in next.into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
    }
    ordered
}

/// The system's resolver. A name with a dot is tried as a complete one first (trailing dot), which saves
/// the queries of Kubernetes' search list; a name in the hosts file is not, because a trailing dot hides
/// it from that file.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|host, port| {
        let complete = host.contains('.') && !host.ends_with('.') && !is_in_hosts_file(host);
        if complete && let Ok(found) = (format!("{host}.").as_str(), port).to_socket_addrs() {
            return Ok(found.collect());
        }
        Ok((host, port).to_socket_addrs()?.collect())
    })
}

fn is_in_hosts_file(host: &str) -> bool {
    use std::io::Read;
    let mut text = Vec::new();
    let read =
        std::fs::File::open("/etc/hosts").and_then(|file| file.take(HOSTS_BYTES_MAX).read_to_end(&mut text));
    read.is_ok() && names_host(&String::from_utf8_lossy(&text), host)
}

/// Whether a hosts file names `host`.
fn names_host(text: &str, host: &str) -> bool {
    text.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_whitespace()
            .skip(1)
            .any(|name| name.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const REFRESH: Duration = Duration::from_secs(30);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    /// A look-up that answers what the test sends, when it sends it, and tells when it is asked.
    fn scripted() -> (
        Lookup,
        mpsc::Sender<io::Result<Vec<SocketAddr>>>,
        mpsc::Receiver<()>,
    ) {
        let (answers, script) = mpsc::channel();
        let (asked, questions) = mpsc::channel();
        let script = Mutex::new(script);
        let lookup: Lookup = Arc::new(move |_, _| {
            asked.send(()).unwrap();
            lock(&script).recv().unwrap()
        });
        (lookup, answers, questions)
    }

    /// Waits until no look-up runs.
    fn settled(resolver: &Resolver) {
        let Target::Name(name) = &resolver.target else {
            return;
        };
        while lock(&name.state).running {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn literals_and_localhost_are_never_looked_up() {
        let never: Lookup = Arc::new(|host, _| panic!("looked up {host}"));
        let loopback = ["127.0.0.1:80", "[::1]:80"];
        let cases: [(&str, &[&str]); 5] = [
            ("192.0.2.1", &["192.0.2.1:80"]),
            ("2001:db8::1", &["[2001:db8::1]:80"]),
            ("localhost", &loopback),
            ("LocalHost.", &loopback),
            ("app.localhost", &loopback),
        ];
        for (host, wanted) in cases {
            let resolver = Resolver::new(host, 80, REFRESH, Lookup::clone(&never));
            resolver.touch(Instant::now());
            let found = resolver.addresses(Instant::now()).await.unwrap();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted, "{host}");
        }
    }

    #[tokio::test]
    async fn the_first_look_up_is_shared_by_all_who_wait() {
        let (lookup, answers, questions) = scripted();
        let resolver = Resolver::new("api.example", 443, REFRESH, lookup);
        let now = Instant::now();
        answers.send(Ok(vec![address(1)])).unwrap();
        let (first, second) = tokio::join!(resolver.addresses(now), resolver.addresses(now));
        assert_eq!(first.unwrap().as_ref(), [address(1)]);
        assert_eq!(second.unwrap().as_ref(), [address(1)]);
        assert_eq!(questions.try_iter().count(), 1);
    }

    #[tokio::test]
    async fn known_addresses_are_used_at_once_and_refreshed_beside() {
        let (lookup, answers, questions) = scripted();
        let resolver = Resolver::new("api.example", 443, REFRESH, lookup);
        let start = Instant::now();
        answers.send(Ok(vec![address(1)])).unwrap();
        resolver.addresses(start).await.unwrap();
        questions.recv().unwrap();

        resolver.touch(start + REFRESH / 2);
        assert!(questions.try_recv().is_err(), "looked up before it was due");

        // Due: the old address is there at once although the look-up hangs, and there is one look-up.
        let later = start + REFRESH;
        resolver.touch(later);
        questions.recv().unwrap();
        assert_eq!(resolver.addresses(later).await.unwrap().as_ref(), [address(1)]);
        resolver.touch(later + REFRESH);
        assert!(questions.try_recv().is_err(), "two look-ups at a time");

        answers.send(Ok(vec![address(2)])).unwrap();
        settled(&resolver);
        assert_eq!(resolver.addresses(later).await.unwrap().as_ref(), [address(2)]);
    }

    #[tokio::test]
    async fn a_failed_refresh_keeps_the_old_addresses() {
        let (lookup, answers, _questions) = scripted();
        let resolver = Resolver::new("api.example", 443, REFRESH, lookup);
        let start = Instant::now();
        answers.send(Ok(vec![address(1)])).unwrap();
        resolver.addresses(start).await.unwrap();
        for wrong in [Err(io::Error::other("no server")), Ok(Vec::new())] {
            answers.send(wrong).unwrap();
            resolver.touch(start + REFRESH * 2);
            settled(&resolver);
            assert_eq!(
                resolver.addresses(start + REFRESH).await.unwrap().as_ref(),
                [address(1)]
            );
        }
    }

    #[tokio::test]
    async fn old_addresses_wait_for_a_look_up_but_not_for_ever() {
        let (lookup, answers, questions) = scripted();
        let resolver = Resolver::new("api.example", 443, REFRESH, lookup);
        let start = Instant::now();
        answers.send(Ok(vec![address(1)])).unwrap();
        resolver.addresses(start).await.unwrap();
        questions.recv().unwrap();

        answers.send(Ok(vec![address(2)])).unwrap();
        let (much_later, later_still) = (start + REFRESH * 20, start + REFRESH * 40);
        assert_eq!(
            resolver.addresses(much_later).await.unwrap().as_ref(),
            [address(2)]
        );
        // This look-up hangs.
        assert_eq!(
            resolver.addresses(later_still).await.unwrap().as_ref(),
            [address(2)]
        );
        drop(answers);
    }

    #[tokio::test]
    async fn a_first_look_up_that_fails_says_so_and_the_next_is_tried_again() {
        let (lookup, answers, _questions) = scripted();
        let resolver = Resolver::new("api.example", 443, REFRESH, lookup);
        let now = Instant::now();
        answers.send(Err(io::Error::other("no such name"))).unwrap();
        assert!(
            resolver
                .addresses(now)
                .await
                .unwrap_err()
                .to_string()
                .contains("no such name")
        );
        answers.send(Ok(vec![address(1)])).unwrap();
        assert_eq!(resolver.addresses(now).await.unwrap().as_ref(), [address(1)]);
    }

    #[test]
    fn families_take_turns_and_nothing_comes_twice() {
        let v6 = |last: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 443));
        let found = vec![v6(1), v6(1), v6(2), v6(3), address(1), address(2), address(1)];
        assert_eq!(order(found), [v6(1), address(1), address(2), v6(2), v6(3)]);
        assert_eq!(order((0..200).map(address).collect()).len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_hosts_file_is_read_as_the_system_does() {
        let text =
            "# a comment naming api.example\n127.0.0.1 localhost\n10.0.0.1\tAPI.example other # api.two\n";
        assert!(names_host(text, "api.example"));
        assert!(names_host(text, "other"));
        assert!(!names_host(text, "api.two"));
        assert!(!names_host(text, "10.0.0.1"));
    }
}
