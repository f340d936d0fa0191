//! One evaluation: flag by flag, until something decides (FB 5.2 to 5.8).

use std::fmt;

use super::condition::{BadList, Condition, SegmentCondition, Undecided};
use super::evaluation::{Evaluation, Outcome, Reason};
use super::flag::{Choice, Flag, Rule, RuleCondition, Segment, Split};
use super::request::Request;
use super::rollout;
use super::set::DataSet;
use super::user::EndUser;
use crate::evaluate::pattern::Effort;

/// What goes before the key of a split when it divides users for experiments.
const EXPERIMENT: &[u8] = b"expt";

/// Why a flag cannot be evaluated; FeatBit's server fails the whole request then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause<'s> {
    /// A condition on segments has no value.
    NoSegments,
    /// The value of a condition on segments is no JSON list of texts.
    SegmentList,
    /// There is no segment with this id.
    UnknownSegment(&'s str),
    /// A condition has no result.
    Condition(Undecided<'s>),
    /// The range of an entry has fewer than two numbers.
    Range,
    /// There is no fallthrough.
    NoFallthrough,
}

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSegments => f.write_str("a condition on segments has no value"),
            Self::SegmentList => f.write_str("the value of a condition on segments is no JSON list of texts"),
            Self::UnknownSegment(id) => write!(f, "there is no segment {id:?}"),
            Self::Condition(undecided) => undecided.fmt(f),
            Self::Range => f.write_str("a range of a rollout has fewer than two numbers"),
            Self::NoFallthrough => f.write_str("it has no fallthrough"),
        }
    }
}

/// Told what is going on, in order. Everything has a default: `()` sees nothing.
pub trait Observer {
    /// Whether [`Observer::observe`] wants events; without, none is put together.
    const OBSERVES: bool = false;

    /// Told of a step.
    fn observe(&mut self, event: Event<'_>) {
        let _ = event;
    }
}

impl Observer for () {}

/// A step of an evaluation. Targets, rules, conditions and entries are numbered as in the JSON, from 0.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// A flag begins.
    Flag(&'e Flag),
    /// The user is targeted individually, by the target with this number.
    Target(usize),
    /// A rule begins: of the flag or, between [`Event::Segment`] and [`Event::Member`], of a segment.
    Rule(usize),
    /// An ordinary condition was looked at.
    Condition {
        /// Its number in the rule.
        condition: usize,
        /// What the property is; `None` is null.
        found: Option<&'e str>,
        /// Whether it holds, if that can be said.
        held: Result<bool, Undecided<'e>>,
    },
    /// A condition on segments, with this number in its rule, begins.
    Segments(usize),
    /// A segment is looked at.
    Segment(&'e Segment),
    /// It is decided whether the user is in the segment.
    Member(&'e Segment, Membership),
    /// A condition on segments is decided.
    SegmentsDecided {
        /// Its number in the rule.
        condition: usize,
        /// Whether it holds.
        held: bool,
    },
    /// Users are divided.
    Split {
        /// The rule whose split it is; `None`: the fallthrough.
        rule: Option<usize>,
        /// What is hashed.
        key: &'e str,
        /// Where that falls, `0.0..=1.0`.
        position: f64,
        /// The entry that holds.
        entry: Option<usize>,
    },
    /// It is decided whether the user of a split counts for experiments.
    Experiment {
        /// Whether the user does.
        send: bool,
        /// Why.
        sample: Sample,
    },
    /// The flag has its answer.
    Outcome(&'e Outcome<'e>),
    /// The flag cannot be evaluated.
    Unevaluable(Cause<'e>),
}

/// What decided whether a user is in a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Membership {
    /// The user is excluded.
    Excluded,
    /// The user is included.
    Included,
    /// The rule with this number matches.
    Rule(usize),
    /// No rule matches.
    No,
}

impl Membership {
    /// Whether the user is in the segment.
    pub const fn is_member(self) -> bool {
        matches!(self, Self::Included | Self::Rule(_))
    }
}

/// What decided whether a user of a split counts for experiments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// The flag counts everybody.
    Everybody,
    /// The split counts nobody.
    Nobody,
    /// No entry holds, or nothing of the one that does counts.
    Empty,
    /// The user's position, of which those up to the bound count.
    Position {
        /// Where the key falls, with `expt` before it.
        position: f64,
        /// The last position that counts.
        bound: f64,
    },
}

struct Run<'s, 'r, O> {
    set: &'s DataSet,
    user: &'r EndUser,
    /// Per segment what is known of the user's membership.
    memory: Vec<Known<'s>>,
    effort: Effort,
    /// [`EXPERIMENT`] and the key of the split at hand.
    key: Vec<u8>,
    observer: &'r mut O,
}

#[derive(Clone, Copy)]
enum Known<'s> {
    Nothing,
    Member(bool),
    Failed(Undecided<'s>),
}

impl DataSet {
    /// Evaluates the flags that a request asks for, in the order of answers.
    pub fn evaluate(&self, request: &Request) -> Evaluation<'_> {
        self.evaluate_observed(request, &mut ())
    }

    /// Like [`DataSet::evaluate`], and tells how it comes about.
    pub fn evaluate_observed<O: Observer>(&self, request: &Request, observer: &mut O) -> Evaluation<'_> {
        let filter = &request.filter;
        let mut run = Run::new(self, &request.user, observer);
        let mut evaluation = Evaluation::default();
        match &filter.keys {
            None => {
                evaluation.reserve(self.flags.len());
                for flag in self.flags.iter().filter(|flag| filter.wants(flag)) {
                    run.evaluate(flag, &mut evaluation);
                }
            }
            Some(keys) => {
                let numbers = keys.iter().flat_map(|key| self.numbers_of(key));
                let mut numbers: Vec<u32> = numbers.copied().collect();
                numbers.sort_unstable();
                evaluation.reserve(numbers.len());
                for number in numbers {
                    let flag = &self.flags[number as usize];
                    if filter.wants(flag) {
                        run.evaluate(flag, &mut evaluation);
                    }
                }
            }
        }
        evaluation
    }

    /// Evaluates flags of this set for a user.
    pub(super) fn evaluate_flags<'s>(
        &'s self,
        user: &EndUser,
        flags: impl Iterator<Item = &'s Flag>,
    ) -> Evaluation<'s> {
        let mut evaluation = Evaluation::default();
        let mut run_observer = ();
        let mut run = Run::new(self, user, &mut run_observer);
        for flag in flags {
            run.evaluate(flag, &mut evaluation);
        }
        evaluation
    }
}

impl<'s, 'r, O: Observer> Run<'s, 'r, O> {
    fn new(set: &'s DataSet, user: &'r EndUser, observer: &'r mut O) -> Self {
        Self {
            set,
            user,
            memory: vec![Known::Nothing; set.segments.len()],
            effort: Effort::default(),
            key: Vec::new(),
            observer,
        }
    }

    fn observe<'e>(&mut self, event: impl FnOnce() -> Event<'e>) {
        if O::OBSERVES {
            self.observer.observe(event());
        }
    }

    fn evaluate(&mut self, flag: &'s Flag, evaluation: &mut Evaluation<'s>) {
        if O::OBSERVES {
            self.observer.observe(Event::Flag(flag));
        }
        match self.outcome(flag) {
            Ok(outcome) => {
                if O::OBSERVES {
                    self.observer.observe(Event::Outcome(&outcome));
                }
                evaluation.push(outcome);
            }
            Err(cause) => {
                if O::OBSERVES {
                    self.observer.observe(Event::Unevaluable(cause));
                }
                evaluation.push_unevaluable(flag, cause);
            }
        }
    }

    fn outcome(&mut self, flag: &'s Flag) -> Result<Outcome<'s>, Cause<'s>> {
        let decided = |choice, reason, send| {
            Ok(Outcome {
                flag,
                choice,
                reason,
                send,
            })
        };
        if flag.is_archived {
            return decided(Choice::Missing, Reason::Archived, false);
        }
        if !flag.is_enabled {
            return decided(flag.disabled, Reason::Disabled, false);
        }
        for (number, target) in flag.targets.iter().enumerate() {
            if target.users.contains(self.user.key_id()) {
                self.observe(|| Event::Target(number));
                return decided(target.choice, Reason::Targeted, flag.includes_all);
            }
        }
        for (number, rule) in flag.rules.iter().enumerate() {
            self.observe(|| Event::Rule(number));
            if self.matches(rule)? {
                let (choice, send) = self.split(flag, &rule.split, Some(number))?;
                return decided(choice, Reason::Rule(number), send);
            }
        }
        let fallthrough = flag.fallthrough.as_ref().ok_or(Cause::NoFallthrough)?;
        let (choice, send) = self.split(flag, fallthrough, None)?;
        decided(choice, Reason::Default, send)
    }

    fn matches(&mut self, rule: &'s Rule) -> Result<bool, Cause<'s>> {
        for (number, condition) in rule.conditions.iter().enumerate() {
            let held = match condition {
                RuleCondition::Ordinary(condition) => {
                    self.holds(number, condition).map_err(Cause::Condition)?
                }
                RuleCondition::Segments(segments) => {
                    self.observe(|| Event::Segments(number));
                    let held = self.is_in_any(segments)? != segments.negated;
                    self.observe(|| Event::SegmentsDecided {
                        condition: number,
                        held,
                    });
                    held
                }
            };
            if !held {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&mut self, number: usize, condition: &'s Condition) -> Result<bool, Undecided<'s>> {
        let found = self.user.value_of(&condition.property);
        let held = condition.holds(found, &self.effort);
        if O::OBSERVES {
            self.observer.observe(Event::Condition {
                condition: number,
                found,
                held,
            });
        }
        held
    }

    fn is_in_any(&mut self, segments: &'s SegmentCondition) -> Result<bool, Cause<'s>> {
        let ids = segments.ids.as_ref().map_err(|bad| match bad {
            BadList::Null => Cause::NoSegments,
            BadList::Malformed => Cause::SegmentList,
        })?;
        for id in ids {
            let id = id.as_deref().unwrap_or_default();
            let number = self.set.segment_number(id).ok_or(Cause::UnknownSegment(id))?;
            if self.is_member(number).map_err(Cause::Condition)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_member(&mut self, number: usize) -> Result<bool, Undecided<'s>> {
        match self.memory[number] {
            // Who watches wants to see how it came about, every time.
            Known::Member(member) if !O::OBSERVES => return Ok(member),
            Known::Failed(cause) if !O::OBSERVES => return Err(cause),
            _ => {}
        }
        let segment: &'s Segment = &self.set.segments[number];
        self.observe(|| Event::Segment(segment));
        let membership = self.membership(segment);
        self.memory[number] = match membership {
            Ok(membership) => Known::Member(membership.is_member()),
            Err(cause) => Known::Failed(cause),
        };
        let membership = membership?;
        self.observe(|| Event::Member(segment, membership));
        Ok(membership.is_member())
    }

    fn membership(&mut self, segment: &'s Segment) -> Result<Membership, Undecided<'s>> {
        if segment.excluded.contains(self.user.key_id()) {
            return Ok(Membership::Excluded);
        }
        if segment.included.contains(self.user.key_id()) {
            return Ok(Membership::Included);
        }
        for (number, conditions) in segment.rules.iter().enumerate() {
            self.observe(|| Event::Rule(number));
            let mut all = true;
            for (number, condition) in conditions.iter().enumerate() {
                all = self.holds(number, condition)?;
                if !all {
                    break;
                }
            }
            if all {
                return Ok(Membership::Rule(number));
            }
        }
        Ok(Membership::No)
    }

    /// What the user gets of a split, and whether that counts for experiments.
    fn split(
        &mut self,
        flag: &'s Flag,
        split: &'s Split,
        rule: Option<usize>,
    ) -> Result<(Choice, bool), Cause<'s>> {
        self.key.clear();
        self.key.extend_from_slice(EXPERIMENT);
        self.key.extend_from_slice(flag.key.as_bytes());
        let divided_by = self.user.value_of(&split.by).unwrap_or_default();
        self.key.extend_from_slice(divided_by.as_bytes());
        let key = &self.key[EXPERIMENT.len()..];
        let mut position = None;
        let mut held = None;
        for (number, entry) in split.entries.iter().enumerate() {
            let range = entry.range.ok_or(Cause::Range)?;
            let here = || *position.get_or_insert_with(|| rollout::position(key));
            if rollout::holds(range, here) {
                held = Some((number, entry, range));
                break;
            }
        }
        if O::OBSERVES {
            self.observer.observe(Event::Split {
                rule,
                key: std::str::from_utf8(key).unwrap_or_default(),
                position: rollout::position(key),
                entry: held.map(|(number, ..)| number),
            });
        }
        let choice = held.map_or(Choice::Empty, |(_, entry, _)| entry.choice);
        let (span, share) = held.map_or((0.0, 0.0), |(_, entry, [min, max])| (max - min, entry.experiment));
        let send = self.sends(flag, split, span, share);
        Ok((choice, send))
    }

    fn sends(&mut self, flag: &Flag, split: &Split, span: f64, share: f64) -> bool {
        let (send, sample) = if flag.includes_all {
            (true, Sample::Everybody)
        } else if !split.in_experiment {
            (false, Sample::Nobody)
        } else if share == 0.0 || span == 0.0 {
            (false, Sample::Empty)
        } else {
            let share = share / span;
            // As .NET's Math.Min: what is no number stays none.
            let bound = if share > 1.0 { 1.0 } else { share };
            let send = rollout::holds([0.0, bound], || rollout::position(&self.key));
            (send, Sample::Position { position: 0.0, bound })
        };
        if O::OBSERVES {
            let sample = match sample {
                Sample::Position { bound, .. } => Sample::Position {
                    position: rollout::position(&self.key),
                    bound,
                },
                other => other,
            };
            self.observer.observe(Event::Experiment { send, sample });
        }
        send
    }
}
