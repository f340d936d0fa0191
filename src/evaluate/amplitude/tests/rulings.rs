//! One test row at least for every row of AE 11: what holds where the vendors' engines differ.

use serde_json::json;

use super::*;

/// Whether a condition on `context.user.p` holds, with the user given as JSON text.
fn holds(user: &str, op: &str, values: &str) -> bool {
    let flags = format!(
        r#"[{{"key":"f","variants":{{"on":{{}}}},"segments":[{{"variant":"on","conditions":[[{{"selector":["context","user","p"],"op":"{op}","values":{values}}}]]}}]}}]"#
    );
    let set = FlagSet::compile(flags.as_bytes()).unwrap();
    let (v2, _) = answers(&set, user, false, &[]);
    v2.get("f").is_some()
}

fn check(rows: &[(u32, &str, &str, &str, bool)]) {
    for (row, property, op, values, wanted) in rows {
        let user = format!("{{\"p\":{property}}}");
        assert_eq!(
            holds(&user, op, values),
            *wanted,
            "row {row}: {property} {op} {values}"
        );
    }
}

#[test]
fn rows_1_to_15() {
    check(&[
        (1, "null", "set is not", r#"["x"]"#, true),
        (1, "null", "regex does not match", r#"["x"]"#, true),
        (2, "\"abc\"", "regex match", r#"["b"]"#, false),
        (3, "\"b\"", "greater", r#"["a"]"#, true),
        (4, "\"\"", "is not", r#"["(none)"]"#, true),
        (4, "0", "is", r#"["0"]"#, true),
        (4, "false", "is", r#"["(none)"]"#, false),
        (4, "{}", "is", r#"["{}"]"#, true),
        (5, "\"1.x\"", "version less", r#"["2"]"#, true),
        (6, "true", "regex match", r#"["true"]"#, true),
        (
            7,
            r#"{"b":1,"10":2,"a":"<é>"}"#,
            "is",
            r#"["{\"b\":1,\"10\":2,\"a\":\"<é>\"}"]"#,
            true,
        ),
        (9, r#"[""]"#, "is", r#"[""]"#, true),
        (10, "[]", "set is", "[]", true),
        (10, "\"[]\"", "set does not contain any", r#"["a"]"#, true),
        (11, "[]", "is not", r#"["a"]"#, false),
        (11, "[null]", "is not", r#"["a"]"#, false),
        (13, r#""[1,2]""#, "set contains", r#"["2"]"#, true),
        (14, "1.0", "is", r#"["1.0"]"#, true),
        (15, "1e21", "is", r#"["1.0E21"]"#, true),
        (15, "0.0001", "is", r#"["1.0E-4"]"#, true),
    ]);
}

#[test]
fn rows_16_to_30() {
    check(&[
        (16, "9007199254740993", "is", r#"["9007199254740993"]"#, true),
        (17, "\"1.2.3-01\"", "version greater", r#"["1.10"]"#, true),
        (17, "\"1.2.3-a_b\"", "version less", r#"["1.10"]"#, false),
        (18, "\"1.2.3+b\"", "version less", r#"["1.10.0"]"#, true),
        (19, "\"1.2.9999999999\"", "version less", r#"["1.2.1"]"#, true),
        (19, "\"9999999999.0\"", "version less", r#"["10.0"]"#, false),
        (20, "\"\"", "less or equal", r#"["0"]"#, true),
        (20, "\"\"", "greater or equal", r#"["0"]"#, false),
        (21, "\"0x10\"", "less", r#"["9"]"#, true),
        (22, "\"10d\"", "greater", r#"["9"]"#, true),
        (23, "\"1_000\"", "greater", r#"["9"]"#, false),
        (24, "\" 10\"", "greater", r#"["9"]"#, true),
        (24, "\"\\u00a010\"", "less", r#"["9"]"#, false),
        (25, "\"Infinity\"", "greater", r#"["9"]"#, true),
        (25, "\"INFINITY\"", "less", r#"["9"]"#, false),
        (26, "\"NaN\"", "greater", r#"["Infinity"]"#, true),
        (26, "-0.0", "less", r#"["0.0"]"#, true),
        (27, "\"\u{e000}\"", "greater", r#"["😀"]"#, true),
        (28, r#""[a, b]""#, "is not", r#"["x"]"#, false),
        (28, r#""[a, 01, TRUE]""#, "set is", r#"["1","true"]"#, true),
        (29, r#"["a","b"]"#, "set contains", r#"["a","a","a"]"#, true),
        (30, "\"fal\u{17f}e\"", "is", r#"["false"]"#, false),
    ]);
}

#[test]
fn rows_31_to_53_of_values() {
    check(&[
        (46, "\"1\"", "is", "[1]", true),
        (46, "true", "is", "[true]", true),
        (46, "\"1.50\"", "is", "[1.50]", true),
        (47, "\"İ\"", "contains", "[\"i\u{307}\"]", true),
        (47, "\"ΟΔΟΣ\"", "contains", r#"["ς"]"#, true),
        (48, "\"٣\"", "regex match", r#"["\\d"]"#, false),
        (48, "\"\\u00a0\"", "regex match", r#"["\\s"]"#, false),
        (49, "\"a\\n\"", "regex match", r#"["a$"]"#, false),
        (50, "\"ab\"", "regex match", r#"["(?i)[a-z&&[^c]]++\\z"]"#, true),
        (51, "123456789", "is", r#"["123456789"]"#, true),
        (
            53,
            "18446744073709551616",
            "is",
            r#"["1.8446744073709552E19"]"#,
            true,
        ),
        (53, "5e-324", "is", r#"["4.9E-324"]"#, true),
    ]);
}

/// The version 2 answer for a user.
fn v2(flags: &Json, user: &Json) -> Json {
    let set = FlagSet::compile(flags.to_string().as_bytes()).unwrap();
    answers(&set, &user.to_string(), false, &[]).0
}

fn condition(selector: &[&str], op: &str, values: &[&str]) -> Json {
    json!({"selector": selector, "op": op, "values": values})
}

fn flag(key: &str, conditions: &Json) -> Json {
    json!({"key": key, "variants": {"on": {"key": "on", "payload": 7}},
           "segments": [{"conditions": conditions, "variant": "on"}]})
}

#[test]
fn selectors_walk_objects_by_exact_names_only() {
    let user = json!({"list": ["a"], "p": {"": {"x": "empty"}, "a b.c": "dots", "null": null}, "groups": {"g": "name"}});
    for (row, selector, found) in [
        (8, &["context", "user", "p", "a b.c"][..], true),
        (31, &["context", "user", "list", "0"], false),
        (31, &["context", "user", "list", "length"], false),
        (32, &["context", "user", "p", "constructor"], false),
        (33, &["context", "user", "p", "", "x"], true),
        (34, &["context", "user", "p", "missing"], false),
        (34, &["context", "user", "p", "null"], false),
        (44, &["context", "user", "groups"], false),
        (52, &["context", "groups", "g", "group_name"], false),
        (0, &[], false),
        (0, &["user", "list"], false),
        (0, &["context"], true),
        (0, &["context", "user"], true),
        (0, &["context", "groups"], false),
        (0, &["Context", "user"], false),
    ] {
        let flags = json!([flag("f", &json!([[condition(selector, "is not", &["(none)"])]]))]);
        assert_eq!(
            v2(&flags, &user).get("f").is_some(),
            found,
            "row {row}: {selector:?}"
        );
    }
}

#[test]
fn whole_contexts_have_their_text() {
    let user = json!({"user_id": "u", "groups": {"org": ["acme", "x"], "none": []}, "n": 1.50,
                      "group_properties": {"org": {"acme": {"plan": "p"}}}, "group_cohort_ids": {"org": {"acme": []}}});
    let group = r#"{"group_name":"acme","group_properties":{"plan":"p"}}"#;
    for (selector, text) in [
        (&["context", "user"][..], r#"{"user_id":"u","n":1.5}"#.to_owned()),
        (&["context", "groups", "org"], group.to_owned()),
        (&["context", "groups"], format!("{{\"org\":{group}}}")),
        (
            &["context"],
            format!("{{\"user\":{{\"user_id\":\"u\",\"n\":1.5}},\"groups\":{{\"org\":{group}}}}}"),
        ),
    ] {
        let flags = json!([flag("f", &json!([[condition(selector, "is", &[&text])]]))]);
        assert!(v2(&flags, &user).get("f").is_some(), "{selector:?} is not {text}");
    }
}

#[test]
fn results_are_read_after_they_are_there() {
    let parent = json!({"key": "parent", "metadata": {"a": 1, "b": null}, "variants": {"on": {"key": "k", "value": {"x": [1.0]}, "payload": 7, "metadata": {"a": true}}},
                        "segments": [{"variant": "on"}]});
    for (row, selector, op, value, wanted) in [
        (12, &["result", "absent", "key"][..], "is", "(none)", true),
        (35, &["result", "parent", "payload"], "is", "(none)", true),
        (0, &["result", "parent", "key"], "is", "k", true),
        (0, &["result", "parent", "value"], "is", "{\"x\":[1.0]}", true),
        (
            0,
            &["result", "parent", "value", "x"],
            "set contains any",
            "1.0",
            true,
        ),
        (0, &["result", "parent", "metadata", "a"], "is", "TRUE", true),
        (0, &["result", "parent", "metadata", "b"], "is", "(none)", true),
        (0, &["result", "parent"], "is", "(none)", true),
        (0, &["result"], "is", "(none)", true),
    ] {
        let mut child = flag("child", &json!([[condition(selector, op, &[value])]]));
        child["dependencies"] = json!(["parent", "gone"]);
        let answer = v2(&json!([child, parent]), &json!({}));
        assert_eq!(answer.get("child").is_some(), wanted, "row {row}: {selector:?}");
    }
    // Without the dependency the child comes first and finds nothing.
    let early = flag(
        "child",
        &json!([[condition(&["result", "parent", "key"], "is", &["(none)"])]]),
    );
    assert!(v2(&json!([early, parent]), &json!({})).get("child").is_some());
}

#[test]
fn conditions_and_segments() {
    let never = condition(&[], "is not", &["(none)"]);
    let always = condition(&[], "is", &["(none)"]);
    for (row, conditions, wanted) in [
        (8, json!([]), false),
        (8, json!([[]]), true),
        (8, json!(null), true),
        (0, json!([[never], [always]]), true),
        (0, json!([[always, never]]), false),
    ] {
        assert_eq!(
            v2(&json!([flag("f", &conditions)]), &json!({}))
                .get("f")
                .is_some(),
            wanted,
            "row {row}: {conditions}"
        );
    }
}

#[test]
fn results_have_the_shape_of_kotlin() {
    let variants = json!({"on": {"value": null, "payload": null, "unknown": 1, "metadata": {"x": null}}, "plain": {"key": 5}});
    let of = |variant: &str| json!([{"key": "f", "variants": variants, "segments": [{"variant": "gone"}, {"variant": variant}], "metadata": {}}]);
    // Rows 39, 40, 41 and AE 8.
    assert_eq!(
        v2(&of("on"), &json!({})),
        json!({"f": {"key": "on", "metadata": {"x": null}}})
    );
    assert_eq!(v2(&of("plain"), &json!({})), json!({"f": {"key": "5"}}));
    assert_eq!(v2(&of("gone"), &json!({})), json!({}));
}

#[test]
fn version_1_filters_and_adds_the_experiment_key() {
    for (metadata, wanted) in [
        (
            json!({"experimentKey": "e", "deployed": "x", "default": 1}),
            Some(json!("e")),
        ),
        (json!({"experimentKey": null}), Some(json!(null))),
        (json!({"deployed": false}), None),
        (json!({"default": true}), None),
    ] {
        let flags = json!([{"key": "f", "metadata": metadata, "variants": {"on": {"value": "v", "payload": 1}}, "segments": [{"variant": "on"}]}]);
        let set = FlagSet::compile(flags.to_string().as_bytes()).unwrap();
        let (_, v1) = answers(&set, "{}", false, &[]);
        let Some(key) = wanted else {
            assert_eq!(v1, json!({}), "row 45: {metadata}");
            continue;
        };
        let mut entry = json!({"key": "on", "value": "v", "payload": 1, "metadata": metadata});
        if !key.is_null() {
            entry["expKey"] = key;
        }
        assert_eq!(v1, json!({"f": entry}), "{metadata}");
    }
}

#[test]
fn literals_of_payloads_stay_as_they_are() {
    let flags = r#"[{"key":"f\n\"","variants":{"on":{"payload":{"b":1.50,"a":[1e5, 12345678901234567890],"a":null}}},"segments":[{"variant":"on"}]}]"#;
    let set = FlagSet::compile(flags.as_bytes()).unwrap();
    let document = Document::parse(b"{}", 1).unwrap();
    let mut out = Vec::new();
    set.evaluate(Subject::User(document.root()), &[], &mut ())
        .write_v2(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"f\n\"":{"key":"on","payload":{"b":1.50,"a":null}}}"#
    );
}

#[test]
fn wanted_keys() {
    let set = FlagSet::compile(
        json!([
            flag("a", &json!(null)),
            flag("b", &json!(null)),
            flag("10", &json!(null)),
            flag("2", &json!(null))
        ])
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    for (row, wanted, keys) in [
        (42, &[][..], &["a", "b", "10", "2"][..]),
        (43, &["2", "a", "2"], &["2", "a"]),
        (0, &["gone"], &[]),
    ] {
        let (v2, _) = answers(&set, "{}", false, wanted);
        let got: Vec<&str> = v2.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(got, keys, "row {row}");
    }
}

#[test]
fn buckets_fall_through_as_kotlin_does() {
    // `x/a` hashes to something in every allocation of 0..100; the ranges decide.
    let bucket = |allocations: Json| json!({"selector": ["context", "user", "user_id"], "salt": "x", "allocations": allocations});
    let whole = |variant: &str| json!({"range": [0, 100], "distributions": [{"variant": variant, "range": [0, 42_949_673]}]});
    let empty = json!({"range": [0, 100], "distributions": []});
    for (allocations, user, wanted) in [
        (json!([whole("on")]), json!({"user_id": "a"}), Some("on")),
        (json!([empty, whole("on")]), json!({"user_id": "a"}), Some("on")),
        (json!([empty]), json!({"user_id": "a"}), Some("otherwise")),
        (json!([]), json!({"user_id": "a"}), Some("otherwise")),
        (json!([whole("gone")]), json!({"user_id": "a"}), Some("last")),
        (json!([whole("on")]), json!({"user_id": ""}), Some("otherwise")),
        (json!([whole("on")]), json!({"user_id": null}), Some("otherwise")),
        (json!([whole("on")]), json!({"user_id": 0}), Some("on")),
        (json!([whole("on")]), json!({"user_id": []}), Some("on")),
    ] {
        let flags = json!([{"key": "f", "variants": {"on": {}, "otherwise": {}, "last": {}},
            "segments": [{"bucket": bucket(allocations.clone()), "variant": "otherwise"}, {"variant": "last"}]}]);
        assert_eq!(
            v2(&flags, &user)["f"]["key"].as_str(),
            wanted,
            "{allocations} {user}"
        );
    }
}
