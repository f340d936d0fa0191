//! Conditions: one operator and its values, compiled when flags are loaded (AE 5).

use std::cmp::Ordering;
use std::sync::Arc;

use super::number::parse_double;
use super::pattern::{Effort, Pattern, Patterns};
use super::property::{Text, View};
use super::version::Version;
use super::words::Values;

/// The value that stands for "no value", only where there is none.
const NONE: &str = "(none)";

/// What a condition asks of a property.
#[derive(Debug)]
pub(super) struct Test {
    rule: Rule,
    /// The rule's answer is turned round.
    negated: bool,
    /// The answer where the property is null.
    pub(super) matches_null: bool,
}

#[derive(Debug)]
enum Rule {
    Is(Values),
    /// The lower cases of the values.
    Contains(Box<[Box<str>]>),
    Number {
        comparison: Comparison,
        numbers: Box<[f64]>,
        texts: Values,
    },
    Version {
        comparison: Comparison,
        versions: Box<[(Version, Box<str>)]>,
        texts: Values,
    },
    Regex(Box<[Arc<Pattern>]>),
    SetIs(Values),
    SetContains(Values),
    SetContainsAny(Values),
    /// An operator that is not known: never true, whatever the property.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn of(op: &str) -> Option<Self> {
        Some(match op {
            "less" => Self::Less,
            "less or equal" => Self::LessOrEqual,
            "greater" => Self::Greater,
            "greater or equal" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// Whether the operator is one of the two that cohorts are tested with.
pub(super) fn is_cohort_operator(op: &str) -> bool {
    matches!(op, "set contains any" | "set does not contain any")
}

impl Test {
    /// Compiles an operator with its values; every invalid pattern is given to `invalid` with the reason.
    pub(super) fn compile(
        op: &str,
        values: Values,
        patterns: &mut Patterns,
        invalid: &mut dyn FnMut(&str, &str),
    ) -> Self {
        let none = values.contains(NONE);
        let (negated, matches_null, rule) = match op {
            "is" => (false, none, Rule::Is(values)),
            "is not" => (true, !none, Rule::Is(values)),
            "contains" => (false, none, lowered(&values)),
            "does not contain" => (true, !none, lowered(&values)),
            "regex match" => (false, false, regexes(&values, patterns, invalid)),
            "regex does not match" => (true, true, regexes(&values, patterns, invalid)),
            "set is" => (false, none, Rule::SetIs(values)),
            "set is not" => (true, true, Rule::SetIs(values)),
            "set contains" => (false, none, Rule::SetContains(values)),
            "set does not contain" => (true, !none, Rule::SetContains(values)),
            "set contains any" => (false, none, Rule::SetContainsAny(values)),
            "set does not contain any" => (true, !none, Rule::SetContainsAny(values)),
            _ => match (op.strip_prefix("version "), Comparison::of(op)) {
                (_, Some(comparison)) => (false, none, number_rule(comparison, values)),
                (Some(rest), None) => match Comparison::of(rest) {
                    Some(comparison) => (false, none, version_rule(comparison, values)),
                    None => (false, false, Rule::Unknown),
                },
                (None, None) => (false, false, Rule::Unknown),
            },
        };
        Self {
            rule,
            negated,
            matches_null,
        }
    }

    /// Whether a property that is not null passes.
    pub(super) fn matches(&self, property: View<'_>, effort: &Effort) -> bool {
        let held = match (&self.rule, property.list) {
            // A set operator on what is no list is false, negated or not.
            (Rule::Unknown, _) | (Rule::SetIs(_) | Rule::SetContains(_) | Rule::SetContainsAny(_), None) => {
                return false;
            }
            (Rule::SetIs(values), Some(list)) => values.equal(list),
            (Rule::SetContains(values), Some(list)) => values.all_in(list),
            (Rule::SetContainsAny(values), Some(list)) => values.any_in(list),
            // Any element, for the negated operators too.
            (rule, Some(list)) => {
                let passes = |text: &str| rule.holds(Text { text, forms: None }, effort) != self.negated;
                return list.elements.iter().any(|element| passes(element));
            }
            (rule, None) => rule.holds(property.text, effort),
        };
        held != self.negated
    }
}

impl Rule {
    /// Whether a text passes, for the operators that look at texts.
    fn holds(&self, text: Text<'_>, effort: &Effort) -> bool {
        match self {
            Self::Is(values) => values.is(text.text),
            Self::Contains(lowered) => {
                let lower = text.lower();
                lowered.iter().any(|value| lower.contains(&**value))
            }
            Self::Number {
                comparison,
                numbers,
                texts,
            } => match text.number() {
                Some(number) if !numbers.is_empty() => numbers
                    .iter()
                    .any(|other| comparison.holds(number.total_cmp(other))),
                _ => texts_hold(*comparison, text.text, texts),
            },
            Self::Version {
                comparison,
                versions,
                texts,
            } => match text.version() {
                Some(version) if !versions.is_empty() => versions
                    .iter()
                    .any(|(other, spelt)| comparison.holds(version.compare(text.text, other, spelt))),
                _ => texts_hold(*comparison, text.text, texts),
            },
            Self::Regex(patterns) => patterns.iter().any(|pattern| pattern.is_match(text.text, effort)),
            Self::SetIs(_) | Self::SetContains(_) | Self::SetContainsAny(_) | Self::Unknown => false,
        }
    }
}

fn lowered(values: &Values) -> Rule {
    Rule::Contains(
        values
            .words()
            .iter()
            .map(|word| word.to_lowercase().into_boxed_str())
            .collect(),
    )
}

fn regexes(values: &Values, patterns: &mut Patterns, invalid: &mut dyn FnMut(&str, &str)) -> Rule {
    let mut compile = |word: &str| {
        let (pattern, why) = patterns.compile(word);
        if let Some(why) = why {
            invalid(word, &why);
        }
        pattern
    };
    Rule::Regex(values.words().iter().map(|word| compile(word)).collect())
}

fn number_rule(comparison: Comparison, texts: Values) -> Rule {
    let numbers = texts
        .words()
        .iter()
        .filter_map(|word| parse_double(word))
        .collect();
    Rule::Number {
        comparison,
        numbers,
        texts,
    }
}

fn version_rule(comparison: Comparison, texts: Values) -> Rule {
    let parsed = |word: &str| Version::parse(word).map(|version| (version, word.into()));
    let versions = texts.words().iter().filter_map(|word| parsed(word)).collect();
    Rule::Version {
        comparison,
        versions,
        texts,
    }
}

/// The comparison as texts, which order by UTF-16 code unit.
fn texts_hold(comparison: Comparison, text: &str, values: &Values) -> bool {
    values
        .words()
        .iter()
        .any(|word| comparison.holds(utf16_order(text, word)))
}

/// Orders texts by UTF-16 code unit, as Java does.
fn utf16_order(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

#[cfg(test)]
mod tests;
