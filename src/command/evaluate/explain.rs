//! `--explain`: an evaluation told step by step.

use std::fmt::Write;

use crate::evaluate::amplitude::{Bucketed, Event, FlagSet, Host, Seen, Subject};
use crate::evaluate::json::{Document, Value};

/// How much of a value is shown, in characters.
const SHOWN_MAX: usize = 120;
/// How many values of a condition are shown.
const VALUES_MAX: usize = 12;

/// The story of an evaluation, flag by flag in the order of evaluation.
pub(super) fn explain(set: &FlagSet, subject: Subject<'_>, wanted: &[&str]) -> String {
    let mut explainer = Explainer {
        set,
        flag: None,
        key: "",
        steps: String::new(),
        story: String::new(),
    };
    let evaluation = set.evaluate(subject, wanted, &mut explainer);
    let mut story = explainer.story;
    if evaluation.patterns_given_up() > 0 {
        let count = evaluation.patterns_given_up();
        append(
            &mut story,
            format_args!("{count} regular expression matches were given up as too costly.\n"),
        );
    }
    if story.is_empty() {
        story.push_str("No flag was evaluated.\n");
    }
    story
}

struct Explainer<'s> {
    set: &'s FlagSet,
    /// The JSON of the flag at hand.
    flag: Option<Document<'s>>,
    key: &'s str,
    /// What is told of the flag at hand; its outcome stands before.
    steps: String,
    story: String,
}

impl Host for Explainer<'_> {
    const OBSERVES: bool = true;

    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Flag { key } => {
                let flag = self.set.flag(key);
                self.key = flag.map_or("", |flag| flag.key);
                self.flag = flag.and_then(|flag| Document::parse(flag.text.as_bytes(), 128).ok());
                self.steps.clear();
            }
            Event::Condition {
                segment,
                group,
                condition,
                property,
                held,
            } => {
                self.condition((segment, group, condition), property, held);
            }
            Event::Segment { segment, matched } => self.segment(segment, matched),
            Event::Bucket {
                segment,
                text,
                bucketed,
                place,
            } => self.bucket(segment, text, bucketed, place),
            Event::Outcome { variant, unfaithful } => self.outcome(variant, unfaithful),
        }
    }
}

impl Explainer<'_> {
    fn outcome(&mut self, variant: Option<(usize, &str)>, unfaithful: bool) {
        let key = self.key;
        match variant {
            Some((segment, variant)) => {
                let name = self.segment_name(segment);
                append(
                    &mut self.story,
                    format_args!("{key} = {variant}   (segment {name})\n"),
                );
            }
            None => append(
                &mut self.story,
                format_args!("{key} has no variant: no segment gave one\n"),
            ),
        }
        if unfaithful {
            self.story.push_str(
                "  the cloud may answer differently: it knows cohorts, stored properties or Amplitude IDs\n",
            );
        }
        self.story.push_str(&self.steps);
        self.story.push('\n');
    }

    fn segment(&mut self, segment: usize, matched: bool) {
        let name = self.segment_name(segment);
        let json = self.segment_json(segment);
        let conditions = member(json, "conditions");
        let verdict = match (conditions, matched) {
            (None, _) => "matches everybody",
            (Some(_), true) => "matches",
            (Some(list), false) if list.elements().next().is_none() => {
                "never matches: it has an empty list of conditions"
            }
            (Some(_), false) => "does not match",
        };
        let mut lines = format!("  segment {name} {verdict}");
        if matched && member(json, "bucket").is_none() {
            let variant = member(json, "variant").map_or("no variant".to_owned(), |variant| shown(variant));
            append(&mut lines, format_args!(", gives {variant}"));
        }
        lines.push('\n');
        // Conditions were told before their segment's verdict was known: they belong below it.
        let at = self.steps.rfind(SEGMENT_MARK).map_or(self.steps.len(), |at| {
            self.steps.remove(at);
            at
        });
        self.steps.insert_str(at, &lines);
    }

    fn condition(
        &mut self,
        (segment, group, condition): (usize, usize, usize),
        property: Seen<'_>,
        held: bool,
    ) {
        if !self.steps.contains(SEGMENT_MARK) {
            self.steps.push(SEGMENT_MARK);
        }
        let groups = member(self.segment_json(segment), "conditions");
        let json = groups.and_then(|groups| groups.elements().nth(group)?.elements().nth(condition));
        let selector = member(json, "selector").map_or(String::new(), path);
        let op = member(json, "op").map_or(String::new(), |op| op.as_str().unwrap_or("?").to_owned());
        let values = member(json, "values").map_or(String::new(), values);
        let found = match property {
            Seen::Null => "nothing".to_owned(),
            Seen::Text(text) => quoted(text),
            Seen::List(elements) => {
                let texts: Vec<String> = elements
                    .iter()
                    .take(VALUES_MAX)
                    .map(|text| quoted(text))
                    .collect();
                let more = if elements.len() > VALUES_MAX { ", ..." } else { "" };
                format!("the list [{}{more}]", texts.join(", "))
            }
        };
        let verdict = if held { "yes" } else { "no " };
        let joint = match (group, condition) {
            (0, 0) => "   ",
            (_, 0) => "or ",
            _ => "and",
        };
        append(
            &mut self.steps,
            format_args!("    {verdict}  {joint} {selector} {op} {values}: found {found}\n"),
        );
    }

    fn bucket(
        &mut self,
        segment: usize,
        text: Option<&str>,
        bucketed: Option<Bucketed>,
        place: Option<(usize, usize)>,
    ) {
        let json = self.segment_json(segment);
        let bucket = member(json, "bucket");
        let selector = member(bucket, "selector").map_or(String::new(), path);
        let fallback = member(json, "variant").map_or("nothing: on to the next segment".to_owned(), shown);
        let mut lines = String::new();
        match (text, bucketed) {
            (
                Some(text),
                Some(Bucketed {
                    hash,
                    allocation,
                    distribution,
                }),
            ) => {
                let salt = member(bucket, "salt").and_then(Value::as_str).unwrap_or_default();
                let hashed = quoted(&format!("{salt}/{text}"));
                append(
                    &mut lines,
                    format_args!("    bucket by {selector}: murmur3 of {hashed} is {hash}\n"),
                );
                append(
                    &mut lines,
                    format_args!(
                        "      hash mod 100 = {allocation} (allocation), hash div 100 = {distribution} (distribution)\n"
                    ),
                );
                ranges(bucket, (allocation, distribution), place, &mut lines);
                if place.is_none() {
                    append(
                        &mut lines,
                        format_args!("      outside of all ranges, gives {fallback}\n"),
                    );
                }
            }
            _ => append(
                &mut lines,
                format_args!("    bucket by {selector}: found nothing, gives {fallback}\n"),
            ),
        }
        self.steps.push_str(&lines);
    }

    fn segment_json(&self, segment: usize) -> Option<Value<'_>> {
        self.flag
            .as_ref()?
            .root()
            .get("segments")?
            .elements()
            .nth(segment)
    }

    /// The number of a segment, from 1, and its name.
    fn segment_name(&self, segment: usize) -> String {
        let metadata = member(self.segment_json(segment), "metadata");
        match member(metadata, "segmentName").and_then(Value::as_str) {
            Some(name) => format!("{} {}", segment + 1, quoted(name)),
            None => format!("{}", segment + 1),
        }
    }
}

/// Stands in `steps` where the verdict of the segment at hand belongs; no text of a flag can hold it,
/// because texts are shown escaped.
const SEGMENT_MARK: char = '\u{1}';

/// The allocations and distributions, up to the ones that hold.
fn ranges(
    bucket: Option<Value<'_>>,
    (allocation, distribution): (u32, u32),
    place: Option<(usize, usize)>,
    lines: &mut String,
) {
    for (number, of) in elements(bucket, "allocations").enumerate() {
        let (range, holds) = bounds(of, allocation);
        let verdict = if holds { "yes" } else { "no " };
        append(lines, format_args!("      {verdict}  allocation {range}\n"));
        if !holds {
            continue;
        }
        for (at, split) in elements(Some(of), "distributions").enumerate() {
            let (range, holds) = bounds(split, distribution);
            let verdict = if holds { "yes" } else { "no " };
            let variant = member(Some(split), "variant").map_or(String::new(), shown);
            append(lines, format_args!("        {verdict}  {variant} {range}\n"));
            if place == Some((number, at)) {
                return;
            }
        }
    }
}

/// A range as it is shown, and whether it holds a number.
fn bounds(value: Value<'_>, number: u32) -> (String, bool) {
    let range = member(Some(value), "range");
    let mut bounds = range.into_iter().flat_map(|range| range.elements());
    let mut bound = || bounds.next().and_then(Value::as_number).unwrap_or("?");
    let (start, end) = (bound(), bound());
    let number = i64::from(number);
    let holds = start.parse().is_ok_and(|start: i64| start <= number)
        && end.parse().is_ok_and(|end: i64| number < end);
    (format!("[{start}, {end})"), holds)
}

fn elements<'d>(value: Option<Value<'d>>, name: &str) -> impl Iterator<Item = Value<'d>> + use<'d> {
    member(value, name).into_iter().flat_map(Value::elements)
}

fn member<'d>(value: Option<Value<'d>>, name: &str) -> Option<Value<'d>> {
    value?.get(name).filter(|found| !found.is_null())
}

/// A selector with dots; elements that hold a dot or a space are quoted.
fn path(selector: Value<'_>) -> String {
    let names = selector.elements().map(|element| match element.as_str() {
        Some(name)
            if !name.is_empty()
                && !name.contains(|c: char| c == '.' || c.is_whitespace() || c.is_control()) =>
        {
            name.to_owned()
        }
        _ => shown(element),
    });
    let path = names.collect::<Vec<_>>().join(".");
    if path.is_empty() {
        "(no selector)".to_owned()
    } else {
        path
    }
}

fn values(list: Value<'_>) -> String {
    let count = list.elements().count();
    let texts: Vec<String> = list.elements().take(VALUES_MAX).map(shown).collect();
    let more = if count > VALUES_MAX {
        format!(", ... {} more", count - VALUES_MAX)
    } else {
        String::new()
    };
    format!("[{}{more}]", texts.join(", "))
}

/// A text or literal as it is shown.
pub(super) fn shown(value: Value<'_>) -> String {
    match value.as_str() {
        Some(text) => quoted(text),
        None => String::from_utf8_lossy(value.raw()).into_owned(),
    }
}

/// A text in quotes, cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Appends; writing to a `String` cannot fail.
pub(super) fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
