//! One condition of a FeatBit flag, so that numbers, lists and patterns are met at once: the operator, the
//! user's value, the condition's value, in a line each; the last one may have more lines.

#![no_main]

use flagside::evaluate::featbit::{DataSet, DataSync, Request};
use flagside::evaluate::json::write_string;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (operator, found, value) = (line(), line(), line());
    let held = holds(operator, found, value);
    let pairs = [
        ("Equal", "NotEqual"),
        ("Contains", "NotContain"),
        ("MatchRegex", "NotMatchRegex"),
        ("IsOneOf", "NotOneOf"),
    ];
    for (operator, opposite) in pairs {
        let both = [operator, opposite].map(|operator| holds(operator, found, value));
        match both {
            [Some(held), Some(other)] => assert!(held != other, "{operator} and its opposite agree"),
            [None, None] => {}
            _ => panic!("one of {operator} and its opposite cannot be said"),
        }
    }
    let ordered =
        ["LessThan", "LessEqualThan", "BiggerThan", "BiggerEqualThan"].map(|of| holds(of, found, value));
    assert!(
        matches!(
            ordered,
            [Some(true), Some(true), Some(false), Some(false)]
                | [Some(false), Some(true), Some(false), Some(true)]
                | [Some(false), Some(false), Some(true), Some(true)]
                | [Some(false), Some(false), Some(false), Some(false)]
        ),
        "{ordered:?}"
    );
    assert_eq!(held, holds(operator, found, value));
});

/// Whether the condition holds, if that can be said.
fn holds(operator: &str, found: &str, value: &str) -> Option<bool> {
    let quoted = |text: &str| {
        let mut out = Vec::new();
        write_string(text, &mut out);
        String::from_utf8(out).expect("a text")
    };
    let (operator, found, value) = (quoted(operator), quoted(found), quoted(value));
    let data = format!(
        r#"{{"featureFlags":[{{"id":"f","key":"f","isEnabled":true,"fallthrough":{{}},"rules":[{{"name":"r","conditions":[
            {{"property":"p","op":{operator},"value":{value}}}]}}]}}]}}"#
    );
    let request =
        format!(r#"{{"user":{{"keyId":"u","customizedProperties":[{{"name":"p","value":{found}}}]}}}}"#);
    let message = DataSync::parse(data.as_bytes()).expect("the flag is one");
    let set = DataSet::empty().apply(&message).set;
    let evaluation = set.evaluate(&Request::parse(request.as_bytes()).expect("the request is one"));
    evaluation
        .unevaluable()
        .is_empty()
        .then(|| evaluation.reasons().rule == 1)
}
