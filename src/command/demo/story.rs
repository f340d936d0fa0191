//! The story: what is asked, what must come of it, and what that means.
//!
//! Every step is held to what it tells: a claim that does not come true is printed and makes the tour fail.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::metrics::Source;
use crate::upstream::BreakerState;

use super::client::{Answer, Person, Spelling};
use super::screen::{Row, Tone, duration};
use super::teller::{PATIENCE, SOURCES, Teller, same_json, wait_until};
use super::upstream::Mood;
use super::{ANSWER_DEADLINE, FRESH_FOR};

/// How often the same question is repeated to show how long a hit takes.
const REPEATS: usize = 1_000;
/// Clients that ask one question at once.
const CROWD: usize = 50;
/// Users who come while upstream hangs.
const NEWCOMERS: usize = 20;
/// Users who come while upstream refuses connections, and clients that ask for them.
const OUTAGE_USERS: usize = 200;
const OUTAGE_CLIENTS: usize = 20;
/// Between two questions whether upstream is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl<W: Write> Teller<'_, W> {
    /// Tells it. Says how many claims did not come true.
    ///
    /// # Errors
    /// When a question gets no answer at all.
    pub(super) fn tell(mut self) -> io::Result<u32> {
        let ada = Person::named("ada", "Web", "4.1.9", "free");
        let dora = Person::named("dora", "Android", "4.2.0", "business");
        self.screen.heads();
        let first = self.first_question(&ada)?;
        self.same_question(&ada, &first)?;
        self.other_spellings(&ada, &first)?;
        self.other_user(&first)?;
        self.crowd_at_once()?;
        let newest = self.flag_change(&ada, &first)?;
        let stored_by = Instant::now();
        let local = self.hanging(&dora)?;
        self.known_user(&ada, &newest, stored_by)?;
        self.refusing()?;
        self.recovery(&dora, &local)?;
        self.summary();
        Ok(self.contradictions)
    }

    fn first_question(&mut self, ada: &Person) -> io::Result<Answer> {
        self.screen.step(1, "A first question");
        let (answer, asked) = self.ask("Ada asks for her flags", ada, Spelling::Usual)?;
        self.claim(
            answer.source == Source::Miss && asked == 1,
            "upstream is asked once",
        );
        self.claim(self.is_verdict(ada, &answer), "the answer is upstream's");
        self.screen
            .say("Upstream answered. flagside passed it on byte for byte and keeps it:");
        self.list_variants(&answer);
        Ok(answer)
    }

    fn list_variants(&mut self, answer: &Answer) {
        let variants = self.upstream.vendor.variants(&answer.body);
        self.screen.say(&variants.join(" "));
    }

    fn same_question(&mut self, ada: &Person, first: &Answer) -> io::Result<()> {
        self.screen.step(2, "The same question again");
        let (answer, asked) = self.ask("Ada asks again", ada, Spelling::Usual)?;
        let is_hit = |answer: &Answer| answer.source == Source::Hit && answer.body == first.body;
        self.claim(
            is_hit(&answer) && asked == 0,
            "the stored answer is used and upstream not asked",
        );
        let before = self.upstream.evaluations();
        let mut times = Vec::with_capacity(REPEATS);
        let mut hits = 0;
        let began = Instant::now();
        // On a slow machine fewer: the answer must stay fresh meanwhile.
        while times.len() < REPEATS && began.elapsed() < FRESH_FOR / 4 {
            // Not counted: they would make the summary look better than an application's day.
            let answer = self.client.ask(ada, Spelling::Usual)?;
            hits += usize::from(is_hit(&answer));
            times.push(answer.took);
        }
        let repeats = times.len();
        times.sort_unstable();
        let median = times.get(repeats / 2).copied().unwrap_or_default();
        let asked = self.upstream.evaluations() - before;
        self.screen.row(&Row {
            what: format!("and {repeats} times more (median)"),
            source: format!("{hits} hit"),
            tone: Tone::Green,
            took: Some(median),
            upstream: Some(asked),
        });
        self.claim(hits == repeats && asked == 0, "every one of them is a hit");
        let times = first.took.as_nanos() / median.as_nanos().max(1);
        self.screen.say(&format!(
            "From memory, {times} times as fast, and upstream is left in peace."
        ));
        Ok(())
    }

    fn other_spellings(&mut self, ada: &Person, first: &Answer) -> io::Result<()> {
        self.screen.step(3, "The same question as other SDKs spell it");
        for (what, spelling) in self.upstream.vendor.spellings() {
            let (answer, asked) = self.ask(what, ada, spelling)?;
            let same = answer.source == Source::Hit && asked == 0 && answer.body == first.body;
            self.claim(same, "another spelling finds the same stored answer");
        }
        self.screen
            .say("One question, one stored answer, however it is spelled.");
        Ok(())
    }

    fn other_user(&mut self, first: &Answer) -> io::Result<()> {
        self.screen.step(4, "Another user");
        let ben = Person::named("ben", "iOS", "5.0.1", "pro");
        let (answer, asked) = self.ask("Ben asks for his flags", &ben, Spelling::Usual)?;
        self.claim(
            answer.source == Source::Miss && asked == 1,
            "another user is another question",
        );
        self.claim(
            answer.body != first.body && self.is_verdict(&ben, &answer),
            "Ben gets his own answer",
        );
        self.screen
            .say("Another question, so upstream is asked: answers of users never mix.");
        self.list_variants(&answer);
        Ok(())
    }

    fn crowd_at_once(&mut self) -> io::Result<()> {
        self.screen
            .step(5, &format!("{CROWD} clients ask the same new question at once"));
        let cleo = Person::named("cleo", "Web", "5.0.1", "business");
        let (answers, asked) =
            self.ask_together(&format!("Cleo, {CROWD} times"), &vec![cleo.clone(); CROWD], CROWD)?;
        let alike = answers.iter().all(|answer| self.is_verdict(&cleo, answer));
        self.claim(asked == 1, "upstream gets one request");
        self.claim(alike, "everybody gets its answer");
        self.screen
            .say("One request went out; everybody else waited for its answer.");
        Ok(())
    }

    fn flag_change(&mut self, ada: &Person, first: &Answer) -> io::Result<Answer> {
        self.screen.step(6, "A flag changes upstream");
        let (proxy, vendor) = (self.proxy, self.upstream.vendor);
        // Only a change of flags that were known is a change.
        let synced = || vendor.revision(proxy).is_some();
        self.claim(wait_until(synced).is_some(), "flagside has fetched the flags");
        let before = vendor.revision(proxy);
        let done = self.upstream.change_flag()?;
        self.screen.say(&format!("{done}."));
        self.notice("flagside has noticed", || vendor.revision(proxy) != before);
        let (answer, asked) = self.ask("Ada asks again", ada, Spelling::Usual)?;
        self.claim(
            answer.source == Source::Miss && asked == 1,
            "the answer of the old flags is not used",
        );
        self.claim(
            answer.body != first.body && self.is_verdict(ada, &answer),
            "Ada gets the new answer",
        );
        let shown = |answer: &Answer| {
            let mut variants = vendor.variants(&answer.body).into_iter();
            variants.find(|variant| variant.starts_with(vendor.changing()))
        };
        let [was, is] = [first, &answer].map(|answer| shown(answer).unwrap_or_default());
        self.screen
            .say(&format!("{was} became {is}. Nobody purged anything."));
        Ok(answer)
    }

    fn hanging(&mut self, dora: &Person) -> io::Result<Answer> {
        self.screen
            .step(7, "Upstream hangs: it takes requests and never answers");
        self.upstream.behave(Mood::Hangs);
        let (first, _) = self.ask("Dora, never seen before", dora, Spelling::Usual)?;
        self.claim(
            first.source == Source::Local,
            "a user never seen before is evaluated here",
        );
        let people: Vec<Person> = (0..NEWCOMERS).map(Person::nth).collect();
        let (answers, _) =
            self.ask_together(&format!("{NEWCOMERS} more newcomers at once"), &people, NEWCOMERS)?;
        self.claim(
            answers.iter().all(|answer| answer.source == Source::Local),
            "newcomers are evaluated here",
        );
        let breaker = || {
            self.proxy
                .environments
                .first()
                .and_then(|it| Some(it.origins.as_ref()?.eval.breaker_state()))
        };
        let opened = wait_until(|| breaker() != Some(BreakerState::Closed));
        self.noticed("the circuit breaker has opened", opened);
        let emil = Person::named("emil", "iOS", "4.10.2", "free");
        let (at_once, _) = self.ask("Emil, never seen before", &emil, Spelling::Usual)?;
        let quick = at_once.source == Source::Local && at_once.took < ANSWER_DEADLINE;
        self.claim(quick, "with the breaker open nobody waits");
        let everybody = people
            .iter()
            .zip(&answers)
            .chain([(dora, &first), (&emil, &at_once)]);
        let right = everybody
            .filter(|(person, answer)| self.is_verdict(person, answer))
            .count();
        self.claim(
            right == NEWCOMERS + 2,
            "local answers are what upstream would have said",
        );
        self.screen.say(&format!(
            "flagside evaluates the flags itself: after {} at first, then at once. {right} of {} answers are what \
             upstream would have said.",
            duration(ANSWER_DEADLINE),
            NEWCOMERS + 2
        ));
        Ok(first)
    }

    fn known_user(&mut self, ada: &Person, newest: &Answer, stored_by: Instant) -> io::Result<()> {
        let old = || stored_by.elapsed() > FRESH_FOR;
        self.claim(wait_until(old).is_some(), "a stored answer grows old");
        let (known, _) = self.ask("Ada, whose answer is no longer fresh", ada, Spelling::Usual)?;
        let stored = matches!(known.source, Source::Stale | Source::StaleError) && known.body == newest.body;
        self.claim(stored, "a known user gets the stored answer");
        self.screen
            .say("Known users keep the answer that upstream gave, fresh or not.");
        Ok(())
    }

    fn refusing(&mut self) -> io::Result<()> {
        self.screen.step(8, "Upstream is gone: connections are refused");
        self.upstream.behave(Mood::Refuses);
        self.claim(
            wait_until(|| !self.upstream.is_listening()).is_some(),
            "upstream refuses connections",
        );
        let people: Vec<Person> = (1_000..1_000 + OUTAGE_USERS).map(Person::nth).collect();
        let what = format!("{OUTAGE_USERS} users, never seen before");
        let (answers, asked) = self.ask_together(&what, &people, OUTAGE_CLIENTS)?;
        let slowest = answers.iter().map(|answer| answer.took).max().unwrap_or_default();
        let failed = answers.iter().filter(|answer| answer.status != 200).count();
        self.claim(failed == 0 && asked == 0, "nobody notices the outage");
        self.claim(
            slowest < Duration::from_secs(1),
            "the slowest answer takes less than a second",
        );
        let right = people
            .iter()
            .zip(&answers)
            .filter(|(person, answer)| self.is_verdict(person, answer))
            .count();
        self.claim(
            right == OUTAGE_USERS,
            "local answers are what upstream would have said",
        );
        self.screen.say(&format!(
            "{failed} failed, the slowest took {}. {right} of {OUTAGE_USERS} are what upstream would have said.",
            duration(slowest)
        ));
        Ok(())
    }

    fn recovery(&mut self, dora: &Person, local: &Answer) -> io::Result<()> {
        self.screen.step(9, "Upstream is back");
        self.upstream.behave(Mood::Answers);
        let back = Instant::now();
        self.claim(
            wait_until(|| self.upstream.is_listening()).is_some(),
            "upstream listens again",
        );
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            let asked_at = back.elapsed();
            let before = self.upstream.evaluations();
            let answer = self.ask_quietly(dora, Spelling::Usual)?;
            if answer.source != Source::Local || asked_at > PATIENCE {
                let asked = self.upstream.evaluations() - before;
                let noticed = Some(asked_at).filter(|_| answer.source == Source::Miss);
                self.noticed("flagside has noticed", noticed);
                self.row(&format!("Dora asks again (attempt {tries})"), &answer, asked);
                break answer;
            }
            self.claim(answer.status == 200, "until then she is answered here");
            std::thread::park_timeout(ASK_AGAIN);
        };
        self.claim(answer.source == Source::Miss, "upstream is asked again by itself");
        self.claim(
            same_json(&answer.body, &local.body),
            "upstream says what flagside said in its place",
        );
        self.screen
            .say("Upstream's own answer again: the one that flagside gave in its place.");
        Ok(())
    }

    fn summary(&mut self) {
        self.screen.step(10, "In short");
        for (source, meaning) in SOURCES {
            let answers = self.answers[source.index()];
            if answers > 0 {
                self.screen
                    .line(&format!("    {:12}{answers:6}  {meaning}", source.as_str()));
            }
        }
        let total: u64 = self.answers.iter().sum();
        self.screen.line(&format!("    {:12}{:6}", "failed", self.failed));
        self.claim(self.failed == 0, "no question failed");
        let asked = self.upstream.evaluations();
        let saved = 100.0 * (1.0 - asked as f64 / total.max(1) as f64);
        self.screen.say(&format!(
            "{total} questions, {asked} requests to upstream: {saved:.0} % saved. Not counted: the repetitions of \
             step 2, and {} requests for flags.",
            self.upstream.polls()
        ));
    }
}
