//! From the JSON of flags to a [`FlagSet`].

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::condition::{Test, is_cohort_operator};
use super::murmur3::Salted;
use super::order::Order;
use super::pattern::Patterns;
use super::property::FixedProperty;
use super::run::marks;
use super::selector::{Paths, Source};
use super::set::{
    Allocation, Bucket, Choice, Cohorts, Condition, Distribution, Entry, Flag, FlagSet, FlagSetError,
    Problem, ProblemKind, ResultSlot, Segment,
};
use super::spec::{BucketSpec, ConditionSpec, FlagSpec, SegmentSpec, VariantSpec, text};
use super::words::Values;
use crate::evaluate::canonical::{Hash128, write_canonical};
use crate::evaluate::json::{Document, Kind, Value, write_string};
use crate::evaluate::quick_map::{QuickMap, WordMap};

/// Arrays and objects inside each other in a flag set.
const DEPTH_MAX: usize = 128;
/// How much longer than the flag itself its written answers may be, and what every flag may use.
const WRITTEN_FACTOR_MAX: usize = 64;
const WRITTEN_BYTES_FREE: usize = 1 << 20;
/// Members of merged metadata that are compared one by one.
const COMPARED_ONE_BY_ONE: usize = 24;

pub(super) fn compile(json: Vec<u8>) -> Result<FlagSet, FlagSetError> {
    let text = Arc::new(crate::evaluate::json::into_text(json)?);
    let document = Document::parse(text.as_bytes(), DEPTH_MAX)?;
    let root = document.root();
    if root.kind() != Kind::Array {
        return Err(FlagSetError::NotAnArray(root.kind()));
    }
    let mut compiler = Compiler {
        // Growing by doubling would touch three times the memory; what is not used is never touched.
        written: Vec::with_capacity(text.len()),
        ..Compiler::default()
    };
    let mut entries = compiler.entries(root);
    let mut specs = Vec::new();
    for entry in &entries {
        match FlagSpec::read(entry.key, entry.flag) {
            Ok(spec) => specs.push(spec),
            Err(error) => {
                let detail = format!("{error}; the flag is not evaluated");
                compiler.problem(entry.key, ProblemKind::Malformed, detail);
            }
        }
    }
    let keys: Vec<&str> = specs.iter().map(|spec| spec.key).collect();
    let dependencies: Vec<Vec<&str>> = specs.iter().map(|spec| spec.dependencies.clone()).collect();
    let order = Order::new(&keys, &dependencies);
    let definitions = definitions(&entries);
    for (number, spec) in specs.iter().enumerate() {
        compiler.flag(spec, definitions.get(spec.key).copied().unwrap_or(0));
        if order.is_cyclic(position(number)) {
            let detail = "the flag depends on itself, or on a flag that does; it is not evaluated".to_owned();
            compiler.problem(spec.key, ProblemKind::Cycle, detail);
        }
    }
    compiler.link_results();
    let revision = revision(&mut entries, &compiler.nameless);
    entries.sort_by_key(|entry| entry.number);
    let entry = |entry: &RawEntry<'_>| Entry {
        key: entry.key.into(),
        text: entry.text.clone(),
        definition: definitions.get(entry.key).copied().unwrap_or(0),
    };
    Ok(FlagSet {
        text: Arc::clone(&text),
        entries: entries.iter().map(entry).collect(),
        flags: compiler.flags,
        index: compiler.index,
        order,
        conditions: compiler.conditions,
        paths: compiler.paths,
        results: compiler.results,
        choices: compiler.choices,
        written: shrunk(compiler.written),
        problems: compiler.problems,
        revision,
    })
}

fn shrunk(mut written: Vec<u8>) -> Vec<u8> {
    written.shrink_to_fit();
    written
}

/// An element of the array with a key.
struct RawEntry<'d> {
    key: &'d str,
    number: usize,
    flag: Value<'d>,
    text: Range<usize>,
    canonical: u128,
}

/// Per key the hash of the flag and of everything that it depends on.
fn definitions<'d>(entries: &[RawEntry<'d>]) -> HashMap<&'d str, u128> {
    let keys: Vec<&str> = entries.iter().map(|entry| entry.key).collect();
    let names = |entry: &RawEntry<'d>| match entry.flag.get("dependencies") {
        Some(list) => list.elements().filter_map(text).collect(),
        None => Vec::new(),
    };
    let dependencies: Vec<Vec<&str>> = entries.iter().map(names).collect();
    let order = Order::new(&keys, &dependencies);
    let mut known: HashMap<&str, u128> = HashMap::new();
    // Dependencies come first; a flag on a cycle is never evaluated, so that its own hash will do.
    let cyclic = (0..entries.len())
        .map(position)
        .filter(|number| order.is_cyclic(*number));
    for number in order.all().iter().copied().chain(cyclic) {
        let entry = &entries[number as usize];
        let mut hash = Hash128::new();
        hash.part(&entry.canonical.to_le_bytes());
        for name in &dependencies[number as usize] {
            hash.part(name.as_bytes());
            hash.part(&known.get(name).copied().unwrap_or(0).to_le_bytes());
        }
        known.insert(entry.key, hash.finish());
    }
    known
}

/// The hash of all flags, sorted by key (and left so), and of what has no key.
fn revision(entries: &mut [RawEntry<'_>], nameless: &[u128]) -> u128 {
    let mut hash = Hash128::new();
    entries.sort_by_key(|entry| entry.key);
    for entry in entries {
        hash.part(entry.key.as_bytes());
        hash.part(&entry.canonical.to_le_bytes());
    }
    let mut nameless = nameless.to_vec();
    nameless.sort_unstable();
    for canonical in nameless {
        hash.part(&canonical.to_le_bytes());
    }
    hash.finish()
}

#[derive(Default)]
struct Compiler {
    flags: Vec<Flag>,
    index: WordMap<u32>,
    conditions: Vec<Condition>,
    /// Conditions by their canonical text.
    known_conditions: QuickMap<(Source, Vec<u8>), u32>,
    paths: Paths,
    results: Vec<ResultSlot>,
    known_results: HashMap<Vec<Box<str>>, u32>,
    choices: Vec<Choice>,
    written: Vec<u8>,
    patterns: Patterns,
    problems: Vec<Problem>,
    nameless: Vec<u128>,
}

impl Compiler {
    fn problem(&mut self, flag: &str, kind: ProblemKind, detail: String) {
        self.problems.push(Problem {
            flag: flag.to_owned(),
            kind,
            detail,
        });
    }

    /// The elements with a key; a later one replaces an earlier one of the same key.
    fn entries<'d>(&mut self, root: Value<'d>) -> Vec<RawEntry<'d>> {
        let mut entries: Vec<RawEntry<'d>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut canonical_text = Vec::new();
        for (number, flag) in root.elements().enumerate() {
            canonical_text.clear();
            write_canonical(flag, &mut canonical_text);
            let mut hash = Hash128::new();
            hash.part(&canonical_text);
            let canonical = hash.finish();
            let Some(key) = flag.get("key").and_then(text) else {
                let detail = "it is no object with a text as `key`; it is not evaluated".to_owned();
                self.problem(&format!("[{number}]"), ProblemKind::Malformed, detail);
                self.nameless.push(canonical);
                continue;
            };
            let text = flag.span();
            let place = *places.entry(key).or_insert(entries.len());
            let entry = RawEntry {
                key,
                number: place,
                flag,
                text,
                canonical,
            };
            if place < entries.len() {
                entries[place] = entry;
                let detail = format!("flag [{number}] has the same key and replaces an earlier one");
                self.problem(key, ProblemKind::Duplicate, detail);
            } else {
                entries.push(entry);
            }
        }
        entries
    }

    fn flag(&mut self, spec: &FlagSpec<'_>, definition: u128) {
        let number = position(self.flags.len());
        self.index.insert(spec.key.into(), number);
        let start = self.written.len();
        write_string(spec.key, &mut self.written);
        self.written.push(b':');
        let name = start..self.written.len();
        let mode = spec.metadata.and_then(|metadata| metadata.get("evaluationMode"));
        let mut flag = Flag {
            key: spec.key.into(),
            definition,
            is_remote: mode.and_then(Value::as_str) == Some("remote"),
            segments: Box::default(),
            first_choice: position(self.choices.len()),
            read_by: Vec::new(),
            name,
        };
        let mut answers = Answers::new(spec, &flag, self.written.len());
        let segments: Vec<Segment> = spec
            .segments
            .iter()
            .map(|segment| self.segment(spec, segment, &mut answers))
            .collect();
        if answers.too_large {
            let detail = "its variants and metadata unfold to too many bytes; it is not evaluated".to_owned();
            self.problem(spec.key, ProblemKind::TooLarge, detail);
        } else {
            flag.segments = segments.into();
        }
        self.flags.push(flag);
    }

    fn segment(&mut self, flag: &FlagSpec<'_>, spec: &SegmentSpec<'_>, answers: &mut Answers<'_>) -> Segment {
        answers.of_segment.clear();
        let group = |compiler: &mut Self, group: &Vec<ConditionSpec<'_>>| -> Box<[u32]> {
            group
                .iter()
                .map(|condition| compiler.condition(flag.key, condition))
                .collect()
        };
        let when = spec
            .conditions
            .as_ref()
            .map(|groups| groups.iter().map(|of| group(self, of)).collect());
        let otherwise = spec
            .variant
            .and_then(|variant| answers.choice(self, flag, spec, variant));
        let bucket = spec
            .bucket
            .as_ref()
            .map(|bucket| self.bucket(flag, spec, bucket, answers));
        Segment {
            when,
            bucket,
            otherwise,
        }
    }

    fn bucket(
        &mut self,
        flag: &FlagSpec<'_>,
        segment: &SegmentSpec<'_>,
        spec: &BucketSpec<'_>,
        answers: &mut Answers<'_>,
    ) -> Bucket {
        let mut allocations = Vec::new();
        for allocation in &spec.allocations {
            let mut distributions = Vec::new();
            for &(variant, (start, end)) in &allocation.distributions {
                let choice = answers.choice(self, flag, segment, variant);
                distributions.push(Distribution {
                    range: start..end,
                    choice,
                });
            }
            let (start, end) = allocation.range;
            allocations.push(Allocation {
                range: start..end,
                distributions: distributions.into(),
            });
        }
        Bucket {
            source: self.source(&spec.selector),
            marks: marks::of_selector(&spec.selector),
            salted: Salted::new(spec.salt),
            allocations: allocations.into(),
        }
    }

    fn condition(&mut self, flag: &str, spec: &ConditionSpec<'_>) -> u32 {
        let source = self.source(&spec.selector);
        let mut spelt = Vec::new();
        for text in std::iter::once(&spec.op).chain(&spec.values) {
            spelt.extend_from_slice(&text.len().to_le_bytes());
            spelt.extend_from_slice(text.as_bytes());
        }
        let next = position(self.conditions.len());
        let mut invalid = Vec::new();
        let known = *self.known_conditions.entry((source, spelt)).or_insert(next);
        if known == next {
            let values = Values::new(spec.values.iter().map(|&value| value.into()));
            let cohorts = cohorts(spec);
            let mut tell = |pattern: &str, why: &str| invalid.push((pattern.to_owned(), why.to_owned()));
            let test = Test::compile(spec.op, values, &mut self.patterns, &mut tell);
            let marks = marks::of_selector(&spec.selector);
            self.conditions.push(Condition {
                source,
                test,
                marks,
                cohorts,
            });
        } else if spec.op.starts_with("regex ") {
            // Another flag's pattern, compiled and found wanting before: this flag has the problem too.
            for &word in &spec.values {
                invalid.extend(self.patterns.compile(word).1.map(|why| (word.to_owned(), why)));
            }
        }
        for (pattern, why) in invalid {
            let detail =
                format!("the regular expression {pattern:?} is not usable ({why}); it matches nothing");
            self.problem(flag, ProblemKind::Pattern, detail);
        }
        known
    }

    fn source(&mut self, selector: &[&str]) -> Source {
        let owned = |path: &[&str]| path.iter().map(|&name| name.into()).collect::<Vec<Box<str>>>();
        match selector {
            ["context", path @ ..] => Source::Context(self.paths.intern(path)),
            ["result", flag, path @ ..] if matches!(path.first(), Some(&("key" | "value" | "metadata"))) => {
                let next = position(self.results.len());
                let slot = *self.known_results.entry(owned(selector)).or_insert(next);
                if slot == next {
                    self.results.push(ResultSlot {
                        flag: None,
                        flag_key: (*flag).into(),
                        path: owned(path).into(),
                        by_choice: Vec::new(),
                    });
                }
                Source::Result(slot)
            }
            _ => Source::Nowhere,
        }
    }

    /// Looks up what every result slot finds in every choice of its flag.
    fn link_results(&mut self) {
        for (number, slot) in self.results.iter_mut().enumerate() {
            slot.flag = self.index.get(&slot.flag_key).copied();
            let Some(flag) = slot.flag else { continue };
            let first = self.flags[flag as usize].first_choice as usize;
            let end = self
                .flags
                .get(flag as usize + 1)
                .map_or(self.choices.len(), |next| next.first_choice as usize);
            self.flags[flag as usize].read_by.push(position(number));
            let name = self.flags[flag as usize].name.len();
            let found = |choice: &Choice| {
                let mut variant = self.written[choice.head.start + name..choice.head.end].to_vec();
                variant.extend_from_slice(&self.written[choice.tail.clone()]);
                find_in_variant(&variant, &slot.path)
            };
            slot.by_choice = self.choices[first..end].iter().map(found).collect();
        }
    }
}

/// What a path finds in the JSON text of a variant.
pub(super) fn find_in_variant(variant: &[u8], path: &[Box<str>]) -> Option<FixedProperty> {
    let document = Document::parse(variant, DEPTH_MAX + 2).ok()?;
    let found = path
        .iter()
        .try_fold(document.root(), |value, name| value.get(name))?;
    FixedProperty::of(found)
}

/// The cohorts that a condition tests (AE 2).
fn cohorts(spec: &ConditionSpec<'_>) -> Option<Box<Cohorts>> {
    let selector = &spec.selector;
    let reads_cohorts =
        selector.len() > 2 && selector.last() == Some(&"cohort_ids") && is_cohort_operator(spec.op);
    if !reads_cohorts {
        return None;
    }
    let group_type = match selector[1] {
        "user" => "User",
        _ if selector.contains(&"groups") => selector[2],
        _ => return None,
    };
    let ids = spec.values.iter().map(|&id| id.into()).collect();
    Some(Box::new(Cohorts {
        group_type: group_type.into(),
        ids,
    }))
}

/// The answers of one flag while it is compiled.
struct Answers<'d> {
    /// The place of a variant, by its name in the map.
    places: QuickMap<&'d str, usize>,
    /// Per variant, once it is needed, where its head is written.
    heads: Vec<Option<Range<usize>>>,
    /// The choices of the segment at hand, by the place of the variant.
    of_segment: Vec<(usize, u32)>,
    name: Range<usize>,
    written_max: usize,
    too_large: bool,
}

impl<'d> Answers<'d> {
    fn new(spec: &FlagSpec<'d>, flag: &Flag, written_bytes: usize) -> Self {
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
            places: spec
                .variants
                .iter()
                .enumerate()
                .map(|(place, (name, _))| (*name, place))
                .collect(),
            heads: vec![None; spec.variants.len()],
            of_segment: Vec::new(),
            name: flag.name.clone(),
            written_max: written_bytes + size.saturating_mul(WRITTEN_FACTOR_MAX) + WRITTEN_BYTES_FREE,
            too_large: false,
        }
    }

    /// The choice of a variant by its name in the map; `None` if the flag has none of that name.
    fn choice(
        &mut self,
        compiler: &mut Compiler,
        flag: &FlagSpec<'_>,
        segment: &SegmentSpec<'_>,
        name: &str,
    ) -> Option<u32> {
        let place = *self.places.get(name)?;
        // Sorted, because a hostile flag may have very many distributions.
        let at = match self.of_segment.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(known) => return Some(self.of_segment[known].1),
            Err(at) => at,
        };
        let variant = &flag.variants.get(place)?.1;
        if self.too_large || compiler.written.len() > self.written_max {
            self.too_large = true;
            return None;
        }
        let out = &mut compiler.written;
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
        let number = position(compiler.choices.len());
        compiler.choices.push(choice);
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
        write_string(name, out);
        out.push(b':');
        value.write_compact(out);
    }
    out.extend_from_slice(if metadata.is_empty() { b"}" } else { b"}}" });
}

/// The shallow merge of metadata: the last value of a name, at the first one's position.
fn merged<'d>(parts: [Option<Value<'d>>; 3]) -> Vec<(&'d str, Value<'d>)> {
    let mut merged: Vec<(&str, Value<'_>)> = Vec::new();
    // Filled once comparing names one by one would take long.
    let mut places: QuickMap<&str, usize> = QuickMap::default();
    for (name, value) in parts.into_iter().flatten().flat_map(Value::members) {
        if merged.len() == COMPARED_ONE_BY_ONE {
            places = merged
                .iter()
                .enumerate()
                .map(|(place, (name, _))| (*name, place))
                .collect();
        }
        let known = if places.is_empty() {
            merged.iter().position(|(known, _)| *known == name)
        } else {
            places.get(name).copied()
        };
        match known {
            Some(place) => merged[place].1 = value,
            None => {
                if !places.is_empty() {
                    places.insert(name, merged.len());
                }
                merged.push((name, value));
            }
        }
    }
    merged
}

/// The number of a flag, condition, choice or slot; fewer than the bytes of the text, which is below 4 GiB.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the reader refuses texts of 4 GiB"
)]
fn position(index: usize) -> u32 {
    index as u32
}
