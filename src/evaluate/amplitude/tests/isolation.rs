//! What is wrong with one flag stays with it, and no input panics.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn good(key: &str) -> Json {
    json!({"key": key, "variants": {"on": {}}, "segments": [{"variant": "on"}]})
}

fn keys(set: &FlagSet, wanted: &[&str]) -> Vec<String> {
    answers(set, "{}", false, wanted)
        .0
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

/// The flags that have a problem, and of what kind.
fn kinds(set: &FlagSet) -> Vec<(&str, &'static str)> {
    set.problems()
        .iter()
        .map(|problem| (problem.flag.as_str(), problem.kind.as_str()))
        .collect()
}

#[test]
fn malformed_flags_are_skipped_and_named() {
    let with = |name: &str, value: Json| {
        let mut flag = good("bad");
        flag[name] = value;
        flag
    };
    let segment = |segment: Json| with("segments", json!([{}, segment]));
    let condition = |condition: Json| segment(json!({"conditions": [[], [condition]]}));
    for (flag, detail) in [
        (with("variants", json!(null)), "variants is missing"),
        (with("variants", json!([])), "variants is no object"),
        (with("variants", json!({"a": null})), "variants.a is no object"),
        (
            with("variants", json!({"a": {"key": []}})),
            "variants.a.key is no text",
        ),
        (
            with("variants", json!({"a": {"metadata": 1}})),
            "variants.a.metadata is no object",
        ),
        (with("segments", json!({})), "segments is no array"),
        (with("metadata", json!("x")), "metadata is no object"),
        (with("dependencies", json!([null])), "dependencies[0] is no text"),
        (segment(json!({"variant": {}})), "segments[1].variant is no text"),
        (
            segment(json!({"conditions": {}})),
            "segments[1].conditions is no array",
        ),
        (
            segment(json!({"conditions": [1]})),
            "segments[1].conditions[0] is no array",
        ),
        (
            condition(json!({"op": "is", "values": []})),
            "segments[1].conditions[1][0].selector is missing",
        ),
        (
            condition(json!({"selector": [], "op": "is", "values": [null]})),
            "segments[1].conditions[1][0].values[0] is no text",
        ),
        (
            segment(json!({"bucket": {"salt": "", "allocations": []}})),
            "segments[1].bucket.selector is missing",
        ),
        (
            segment(
                json!({"bucket": {"selector": [], "salt": "", "allocations": [{"range": [0], "distributions": []}]}}),
            ),
            "segments[1].bucket.allocations[0].range holds less than two integers",
        ),
        (
            segment(
                json!({"bucket": {"selector": [], "salt": "", "allocations": [{"range": [0, 1.5], "distributions": []}]}}),
            ),
            "segments[1].bucket.allocations[0].range[1] is no integer",
        ),
    ] {
        let set = FlagSet::compile(json!([good("a"), flag, good("b")]).to_string().as_bytes()).unwrap();
        let wanted = format!("{detail}; the flag is not evaluated");
        let problem = Problem {
            flag: "bad".to_owned(),
            kind: ProblemKind::Malformed,
            detail: wanted,
        };
        assert_eq!(set.problems(), [problem]);
        assert_eq!(keys(&set, &[]), ["a", "b"]);
        assert_eq!(
            set.flags().map(|flag| flag.key).collect::<Vec<_>>(),
            ["a", "bad", "b"]
        );
    }
}

#[test]
fn flags_without_key_and_repeated_keys() {
    let set = FlagSet::compile(br#"[1,{"variants":{}},{"key":"a"},{"key":"b","variants":{},"segments":[]},{"key":"a","variants":{"on":{}},"segments":[{"variant":"on"}]}]"#).unwrap();
    assert_eq!(
        kinds(&set),
        [("[0]", "malformed"), ("[1]", "malformed"), ("a", "duplicate"),]
    );
    assert_eq!(set.flags().map(|flag| flag.key).collect::<Vec<_>>(), ["a", "b"]);
    assert!(set.flag("a").unwrap().text.contains("segments"));
    assert_eq!(keys(&set, &[]), ["a"]);
}

#[test]
fn a_flag_that_is_replaced_leaves_no_trace() {
    let replaced = json!({"key": "a", "variants": {"on": {}}, "segments": [{"variant": "on", "conditions":
        [[{"selector": ["context", "user", "x"], "op": "regex match", "values": ["("]}]]}]});
    let depends = |key: &str| {
        let mut flag = good(key);
        flag["dependencies"] = json!(["a"]);
        flag
    };
    let compile = |flags: Json| FlagSet::compile(flags.to_string().as_bytes()).unwrap();
    let set = compile(json!([replaced, depends("b"), good("a"), depends("c")]));
    let wanted = compile(json!([good("a"), depends("b"), depends("c")]));
    assert_eq!(kinds(&set), [("a", "duplicate")]);
    assert_eq!(set.revision(), wanted.revision());
    let flags = |set: &FlagSet| -> Vec<(String, String, u128)> {
        set.flags()
            .map(|flag| (flag.key.to_owned(), flag.text.to_owned(), flag.definition()))
            .collect()
    };
    assert_eq!(flags(&set), flags(&wanted));
    assert_eq!(
        answers(&set, "{}", false, &[]),
        answers(&wanted, "{}", false, &[])
    );
}

#[test]
fn sets_that_are_no_array_are_refused() {
    for (text, message) in [
        (
            "{}",
            "the flags must be a JSON array as /sdk/v2/flags returns it, not an object",
        ),
        (
            "[",
            "the flags are no valid JSON (unexpected end at byte 1); give the array that /sdk/v2/flags returns",
        ),
    ] {
        assert_eq!(
            FlagSet::compile(text.as_bytes()).unwrap_err().to_string(),
            message
        );
    }
}

#[test]
fn cycles_take_out_the_flags_on_and_above_them() {
    let depends = |key: &str, on: &[&str]| {
        let mut flag = good(key);
        flag["dependencies"] = json!(on);
        flag
    };
    let flags = json!([
        depends("above", &["x", "free"]),
        depends("x", &["y"]),
        depends("y", &["below", "x"]),
        depends("self", &["self"]),
        depends("below", &[]),
        depends("free", &["below"]),
        depends("diamond", &["free", "below"]),
    ]);
    let set = FlagSet::compile(flags.to_string().as_bytes()).unwrap();
    assert_eq!(kinds(&set), ["above", "x", "y", "self"].map(|key| (key, "cycle")));
    assert_eq!(keys(&set, &[]), ["below", "free", "diamond"]);
    assert_eq!(keys(&set, &["diamond", "above"]), ["below", "free", "diamond"]);
    assert_eq!(set.len(), 3);
}

#[test]
fn long_chains_do_not_overflow() {
    let count = 20_000;
    let flags: Vec<String> = (0..count)
        .map(|i| format!(r#"{{"key":"f{i}","dependencies":["f{}"],"variants":{{"on":{{}}}},"segments":[{{"variant":"on"}}]}}"#, i + 1))
        .collect();
    let set = FlagSet::compile(format!("[{}]", flags.join(",")).as_bytes()).unwrap();
    let document = Document::parse(b"{}", 1).unwrap();
    assert_eq!(
        set.evaluate(Subject::User(document.root()), &["f0"], &mut ())
            .len(),
        count
    );
}

#[test]
fn answers_that_unfold_too_far_are_refused() {
    let metadata = "x".repeat(40_000);
    let segments = vec![json!({"variant": "on"}); 1_000];
    let mut flag = json!({"key": "big", "metadata": {"m": metadata}, "variants": {}, "segments": []});
    for i in 0..1_000 {
        flag["variants"][i.to_string()] = json!({});
    }
    flag["segments"] = segments
        .into_iter()
        .enumerate()
        .map(|(i, _)| json!({"variant": i.to_string()}))
        .collect();
    let set = FlagSet::compile(json!([flag, good("a")]).to_string().as_bytes()).unwrap();
    assert_eq!(kinds(&set), [("big", "too_large")]);
    assert_eq!(keys(&set, &[]), ["a"]);
}

#[test]
fn bad_patterns_are_told_for_every_flag_that_has_them() {
    let flag = |key: &str| {
        json!({"key": key, "variants": {"on": {}}, "segments": [{"variant": "on", "conditions":
            [[{"selector": ["context", "user", "x"], "op": "regex does not match", "values": ["(", "b"]}]]}]})
    };
    let set = FlagSet::compile(json!([flag("a"), flag("b")]).to_string().as_bytes()).unwrap();
    assert_eq!(kinds(&set), [("a", "pattern"), ("b", "pattern")]);
    assert_eq!(
        answers(&set, r#"{"x":"a"}"#, false, &[])
            .0
            .as_object()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        answers(&set, r#"{"x":"b"}"#, false, &[])
            .0
            .as_object()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn revisions_ignore_order_and_spelling_only() {
    let base = r#"[{"key":"a","segments":[],"variants":{"x":{"value":1},"y":{}}},{"key":"b","segments":[],"variants":{}}]"#;
    let revision = |text: &str| FlagSet::compile(text.as_bytes()).unwrap().revision();
    let same = r#" [ {"variants":{},"key":"\u0062","segments":[]}, {"segments":[ ],"key":"a","variants":{"y":{},"x":{"value":1}}}]"#;
    assert_eq!(revision(base), revision(same));
    for other in [
        "[]",
        &base.replace(":1", ":2"),
        &base.replace(":1", ":1.0"),
        &base.replace("\"b\"", "\"c\""),
        &base.replace("[]", "[{}]"),
    ] {
        assert_ne!(revision(base), revision(other), "{other}");
    }
    // Stable between processes and releases: stored answers are compared with it.
    assert_eq!(
        format!("{:032x}", revision(base)),
        "3f812ae180f65f1ff965052ef8903238"
    );
}

#[test]
fn definitions_cover_dependencies() {
    let set = |c: &str| {
        let text = format!(
            r#"[{{"key":"a","dependencies":["b"],"segments":[],"variants":{{}}}},{{"key":"b","dependencies":["c"],"segments":[],"variants":{{}}}},{{"key":"c","segments":[],"variants":{c}}},{{"key":"d","segments":[],"variants":{{}}}}]"#
        );
        let set = FlagSet::compile(text.as_bytes()).unwrap();
        set.flags().map(|flag| flag.definition()).collect::<Vec<_>>()
    };
    let (before, after) = (set("{}"), set("{\"x\":{}}"));
    let changed: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a != b).collect();
    assert_eq!(changed, [true, true, true, false]);
}

/// JSON texts near flags: words of the grammar in random places.
fn near_flags() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "0",
            "100",
            "42949673",
            "1.5",
            "\"\"",
            "\"on\"",
            "\"a\"",
            "\"is\"",
            "\"set contains\"",
            "\"regex match\"",
            "\"(\"",
            "\"(a+)+$\"",
            "\"version less\"",
            "\"1.2\"",
            "\"(none)\"",
            "[\"context\",\"user\",\"user_id\"]",
            "[\"result\",\"a\",\"key\"]",
            "[\"context\",\"groups\",\"g\"]",
            "[\"context\"]",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(6, 60, 5, |inner| {
        let names = prop::sample::select(vec![
            "key",
            "variants",
            "segments",
            "dependencies",
            "metadata",
            "bucket",
            "conditions",
            "variant",
            "selector",
            "op",
            "values",
            "salt",
            "allocations",
            "range",
            "distributions",
            "on",
            "value",
            "payload",
            "default",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec((names, inner), 0..8).prop_map(|members| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(name, value)| format!("\"{name}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_flags_or_users_make_it_panic(flags in prop::collection::vec(near_flags(), 0..4), user in near_flags(), wanted in "[ab]") {
        let set = FlagSet::compile(format!("[{}]", flags.join(",")).as_bytes()).unwrap();
        let document = Document::parse(user.as_bytes(), 64).unwrap();
        for subject in [Subject::User(document.root()), Subject::Context(document.root())] {
            for wanted in [&[][..], &[wanted.as_str()]] {
                let evaluation = set.evaluate(subject, wanted, &mut ());
                let (mut v2, mut v1) = (Vec::new(), Vec::new());
                evaluation.write_v2(&mut v2);
                evaluation.write_v1(&mut v1);
                prop_assert!(Document::parse(&v2, 200).is_ok() && Document::parse(&v1, 200).is_ok());
            }
        }
    }

    #[test]
    fn a_context_gives_what_its_user_gives(name in "[a-c]{0,2}", plan in "[a-c]") {
        let user = json!({"user_id": name, "groups": {"g": [name]}, "group_properties": {"g": {name.as_str(): {"plan": plan}}}});
        let mut context = json!({"user": {"user_id": name}});
        if !name.is_empty() {
            context["groups"] = json!({"g": {"group_name": name, "group_properties": {"plan": plan}}});
        }
        let flag = |key: &str, selector: Json| json!({"key": key, "variants": {"on": {}, "off": {}}, "segments": [
            {"variant": "on", "conditions": [[{"selector": selector, "op": "is", "values": ["a", "b"]}]]},
            {"variant": "off", "bucket": {"selector": selector, "salt": "s", "allocations": [{"range": [0, 50], "distributions": [{"variant": "on", "range": [0, 42_949_673]}]}]}}]});
        let flags = json!([
            flag("a", json!(["context", "user", "user_id"])),
            flag("b", json!(["context", "groups", "g", "group_name"])),
            flag("c", json!(["context", "groups", "g", "group_properties", "plan"])),
            flag("d", json!(["context"])), flag("e", json!(["context", "groups", "g"])),
        ]);
        let set = FlagSet::compile(flags.to_string().as_bytes()).unwrap();
        prop_assert_eq!(answers(&set, &user.to_string(), false, &[]).0, answers(&set, &context.to_string(), true, &[]).0);
    }
}
