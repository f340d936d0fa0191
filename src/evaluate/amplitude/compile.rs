//! From the JSON of flags to a [`FlagSet`].
//!
//! Flags are read, compiled and forgotten one by one: a tree of all of them would take several times the memory of their
//! text, and touching new memory is a large part of what loading costs.

use std::sync::{Arc, OnceLock};

use super::answers::Answers;
use super::condition::{Test, is_cohort_operator};
use super::entries::Entries;
use super::murmur3::Salted;
use super::pattern::Patterns;
use super::property::FixedProperty;
use super::run::marks;
use super::selector::{Paths, Source};
use super::set::{
    Allocation, Bucket, Choice, Cohorts, Condition, Distribution, Flag, FlagSet, FlagSetError, Problem,
    ProblemKind, ResultSlot, Segment,
};
use super::spec::{BucketSpec, ConditionSpec, FlagSpec, SegmentSpec};
use super::words::Values;
use crate::evaluate::json::{Document, Elementwise, Value, write_string};
use crate::evaluate::quick_map::{QuickMap, WordMap};

/// Arrays and objects inside each other in a flag set.
pub(super) const DEPTH_MAX: usize = 128;

/// Bytes of text for which a flag, and a choice, is expected: rather too few than too many.
const FLAG_BYTES: usize = 512;
const CHOICE_BYTES: usize = 128;

pub(super) fn compile(json: Vec<u8>) -> Result<FlagSet, FlagSetError> {
    let text = Arc::new(crate::evaluate::json::into_text(json)?);
    let Some(mut elements) = Elementwise::new(&text, DEPTH_MAX)? else {
        let document = Document::parse(text.as_bytes(), DEPTH_MAX)?;
        return Err(FlagSetError::NotAnArray(document.root().kind()));
    };
    let mut entries = Entries::default();
    let mut compiler = Compiler::new(text.len());
    while let Some(element) = elements.next()? {
        let flag = element.root();
        if let Some(key) = entries.add(flag)
            && !entries.has_repeated()
        {
            compiler.read(position(entries.all().len() - 1), key, flag);
        }
    }
    if entries.has_repeated() {
        // What was compiled may have been replaced by a later flag: once more, now that this is known.
        compiler = Compiler::new(text.len());
        for (number, entry) in entries.all().iter().enumerate() {
            let document = Document::parse(text[entry.text.clone()].as_bytes(), DEPTH_MAX)?;
            compiler.read(position(number), &entry.key, document.root());
        }
    }
    Ok(compiler.finish(text, entries))
}

#[derive(Default)]
struct Compiler {
    flags: Vec<Flag>,
    index: WordMap<u32>,
    conditions: Vec<Condition>,
    /// Conditions by the number of their source and their texts.
    known_conditions: QuickMap<Vec<u8>, u32>,
    paths: Paths,
    results: Vec<ResultSlot>,
    /// Result slots by the texts of their selectors.
    known_results: QuickMap<Vec<u8>, u32>,
    choices: Vec<Choice>,
    written: Vec<u8>,
    patterns: Patterns,
    /// With the place at which each is told: 0 for flags that cannot be read, else one more than the flag's number.
    problems: Vec<(u32, Problem)>,
    /// Texts that look something up.
    spelt: Vec<u8>,
}

impl Compiler {
    fn new(text_bytes: usize) -> Self {
        Self {
            // Growing by doubling would touch three times the memory; what is not used is never touched.
            written: Vec::with_capacity(text_bytes),
            flags: Vec::with_capacity(text_bytes / FLAG_BYTES),
            choices: Vec::with_capacity(text_bytes / CHOICE_BYTES),
            ..Self::default()
        }
    }

    fn problem(&mut self, place: u32, flag: &str, kind: ProblemKind, detail: String) {
        let problem = Problem {
            flag: flag.to_owned(),
            kind,
            detail,
        };
        self.problems.push((place, problem));
    }

    /// Reads and compiles the flag of an entry.
    fn read(&mut self, entry: u32, key: &str, flag: Value<'_>) {
        match FlagSpec::read(key, flag) {
            Ok(spec) => self.flag(entry, &spec),
            Err(error) => {
                let detail = format!("{error}; the flag is not evaluated");
                self.problem(0, key, ProblemKind::Malformed, detail);
            }
        }
    }

    fn flag(&mut self, entry: u32, spec: &FlagSpec<'_>) {
        let number = position(self.flags.len());
        self.index.insert(spec.key.into(), number);
        let start = self.written.len();
        write_string(spec.key, &mut self.written);
        self.written.push(b':');
        let name = start..self.written.len();
        let mode = spec.metadata.and_then(|metadata| metadata.get("evaluationMode"));
        let mut flag = Flag {
            key: spec.key.into(),
            entry,
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
            self.problem(number + 1, spec.key, ProblemKind::TooLarge, detail);
        } else {
            flag.segments = segments.into();
        }
        self.flags.push(flag);
    }

    fn segment(&mut self, flag: &FlagSpec<'_>, spec: &SegmentSpec<'_>, answers: &mut Answers<'_>) -> Segment {
        answers.begin_segment();
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
            .and_then(|variant| self.choice(flag, spec, variant, answers));
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
        let mut allocations = Vec::with_capacity(spec.allocations.len());
        for allocation in &spec.allocations {
            let mut distributions = Vec::with_capacity(allocation.distributions.len());
            for &(variant, (start, end)) in &allocation.distributions {
                let choice = self.choice(flag, segment, variant, answers);
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

    fn choice(
        &mut self,
        flag: &FlagSpec<'_>,
        segment: &SegmentSpec<'_>,
        variant: &str,
        answers: &mut Answers<'_>,
    ) -> Option<u32> {
        answers.choice(&mut self.choices, &mut self.written, flag, segment, variant)
    }

    fn condition(&mut self, flag: &str, spec: &ConditionSpec<'_>) -> u32 {
        let source = self.source(&spec.selector);
        let mut invalid = Vec::new();
        self.spelt.clear();
        self.spelt.extend_from_slice(&source.number().to_le_bytes());
        spell([spec.op].iter().chain(&spec.values), &mut self.spelt);
        let known = match self.known_conditions.get(&self.spelt) {
            Some(known) => {
                // Another flag's pattern, compiled and found wanting before: this flag has the problem too.
                let patterns = spec.values.iter().filter(|_| spec.op.starts_with("regex "));
                for &word in patterns {
                    invalid.extend(self.patterns.compile(word).1.map(|why| (word.to_owned(), why)));
                }
                *known
            }
            None => {
                let next = position(self.conditions.len());
                self.known_conditions.insert(self.spelt.clone(), next);
                let values = Values::new(spec.values.iter().map(|&value| value.into()));
                let mut tell = |pattern: &str, why: &str| invalid.push((pattern.to_owned(), why.to_owned()));
                self.conditions.push(Condition {
                    source,
                    test: Test::compile(spec.op, values, &mut self.patterns, &mut tell),
                    marks: marks::of_selector(&spec.selector),
                    cohorts: cohorts(spec),
                });
                next
            }
        };
        // The flag at hand is numbered when it is done.
        let place = position(self.flags.len()) + 1;
        for (pattern, why) in invalid {
            let detail =
                format!("the regular expression {pattern:?} is not usable ({why}); it matches nothing");
            self.problem(place, flag, ProblemKind::Pattern, detail);
        }
        known
    }

    fn source(&mut self, selector: &[&str]) -> Source {
        match selector {
            ["context", path @ ..] => Source::Context(self.paths.intern(path)),
            ["result", flag, path @ ..] if matches!(path.first(), Some(&("key" | "value" | "metadata"))) => {
                self.spelt.clear();
                spell(selector, &mut self.spelt);
                let next = position(self.results.len());
                let slot = *self.known_results.entry(self.spelt.clone()).or_insert(next);
                if slot == next {
                    self.results.push(ResultSlot {
                        flag: None,
                        flag_key: (*flag).into(),
                        path: path.iter().map(|&name| name.into()).collect(),
                        by_choice: Vec::new(),
                    });
                }
                Source::Result(slot)
            }
            _ => Source::Nowhere,
        }
    }

    /// The set of what was compiled.
    fn finish(mut self, text: Arc<String>, entries: Entries) -> FlagSet {
        let order = entries.order(self.flags.iter().map(|flag| flag.entry), &self.index);
        for number in 0..self.flags.len() {
            if order.is_cyclic(position(number)) {
                let detail =
                    "the flag depends on itself, or on a flag that does; it is not evaluated".to_owned();
                let key = self.flags[number].key.clone();
                self.problem(position(number) + 1, &key, ProblemKind::Cycle, detail);
            }
        }
        self.link_results();
        self.written.shrink_to_fit();
        self.flags.shrink_to_fit();
        self.choices.shrink_to_fit();
        self.problems.sort_by_key(|(place, _)| *place);
        let (entries, mut problems) = entries.finish();
        problems.extend(self.problems.into_iter().map(|(_, problem)| problem));
        FlagSet {
            text,
            entries,
            flags: self.flags,
            index: self.index,
            order,
            conditions: self.conditions,
            paths: self.paths,
            results: self.results,
            choices: self.choices,
            written: self.written,
            problems,
            hashes: OnceLock::new(),
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

/// Appends texts so that no two lists of them look alike.
fn spell<'t>(texts: impl IntoIterator<Item = &'t &'t str>, out: &mut Vec<u8>) {
    for text in texts {
        out.extend_from_slice(&text.len().to_le_bytes());
        out.extend_from_slice(text.as_bytes());
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

/// The number of a flag, condition, choice or slot; fewer than the bytes of the text, which is below 4 GiB.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the reader refuses texts of 4 GiB"
)]
pub(super) fn position(index: usize) -> u32 {
    index as u32
}
