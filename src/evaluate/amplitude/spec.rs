//! The JSON of a flag, read and checked (AE 1): what is here can be evaluated.
//!
//! Unknown members are ignored at every level. Null and absent are the same. Numbers and booleans stand
//! for their literal text where texts are expected; nothing else is coerced.

use std::fmt::Display;

use crate::evaluate::json::{Kind, Value};

/// A flag as the configuration gives it.
#[derive(Debug)]
pub(super) struct FlagSpec<'d> {
    pub(super) key: &'d str,
    pub(super) variants: Vec<(&'d str, VariantSpec<'d>)>,
    pub(super) segments: Vec<SegmentSpec<'d>>,
    pub(super) metadata: Option<Value<'d>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct VariantSpec<'d> {
    pub(super) key: &'d str,
    pub(super) value: Option<Value<'d>>,
    pub(super) payload: Option<Value<'d>>,
    pub(super) metadata: Option<Value<'d>>,
}

#[derive(Debug)]
pub(super) struct SegmentSpec<'d> {
    pub(super) bucket: Option<BucketSpec<'d>>,
    /// `None`: matches always.
    pub(super) conditions: Option<Vec<Vec<ConditionSpec<'d>>>>,
    pub(super) variant: Option<&'d str>,
    pub(super) metadata: Option<Value<'d>>,
}

#[derive(Debug)]
pub(super) struct ConditionSpec<'d> {
    pub(super) selector: Vec<&'d str>,
    pub(super) op: &'d str,
    pub(super) values: Vec<&'d str>,
}

#[derive(Debug)]
pub(super) struct BucketSpec<'d> {
    pub(super) selector: Vec<&'d str>,
    pub(super) salt: &'d str,
    pub(super) allocations: Vec<AllocationSpec<'d>>,
}

#[derive(Debug)]
pub(super) struct AllocationSpec<'d> {
    pub(super) range: (i64, i64),
    pub(super) distributions: Vec<(&'d str, (i64, i64))>,
}

/// What is wrong with a flag, and where inside it.
#[derive(Debug)]
pub(super) struct Malformed {
    place: String,
    what: &'static str,
}

impl Malformed {
    fn new(place: &str, what: &'static str) -> Self {
        Self {
            place: place.to_owned(),
            what,
        }
    }

    fn within(mut self, place: impl Display) -> Self {
        let dot = if self.place.is_empty() || self.place.starts_with('[') {
            ""
        } else {
            "."
        };
        self.place = format!("{place}{dot}{}", self.place);
        self
    }
}

impl Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.place, self.what)
    }
}

type Read<T> = Result<T, Malformed>;

impl<'d> FlagSpec<'d> {
    /// Reads a flag whose key is known already.
    pub(super) fn read(key: &'d str, flag: Value<'d>) -> Read<Self> {
        let [variants, segments, dependencies, metadata] =
            members(flag, ["variants", "segments", "dependencies", "metadata"]);
        let variants = required(variants, "variants")?;
        if variants.kind() != Kind::Object {
            return Err(Malformed::new("variants", "is no object"));
        }
        let variants = variants.members().map(|(name, variant)| {
            let read = VariantSpec::read(name, variant);
            read.map(|read| (name, read))
                .map_err(|error| error.within(format_args!("variants.{name}")))
        });
        if let Some(list) = dependencies {
            texts(list, "dependencies")?;
        }
        Ok(Self {
            key,
            variants: variants.collect::<Read<_>>()?,
            segments: list(required(segments, "segments")?, "segments", SegmentSpec::read)?,
            metadata: object(metadata, "metadata")?,
        })
    }
}

impl<'d> VariantSpec<'d> {
    fn read(name: &'d str, variant: Value<'d>) -> Read<Self> {
        expect_object(variant)?;
        let [key, value, payload, metadata] = members(variant, ["key", "value", "payload", "metadata"]);
        let key = match key {
            Some(key) => text(key).ok_or_else(|| Malformed::new("key", "is no text"))?,
            // Kotlin refuses it; the other engines do not, and the name in the map says what is meant.
            None => name,
        };
        Ok(Self {
            key,
            value,
            payload,
            metadata: object(metadata, "metadata")?,
        })
    }
}

impl<'d> SegmentSpec<'d> {
    fn read(segment: Value<'d>) -> Read<Self> {
        expect_object(segment)?;
        let [bucket, conditions, variant, metadata] =
            members(segment, ["bucket", "conditions", "variant", "metadata"]);
        let bucket = match bucket {
            Some(bucket) => Some(BucketSpec::read(bucket).map_err(|error| error.within("bucket"))?),
            None => None,
        };
        let group = |group| list(group, "", ConditionSpec::read);
        let conditions = match conditions {
            Some(groups) => Some(list(groups, "conditions", group)?),
            None => None,
        };
        let variant = match variant {
            Some(variant) => Some(text(variant).ok_or_else(|| Malformed::new("variant", "is no text"))?),
            None => None,
        };
        Ok(Self {
            bucket,
            conditions,
            variant,
            metadata: object(metadata, "metadata")?,
        })
    }
}

impl<'d> ConditionSpec<'d> {
    fn read(condition: Value<'d>) -> Read<Self> {
        expect_object(condition)?;
        let [selector, op, values] = members(condition, ["selector", "op", "values"]);
        Ok(Self {
            selector: texts(required(selector, "selector")?, "selector")?,
            op: required_text(op, "op")?,
            values: texts(required(values, "values")?, "values")?,
        })
    }
}

impl<'d> BucketSpec<'d> {
    fn read(bucket: Value<'d>) -> Read<Self> {
        expect_object(bucket)?;
        let [selector, salt, allocations] = members(bucket, ["selector", "salt", "allocations"]);
        Ok(Self {
            selector: texts(required(selector, "selector")?, "selector")?,
            salt: required_text(salt, "salt")?,
            allocations: list(
                required(allocations, "allocations")?,
                "allocations",
                AllocationSpec::read,
            )?,
        })
    }
}

impl<'d> AllocationSpec<'d> {
    fn read(allocation: Value<'d>) -> Read<Self> {
        expect_object(allocation)?;
        let [distributions, of_allocation] = members(allocation, ["distributions", "range"]);
        let distribution = |distribution| {
            expect_object(distribution)?;
            let [variant, of_distribution] = members(distribution, ["variant", "range"]);
            Ok((required_text(variant, "variant")?, range(of_distribution)?))
        };
        let distributions = list(
            required(distributions, "distributions")?,
            "distributions",
            distribution,
        )?;
        Ok(Self {
            range: range(of_allocation)?,
            distributions,
        })
    }
}

/// The members of these names; null and absent are the same.
#[inline]
fn members<'d, const N: usize>(object: Value<'d>, names: [&str; N]) -> [Option<Value<'d>>; N] {
    object
        .pick(names)
        .map(|found| found.filter(|value| !value.is_null()))
}

fn required<'d>(member: Option<Value<'d>>, name: &'static str) -> Read<Value<'d>> {
    member.ok_or_else(|| Malformed::new(name, "is missing"))
}

fn required_text<'d>(member: Option<Value<'d>>, name: &'static str) -> Read<&'d str> {
    text(required(member, name)?).ok_or_else(|| Malformed::new(name, "is no text"))
}

fn expect_object(value: Value<'_>) -> Read<()> {
    if value.kind() == Kind::Object {
        Ok(())
    } else {
        Err(Malformed::new("", "is no object"))
    }
}

fn object<'d>(member: Option<Value<'d>>, name: &'static str) -> Read<Option<Value<'d>>> {
    match member {
        Some(found) if found.kind() != Kind::Object => Err(Malformed::new(name, "is no object")),
        found => Ok(found),
    }
}

fn list<'d, T>(
    list: Value<'d>,
    name: &'static str,
    mut read: impl FnMut(Value<'d>) -> Read<T>,
) -> Read<Vec<T>> {
    elements(list, name)?
        .map(|(at, element)| read(element).map_err(|error| error.within(format_args!("{name}[{at}]"))))
        .collect()
}

fn elements<'d>(list: Value<'d>, name: &'static str) -> Read<impl Iterator<Item = (usize, Value<'d>)>> {
    if list.kind() != Kind::Array {
        return Err(Malformed::new(name, "is no array"));
    }
    Ok(list.elements().enumerate())
}

fn texts<'d>(value: Value<'d>, name: &'static str) -> Read<Vec<&'d str>> {
    list(value, name, |element| {
        text(element).ok_or_else(|| Malformed::new("", "is no text"))
    })
}

/// A text, or the literal of a number or boolean.
pub(super) fn text(value: Value<'_>) -> Option<&str> {
    match value.kind() {
        Kind::String => value.as_str(),
        Kind::Number => value.as_number(),
        Kind::Bool => value.as_bool().map(|truth| if truth { "true" } else { "false" }),
        Kind::Null | Kind::Array | Kind::Object => None,
    }
}

/// Two integers, start and end; what follows them is ignored, if it is integers.
fn range(member: Option<Value<'_>>) -> Read<(i64, i64)> {
    let mut bounds = [None; 2];
    for (at, bound) in elements(required(member, "range")?, "range")? {
        let Some(integer) = bound.as_number().and_then(super::number::integer) else {
            return Err(Malformed::new("", "is no integer").within(format_args!("range[{at}]")));
        };
        if let Some(bound) = bounds.get_mut(at) {
            *bound = Some(integer);
        }
    }
    match bounds {
        [Some(start), Some(end)] => Ok((start, end)),
        _ => Err(Malformed::new("range", "holds less than two integers")),
    }
}
