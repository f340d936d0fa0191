//! `--explain`: an evaluation told step by step.

use crate::command::evaluate::explain::{append, quoted, shown};
use crate::evaluate::featbit::{
    Cause, DataSet, Event, Flag, Membership, Observer, Outcome, Request, Sample, Segment, Undecided,
};
use crate::evaluate::json::{Document, Value};

/// The story of an evaluation, flag by flag in the order of answers.
pub(super) fn explain(set: &DataSet, request: &Request) -> String {
    let mut explainer = Explainer::default();
    set.evaluate_observed(request, &mut explainer);
    if explainer.story.is_empty() {
        explainer.story.push_str("No flag was evaluated.\n");
    }
    explainer.story
}

#[derive(Default)]
struct Explainer {
    /// The JSON of the flag at hand.
    flag: Json,
    key: String,
    /// The JSON of the segment at hand, and the rule in it.
    segment: Option<Json>,
    segment_rule: usize,
    /// The rule at hand and what is told of its conditions; its verdict stands before.
    rule: Option<usize>,
    conditions: String,
    /// What is told of segments; the condition on them stands before.
    segments: String,
    /// What is told of the flag at hand; its outcome stands before.
    steps: String,
    story: String,
}

impl Observer for Explainer {
    const OBSERVES: bool = true;

    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Flag(flag) => self.begin(flag),
            Event::Target(target) => {
                append(
                    &mut self.steps,
                    format_args!("  target {} names the user\n", target + 1),
                );
            }
            Event::Rule(rule) if self.segment.is_some() => {
                self.segment_rule = rule;
                append(&mut self.segments, format_args!("        rule {}\n", rule + 1));
            }
            Event::Rule(rule) => {
                self.end_rule("does not match");
                self.rule = Some(rule);
            }
            Event::Condition {
                condition,
                found,
                held,
            } => self.condition(condition, found, held),
            Event::Segments(_) => self.segments.clear(),
            Event::Segment(segment) => self.begin_segment(segment),
            Event::Member(_, membership) => self.member(membership),
            Event::SegmentsDecided { condition, held } => self.segments_decided(condition, held),
            Event::Split {
                rule,
                key,
                position,
                entry,
            } => self.split(rule, key, position, entry),
            Event::Experiment { send, sample } => self.experiment(send, sample),
            Event::Outcome(outcome) => self.outcome(outcome),
            Event::Unevaluable(cause) => self.unevaluable(cause),
        }
    }
}

impl Explainer {
    fn begin(&mut self, flag: &Flag) {
        self.flag = Json::new(flag.raw());
        flag.key().clone_into(&mut self.key);
        self.rule = None;
        self.segment = None;
        self.conditions.clear();
        self.segments.clear();
        self.steps.clear();
    }

    /// Tells of the rule at hand, if there is one, with its verdict before its conditions.
    fn end_rule(&mut self, verdict: &str) {
        if let Some(rule) = self.rule.take() {
            let name = self.rule_name(rule);
            append(&mut self.steps, format_args!("  rule {name} {verdict}\n"));
            self.steps.push_str(&self.conditions);
            self.conditions.clear();
        }
    }

    fn condition(&mut self, condition: usize, found: Option<&str>, held: Result<bool, Undecided<'_>>) {
        let (json, rule) = match &self.segment {
            Some(segment) => (segment, self.segment_rule),
            None => (&self.flag, self.rule.unwrap_or_default()),
        };
        let test = json.read(|root| {
            let condition = nth(nth(root.get("rules"), rule)?.get("conditions"), condition)?;
            let property = condition
                .get("property")
                .and_then(Value::as_str)
                .unwrap_or("null");
            let operator = condition.get("op").and_then(Value::as_str).unwrap_or("null");
            Some(format!("{property} {operator} {}", value(condition)))
        });
        let verdict = match held {
            Ok(true) => "yes ".to_owned(),
            Ok(false) => "no  ".to_owned(),
            Err(_) => "?   ".to_owned(),
        };
        let found = found.map_or_else(|| "null".to_owned(), quoted);
        let line = format!("{verdict} {}: found {found}", test.unwrap_or_default());
        if self.segment.is_some() {
            append(&mut self.segments, format_args!("          {line}\n"));
        } else {
            append(&mut self.conditions, format_args!("    {line}\n"));
        }
    }

    fn begin_segment(&mut self, segment: &Segment) {
        let json = Json::new(segment.raw());
        let name = json.read(|root| root.get("name").and_then(Value::as_str).map(quoted));
        let name = name.map_or_else(String::new, |name| format!(" {name}"));
        append(
            &mut self.segments,
            format_args!("      segment {}{name}\n", segment.id()),
        );
        self.segment = Some(json);
    }

    fn member(&mut self, membership: Membership) {
        self.segment = None;
        let verdict = match membership {
            Membership::Excluded => "no    the user is excluded".to_owned(),
            Membership::Included => "yes   the user is included".to_owned(),
            Membership::Rule(rule) => format!("yes   rule {} matches", rule + 1),
            Membership::No => "no    neither included nor matched by a rule".to_owned(),
        };
        append(&mut self.segments, format_args!("        {verdict}\n"));
    }

    fn segments_decided(&mut self, condition: usize, held: bool) {
        let test = self.flag.read(|root| {
            let rule = nth(root.get("rules"), self.rule?)?;
            let condition = nth(rule.get("conditions"), condition)?;
            let property = condition.get("property").and_then(Value::as_str)?;
            Some(format!("{property} {}", value(condition)))
        });
        let verdict = if held { "yes " } else { "no  " };
        append(
            &mut self.conditions,
            format_args!("    {verdict} {}\n{}", test.unwrap_or_default(), self.segments),
        );
        self.segments.clear();
    }

    fn split(&mut self, rule: Option<usize>, key: &str, position: f64, entry: Option<usize>) {
        match rule {
            Some(_) => self.end_rule("matches"),
            None => {
                self.end_rule("does not match");
                self.steps.push_str("  fallthrough\n");
            }
        }
        append(
            &mut self.steps,
            format_args!("    md5 of {} falls at {position}\n", quoted(key)),
        );
        let lines = self.flag.read(|root| {
            let of = match rule {
                Some(rule) => nth(root.get("rules"), rule)?,
                None => root.get("fallthrough")?,
            };
            let mut lines = String::new();
            for (number, split) in of.get("variations")?.elements().enumerate() {
                let holds = entry == Some(number);
                let verdict = if holds { "yes " } else { "no  " };
                let id = split.get("id").and_then(Value::as_str).unwrap_or_default();
                let value = value_of(root, id);
                append(
                    &mut lines,
                    format_args!("    {verdict} {} {value}\n", bounds(split)),
                );
                if holds {
                    break;
                }
            }
            Some(lines)
        });
        self.steps.push_str(&lines.unwrap_or_default());
    }

    fn experiment(&mut self, send: bool, sample: Sample) {
        let why = match sample {
            Sample::Everybody => "the flag counts everybody".to_owned(),
            Sample::Nobody => "this split counts nobody".to_owned(),
            Sample::Empty => "nothing of this split counts".to_owned(),
            Sample::Position { position, bound } => {
                format!("md5 with `expt` before falls at {position}, up to {bound} counts")
            }
        };
        append(
            &mut self.steps,
            format_args!("    sendToExperiment {send}: {why}\n"),
        );
    }

    fn outcome(&mut self, outcome: &Outcome<'_>) {
        let (id, value) = outcome.variation();
        let reason = outcome.reason_json();
        let key = &self.key;
        append(
            &mut self.story,
            format_args!("{key} = {}   ({reason}, variation {id})\n", cut(value)),
        );
        self.story.push_str(&self.steps);
        self.story.push('\n');
    }

    fn unevaluable(&mut self, cause: Cause<'_>) {
        self.conditions.push_str(&std::mem::take(&mut self.segments));
        self.end_rule("cannot be decided");
        let key = &self.key;
        append(&mut self.story, format_args!("{key} has no answer: {cause}\n"));
        self.story.push_str(&self.steps);
        self.story.push('\n');
    }

    /// The number of a rule, from 1, and its name.
    fn rule_name(&self, rule: usize) -> String {
        let name = self.flag.read(|root| {
            let name = nth(root.get("rules"), rule)?.get("name")?.as_str()?;
            Some(quoted(name))
        });
        name.map_or_else(|| format!("{}", rule + 1), |name| format!("{} {name}", rule + 1))
    }
}

/// The JSON of a flag or segment.
#[derive(Default)]
struct Json(String);

impl Json {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn read<T>(&self, read: impl FnOnce(Value<'_>) -> Option<T>) -> Option<T> {
        let document = Document::parse(self.0.as_bytes(), 64).ok()?;
        read(document.root())
    }
}

fn nth(list: Option<Value<'_>>, number: usize) -> Option<Value<'_>> {
    list?.elements().nth(number)
}

/// The value of a condition as it is shown: a list as it is, any other text in quotes.
fn value(condition: Value<'_>) -> String {
    match condition.get("value").and_then(Value::as_str) {
        Some(list) if list.trim_start().starts_with('[') => cut(list),
        Some(text) => quoted(text),
        None => "null".to_owned(),
    }
}

/// The value of a variation as it is shown.
fn value_of(flag: Value<'_>, id: &str) -> String {
    let variations = flag.get("variations").into_iter().flat_map(Value::elements);
    let mut named = variations.filter(|variation| variation.get("id").and_then(Value::as_str) == Some(id));
    let value = named.next().and_then(|variation| variation.get("value"));
    value.map_or_else(|| "null".to_owned(), shown)
}

/// A range as it is shown.
fn bounds(split: Value<'_>) -> String {
    let range = split.get("rollout").into_iter().flat_map(Value::elements);
    let numbers: Vec<&str> = range.filter_map(Value::as_number).collect();
    format!("[{}]", numbers.join(", "))
}

/// Text as it is, cut when it is long.
fn cut(json: &str) -> String {
    const SHOWN_MAX: usize = 120;
    match json.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &json[..end]),
        None => json.to_owned(),
    }
}
