//! What every step of the story needs: asking, showing, counting, and being held to what was told.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::api::Proxy;
use crate::metrics::Source;

use super::client::{self, Answer, Client, Person, Spelling};
use super::screen::{Row, Screen, Tone};
use super::upstream::Upstream;

/// How long anything that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether it has happened.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Where answers come from, and what that means.
pub(super) const SOURCES: [(Source, &str); 6] = [
    (Source::Miss, "upstream answered"),
    (
        Source::Coalesced,
        "upstream's answer to somebody who asked the same",
    ),
    (Source::Hit, "stored answer, fresh"),
    (
        Source::Stale,
        "stored answer, while it is refreshed in the background",
    ),
    (Source::StaleError, "stored answer, because upstream is away"),
    (Source::Local, "evaluated here, because upstream is away"),
];

/// Who tells the story: asks, shows, counts, and compares with what was told.
#[derive(Debug)]
pub(super) struct Teller<'s, W> {
    pub(super) screen: &'s mut Screen<W>,
    pub(super) upstream: &'s Upstream,
    pub(super) proxy: &'s Proxy,
    address: SocketAddr,
    pub(super) client: Client,
    /// Answers by source.
    pub(super) answers: [u64; Source::ALL.len()],
    /// Answers other than 200.
    pub(super) failed: u64,
    /// Claims that did not come true.
    pub(super) contradictions: u32,
}

impl<'s, W: Write> Teller<'s, W> {
    /// A teller of the proxy at `address`.
    pub(super) fn new(
        screen: &'s mut Screen<W>,
        upstream: &'s Upstream,
        proxy: &'s Proxy,
        address: SocketAddr,
    ) -> io::Result<Self> {
        Ok(Self {
            screen,
            upstream,
            proxy,
            address,
            client: Client::connect(address, upstream.vendor)?,
            answers: [0; Source::ALL.len()],
            failed: 0,
            contradictions: 0,
        })
    }

    /// Asks, shows the row, and says how often upstream was asked meanwhile.
    pub(super) fn ask(
        &mut self,
        what: &str,
        person: &Person,
        spelling: Spelling,
    ) -> io::Result<(Answer, u64)> {
        let before = self.upstream.evaluations();
        let answer = self.ask_quietly(person, spelling)?;
        let asked = self.upstream.evaluations() - before;
        self.row(what, &answer, asked);
        Ok((answer, asked))
    }

    pub(super) fn ask_quietly(&mut self, person: &Person, spelling: Spelling) -> io::Result<Answer> {
        let answer = self.client.ask(person, spelling)?;
        self.count(&answer);
        Ok(answer)
    }

    /// All these people ask at once over so many connections. A row for each source, with its slowest answer.
    pub(super) fn ask_together(
        &mut self,
        what: &str,
        people: &[Person],
        clients: usize,
    ) -> io::Result<(Vec<Answer>, u64)> {
        let before = self.upstream.evaluations();
        let answers = client::ask_together(self.address, people, clients, self.upstream.vendor)?;
        let asked = self.upstream.evaluations() - before;
        let mut what = Some(what);
        for (source, _) in SOURCES {
            let mut of_source = answers
                .iter()
                .filter(|answer| answer.source == source && answer.status == 200);
            let n = of_source.clone().count();
            let Some(first) = of_source.next() else { continue };
            self.screen.row(&Row {
                what: what.unwrap_or_default().to_owned(),
                source: format!("{n} {}", source.as_str()),
                tone: tone(source),
                took: Some(
                    of_source
                        .map(|answer| answer.took)
                        .fold(first.took, Duration::max),
                ),
                upstream: what.map(|_| asked),
            });
            what = None;
        }
        for answer in &answers {
            self.count(answer);
            if answer.status != 200 {
                self.row(what.take().unwrap_or_default(), answer, asked);
            }
        }
        Ok((answers, asked))
    }

    fn count(&mut self, answer: &Answer) {
        self.answers[answer.source.index()] += 1;
        self.failed += u64::from(answer.status != 200);
    }

    pub(super) fn row(&mut self, what: &str, answer: &Answer, asked: u64) {
        let source = match answer.status {
            200 => answer.source.as_str().to_owned(),
            status => format!("error {status}"),
        };
        self.screen.row(&Row {
            what: what.to_owned(),
            source,
            tone: if answer.status == 200 {
                tone(answer.source)
            } else {
                Tone::Red
            },
            took: Some(answer.took),
            upstream: Some(asked),
        });
    }

    /// Waits for something that flagside does by itself, and shows how long it took.
    pub(super) fn notice(&mut self, what: &str, happened: impl Fn() -> bool) {
        let took = wait_until(happened);
        self.noticed(what, took);
    }

    pub(super) fn noticed(&mut self, what: &str, took: Option<Duration>) {
        if took.is_some() {
            let source = String::new();
            self.screen.row(&Row {
                what: what.to_owned(),
                source,
                tone: Tone::Dim,
                took,
                upstream: None,
            });
        }
        self.claim(took.is_some(), what);
    }

    pub(super) fn claim(&mut self, holds: bool, told: &str) {
        if !holds {
            self.contradictions += 1;
            self.screen.contradict(told);
        }
    }

    /// Whether this is what upstream says, or would say, about `person`.
    pub(super) fn is_verdict(&self, person: &Person, answer: &Answer) -> bool {
        let verdict = self.upstream.verdict(person);
        answer.status == 200 && verdict.is_some_and(|verdict| same_json(&verdict, &answer.body))
    }
}

const fn tone(source: Source) -> Tone {
    match source {
        Source::Hit | Source::Stale | Source::StaleError => Tone::Green,
        Source::Local => Tone::Cyan,
        Source::Miss | Source::Coalesced | Source::Passthrough => Tone::Yellow,
        Source::None => Tone::Red,
    }
}

/// Whether two texts are the same JSON, whatever the order of members.
pub(super) fn same_json(one: &[u8], other: &[u8]) -> bool {
    let read = |text| serde_json::from_slice::<serde_json::Value>(text).ok();
    read(one).is_some_and(|one| Some(one) == read(other))
}

/// How long it took until `happened`; `None` if it did not in time.
pub(super) fn wait_until(happened: impl Fn() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while !happened() {
        if began.elapsed() > PATIENCE {
            return None;
        }
        std::thread::park_timeout(LOOK_AGAIN);
    }
    Some(began.elapsed())
}
