//! Requests: what is one, and which are the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn requests_are_read_as_the_web_framework_reads_them() {
    let deep = |depth: usize| {
        format!(
            r#"{{"user":{{"keyId":"u"}},"x":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    for (body, wanted) in [
        (r#"{"user":{"keyId":"u"}}"#, ""),
        ("\u{feff}{\"user\":{\"keyId\":\"u\"}}", ""),
        (
            r#" {"user":{"keyId":"u","x":[{}],"customizedProperties":[]},"y":1} "#,
            "",
        ),
        (r#"{"user":{"keyId":5,"keyId":"u"}}"#, "malformed"),
        (r#"{"user":5,"user":{"keyId":"u"}}"#, "malformed"),
        (r#"{"user":{"keyId":"u"},"user":null}"#, "user"),
        (r#"{"user":{"keyId":"u","KeyId":""}}"#, "user"),
        (r#"{"user":{"keyId":"","KEYID":"x","keyId":"u"}}"#, ""),
        (r#"{"user":{"keyId":"u","KEYID":"","keyId":"u"}}"#, ""),
        (r#"{"user":{"keyId":"\u3000\u00a0"}}"#, "user"),
        (r#"{"user":{"keyId":"\u200b"}}"#, ""),
        (r#"{"user":{"keyId":"u","customizedProperties":[null]}}"#, ""),
        (
            r#"{"user":{"keyId":"u","customizedProperties":["a"]}}"#,
            "malformed",
        ),
        (
            r#"{"user":{"keyId":"u","customizedProperties":[{"name":1}]}}"#,
            "malformed",
        ),
        (
            r#"{"user":{"keyId":"u","customizedProperties":[{"value":{}}]}}"#,
            "malformed",
        ),
        (r#"{"user":{"keyId":"u"},"filter":[]}"#, "malformed"),
        (r#"{"user":{"keyId":"u"},"filter":{"tags":[1]}}"#, "malformed"),
        (r#"{"user":{"keyId":"u"},"filter":{"keys":"a"}}"#, "malformed"),
        (
            r#"{"user":{"keyId":"u"},"filter":{"tagFilterMode":true}}"#,
            "malformed",
        ),
        (r#"{"user":{"keyId":"u"},"filter":{"timestamp":"+5"}}"#, ""),
        (r#"{"user":{"keyId":"u"},"filter":{"timestamp":"-05"}}"#, ""),
        (
            r#"{"user":{"keyId":"u"},"filter":{"timestamp":" 5"}}"#,
            "malformed",
        ),
        (r#"{"user":{"keyId":"u"},"filter":{"timestamp":""}}"#, "malformed"),
        (
            r#"{"user":{"keyId":"u"},"filter":{"timestamp":1e3}}"#,
            "malformed",
        ),
        (
            r#"{"user":{"keyId":"u"},"filter":{"timestamp":5.0}}"#,
            "malformed",
        ),
        (
            r#"{"user":{"keyId":"u"},"filter":{"timestamp":9223372036854775807}}"#,
            "",
        ),
        (
            r#"{"user":{"keyId":"u"},"filter":{"timestamp":9223372036854775808}}"#,
            "malformed",
        ),
        (r#"{"user":{"keyId":"u"},"filter":{"timestamp":[]}}"#, "malformed"),
        (r#"{"user":{},"filter":{"timestamp":[]}}"#, "malformed"),
        (r#"{"user":{},"filter":{"tagFilterMode":"x"}}"#, "user"),
        (
            r#"{"user":{"keyId":"u"},"filter":{"tagFilterMode":"OR"}}"#,
            "mode",
        ),
        (
            r#"{"user":{"keyId":"u"},"filter":{"tagFilterMode":"\u00a0"}}"#,
            "",
        ),
        ("\u{feff}{}", "user"),
        (&deep(31), ""),
        (&deep(32), "malformed"),
    ] {
        let got = match Request::parse(body.as_bytes()) {
            Ok(_) => "",
            Err(fault) if fault.is_malformed() => "malformed",
            Err(RequestFault::NoUser) => "user",
            Err(_) => "mode",
        };
        assert_eq!(got, wanted, "{body}");
    }
    assert_eq!(EndUser::parse(b"null"), Err(RequestFault::NoUser));
    assert_eq!(EndUser::parse(b"[]"), Err(RequestFault::WrongType));
    assert_eq!(
        EndUser::parse(br#"{"KEYID":"u"}"#).map(|user| user.key_id().to_owned()),
        Ok("u".to_owned())
    );
}

#[test]
fn requests_with_nulls_in_lists_are_not_to_be_stored() {
    for (rest, wanted) in [
        (r#""user":{"keyId":"u"}"#, true),
        (r#""user":{"keyId":"u","customizedProperties":[null]}"#, false),
        (r#""user":{"keyId":"u"},"filter":{"keys":[null]}"#, false),
        (r#""user":{"keyId":"u"},"filter":{"tags":["a",null]}"#, false),
        (
            r#""user":{"keyId":"u"},"filter":{"tagFilterMode":"","tags":["a",null]}"#,
            false,
        ),
    ] {
        let request = Request::parse(format!("{{{rest}}}").as_bytes()).unwrap();
        assert_eq!(request.canonical(&mut Vec::new()), wanted, "{rest}");
    }
}

#[test]
fn nulls_in_filters_want_nothing() {
    let set = environment("shop-production-1");
    for filter in [
        r#"{"keys":[null]}"#,
        r#"{"tags":["web",null]}"#,
        r#"{"tags":[null],"tagFilterMode":"or"}"#,
    ] {
        let body = format!(r#"{{"user":{{"keyId":"u"}},"filter":{filter}}}"#);
        assert!(
            set.evaluate(&Request::parse(body.as_bytes()).unwrap()).is_empty(),
            "{filter}"
        );
    }
}

/// A request as its parts; every list may have repetitions and any order.
#[derive(Clone, Debug)]
struct Parts {
    key_id: String,
    name: Option<String>,
    properties: Vec<(Option<String>, Option<String>)>,
    mode: Option<Option<String>>,
    tags: Vec<String>,
    keys: Vec<String>,
    timestamp: Option<i64>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let word = || prop_oneof!["[ab]{0,2}", Just("é".to_owned()), Just(" ".to_owned())];
    let name = prop_oneof![
        word(),
        Just("keyId".to_owned()),
        Just("KeyId".to_owned()),
        Just("name".to_owned())
    ];
    let pair = (proptest::option::of(name), proptest::option::of(word()));
    let mode = prop_oneof![Just("and"), Just("or"), Just(""), Just("  ")].prop_map(str::to_owned);
    (
        "[ab]{1,2}",
        proptest::option::of(word()),
        proptest::collection::vec(pair, 0..4),
        proptest::option::of(proptest::option::of(mode)),
        proptest::collection::vec("[ab]", 0..3),
        proptest::collection::vec("[ab]", 0..3),
        proptest::option::of(-1i64..2),
    )
        .prop_map(|(key_id, name, properties, mode, tags, keys, timestamp)| Parts {
            key_id,
            name,
            properties,
            mode,
            tags,
            keys,
            timestamp,
        })
}

impl Parts {
    fn body(&self) -> String {
        let properties: Vec<Json> = self
            .properties
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let mut filter = json!({"tags": self.tags, "keys": self.keys, "timestamp": self.timestamp});
        if let Some(mode) = &self.mode {
            filter["tagFilterMode"] = json!(mode);
        }
        let user = json!({"keyId": self.key_id, "name": self.name, "customizedProperties": properties});
        json!({"filter": filter, "user": user}).to_string()
    }

    /// What any data set could tell apart, read independently of the code under test: what every property
    /// that can be asked for gives, and which flags of all thinkable ones pass the filter.
    fn meaning(&self) -> (String, Option<String>, BTreeMap<String, String>, Vec<bool>) {
        let mut names: Vec<&String> = self
            .properties
            .iter()
            .filter_map(|(name, _)| name.as_ref())
            .collect();
        names.retain(|name| !name.trim().is_empty() && *name != "keyId" && *name != "name");
        let value_of = |wanted: &String| {
            let first = self
                .properties
                .iter()
                .find(|(name, _)| name.as_ref() == Some(wanted));
            first.and_then(|(_, value)| value.clone()).unwrap_or_default()
        };
        let values = names.into_iter().map(|name| (name.clone(), value_of(name)));
        let values = values.filter(|(_, value)| !value.is_empty()).collect();
        let mut passes = Vec::new();
        for key in ["a", "b", "c"] {
            for tags in [&[][..], &["a"], &["b"], &["a", "b"]] {
                for updated in [0, 1, 2] {
                    let has = |tag: &String| tags.contains(&tag.as_str());
                    let tagged = match &self.mode {
                        Some(None) => true,
                        Some(Some(mode)) if mode.trim().is_empty() => true,
                        _ if self.tags.is_empty() => true,
                        Some(Some(mode)) if mode == "or" => self.tags.iter().any(has),
                        _ => self.tags.iter().all(has),
                    };
                    let wanted = self.keys.is_empty() || self.keys.iter().any(|wanted| wanted == key);
                    let after = self.timestamp.unwrap_or(0);
                    passes.push(tagged && wanted && (after <= 0 || updated > after));
                }
            }
        }
        (self.key_id.clone(), self.name.clone(), values, passes)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn requests_are_the_same_exactly_if_nothing_can_tell_them_apart(a in parts(), b in parts()) {
        let [ours, others] = [&a, &b].map(|parts| {
            let mut key = Vec::new();
            assert!(Request::parse(parts.body().as_bytes()).unwrap().canonical(&mut key));
            key
        });
        prop_assert_eq!(ours == others, a.meaning() == b.meaning());
    }

    #[test]
    fn order_and_repetition_in_lists_make_no_difference(parts in parts()) {
        let mut other = parts.clone();
        other.tags.reverse();
        other.tags.extend(parts.tags.clone());
        other.keys.rotate_left(usize::from(!parts.keys.is_empty()));
        other.properties.extend(parts.properties.clone());
        let [ours, others] = [&parts, &other].map(|parts| {
            let mut key = Vec::new();
            Request::parse(parts.body().as_bytes()).unwrap().canonical(&mut key);
            key
        });
        prop_assert_eq!(ours, others);
    }
}
