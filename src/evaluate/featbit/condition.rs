//! Conditions: a property of the user compared with a text of the configuration (FB 5.1 and 5.5).

use std::fmt;
use std::sync::Arc;

use super::number;
use super::pattern::{LazyPattern, Patterns};
use super::texts::Texts;
use crate::evaluate::json::{Document, Kind};
use crate::evaluate::pattern::Effort;

/// A property of a user, as conditions and splits name it.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Property {
    /// Null or blank: always the empty text.
    Blank,
    KeyId,
    Name,
    Custom(Box<str>),
}

impl Property {
    pub(super) fn new(name: Option<&str>) -> Self {
        match name {
            None => Self::Blank,
            Some(name) if is_blank(name) => Self::Blank,
            Some("keyId") => Self::KeyId,
            Some("name") => Self::Name,
            Some(name) => Self::Custom(name.into()),
        }
    }
}

/// Whether a text is empty or only Unicode white space.
pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// An ordinary condition.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) property: Property,
    test: Test,
}

/// A condition on segments: whether the user is in any of them, or (`negated`) in none.
#[derive(Debug)]
pub(super) struct SegmentCondition {
    pub(super) negated: bool,
    /// The ids; one may be null.
    pub(super) ids: Result<Box<[Option<Box<str>>]>, BadList>,
}

/// Why a list of texts cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BadList {
    /// There is no text.
    Null,
    /// The text is no JSON list of texts.
    Malformed,
}

/// Why a condition has no result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Undecided<'f> {
    /// The list to compare with is no JSON list of texts.
    List,
    /// The pattern is invalid, for this reason.
    Pattern(&'f str),
    /// The match took too long.
    GivenUp,
}

impl fmt::Display for Undecided<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List => f.write_str("the value of a condition is no JSON list of texts"),
            Self::Pattern(why) => write!(f, "the pattern of a condition is invalid: {why}"),
            Self::GivenUp => f.write_str("matching the pattern of a condition took too long"),
        }
    }
}

#[derive(Debug)]
enum Test {
    /// The value is null, or the operator unknown: false.
    Never,
    /// A comparison with a number; `None`: the value is none, and the comparison false.
    Number(Comparison, Option<f64>),
    Text {
        relation: Relation,
        negated: bool,
        value: Box<str>,
    },
    Pattern {
        pattern: Arc<LazyPattern>,
        negated: bool,
    },
    OneOf {
        list: List,
        negated: bool,
    },
    Boolean(bool),
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug)]
enum Relation {
    Equal,
    Contains,
    Starts,
    Ends,
}

#[derive(Debug)]
enum List {
    Texts(Texts),
    /// JSON's null: holds nothing.
    Null,
    Malformed,
}

impl Condition {
    pub(super) fn new(
        property: Option<&str>,
        operator: Option<&str>,
        value: Option<&str>,
        patterns: &mut Patterns,
    ) -> Self {
        let test = match (operator, value) {
            (Some(operator), Some(value)) => Test::new(operator, value, patterns),
            _ => Test::Never,
        };
        Self {
            property: Property::new(property),
            test,
        }
    }

    /// Whether it holds for a user whose property is `found`; null never does.
    pub(super) fn holds(&self, found: Option<&str>, effort: &Effort) -> Result<bool, Undecided<'_>> {
        let Some(found) = found else {
            return Ok(false);
        };
        Ok(match &self.test {
            Test::Never | Test::Number(_, None) => false,
            Test::Number(comparison, Some(value)) => {
                number::parse(found).is_some_and(|found| comparison.holds(found, *value))
            }
            Test::Text {
                relation,
                negated,
                value,
            } => relation.holds(found, value) != *negated,
            Test::Pattern { pattern, negated } => pattern.is_match(found, effort)? != *negated,
            Test::OneOf { list, negated } => match list {
                List::Texts(texts) => texts.contains(found) != *negated,
                List::Null => *negated,
                List::Malformed => return Err(Undecided::List),
            },
            Test::Boolean(wanted) => found.eq_ignore_ascii_case(if *wanted { "true" } else { "false" }),
        })
    }

    /// Why it can have no result, if so. Compiles a pattern that was not used yet.
    pub(super) fn problem(&self) -> Option<Undecided<'_>> {
        match &self.test {
            Test::Pattern { pattern, .. } => pattern.problem().map(Undecided::Pattern),
            Test::OneOf {
                list: List::Malformed,
                ..
            } => Some(Undecided::List),
            _ => None,
        }
    }
}

impl Test {
    fn new(operator: &str, value: &str, patterns: &mut Patterns) -> Self {
        let number = |comparison| Self::Number(comparison, number::parse(value));
        let text = |relation, negated| Self::Text {
            relation,
            negated,
            value: value.into(),
        };
        let one_of = |negated| Self::OneOf {
            list: List::new(value),
            negated,
        };
        match operator {
            "LessThan" => number(Comparison::Less),
            "LessEqualThan" => number(Comparison::LessOrEqual),
            "BiggerThan" => number(Comparison::Greater),
            "BiggerEqualThan" => number(Comparison::GreaterOrEqual),
            "Equal" => text(Relation::Equal, false),
            "NotEqual" => text(Relation::Equal, true),
            "Contains" => text(Relation::Contains, false),
            "NotContain" => text(Relation::Contains, true),
            "StartsWith" => text(Relation::Starts, false),
            "EndsWith" => text(Relation::Ends, false),
            "MatchRegex" | "NotMatchRegex" => Self::Pattern {
                pattern: patterns.of(value),
                negated: operator == "NotMatchRegex",
            },
            "IsOneOf" => one_of(false),
            "NotOneOf" => one_of(true),
            "IsTrue" => Self::Boolean(true),
            "IsFalse" => Self::Boolean(false),
            _ => Self::Never,
        }
    }
}

impl Comparison {
    fn holds(self, found: f64, value: f64) -> bool {
        match self {
            Self::Less => found < value,
            Self::LessOrEqual => found <= value,
            Self::Greater => found > value,
            Self::GreaterOrEqual => found >= value,
        }
    }
}

impl Relation {
    fn holds(self, found: &str, value: &str) -> bool {
        match self {
            Self::Equal => found == value,
            Self::Contains => found.contains(value),
            Self::Starts => found.starts_with(value),
            Self::Ends => found.ends_with(value),
        }
    }
}

impl List {
    fn new(json: &str) -> Self {
        match texts(json) {
            Err(()) => Self::Malformed,
            Ok(None) => Self::Null,
            Ok(Some(texts)) => Self::Texts(Texts::new(texts.iter().flatten().map(|text| &**text))),
        }
    }
}

impl SegmentCondition {
    pub(super) fn new(json: Option<&str>, negated: bool) -> Self {
        let ids = match json.map(texts) {
            None => Err(BadList::Null),
            Some(Err(())) => Err(BadList::Malformed),
            Some(Ok(ids)) => Ok(ids.unwrap_or_default().into_boxed_slice()),
        };
        Self { negated, ids }
    }
}

/// The texts and nulls of a JSON list; `None` for JSON's null.
fn texts(json: &str) -> Result<Option<Vec<Option<Box<str>>>>, ()> {
    let document = Document::parse(json.as_bytes(), 1).map_err(|_| ())?;
    let root = document.root();
    match root.kind() {
        Kind::Null => Ok(None),
        Kind::Array => {
            let text = |element: crate::evaluate::json::Value<'_>| match element.kind() {
                Kind::Null => Ok(None),
                _ => element.as_str().map(|text| Some(text.into())).ok_or(()),
            };
            root.elements().map(text).collect::<Result<_, _>>().map(Some)
        }
        _ => Err(()),
    }
}
