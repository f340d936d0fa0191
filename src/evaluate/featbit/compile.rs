//! From the JSON of a flag or segment to what is evaluated (FB 4).

use std::fmt;
use std::sync::Arc;

use super::condition::{Condition, Property, SegmentCondition};
use super::flag::{Choice, Entry, Flag, Item, Rule, RuleCondition, Segment, Span, Split, Target, Variation};
use super::pattern::Patterns;
use super::secret::EnvironmentId;
use super::texts::Texts;
use super::time;
use crate::evaluate::canonical::Hash128;
use crate::evaluate::json::{Kind, Value, write_string};

/// What rules call the two kinds of conditions on segments.
const IN_SEGMENT: &str = "User is in segment";
const NOT_IN_SEGMENT: &str = "User is not in segment";

/// What evaluation reads of a flag and of a segment, besides `id` and `updatedAt`.
const FLAG_MEMBERS: [&str; 12] = [
    "key",
    "variationType",
    "variations",
    "targetUsers",
    "rules",
    "isEnabled",
    "disabledVariationId",
    "fallthrough",
    "exptIncludeAllTargets",
    "tags",
    "isArchived",
    "envId",
];
const SEGMENT_MEMBERS: [&str; 4] = ["included", "excluded", "rules", "envId"];

/// Why an item is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Malformed {
    NotAnObject,
    /// The member is missing.
    Missing(&'static str),
    /// The member, here or further inside, has another type than it should.
    Type(&'static str),
    /// `updatedAt` is no time.
    Time,
    /// It is larger than 4 GiB when written as JSON.
    TooLarge,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("it is no JSON object"),
            Self::Missing(name) => write!(f, "it has no `{name}`"),
            Self::Type(name) => write!(f, "`{name}` has the wrong type"),
            Self::Time => f.write_str("`updatedAt` is no time"),
            Self::TooLarge => f.write_str("it is too large"),
        }
    }
}

/// Compiles a flag.
pub(super) fn flag(json: Value<'_>, patterns: &mut Patterns) -> Result<Arc<Flag>, Malformed> {
    let item = item(json, &FLAG_MEMBERS)?;
    let key = text(json, "key")?.ok_or(Malformed::Missing("key"))?;
    let mut writer = Writer::default();
    let key_json = writer.text(Some(key));
    let type_json = writer.text(Some(text(json, "variationType")?.unwrap_or("string")));
    let (variations, ids, options_json) = variations(json, &mut writer)?;
    let choice = |id: Option<&str>| {
        let number = ids.iter().position(|known| *known == id);
        number.map_or(Choice::Missing, |number| Choice::Variation(place(number)))
    };
    let mut targets = Vec::new();
    for target in objects(json, "targetUsers")? {
        targets.push(Target {
            users: texts(target?, "keyIds")?,
            choice: choice(text(target?, "variationId")?),
        });
    }
    let mut rules = Vec::new();
    for rule in objects(json, "rules")? {
        let rule = rule?;
        let conditions = objects(rule, "conditions")?.map(|of| rule_condition(of?, patterns));
        rules.push(Rule {
            name_json: writer.text(text(rule, "name")?),
            conditions: conditions.collect::<Result<_, _>>()?,
            split: split(rule, &choice)?,
        });
    }
    let fallthrough = match json.get("fallthrough") {
        None => None,
        Some(given) if given.is_null() => None,
        Some(given) if given.kind() == Kind::Object => Some(split(given, &choice)?),
        Some(_) => return Err(Malformed::Type("fallthrough")),
    };
    Ok(Arc::new(Flag {
        item,
        key: key.into(),
        written: writer.finish()?,
        key_json,
        type_json,
        options_json,
        variations,
        tags: texts(json, "tags")?,
        is_archived: boolean(json, "isArchived")?,
        is_enabled: boolean(json, "isEnabled")?,
        includes_all: boolean(json, "exptIncludeAllTargets")?,
        disabled: choice(text(json, "disabledVariationId")?),
        targets: targets.into_boxed_slice(),
        rules: rules.into_boxed_slice(),
        fallthrough,
    }))
}

/// Compiles a segment.
pub(super) fn segment(json: Value<'_>, patterns: &mut Patterns) -> Result<Arc<Segment>, Malformed> {
    let item = item(json, &SEGMENT_MEMBERS)?;
    let mut rules = Vec::new();
    for rule in objects(json, "rules")? {
        let conditions = objects(rule?, "conditions")?.map(|of| condition(of?, patterns));
        rules.push(conditions.collect::<Result<_, _>>()?);
    }
    Ok(Arc::new(Segment {
        item,
        excluded: texts(json, "excluded")?,
        included: texts(json, "included")?,
        rules: rules.into_boxed_slice(),
    }))
}

fn item(json: Value<'_>, members: &[&str]) -> Result<Item, Malformed> {
    if json.kind() != Kind::Object {
        return Err(Malformed::NotAnObject);
    }
    let id = text(json, "id")?.ok_or(Malformed::Missing("id"))?;
    let updated_ms = match text(json, "updatedAt")? {
        Some(time) => time::parse_ms(time).ok_or(Malformed::Time)?,
        None => 0,
    };
    let mut hash = Hash128::new();
    hash.part(id.as_bytes());
    hash.part(&updated_ms.to_le_bytes());
    let mut canonical = Vec::new();
    for member in members {
        canonical.clear();
        match json.get(member) {
            Some(value) => value.write_sorted(&mut canonical),
            None => canonical.extend_from_slice(b"null"),
        }
        hash.part(&canonical);
    }
    Ok(Item {
        id: id.into(),
        environment: text(json, "envId")?.and_then(EnvironmentId::parse),
        updated_ms,
        raw: String::from_utf8_lossy(json.raw()).into(),
        definition: hash.finish(),
    })
}

type Variations<'d> = (Box<[Variation]>, Vec<Option<&'d str>>, Span);

/// The variations with their ids, and their list as JSON.
fn variations<'d>(json: Value<'d>, writer: &mut Writer) -> Result<Variations<'d>, Malformed> {
    let mut variations = Vec::new();
    let mut ids = Vec::new();
    let start = writer.at();
    writer.raw("[");
    for variation in objects(json, "variations")? {
        let variation = variation?;
        let id = text(variation, "id")?;
        writer.raw(if ids.is_empty() { r#"{"id":"# } else { r#",{"id":"# });
        let id_json = writer.text(id);
        writer.raw(r#","value":"#);
        let value_json = writer.text(text(variation, "value")?);
        writer.raw("}");
        ids.push(id);
        variations.push(Variation { id_json, value_json });
    }
    writer.raw("]");
    let span = Span {
        start,
        end: writer.at(),
    };
    Ok((variations.into_boxed_slice(), ids, span))
}

fn rule_condition(json: Value<'_>, patterns: &mut Patterns) -> Result<RuleCondition, Malformed> {
    let negated = match text(json, "property")? {
        Some(IN_SEGMENT) => false,
        Some(NOT_IN_SEGMENT) => true,
        _ => return condition(json, patterns).map(RuleCondition::Ordinary),
    };
    let ids = text(json, "value")?;
    Ok(RuleCondition::Segments(SegmentCondition::new(ids, negated)))
}

fn condition(json: Value<'_>, patterns: &mut Patterns) -> Result<Condition, Malformed> {
    Ok(Condition::new(
        text(json, "property")?,
        text(json, "op")?,
        text(json, "value")?,
        patterns,
    ))
}

/// The split of a rule or of the fallthrough.
fn split(json: Value<'_>, choice: &dyn Fn(Option<&str>) -> Choice) -> Result<Split, Malformed> {
    let mut entries = Vec::new();
    for entry in objects(json, "variations")? {
        let entry = entry?;
        entries.push(Entry {
            range: range(entry),
            choice: choice(text(entry, "id")?),
            experiment: match entry.get("exptRollout").filter(|share| !share.is_null()) {
                Some(share) => double(share).ok_or(Malformed::Type("exptRollout"))?,
                None => 0.0,
            },
        });
    }
    Ok(Split {
        by: match Property::new(text(json, "dispatchKey")?) {
            // A user without a key to divide by is divided by the id.
            Property::Blank => Property::KeyId,
            other => other,
        },
        in_experiment: boolean(json, "includedInExpt")?,
        entries: entries.into_boxed_slice(),
    })
}

/// The first two numbers of `rollout`.
fn range(entry: Value<'_>) -> Option<[f64; 2]> {
    let mut bounds = entry.get("rollout")?.elements();
    Some([double(bounds.next()?)?, double(bounds.next()?)?])
}

fn double(value: Value<'_>) -> Option<f64> {
    value.as_number()?.parse().ok()
}

/// A text; absent is null.
fn text<'d>(json: Value<'d>, name: &'static str) -> Result<Option<&'d str>, Malformed> {
    match json.get(name).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(Malformed::Type(name)),
    }
}

/// A boolean; absent and null are false.
fn boolean(json: Value<'_>, name: &'static str) -> Result<bool, Malformed> {
    match json.get(name).filter(|value| !value.is_null()) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or(Malformed::Type(name)),
    }
}

/// The elements of a list; absent and null are empty.
fn elements<'d>(
    json: Value<'d>,
    name: &'static str,
) -> Result<impl Iterator<Item = Value<'d>> + use<'d>, Malformed> {
    match json.get(name).filter(|value| !value.is_null()) {
        Some(list) if list.kind() != Kind::Array => Err(Malformed::Type(name)),
        list => Ok(list.into_iter().flat_map(Value::elements)),
    }
}

/// The objects of a list.
fn objects<'d>(
    json: Value<'d>,
    name: &'static str,
) -> Result<impl Iterator<Item = Result<Value<'d>, Malformed>> + use<'d>, Malformed> {
    let is_object = move |element: Value<'d>| match element.kind() {
        Kind::Object => Ok(element),
        _ => Err(Malformed::Type(name)),
    };
    Ok(elements(json, name)?.map(is_object))
}

/// The texts of a list; nulls among them are nobody's.
fn texts(json: Value<'_>, name: &'static str) -> Result<Texts, Malformed> {
    let mut texts = Vec::new();
    for element in elements(json, name)?.filter(|element| !element.is_null()) {
        texts.push(element.as_str().ok_or(Malformed::Type(name))?);
    }
    Ok(Texts::new(texts))
}

/// The JSON that answers are put together from.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn at(&self) -> u32 {
        place(self.out.len())
    }

    fn raw(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    fn text(&mut self, text: Option<&str>) -> Span {
        let start = self.at();
        match text {
            Some(text) => write_string(text, &mut self.out),
            None => self.raw("null"),
        }
        Span {
            start,
            end: self.at(),
        }
    }

    fn finish(self) -> Result<Box<str>, Malformed> {
        let fits = u32::try_from(self.out.len()).is_ok();
        let written = String::from_utf8(self.out).ok().filter(|_| fits);
        written.map(Into::into).ok_or(Malformed::TooLarge)
    }
}

/// The number of a variation or a place in what is written; [`Writer::finish`] refuses what does not fit.
fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
