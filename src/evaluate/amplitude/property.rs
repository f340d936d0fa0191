//! Properties as conditions see them: their text and list forms (AE 4), with what is derived from a text
//! computed at most once per request.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::number::{is_number, number_text, parse_double};
use super::version::Version;
use crate::evaluate::json::{Bare, Document, Kind, Value};

/// Up to this many elements, repeated ones are found by comparing pair by pair.
const ELEMENTS_COMPARED_PAIRWISE: usize = 16;

/// A selected value that is not null.
#[derive(Debug)]
pub(super) struct Property<'d> {
    source: Source<'d>,
    text: OnceCell<Cow<'d, str>>,
    list: Option<List<'d>>,
    forms: Forms,
}

#[derive(Debug)]
enum Source<'d> {
    Value(Value<'d>),
    Text,
}

impl<'d> Property<'d> {
    /// The property of a value, which is not null.
    pub(super) fn of(value: Value<'d>) -> Self {
        let text = match value.kind() {
            // Only bucketing wants the text of an array.
            Kind::Array => OnceCell::new(),
            _ => OnceCell::from(text_of(value)),
        };
        let list = List::of(value);
        Self {
            source: Source::Value(value),
            text,
            list,
            forms: Forms::default(),
        }
    }

    /// The property of an object that is written out already.
    pub(super) fn of_object_text(text: String) -> Self {
        let text = OnceCell::from(Cow::Owned(text));
        Self {
            source: Source::Text,
            text,
            list: None,
            forms: Forms::default(),
        }
    }

    /// The text form.
    pub(super) fn text(&self) -> &str {
        self.text.get_or_init(|| match self.source {
            Source::Value(value) => text_of(value),
            Source::Text => Cow::Borrowed(""),
        })
    }

    /// What conditions look at.
    pub(super) fn view(&self) -> View<'_> {
        match &self.list {
            Some(list) => View {
                text: Text {
                    text: "",
                    forms: None,
                },
                list: Some(list),
            },
            None => View {
                text: Text {
                    text: self.text(),
                    forms: Some(&self.forms),
                },
                list: None,
            },
        }
    }
}

/// A property that outlives a request: what a selector finds in the result of a flag.
#[derive(Clone, Debug)]
pub(super) struct FixedProperty {
    text: Box<str>,
    list: Option<List<'static>>,
}

impl FixedProperty {
    /// The property of a value; `None` for null.
    pub(super) fn of(value: Value<'_>) -> Option<Self> {
        if value.is_null() {
            return None;
        }
        let owned = |list: List<'_>| List {
            elements: list
                .elements
                .into_iter()
                .map(|element| Cow::Owned(element.into_owned()))
                .collect(),
            ..list
        };
        Some(Self {
            text: text_of(value).into(),
            list: List::of(value).map(owned),
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            text: Text {
                text: &self.text,
                forms: None,
            },
            list: self.list.as_ref(),
        }
    }
}

/// What a condition compares: the list if there is one, else the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'p> {
    pub(super) text: Text<'p>,
    pub(super) list: Option<&'p List<'p>>,
}

/// A text, and where its derived forms are kept, if they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'p> {
    pub(super) text: &'p str,
    pub(super) forms: Option<&'p Forms>,
}

/// The derived forms of a text, each computed when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Forms {
    /// Inner `None`: the text is its own lower case.
    lower: OnceCell<Option<Box<str>>>,
    number: OnceCell<Option<f64>>,
    version: OnceCell<Option<Version>>,
}

impl<'p> Text<'p> {
    /// The full, locale-independent lower case.
    pub(super) fn lower(self) -> Cow<'p, str> {
        let compute = || {
            let lower = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
            (!self.text.bytes().all(lower)).then(|| self.text.to_lowercase().into_boxed_str())
        };
        match self.forms {
            Some(forms) => Cow::Borrowed(forms.lower.get_or_init(compute).as_deref().unwrap_or(self.text)),
            None => compute().map_or(Cow::Borrowed(self.text), |lower| Cow::Owned(lower.into_string())),
        }
    }

    /// The number that the text is, if it is one.
    pub(super) fn number(self) -> Option<f64> {
        let compute = || parse_double(self.text);
        self.forms
            .map_or_else(compute, |forms| *forms.number.get_or_init(compute))
    }

    /// The version that the text is, if it is one.
    pub(super) fn version(self) -> Option<Cow<'p, Version>> {
        let compute = || Version::parse(self.text);
        match self.forms {
            Some(forms) => forms.version.get_or_init(compute).as_ref().map(Cow::Borrowed),
            None => compute().map(Cow::Owned),
        }
    }
}

/// A list as the operators see it: the distinct texts of its elements that are not null.
#[derive(Clone, Debug)]
pub(super) struct List<'d> {
    pub(super) elements: Vec<Cow<'d, str>>,
    /// An element is `true` in some case.
    pub(super) has_true: bool,
    /// An element is `false` in some case.
    pub(super) has_false: bool,
}

impl<'d> List<'d> {
    /// The list that a value is: an array, or a string that Kotlin's lenient reader takes for one.
    fn of(value: Value<'d>) -> Option<Self> {
        if value.kind() == Kind::Array {
            return Some(Self::distinct(elements_of(value)));
        }
        let text = value.as_str().filter(|text| text.starts_with('['))?;
        let document = Document::parse_lenient(text, bare_word).ok()?;
        let owned = elements_of(document.root())
            .into_iter()
            .map(|text| Cow::Owned(text.into_owned()));
        Some(Self::distinct(owned.collect()))
    }

    fn distinct(mut elements: Vec<Cow<'d, str>>) -> Self {
        if elements.len() <= ELEMENTS_COMPARED_PAIRWISE {
            let mut kept = 0;
            for next in 0..elements.len() {
                if !elements[..kept].contains(&elements[next]) {
                    elements.swap(kept, next);
                    kept += 1;
                }
            }
            elements.truncate(kept);
        } else {
            elements.sort_unstable();
            elements.dedup();
        }
        let has = |word| elements.iter().any(|element| boolean_word(element) == Some(word));
        Self {
            has_true: has(true),
            has_false: has(false),
            elements,
        }
    }
}

fn elements_of(array: Value<'_>) -> Vec<Cow<'_, str>> {
    array
        .elements()
        .filter(|element| !element.is_null())
        .map(text_of)
        .collect()
}

/// The text form of a value; empty for null, which has none.
fn text_of(value: Value<'_>) -> Cow<'_, str> {
    if let Some(text) = value.as_str() {
        return Cow::Borrowed(text);
    }
    if let Some(literal) = value.as_number() {
        return number_text(literal);
    }
    match value.as_bool() {
        Some(true) => Cow::Borrowed("true"),
        Some(false) => Cow::Borrowed("false"),
        None if value.is_null() => Cow::Borrowed(""),
        None => Cow::Owned(compact_text(value)),
    }
}

/// Compact JSON with numbers in their text form.
fn compact_text(value: Value<'_>) -> String {
    let mut out = Vec::new();
    write_text(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends compact JSON with numbers in their text form.
pub(super) fn write_text(value: Value<'_>, out: &mut Vec<u8>) {
    value.write_with(out, &mut |literal, out| {
        out.extend_from_slice(number_text(literal).as_bytes())
    });
}

/// What Kotlin's lenient reader makes of a word without quotes.
fn bare_word(word: &str) -> Bare {
    match boolean_word(word) {
        Some(true) => Bare::True,
        Some(false) => Bare::False,
        None if is_number(word) => Bare::Number,
        None => Bare::Null,
    }
}

/// Whether a text is `true` or `false` in any case, and which.
pub(super) fn boolean_word(text: &str) -> Option<bool> {
    match text.len() {
        4 => text.eq_ignore_ascii_case("true").then_some(true),
        5 => text.eq_ignore_ascii_case("false").then_some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Option<Vec<String>> {
        let document = Document::parse(json.as_bytes(), 64).unwrap();
        let property = Property::of(document.root());
        property
            .list
            .map(|list| list.elements.iter().map(|element| element.to_string()).collect())
    }

    #[test]
    fn texts() {
        for (json, wanted) in [
            (r#""  a b ""#, "  a b "),
            ("true", "true"),
            ("1.0", "1.0"),
            (
                r#"{"b" : [1e3, 1.50, null, "a\u0001\u000a\"/é"], "a":{"x":true}}"#,
                "{\"b\":[1000,1.5,null,\"a\\u0001\\n\\\"/é\"],\"a\":{\"x\":true}}",
            ),
            ("[ ]", "[]"),
        ] {
            let document = Document::parse(json.as_bytes(), 64).unwrap();
            assert_eq!(Property::of(document.root()).text(), wanted, "{json}");
        }
    }

    #[test]
    fn lists() {
        for (json, wanted) in [
            (
                r#"["b","a","b",1,1.0,null,"",[1, 2],{"x" : 1}]"#,
                Some(vec!["b", "a", "1", "1.0", "", "[1,2]", "{\"x\":1}"]),
            ),
            ("[]", Some(vec![])),
            ("\"a\"", None),
            ("{}", None),
            ("1", None),
            (r#""[1, 2]""#, Some(vec!["1", "2"])),
            (r#""[\"a\",\"b\"] ""#, Some(vec!["a", "b"])),
            (r#""[a, b]""#, Some(vec![])),
            (
                r#""[TRUE, False, null, 01, +1, .5, 1d, NaN, -0, x1]""#,
                Some(vec!["true", "false", "1", "1.0", "0.5", "NaN", "0"]),
            ),
            (r#""[{a:b,\"c\":[x]}]""#, Some(vec!["{\"a\":null,\"c\":[null]}"])),
            (r#"" [1]""#, None),
            (r#""[1,]""#, None),
            (r#""[1 2]""#, None),
            (r#""[,1]""#, None),
            (r#""[1] x""#, None),
            (r#""[1""#, None),
            (r#""[a\"b\"]""#, None),
            (r#""[1, /* c */ 2]""#, None),
            (r#""[Experiment] x""#, None),
        ] {
            let wanted = wanted.map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(list(json), wanted, "{json}");
        }
    }

    #[test]
    fn long_lists_are_distinct() {
        let json = format!(
            "[{}]",
            (0..100)
                .map(|i| (i % 30).to_string())
                .collect::<Vec<_>>()
                .join(",")
        );
        assert_eq!(list(&json).map(|list| list.len()), Some(30));
    }
}
