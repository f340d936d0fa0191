//! The JSON Schema (draft-07) of the configuration file, made from the table of settings.
//!
//! For editors, for charts that take the configuration as values, and for checks before a deployment. It says
//! what one setting can see: names, forms and bounds; `flagside check` also knows the rules between settings.
//! It holds no references, so that it can be put into another schema as it is.

use serde_json::{Map, Value, json};

use super::settings::{self, Kind, Preset, Setting};
use super::url::UrlForm;
use super::{quantity, rules};

/// Text in which a variable is filled in later: what it will be is not known yet.
const VARIABLE: &str = r"\$\{";

/// The schema as JSON text, as it stands in `flagside.schema.json`.
#[must_use]
pub fn schema_text() -> String {
    let mut schema = Map::new();
    schema.insert(
        "$schema".to_owned(),
        json!("http://json-schema.org/draft-07/schema#"),
    );
    schema.insert("title".to_owned(), json!("flagside configuration"));
    schema.insert(
        "description".to_owned(),
        json!("The configuration file of flagside, YAML or JSON. Written by: flagside schema"),
    );
    schema.extend(section(""));
    format!("{:#}\n", Value::Object(schema))
}

/// The schema of a map of settings.
fn section(path: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    for name in settings::children(path) {
        let below = match path {
            "" => name.to_owned(),
            _ => format!("{path}.{name}"),
        };
        properties.insert(name.to_owned(), Value::Object(property(&below)));
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!(["object", "null"]));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema
}

/// The schema of what stands below one name: a setting, a section, a list of sections, or either of two.
fn property(path: &str) -> Map<String, Value> {
    let list = format!("{path}[]");
    let is_section = !settings::children(path).is_empty();
    match settings::setting(path) {
        Some(setting) if is_section => {
            let mut schema = described(setting);
            schema.insert(
                "anyOf".to_owned(),
                json!([value(setting.kind), Value::Object(section(path))]),
            );
            schema
        }
        Some(setting) => {
            let mut schema = described(setting);
            schema.extend(value(setting.kind));
            schema
        }
        None if is_section => section(path),
        None => {
            let mut items = section(&list);
            items.insert("type".to_owned(), json!("object"));
            let schema = json!({
                "type": ["array", "null"],
                "minItems": 1,
                "maxItems": rules::ENVIRONMENTS_MAX,
                "items": items,
            });
            into_map(schema)
        }
    }
}

fn described(setting: &Setting) -> Map<String, Value> {
    let mut schema = Map::new();
    let description = match setting.default {
        Preset::Computed(how) => format!("{} Default: {how}.", setting.doc),
        Preset::Text(_) | Preset::Unset => setting.doc.to_owned(),
    };
    schema.insert("description".to_owned(), json!(description));
    if let Preset::Text(text) = setting.default {
        let typed = match setting.kind {
            Kind::Count(..) | Kind::Share(..) | Kind::Switch => serde_json::from_str(text).ok(),
            _ => None,
        };
        schema.insert("default".to_owned(), typed.unwrap_or_else(|| json!(text)));
    }
    schema
}

/// What a value of this kind looks like, once YAML or JSON is read: text where the form needs it, numbers and
/// switches as such or as text. Null counts as not given.
fn value(kind: Kind) -> Map<String, Value> {
    into_map(match kind {
        Kind::Duration(..) | Kind::Name | Kind::Prefix | Kind::File | Kind::Url(_) => {
            json!({ "type": ["string", "null"], "pattern": whole(&form(kind)) })
        }
        Kind::Size(min, max) | Kind::Count(min, max) => json!({
            "type": ["integer", "string", "null"],
            "minimum": min,
            "maximum": max,
            "pattern": whole(&form(kind)),
        }),
        Kind::Share(min, max) => json!({
            "type": ["number", "string", "null"],
            "minimum": min,
            "maximum": max,
            "pattern": whole(&form(kind)),
        }),
        Kind::Switch => json!({ "type": ["boolean", "string", "null"], "pattern": whole(&form(kind)) }),
        Kind::Word(words) => json!({
            "anyOf": [
                { "enum": words },
                { "type": "string", "pattern": whole(&form(kind)) },
                { "type": "null" },
            ]
        }),
        Kind::Addresses => json!({
            "type": ["array", "integer", "string", "null"],
            "minimum": 0,
            "maximum": u16::MAX,
            "pattern": whole(&listed(&form(kind))),
            "minItems": 1,
            "items": {
                "type": ["integer", "string"],
                "minimum": 0,
                "maximum": u16::MAX,
                "pattern": whole(&form(kind)),
            },
        }),
        Kind::Origins | Kind::Parameters | Kind::Secrets | Kind::EnvSecrets => json!({
            "type": ["array", "string", "null"],
            "pattern": whole(&format!("(?:{})?", listed(&form(kind)))),
            "items": { "type": "string", "pattern": whole(&form(kind)) },
        }),
    })
}

/// A pattern for the whole text, or for text with a variable in it.
fn whole(form: &str) -> String {
    format!(r"^\s*(?:{form})\s*$|{VARIABLE}")
}

/// A pattern for items with commas or line ends between them.
fn listed(item: &str) -> String {
    format!(r"[\s,]*(?:{item})(?:\s*[,\n][\s,]*(?:{item}))*[\s,]*")
}

/// The pattern of one value of this kind, as text and without blanks around it. It uses nothing that dialects
/// of regular expressions differ in.
fn form(kind: Kind) -> String {
    match kind {
        Kind::Duration(min, max) => {
            let units = quantity::DURATION_UNITS.iter().map(|(unit, factor)| {
                let factor = u128::from(*factor);
                (
                    unit.to_string(),
                    min.as_millis().div_ceil(factor),
                    max.as_millis() / factor,
                )
            });
            quantities(units)
        }
        Kind::Size(min, max) => {
            let plain = (String::new(), u128::from(min), u128::from(max));
            let units = quantity::SIZE_UNITS.iter().map(|(unit, factor)| {
                (
                    any_case(unit),
                    u128::from(min.div_ceil(*factor)),
                    u128::from(max / factor),
                )
            });
            quantities([plain].into_iter().chain(units))
        }
        Kind::Count(min, max) => format!("0*(?:{})", numbers(min, max)),
        Kind::Share(..) => r"[0-9]+\.?[0-9]*|\.[0-9]+".to_owned(),
        Kind::Switch => format!("{}|{}", any_case("true"), any_case("false")),
        Kind::Word(words) => words
            .iter()
            .map(|word| any_case(word))
            .collect::<Vec<_>>()
            .join("|"),
        Kind::Name => "[a-z0-9][a-z0-9_-]{0,62}".to_owned(),
        Kind::Prefix => r"/?|(?:/[^/\s]+)+".to_owned(),
        Kind::File => r"[\s\S]*\S[\s\S]*".to_owned(),
        Kind::Url(form) => {
            let name = match form {
                UrlForm::FeatbitStream => format!("(?:{}|{})", any_case("http"), any_case("ws")),
                UrlForm::Amplitude | UrlForm::Featbit => any_case("http"),
            };
            let scheme = format!("{name}[sS]?");
            format!(r"{scheme}://(?:\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)(?::[0-9]{{1,5}})?(?:/[^\s?#]*)?")
        }
        Kind::Addresses => {
            let host = r"[0-9]+(?:\.[0-9]+){3}|\[[0-9A-Fa-f:.%]+\]|localhost";
            format!("(?:(?:{host})?:)?0*(?:{})", numbers(0, u64::from(u16::MAX)))
        }
        Kind::Origins => {
            let scheme = format!("{}[sS]?", any_case("http"));
            format!(r"\*|{scheme}://(?:\[[0-9A-Fa-f:.]+\]|[^\s/?#@:,\[\]]+)(?::[0-9]{{1,5}})?")
        }
        Kind::Parameters => "[^&=,\\n]+".to_owned(),
        Kind::Secrets => "[!-~]{1,512}".to_owned(),
        Kind::EnvSecrets => "[!-~]{22}[A-Za-z0-9_+/-]{22}".to_owned(),
    }
}

/// Numbers with units, each within its bounds; units in which no number fits are left out.
fn quantities(units: impl Iterator<Item = (String, u128, u128)>) -> String {
    let forms: Vec<String> = units
        .filter(|(_, min, max)| min <= max)
        .map(|(unit, min, max)| {
            let bound = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
            let blanks = if unit.is_empty() { "" } else { r"\s*" };
            format!("(?:{}){blanks}{unit}", numbers(bound(min), bound(max)))
        })
        .collect();
    format!("0*(?:{})", forms.join("|"))
}

/// `mib` in any case: `[mM][iI][bB]`.
fn any_case(word: &str) -> String {
    word.chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
            other => other.to_string(),
        })
        .collect()
}

/// A pattern of the decimal numbers from `min` to `max` without leading zeros.
fn numbers(min: u64, max: u64) -> String {
    let (min, max) = (u128::from(min), u128::from(max));
    let steps = (1..=20).map(|digits| 10_u128.pow(digits));
    // Up to the next 9, 99, 999 …, and down from the last 0, 00, 000 …: between those the last digits are free.
    let up = steps.clone().map(|step| min / step * step + step - 1);
    let down = steps.filter_map(|step| ((max + 1) / step * step).checked_sub(1));
    let mut ends: Vec<u128> = up
        .take_while(|end| *end < max)
        .chain(down.take_while(|end| *end >= min))
        .chain([max])
        .collect();
    ends.sort_unstable();
    ends.dedup();
    let mut from = min;
    let mut forms = Vec::new();
    for end in ends {
        forms.push(same_length(&from.to_string(), &end.to_string()));
        from = end + 1;
    }
    forms.join("|")
}

/// A pattern of the numbers between two of the same length that differ in free last digits and one before them.
fn same_length(from: &str, to: &str) -> String {
    let mut form = String::new();
    let mut free = 0;
    for (low, high) in from.chars().zip(to.chars()) {
        match (low, high) {
            ('0', '9') => free += 1,
            (low, high) if low == high => form.push(low),
            (low, high) => form.push_str(&format!("[{low}-{high}]")),
        }
    }
    match free {
        0 => {}
        1 => form.push_str("[0-9]"),
        _ => form.push_str(&format!("[0-9]{{{free}}}")),
    }
    form
}

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::Regex;

    use super::super::settings::SETTINGS;
    use super::super::values;
    use super::*;

    /// The pattern of each setting's values.
    static PATTERNS: LazyLock<HashMap<&str, Regex>> = LazyLock::new(|| {
        let pattern = |setting: &Setting| Regex::new(&whole(&form(setting.kind))).unwrap();
        SETTINGS
            .iter()
            .map(|setting| (setting.path, pattern(setting)))
            .collect()
    });

    #[test]
    fn the_committed_schema_equals_the_table() {
        let committed = include_str!("../../flagside.schema.json");
        assert!(
            committed == schema_text(),
            "run: cargo run -- schema > flagside.schema.json"
        );
    }

    #[test]
    fn every_setting_stands_in_it_with_its_description_and_default() {
        let schema: Value = serde_json::from_str(&schema_text()).unwrap();
        for setting in SETTINGS {
            let mut here = &schema;
            for step in setting.path.split('.') {
                let name = step.trim_end_matches("[]");
                here = match (&here["properties"][name], &here["anyOf"][1]["properties"][name]) {
                    (Value::Null, found) | (found, _) => found,
                };
                if step.ends_with("[]") {
                    here = &here["items"];
                }
            }
            let description = here["description"].as_str().unwrap_or_default();
            assert!(description.starts_with(setting.doc), "{}: {here}", setting.path);
            if let Preset::Text(text) = setting.default {
                assert_eq!(
                    here["default"].to_string().trim_matches('"'),
                    text,
                    "{}",
                    setting.path
                );
            }
        }
    }

    #[test]
    fn maps_admit_no_other_names() {
        fn walk(value: &Value, maps: &mut usize) {
            if let Some(map) = value.as_object() {
                if map.contains_key("properties") && !map["properties"]["type"].is_string() {
                    assert_eq!(map["additionalProperties"], json!(false), "{value}");
                    *maps += 1;
                }
                map.values().for_each(|inner| walk(inner, maps));
            }
        }
        let mut maps = 0;
        walk(&serde_json::from_str(&schema_text()).unwrap(), &mut maps);
        assert!(maps >= 12, "{maps}");
    }

    #[test]
    fn numbers_at_the_bounds() {
        for (min, max) in [
            (0, 0),
            (0, 9),
            (1, 256),
            (10, 60_000),
            (1024, 67_108_864),
            (99, 100),
            (199, 201),
            (0, u64::MAX),
            (u64::MAX - 1, u64::MAX),
        ] {
            let pattern = Regex::new(&format!("^(?:{})$", numbers(min, max))).unwrap();
            let near = [min, max]
                .into_iter()
                .flat_map(|n| (0..12).flat_map(move |d| [n.saturating_sub(d), n.saturating_add(d)]));
            for n in near.chain([0, 1, 10, 100, 1_000, 10_000]) {
                assert_eq!(
                    pattern.is_match(&n.to_string()),
                    (min..=max).contains(&n),
                    "{n} in {min}..={max}"
                );
            }
        }
    }

    /// A setting that the parser takes matches, one that it refuses does not.
    fn agrees<T, E>(setting: &Setting, text: &str, parse: impl Fn(Kind, &str) -> Result<T, E>) {
        let wanted = parse(setting.kind, text).is_ok();
        assert_eq!(
            PATTERNS[setting.path].is_match(text),
            wanted,
            "{}: {text:?}",
            setting.path
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn numbers_of_any_range(a: u64, b: u64, n: u64, shift in 0_u32..60) {
            let (min, max, n) = ((a >> shift).min(b >> shift), (a >> shift).max(b >> shift), n >> shift);
            let pattern = Regex::new(&format!("^(?:{})$", numbers(min, max))).unwrap();
            prop_assert_eq!(pattern.is_match(&n.to_string()), (min..=max).contains(&n));
        }

        #[test]
        fn patterns_agree_with_the_parser(n in 0_u64..2_000_000, shift in 0_u32..21, unit in "ms|s|m|h|d|B|KiB|mib|MB|gb|kB|Ki|S||x", blank in " ?", zeros in "0{0,2}", tail in "|\\.5|%| ") {
            let text = format!("{zeros}{}{tail}{blank}{unit}", n >> shift);
            for setting in SETTINGS {
                match setting.kind {
                    Kind::Duration(..) => agrees(setting, &text, values::duration),
                    Kind::Size(..) => agrees(setting, &text, values::size),
                    Kind::Count(..) => agrees(setting, &text, values::count),
                    _ => {}
                }
            }
        }

        #[test]
        fn words_and_names_agree_with_the_parser(text in "[a-zA-Z0-9_-]{0,5}|(?i)true|false|shared|sidecar|us|EU|Remote|off|warn") {
            for setting in SETTINGS {
                match setting.kind {
                    Kind::Switch => agrees(setting, &text, values::switch),
                    Kind::Word(_) => agrees(setting, &text, values::word),
                    Kind::Name => agrees(setting, &text, values::name),
                    _ => {}
                }
            }
        }

        #[test]
        fn addresses_that_are_taken_match(text in "((127.0.0.1|\\[::1\\]|localhost|0.0.0.0|)?:)?[0-9]{1,6}") {
            if values::addresses(Kind::Addresses, &text, &values::LOOPBACK).is_ok() {
                prop_assert!(PATTERNS["listen.data"].is_match(&text), "{}", text);
            }
        }
    }
}
