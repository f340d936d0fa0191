//! One evaluation: flags in order, segments in order, until one gives a variant (AE 5 to 8).

use std::borrow::Cow;

use super::compile::find_in_variant;
use super::evaluation::{Answer, Evaluation, Outcome};
use super::murmur3::Bucketed;
use super::pattern::Effort;
use super::property::{FixedProperty, List, Property, View};
use super::selector::{Selected, Source, Subject};
use super::set::{Bucket, Condition, FlagSet, FlagText, Segment};

/// What the caller of an evaluation knows and wants to see. Everything has a default: `()` knows
/// nothing and sees nothing.
pub trait Host {
    /// Whether [`Host::observe`] wants events; without, none is put together.
    const OBSERVES: bool = false;

    /// Whether the user's membership in a cohort is known here. `group_type` is `User` for cohorts of
    /// users.
    fn is_cohort_synced(&self, group_type: &str, cohort: &str) -> bool {
        let _ = (group_type, cohort);
        false
    }

    /// Asked about a flag that could not be evaluated faithfully, before its dependents are evaluated.
    fn substitute(&mut self, flag: FlagText<'_>) -> Substitute<'_> {
        let _ = flag;
        Substitute::Keep
    }

    /// Told what is going on, in order.
    fn observe(&mut self, event: Event<'_>) {
        let _ = event;
    }
}

impl Host for () {}

/// What stands in for a flag that could not be evaluated faithfully.
#[derive(Clone, Copy, Debug)]
pub enum Substitute<'h> {
    /// Nothing: what the engine found holds.
    Keep,
    /// The flag is not in the answer.
    Absent,
    /// This variant, as the JSON text of an object; it is emitted as it is.
    Variant(&'h [u8]),
}

/// A step of an evaluation. Segments, groups and conditions are numbered as in the flag's JSON, from 0.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// A flag begins.
    Flag {
        /// Its key.
        key: &'e str,
    },
    /// A condition was looked at.
    Condition {
        /// The number of its segment.
        segment: usize,
        /// The number of its group, of which one must hold.
        group: usize,
        /// Its number in the group, of which all must hold.
        condition: usize,
        /// What its selector found.
        property: Seen<'e>,
        /// Whether it held.
        held: bool,
    },
    /// The conditions of a segment are decided.
    Segment {
        /// Its number.
        segment: usize,
        /// Whether it matches.
        matched: bool,
    },
    /// The bucket of a matching segment was looked at.
    Bucket {
        /// The number of the segment.
        segment: usize,
        /// What its selector found.
        text: Option<&'e str>,
        /// Where that falls; `None` without a text, where the segment's own variant holds.
        bucketed: Option<Bucketed>,
        /// The allocation and the distribution in it that hold, by number.
        place: Option<(usize, usize)>,
    },
    /// The flag is done.
    Outcome {
        /// The segment that decided and the key of the variant; `None`: it is not in the answer.
        variant: Option<(usize, &'e str)>,
        /// The cloud may know better.
        unfaithful: bool,
    },
}

/// A property as a condition saw it.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'e> {
    /// No value.
    Null,
    /// A text.
    Text(&'e str),
    /// The distinct texts of a list.
    List(&'e [Cow<'e, str>]),
}

/// Why reading a condition or bucket may be unfaithful; bits of a byte.
pub(super) mod marks {
    /// It reads `amplitude_id`, which only the cloud resolves.
    pub(in super::super) const AMPLITUDE_ID: u8 = 1;
    /// It reads cohorts.
    pub(in super::super) const COHORTS: u8 = 2;
    /// It found null in the context.
    pub(in super::super) const NULL: u8 = 4;

    /// The marks that a selector alone gives.
    pub(in super::super) fn of_selector(selector: &[&str]) -> u8 {
        match selector {
            ["context", .., "cohort_ids"] if selector.len() > 2 => COHORTS,
            ["context", "user", "amplitude_id", ..] => AMPLITUDE_ID,
            _ => 0,
        }
    }
}

/// Bits of the memory of conditions, above those of `marks`.
const KNOWN: u8 = 16;
const HELD: u8 = 32;

/// In `Run::results`: no result yet, or none at all.
const NO_RESULT: u32 = 0;
/// In `Run::results`: a substitute.
const SUBSTITUTED: u32 = u32::MAX;

struct Run<'s, 'd> {
    set: &'s FlagSet,
    selected: Selected<'d>,
    /// Per condition on the context what it came to.
    memory: Vec<u8>,
    /// Per flag one more than its choice.
    results: Vec<u32>,
    /// What result slots find in substitutes.
    substituted: Vec<(u32, Option<FixedProperty>)>,
    effort: Effort,
    /// The marks of the flag at hand.
    marks: u8,
}

impl FlagSet {
    /// Evaluates the wanted flags and what they depend on; all flags if none is named. Unknown keys are
    /// skipped.
    pub fn evaluate<'s, H: Host>(
        &'s self,
        subject: Subject<'_>,
        wanted: &[&str],
        host: &mut H,
    ) -> Evaluation<'s> {
        let flags: Cow<'_, [u32]> = if wanted.is_empty() {
            Cow::Borrowed(self.order.all())
        } else {
            Cow::Owned(
                self.order
                    .of(wanted.iter().filter_map(|&key| self.index.get(key).copied())),
            )
        };
        let mut run = Run {
            set: self,
            selected: self.paths.select(subject),
            memory: vec![0; self.conditions.len()],
            results: vec![NO_RESULT; self.flags.len()],
            substituted: Vec::new(),
            effort: Effort::default(),
            marks: 0,
        };
        let mut evaluation = Evaluation::new(self, flags.len());
        for &flag in &*flags {
            run.flag(flag, host, &mut evaluation);
        }
        evaluation.patterns_given_up = run.effort.given_up();
        evaluation
    }
}

impl<'s> Run<'s, '_> {
    fn flag<H: Host>(&mut self, number: u32, host: &mut H, evaluation: &mut Evaluation<'s>) {
        let flag = &self.set.flags[number as usize];
        if H::OBSERVES {
            host.observe(Event::Flag { key: &flag.key });
        }
        self.marks = 0;
        let mut found = None;
        for (at, segment) in flag.segments.iter().enumerate() {
            if let Some(choice) = self.segment(at, segment, host) {
                found = Some((at, choice));
                break;
            }
        }
        let always = marks::AMPLITUDE_ID | marks::COHORTS;
        let unfaithful = self.marks & always != 0 || flag.is_remote && self.marks & marks::NULL != 0;
        if H::OBSERVES {
            let variant = found.map(|(at, choice)| (at, &*self.set.choices[choice as usize].variant_key));
            host.observe(Event::Outcome { variant, unfaithful });
        }
        let substitute = if unfaithful {
            evaluation.unfaithful += 1;
            host.substitute(self.set.flag_text(flag.entry as usize))
        } else {
            Substitute::Keep
        };
        let answer = match (substitute, found) {
            (Substitute::Keep, Some((_, choice))) => {
                self.results[number as usize] = choice + 1;
                Answer::Choice(choice)
            }
            (Substitute::Variant(text), _) => {
                self.results[number as usize] = SUBSTITUTED;
                for &slot in &flag.read_by {
                    let path = &self.set.results[slot as usize].path;
                    self.substituted.push((slot, find_in_variant(text, path)));
                }
                evaluation.substitute(text)
            }
            (Substitute::Keep, None) | (Substitute::Absent, _) => return,
        };
        evaluation.outcomes.push(Outcome { flag: number, answer });
    }

    /// The choice that a segment leads to; `None`: go on with the next one.
    fn segment<H: Host>(&mut self, at: usize, segment: &Segment, host: &mut H) -> Option<u32> {
        let matched = match &segment.when {
            None => true,
            Some(groups) => groups.iter().enumerate().any(|(group, conditions)| {
                let mut numbered = conditions.iter().enumerate();
                numbered.all(|(condition, number)| self.condition((at, group, condition), *number, host))
            }),
        };
        if H::OBSERVES {
            host.observe(Event::Segment { segment: at, matched });
        }
        if !matched {
            return None;
        }
        match &segment.bucket {
            None => segment.otherwise,
            Some(bucket) => self.bucket(at, bucket, segment.otherwise, host),
        }
    }

    fn condition<H: Host>(&mut self, place: (usize, usize, usize), number: u32, host: &mut H) -> bool {
        let memory = self.memory[number as usize];
        if memory != 0 && !H::OBSERVES {
            self.marks |= memory;
            return memory & HELD != 0;
        }
        let set = self.set;
        let condition = &set.conditions[number as usize];
        let mut seen = Seen::Null;
        let mut held = condition.test.matches_null;
        let mut marks = 0;
        match condition.source {
            Source::Nowhere => {}
            Source::Context(slot) => match self.selected.get(slot) {
                Some(property) => {
                    held = condition.test.matches(property.view(), &self.effort);
                    seen = if H::OBSERVES {
                        seen_in(property.view())
                    } else {
                        seen
                    };
                }
                None => marks |= marks::NULL,
            },
            Source::Result(slot) => {
                if let Some(property) = self.result(slot) {
                    held = condition.test.matches(property.view(), &self.effort);
                    seen = if H::OBSERVES {
                        seen_in(property.view())
                    } else {
                        seen
                    };
                }
            }
        }
        if H::OBSERVES {
            let (segment, group, at) = place;
            host.observe(Event::Condition {
                segment,
                group,
                condition: at,
                property: seen,
                held,
            });
        }
        marks |= unsynced(condition, host);
        self.marks |= marks;
        // A result may be there the next time.
        if !matches!(condition.source, Source::Result(_)) {
            self.memory[number as usize] = KNOWN | marks | if held { HELD } else { 0 };
        }
        held
    }

    fn result(&self, slot: u32) -> Option<&FixedProperty> {
        let found = &self.set.results[slot as usize];
        let flag = found.flag? as usize;
        match self.results[flag] {
            NO_RESULT => None,
            SUBSTITUTED => self.substituted.iter().find(|(of, _)| *of == slot)?.1.as_ref(),
            choice => {
                let first = self.set.flags[flag].first_choice;
                found.by_choice.get((choice - 1 - first) as usize)?.as_ref()
            }
        }
    }

    fn bucket<H: Host>(
        &mut self,
        at: usize,
        bucket: &Bucket,
        otherwise: Option<u32>,
        host: &mut H,
    ) -> Option<u32> {
        let text = match bucket.source {
            Source::Nowhere => None,
            Source::Context(slot) => {
                let property = self.selected.get(slot);
                self.marks |= bucket.marks | if property.is_none() { marks::NULL } else { 0 };
                property.map(Property::text)
            }
            Source::Result(slot) => self.result(slot).map(FixedProperty::text),
        };
        let text = text.filter(|text| !text.is_empty());
        let bucketed = text.map(|text| bucket.salted.bucketed(text));
        let place = bucketed.and_then(|bucketed| place(bucket, bucketed));
        if H::OBSERVES {
            host.observe(Event::Bucket {
                segment: at,
                text,
                bucketed,
                place,
            });
        }
        match place {
            // A variant that the flag does not have: go on with the next segment.
            Some((allocation, distribution)) => {
                bucket.allocations[allocation].distributions[distribution].choice
            }
            None => otherwise,
        }
    }
}

/// The first distribution that holds in the first allocation that has one; ranges may overlap.
fn place(bucket: &Bucket, bucketed: Bucketed) -> Option<(usize, usize)> {
    let allocation_number = i64::from(bucketed.allocation);
    let distribution_number = i64::from(bucketed.distribution);
    bucket
        .allocations
        .iter()
        .enumerate()
        .find_map(|(at, allocation)| {
            if !allocation.range.contains(&allocation_number) {
                return None;
            }
            let holds =
                |distribution: &super::set::Distribution| distribution.range.contains(&distribution_number);
            Some((at, allocation.distributions.iter().position(holds)?))
        })
}

/// The mark of a condition on cohorts or `amplitude_id`, unless all of its cohorts are known.
fn unsynced<H: Host>(condition: &Condition, host: &H) -> u8 {
    match &condition.cohorts {
        Some(cohorts)
            if cohorts
                .ids
                .iter()
                .all(|id| host.is_cohort_synced(&cohorts.group_type, id)) =>
        {
            0
        }
        _ => condition.marks,
    }
}

fn seen_in<'e>(view: View<'e>) -> Seen<'e> {
    match view.list {
        Some(List { elements, .. }) => Seen::List(elements),
        None => Seen::Text(view.text.text),
    }
}
