//! What an evaluation gave (FB 3.5).

use super::flag::{Choice, Flag};
use super::run::Cause;

/// The answers for one user, and the flags that have none.
#[derive(Debug, Default)]
pub struct Evaluation<'s> {
    outcomes: Vec<Outcome<'s>>,
    unevaluable: Vec<Unevaluable<'s>>,
}

/// The answer of one flag.
#[derive(Debug)]
pub struct Outcome<'s> {
    pub(super) flag: &'s Flag,
    pub(super) choice: Choice,
    pub(super) reason: Reason,
    /// Whether the answer counts for experiments.
    pub(super) send: bool,
}

/// A flag that cannot be evaluated for this user; FeatBit's server would fail the whole request.
#[derive(Clone, Copy, Debug)]
pub struct Unevaluable<'s> {
    flag: &'s Flag,
    cause: Cause<'s>,
}

impl<'s> Unevaluable<'s> {
    /// The flag.
    pub fn flag(&self) -> &'s Flag {
        self.flag
    }

    /// Why.
    pub fn cause(&self) -> Cause<'s> {
        self.cause
    }
}

/// Why a flag has its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    Archived,
    Disabled,
    Targeted,
    /// The rule with this number.
    Rule(usize),
    Default,
}

impl Reason {
    /// As it is in answers, as JSON.
    pub(super) fn json(self, flag: &Flag) -> &str {
        match self {
            Self::Archived => r#""flag archived""#,
            Self::Disabled => r#""flag disabled""#,
            Self::Targeted => r#""targeted""#,
            Self::Rule(number) => flag.json(flag.rules[number].name_json),
            Self::Default => r#""default""#,
        }
    }
}

/// How many answers have which reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reasons {
    /// The flag is archived.
    pub archived: u32,
    /// The flag is off.
    pub disabled: u32,
    /// The user is targeted individually.
    pub targeted: u32,
    /// A rule matched.
    pub rule: u32,
    /// The fallthrough.
    pub default: u32,
}

impl<'s> Evaluation<'s> {
    /// How many flags have an answer.
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether no flag has an answer.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// The flags that could not be evaluated, in the order of answers.
    pub fn unevaluable(&self) -> &[Unevaluable<'s>] {
        &self.unevaluable
    }

    /// How many answers have which reason.
    pub fn reasons(&self) -> Reasons {
        let mut reasons = Reasons::default();
        for outcome in &self.outcomes {
            *match outcome.reason {
                Reason::Archived => &mut reasons.archived,
                Reason::Disabled => &mut reasons.disabled,
                Reason::Targeted => &mut reasons.targeted,
                Reason::Rule(_) => &mut reasons.rule,
                Reason::Default => &mut reasons.default,
            } += 1;
        }
        reasons
    }

    /// Appends the response: a JSON list with one object per flag, without white space.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, outcome) in self.outcomes.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            outcome.write(out);
        }
        out.push(b']');
    }

    /// The answers, in their order.
    pub fn outcomes(&self) -> &[Outcome<'s>] {
        &self.outcomes
    }

    pub(super) fn reserve(&mut self, flags: usize) {
        self.outcomes.reserve(flags);
    }

    pub(super) fn push(&mut self, outcome: Outcome<'s>) {
        self.outcomes.push(outcome);
    }

    pub(super) fn push_unevaluable(&mut self, flag: &'s Flag, cause: Cause<'s>) {
        self.unevaluable.push(Unevaluable { flag, cause });
    }
}

impl Outcome<'_> {
    /// The reason, as JSON: a text, or null.
    pub fn reason_json(&self) -> &str {
        self.reason.json(self.flag)
    }

    /// Whether the answer counts for experiments.
    pub fn sends_to_experiment(&self) -> bool {
        self.send
    }

    /// The id and the value of what the user gets, as JSON: texts, or null.
    pub fn variation(&self) -> (&str, &str) {
        match self.choice {
            Choice::Variation(number) => {
                let variation = &self.flag.variations[number as usize];
                (
                    self.flag.json(variation.id_json),
                    self.flag.json(variation.value_json),
                )
            }
            Choice::Missing => ("null", "null"),
            Choice::Empty => (r#""""#, r#""""#),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let flag = self.flag;
        let (id, value) = self.variation();
        for part in [
            r#"{"key":"#,
            flag.json(flag.key_json),
            r#","variation":{"id":"#,
            id,
            r#","type":"#,
            flag.json(flag.type_json),
            r#","value":"#,
            value,
            r#","matchReason":"#,
            self.reason_json(),
            if self.send {
                r#","sendToExperiment":true}}"#
            } else {
                r#","sendToExperiment":false}}"#
            },
        ] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}
