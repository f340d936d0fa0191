use super::super::property::Property;
use super::*;
use crate::evaluate::json::Document;

/// Whether the condition holds for a property given as JSON text.
fn holds(property: &str, op: &str, values: &[&str]) -> bool {
    let document = Document::parse(property.as_bytes(), 64).unwrap();
    let values = Values::new(values.iter().map(|&value| value.into()));
    let test = Test::compile(op, values, &mut Patterns::default(), &mut |_, _| {});
    let effort = Effort::default();
    let root = document.root();
    if root.is_null() {
        test.matches_null
    } else {
        test.matches(Property::of(root).view(), &effort)
    }
}

fn check(rows: &[(&str, &str, &[&str], bool)]) {
    for (property, op, values, wanted) in rows {
        assert_eq!(holds(property, op, values), *wanted, "{property} {op} {values:?}");
    }
}

#[test]
fn null_is_none_for_some_operators_only() {
    for op in [
        "is",
        "contains",
        "less",
        "version greater",
        "set is",
        "set contains",
        "set contains any",
    ] {
        check(&[
            ("null", op, &["(none)", "a"], true),
            ("null", op, &["a"], false),
            ("null", op, &[], false),
        ]);
    }
    for op in [
        "is not",
        "does not contain",
        "set does not contain",
        "set does not contain any",
    ] {
        check(&[("null", op, &["(none)"], false), ("null", op, &["a"], true)]);
    }
    for op in ["regex does not match", "set is not"] {
        check(&[("null", op, &["(none)"], true), ("null", op, &["a"], true)]);
    }
    check(&[("null", "regex match", &["(none)", ".*"], false)]);
    for op in ["Is", "glob", "", "version ", "version is", "not less"] {
        check(&[
            ("null", op, &["(none)"], false),
            ("\"a\"", op, &["b"], false),
            ("[\"a\"]", op, &["a"], false),
        ]);
    }
    check(&[
        ("\"(none)\"", "is", &["(none)"], true),
        ("\"\"", "is", &["(none)"], false),
        ("[]", "is", &["(none)"], false),
    ]);
}

#[test]
fn is_folds_boolean_words_only() {
    check(&[
        ("\"TRUE\"", "is", &["true"], true),
        ("true", "is", &["x", "True"], true),
        ("true", "is", &["FALSE", "x"], false),
        ("\"True\"", "is", &["x"], false),
        ("\"A\"", "is", &["a"], false),
        ("\"a \"", "is", &["a"], false),
        ("\"é\"", "is", &["e\u{301}"], false),
        ("\"fal\u{17f}e\"", "is", &["false"], false),
        ("1.0", "is", &["1"], false),
        ("1.0", "is", &["1.0"], true),
        ("\"x\"", "is", &[], false),
        ("\"x\"", "is not", &[], true),
        (
            "\"k9\"",
            "is",
            &["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"],
            true,
        ),
    ]);
}

#[test]
fn lists_match_by_any_element_even_negated() {
    check(&[
        ("[\"A\",\"B\"]", "is not", &["A"], true),
        ("[\"A\"]", "is not", &["A"], false),
        ("[]", "is not", &["A"], false),
        ("[null]", "is not", &["A"], false),
        ("[\"\"]", "is", &[""], true),
        ("[1,20]", "greater", &["10"], true),
        ("\"[1,2]\"", "is", &["1"], true),
        ("\"[a, b]\"", "is", &["[a, b]"], false),
        ("\"[a, b]\"", "is not", &["a"], false),
        ("[\"xyz\"]", "does not contain", &["Y"], false),
        ("[\"a\",\"1\"]", "regex does not match", &["\\d"], true),
    ]);
}

#[test]
fn contains_folds_case_fully() {
    check(&[
        ("\"Straße\"", "contains", &["AßE"], true),
        ("\"İ\"", "contains", &["i\u{307}"], true),
        ("\"ΟΔΟΣ\"", "contains", &["οδος"], true),
        ("\"a\"", "contains", &[""], true),
        ("\"a\"", "contains", &[], false),
        ("\"a\"", "does not contain", &[], true),
        ("true", "contains", &["RU"], true),
        ("{\"a\": 1}", "contains", &["{\"A\":1}"], true),
    ]);
}

#[test]
fn numbers_compare_in_total_order_and_fall_back_to_text() {
    check(&[
        ("5", "less", &["10"], true),
        ("\"5\"", "less", &["x", "10"], true),
        ("\"5\"", "less", &["x"], true),
        ("\"abc\"", "less", &["10"], false),
        ("\"2024-01-15\"", "greater", &["2024-01-14"], true),
        ("\"\"", "less", &["0"], true),
        ("\"0x10\"", "greater", &["15"], false),
        ("\" 7 \"", "greater or equal", &["7"], true),
        ("\"1d\"", "less or equal", &["1"], true),
        ("\"1_000\"", "greater", &["2"], false),
        ("-0.0", "less", &["0.0"], true),
        ("\"-0.0\"", "less", &["0"], true),
        ("\"NaN\"", "greater", &["Infinity"], true),
        ("\"NaN\"", "greater or equal", &["NaN"], true),
        ("\"inf\"", "greater", &["1"], true),
        ("5", "less", &[], false),
        ("\"\u{e000}\"", "greater", &["😀"], true),
        ("9007199254740993", "greater", &["9007199254740992"], false),
    ]);
}

#[test]
fn versions_compare_by_part_and_fall_back_to_text() {
    check(&[
        ("\"1.10.0\"", "version greater", &["1.9"], true),
        ("\"1.2.3-rc\"", "version less", &["1.2.3"], true),
        ("\"1.2.3+b\"", "version greater or equal", &["1.2.3"], true),
        ("\"v1.2\"", "version greater", &["1.9"], true),
        ("\"10\"", "version less", &["9"], true),
        ("\"1.10\"", "version less", &["x", "1.9"], false),
        ("\"1.10\"", "version less", &["1.9"], false),
        ("\"1.10\"", "version less", &["1.9.0.0"], true),
        ("1.10", "version less or equal", &["1.1"], true),
    ]);
}

#[test]
fn sets() {
    check(&[
        ("[\"a\",\"b\",\"a\"]", "set is", &["b", "a"], true),
        ("[\"TRUE\"]", "set is", &["true"], false),
        ("[\"TRUE\"]", "set contains", &["true"], true),
        ("[\"TRUE\",\"x\"]", "set contains", &["true", "True"], true),
        ("[\"TRUE\"]", "set contains", &["true", "True"], false),
        ("[\"a\"]", "set contains", &["a", "a"], true),
        ("[\"a\"]", "set contains", &[], true),
        ("[]", "set contains", &[], true),
        ("[]", "set is", &[], true),
        ("[]", "set contains any", &[], false),
        ("[]", "set does not contain any", &["a"], true),
        ("[\"A\"]", "set contains any", &["a"], false),
        ("[false,1]", "set contains any", &["FALSE"], true),
        ("[\"false\"]", "set contains any", &["true"], false),
        ("\"[1,2]\"", "set is", &["2", "1"], true),
        ("\"a\"", "set is", &["a"], false),
        ("\"a\"", "set is not", &["b"], false),
        ("\"a\"", "set does not contain any", &["b"], false),
        ("{\"a\":1}", "set contains", &[], false),
        (
            "[[1, 2],{\"a\":null}]",
            "set contains",
            &["[1,2]", "{\"a\":null}"],
            true,
        ),
    ]);
}

#[test]
fn invalid_patterns_do_not_match_and_are_told() {
    let mut told = Vec::new();
    let values = Values::new(["(".into(), "a.c".into()]);
    let test = Test::compile(
        "regex match",
        values,
        &mut Patterns::default(),
        &mut |pattern, _| told.push(pattern.to_owned()),
    );
    let document = Document::parse(b"\"abc\"", 1).unwrap();
    let property = Property::of(document.root());
    assert!(test.matches(property.view(), &Effort::default()));
    assert_eq!(told, ["("]);
    check(&[
        ("\"abc\"", "regex match", &["("], false),
        ("\"abc\"", "regex does not match", &["("], true),
    ]);
}
