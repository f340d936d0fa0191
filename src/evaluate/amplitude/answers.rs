//! The answers that a flag can have, written out when it is compiled.

use std::ops::Range;

use super::compile::position;
use super::set::{Choice, Flag};
use super::spec::{FlagSpec, SegmentSpec, VariantSpec};
use crate::evaluate::json::{Value, write_string};
use crate::evaluate::quick_map::QuickMap;

/// How much longer than the flag itself its written answers may be, and what every flag may use.
const WRITTEN_FACTOR_MAX: usize = 64;
const WRITTEN_BYTES_FREE: usize = 1 << 20;
/// Names that are compared one by one.
const COMPARED_ONE_BY_ONE: usize = 24;

/// The answers of one flag while it is compiled.
pub(super) struct Answers<'d> {
    /// The place of a variant, by its name in the map, if there are many.
    places: QuickMap<&'d str, usize>,
    /// Per variant, once it is needed, where its head is written.
    heads: Vec<Option<Range<usize>>>,
    /// The choices of the segment at hand, by the place of the variant.
    of_segment: Vec<(usize, u32)>,
    name: Range<usize>,
    written_max: usize,
    /// They are too long to be kept; those that are written so far are not all.
    pub(super) too_large: bool,
}

impl<'d> Answers<'d> {
    pub(super) fn new(spec: &FlagSpec<'d>, flag: &Flag, written_bytes: usize) -> Self {
        let size: usize = spec
            .segments
            .iter()
            .filter_map(|segment| segment.metadata)
            .map(|value| value.raw().len())
            .sum::<usize>()
            + spec
                .variants
                .iter()
                .map(|(_, variant)| variant_bytes(variant))
                .sum::<usize>()
            + spec.metadata.map_or(0, |metadata| metadata.raw().len());
        Self {
            places: if spec.variants.len() > COMPARED_ONE_BY_ONE {
                places(&spec.variants)
            } else {
                QuickMap::default()
            },
            heads: vec![None; spec.variants.len()],
            of_segment: Vec::new(),
            name: flag.name.clone(),
            written_max: written_bytes + size.saturating_mul(WRITTEN_FACTOR_MAX) + WRITTEN_BYTES_FREE,
            too_large: false,
        }
    }

    /// The choices from now on are another segment's.
    pub(super) fn begin_segment(&mut self) {
        self.of_segment.clear();
    }

    /// The choice of a variant by its name in the map; `None` if the flag has none of that name.
    pub(super) fn choice(
        &mut self,
        choices: &mut Vec<Choice>,
        out: &mut Vec<u8>,
        flag: &FlagSpec<'_>,
        segment: &SegmentSpec<'_>,
        name: &str,
    ) -> Option<u32> {
        let place = place(&flag.variants, &self.places, name)?;
        // Sorted, because a hostile flag may have very many distributions.
        let at = match self.of_segment.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(known) => return Some(self.of_segment[known].1),
            Err(at) => at,
        };
        let variant = &flag.variants.get(place)?.1;
        if self.too_large || out.len() > self.written_max {
            self.too_large = true;
            return None;
        }
        let head = self.heads[place]
            .get_or_insert_with(|| write_head(&self.name, variant, out))
            .clone();
        let metadata = merged([flag.metadata, segment.metadata, variant.metadata]);
        let member = |name: &str| {
            metadata
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        };
        let start = out.len();
        if let Some(key) = member("experimentKey").filter(|key| !key.is_null()) {
            out.extend_from_slice(b",\"expKey\":");
            key.write_compact(out);
        }
        let v1_extra = start..out.len();
        write_tail(&metadata, out);
        let is_default = member("default").and_then(Value::as_bool) == Some(true);
        let is_deployed = member("deployed").and_then(Value::as_bool) != Some(false);
        let choice = Choice {
            head,
            tail: v1_extra.end..out.len(),
            v1_extra,
            variant_key: variant.key.into(),
            is_default,
            in_v1: is_deployed && !is_default,
        };
        let number = position(choices.len());
        choices.push(choice);
        self.of_segment.insert(at, (place, number));
        Some(number)
    }
}

fn variant_bytes(variant: &VariantSpec<'_>) -> usize {
    let parts = [variant.value, variant.payload, variant.metadata];
    parts
        .into_iter()
        .flatten()
        .map(|value| value.raw().len())
        .sum::<usize>()
        + variant.key.len()
}

/// Writes `"flag":{"key":...,"value":...,"payload":...`; null is left out.
fn write_head(name: &Range<usize>, variant: &VariantSpec<'_>, out: &mut Vec<u8>) -> Range<usize> {
    let start = out.len();
    out.extend_from_within(name.clone());
    out.extend_from_slice(b"{\"key\":");
    write_string(variant.key, out);
    for (name, value) in [
        (&b",\"value\":"[..], variant.value),
        (b",\"payload\":", variant.payload),
    ] {
        if let Some(value) = value {
            out.extend_from_slice(name);
            value.write_compact(out);
        }
    }
    start..out.len()
}

/// Writes `,"metadata":{...}}`, or the closing brace alone.
fn write_tail(metadata: &[(&str, Value<'_>)], out: &mut Vec<u8>) {
    for (at, (name, value)) in metadata.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b",\"metadata\":{" } else { b"," });
        value.write_member(name, out);
    }
    out.extend_from_slice(if metadata.is_empty() { b"}" } else { b"}}" });
}

/// The shallow merge of metadata: the last value of a name, at the first one's position.
fn merged<'d>(parts: [Option<Value<'d>>; 3]) -> Vec<(&'d str, Value<'d>)> {
    let mut merged = Vec::with_capacity(8);
    // Filled once comparing names one by one would take long.
    let mut known = QuickMap::default();
    for (name, value) in parts.into_iter().flatten().flat_map(Value::members) {
        if merged.len() == COMPARED_ONE_BY_ONE {
            known = places(&merged);
        }
        match place(&merged, &known, name) {
            Some(place) => merged[place].1 = value,
            None => {
                if !known.is_empty() {
                    known.insert(name, merged.len());
                }
                merged.push((name, value));
            }
        }
    }
    merged
}

/// Where each name stands in a list.
fn places<'d, V>(list: &[(&'d str, V)]) -> QuickMap<&'d str, usize> {
    list.iter()
        .enumerate()
        .map(|(place, (name, _))| (*name, place))
        .collect()
}

/// Where a name stands in a list whose [`places`] are known, unless the list is short.
fn place<V>(list: &[(&str, V)], places: &QuickMap<&str, usize>, name: &str) -> Option<usize> {
    if places.is_empty() {
        list.iter().position(|(known, _)| *known == name)
    } else {
        places.get(name).copied()
    }
}
