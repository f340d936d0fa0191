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
    /// The flag's metadata.
    metadata: Named<'d>,
    /// Where it is written, members alone, once it was.
    written_metadata: Option<Range<usize>>,
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
            places: places(&spec.variants),
            heads: vec![None; spec.variants.len()],
            metadata: Named::merged([spec.metadata]),
            written_metadata: None,
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
        let own = Named::merged([segment.metadata, variant.metadata]);
        let member = |name: &str| own.get(name).or_else(|| self.metadata.get(name));
        let start = out.len();
        if let Some(key) = member("experimentKey").filter(|key| !key.is_null()) {
            out.extend_from_slice(b",\"expKey\":");
            key.write_compact(out);
        }
        let v1_extra = start..out.len();
        let is_default = member("default").and_then(Value::as_bool) == Some(true);
        let is_deployed = member("deployed").and_then(Value::as_bool) != Some(false);
        self.write_tail(&own, out);
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

    /// Writes `,"metadata":{...}}`, or the closing brace alone: a shallow merge, in which `own` replaces values of the
    /// flag's metadata where they stand and adds the rest.
    fn write_tail(&mut self, own: &Named<'_>, out: &mut Vec<u8>) {
        if self.metadata.list.is_empty() && own.list.is_empty() {
            return out.push(b'}');
        }
        out.extend_from_slice(b",\"metadata\":{");
        let start = out.len();
        let replaces = own
            .list
            .iter()
            .any(|(name, _)| self.metadata.place(name).is_some());
        match &self.written_metadata {
            _ if replaces => {
                for (name, value) in &self.metadata.list {
                    separate(start, out);
                    own.get(name).unwrap_or(*value).write_member(name, out);
                }
            }
            Some(written) => out.extend_from_within(written.clone()),
            None => {
                for (name, value) in &self.metadata.list {
                    separate(start, out);
                    value.write_member(name, out);
                }
                self.written_metadata = Some(start..out.len());
            }
        }
        for (name, value) in &own.list {
            if !replaces || self.metadata.place(name).is_none() {
                separate(start, out);
                value.write_member(name, out);
            }
        }
        out.extend_from_slice(b"}}");
    }
}

/// Writes a comma before every member but the first, which is written at `start`.
fn separate(start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
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

/// Members with different names, in the order in which the names came first.
#[derive(Default)]
struct Named<'d> {
    list: Vec<(&'d str, Value<'d>)>,
    /// The place of a name, if there are many.
    places: QuickMap<&'d str, usize>,
}

impl<'d> Named<'d> {
    /// The members of some objects; the last value of a name holds.
    fn merged<const N: usize>(objects: [Option<Value<'d>>; N]) -> Self {
        let mut named = Self::default();
        for object in objects.into_iter().flatten() {
            // Only these can come again: the names of one object differ.
            let known = named.list.len();
            for (name, value) in object.members() {
                match place(&named.list[..known], &named.places, name) {
                    Some(place) => named.list[place].1 = value,
                    None => named.list.push((name, value)),
                }
            }
            named.places = places(&named.list);
        }
        named
    }

    fn place(&self, name: &str) -> Option<usize> {
        place(&self.list, &self.places, name)
    }

    fn get(&self, name: &str) -> Option<Value<'d>> {
        self.place(name).map(|place| self.list[place].1)
    }
}

/// Where each name stands in a list; empty for lists in which comparing names one by one takes no longer.
fn places<'d, V>(list: &[(&'d str, V)]) -> QuickMap<&'d str, usize> {
    if list.len() <= COMPARED_ONE_BY_ONE {
        return QuickMap::default();
    }
    let numbered = list.iter().enumerate();
    numbered.map(|(place, (name, _))| (*name, place)).collect()
}

/// Where a name stands in a list whose [`places`] are these.
fn place<V>(list: &[(&str, V)], places: &QuickMap<&str, usize>, name: &str) -> Option<usize> {
    if places.is_empty() {
        list.iter().position(|(known, _)| *known == name)
    } else {
        places.get(name).copied()
    }
}
