//! What is faithful, what stands in, and what is counted.

use serde_json::json;

use super::*;

/// Knows some cohorts and has stored variants; remembers what it was asked.
#[derive(Default)]
struct Known {
    cohorts: Vec<(&'static str, &'static str)>,
    /// Per flag its stored variant; `None`: it was stored that there is none.
    stored: BTreeMap<&'static str, Option<&'static str>>,
    asked: Vec<(String, u128)>,
}

impl Host for Known {
    fn is_cohort_synced(&self, group_type: &str, cohort: &str) -> bool {
        self.cohorts.contains(&(group_type, cohort))
    }

    fn substitute(&mut self, flag: FlagText<'_>) -> Substitute<'_> {
        self.asked.push((flag.key.to_owned(), flag.definition()));
        match self.stored.get(flag.key) {
            None => Substitute::Keep,
            Some(None) => Substitute::Absent,
            Some(Some(text)) => Substitute::Variant(text.as_bytes()),
        }
    }
}

fn condition(selector: &[&str], op: &str, values: &[&str]) -> Json {
    json!([[{"selector": selector, "op": op, "values": values}]])
}

fn flag(key: &str, mode: &str, segments: &[Json]) -> Json {
    json!({"key": key, "metadata": {"evaluationMode": mode}, "segments": segments,
           "variants": {"on": {"key": "on"}, "off": {"key": "off", "metadata": {"default": true}}}})
}

fn asked(flag: &Json, user: &Json, host: &mut Known) -> bool {
    let set = FlagSet::compile(json!([flag]).to_string().as_bytes()).unwrap();
    let user = user.to_string();
    let document = Document::parse(user.as_bytes(), 64).unwrap();
    let unfaithful = set
        .evaluate(Subject::User(document.root()), &[], host)
        .unfaithful();
    assert_eq!(unfaithful as usize, host.asked.len());
    !std::mem::take(&mut host.asked).is_empty()
}

fn on(conditions: &Json) -> Json {
    json!({"conditions": conditions, "variant": "on"})
}

/// Rows of mode, segment, user and whether the flag is unfaithful, knowing cohort `c1` and, of `org`, `g1`.
fn check(rows: &[(&str, Json, Json, bool)]) {
    for (mode, segment, user, wanted) in rows {
        let mut host = Known {
            cohorts: vec![("User", "c1"), ("org", "g1")],
            ..Known::default()
        };
        let flag = flag("f", mode, std::slice::from_ref(segment));
        assert_eq!(asked(&flag, user, &mut host), *wanted, "{mode} {segment} {user}");
    }
}

#[test]
fn cohorts_that_are_not_synced_make_unfaithful() {
    let cohorts = |op: &str, ids: &[&str]| on(&condition(&["context", "user", "cohort_ids"], op, ids));
    let of_group = |id: &str| {
        on(&condition(
            &["context", "groups", "org", "cohort_ids"],
            "set does not contain any",
            &[id],
        ))
    };
    check(&[
        ("local", cohorts("set contains any", &["c1"]), json!({}), false),
        (
            "local",
            cohorts("set contains any", &["c1", "c2"]),
            json!({}),
            true,
        ),
        ("local", cohorts("set is", &["c1"]), json!({}), true),
        ("local", of_group("g1"), json!({}), false),
        ("local", of_group("c1"), json!({}), true),
    ]);
}

#[test]
fn null_makes_remote_flags_unfaithful() {
    let bucket = |name: &str| json!({"bucket": {"selector": ["context", "user", name], "salt": "s", "allocations": []}, "variant": "on"});
    let plan = || {
        on(&condition(
            &["context", "user", "user_properties", "plan"],
            "is",
            &["pro"],
        ))
    };
    check(&[
        ("local", bucket("amplitude_id"), json!({"amplitude_id": 1}), true),
        ("local", bucket("user_id"), json!({}), false),
        ("remote", bucket("user_id"), json!({}), true),
        ("remote", bucket("user_id"), json!({"user_id": "u"}), false),
        ("local", plan(), json!({}), false),
        ("remote", plan(), json!({}), true),
        (
            "remote",
            plan(),
            json!({"user_properties": {"plan": "pro"}}),
            false,
        ),
        ("remote", on(&condition(&[], "is", &["(none)"])), json!({}), false),
        (
            "remote",
            on(&condition(&["result", "gone", "key"], "is", &["x"])),
            json!({}),
            false,
        ),
        ("remote", on(&json!(null)), json!({}), false),
    ]);
}

#[test]
fn what_is_not_read_makes_nothing_unfaithful() {
    let first =
        json!({"conditions": condition(&["context", "user", "user_id"], "is", &["qa"]), "variant": "on"});
    let second = json!({"conditions": condition(&["context", "user", "cohort_ids"], "set contains any", &["c"]), "variant": "on"});
    let flag = flag("f", "local", &[first, second]);
    assert!(!asked(&flag, &json!({"user_id": "qa"}), &mut Known::default()));
    assert!(asked(&flag, &json!({"user_id": "other"}), &mut Known::default()));
}

#[test]
fn remembered_conditions_mark_every_flag_that_reads_them() {
    let segment = json!({"conditions": condition(&["context", "user", "cohort_ids"], "set contains any", &["c"]), "variant": "on"});
    let flags = json!([
        flag("a", "local", std::slice::from_ref(&segment)),
        flag("b", "local", &[segment])
    ]);
    let set = FlagSet::compile(flags.to_string().as_bytes()).unwrap();
    let document = Document::parse(b"{}", 1).unwrap();
    assert_eq!(
        set.evaluate(Subject::User(document.root()), &[], &mut ())
            .unfaithful(),
        2
    );
}

/// A remote parent that cannot be evaluated faithfully, and a child that reads it.
fn family() -> FlagSet {
    let parent = flag(
        "parent",
        "remote",
        &[
            on(&condition(
                &["context", "user", "user_properties", "x"],
                "is",
                &["1"],
            )),
            json!({"variant": "off"}),
        ],
    );
    let mut child = flag(
        "child",
        "local",
        &[
            on(&condition(&["result", "parent", "key"], "is", &["stored"])),
            on(&condition(&["result", "parent", "metadata", "n"], "is", &["7"])),
            json!({"variant": "off"}),
        ],
    );
    child["dependencies"] = json!(["parent"]);
    FlagSet::compile(json!([child, parent]).to_string().as_bytes()).unwrap()
}

#[test]
fn substitutes_enter_the_result_before_dependents() {
    let document = Document::parse(b"{}", 1).unwrap();
    let set = family();
    let definition = set.flag("parent").unwrap().definition();
    let off = r#"{"key":"off","metadata":{"evaluationMode":"remote","default":true}}"#;
    let child_off = r#""child":{"key":"off","metadata":{"evaluationMode":"local","default":true}}"#;
    let child_on = r#""child":{"key":"on","metadata":{"evaluationMode":"local"}}"#;
    for (stored, wanted) in [
        (None, format!("{{\"parent\":{off},{child_off}}}")),
        (Some(None), format!("{{{child_off}}}")),
        (
            Some(Some(r#"{ "key":"stored" }"#)),
            format!("{{\"parent\":{{ \"key\":\"stored\" }},{child_on}}}"),
        ),
        (
            Some(Some(r#"{"key":"k","metadata":{"n":7}}"#)),
            format!("{{\"parent\":{{\"key\":\"k\",\"metadata\":{{\"n\":7}}}},{child_on}}}"),
        ),
        (
            Some(Some(r#"{"key":"k"}"#)),
            format!("{{\"parent\":{{\"key\":\"k\"}},{child_off}}}"),
        ),
    ] {
        let mut host = Known {
            stored: stored.into_iter().map(|variant| ("parent", variant)).collect(),
            ..Known::default()
        };
        let evaluation = set.evaluate(Subject::User(document.root()), &[], &mut host);
        let mut v2 = Vec::new();
        evaluation.write_v2(&mut v2);
        assert_eq!(String::from_utf8(v2).unwrap(), wanted);
        assert_eq!(evaluation.unfaithful(), 1);
        assert_eq!(host.asked, [("parent".to_owned(), definition)]);
    }
}

#[test]
fn substitutes_are_counted_and_written_as_they_are() {
    let text = r#"{"key":"s","metadata":{"default":true,"deployed":false}}"#;
    let mut host = Known {
        stored: BTreeMap::from([("parent", Some(text))]),
        ..Known::default()
    };
    let document = Document::parse(b"{}", 1).unwrap();
    let set = family();
    let evaluation = set.evaluate(Subject::User(document.root()), &[], &mut host);
    let counted: Vec<_> = evaluation.counted().collect();
    let wanted = [("parent", "s", true, true), ("child", "off", true, false)].map(
        |(flag, variant, is_default, is_substitute)| Counted {
            flag,
            variant: variant.into(),
            is_default,
            is_substitute,
        },
    );
    assert_eq!(counted, wanted);
    let mut v1 = Vec::new();
    evaluation.write_v1(&mut v1);
    assert_eq!(String::from_utf8(v1).unwrap(), format!("{{\"parent\":{text}}}"));
    assert_eq!(
        (
            evaluation.len(),
            evaluation.is_empty(),
            evaluation.patterns_given_up()
        ),
        (2, false, 0)
    );
}

#[test]
fn needed_cohorts_are_those_of_cohort_operators() {
    let segment = |selector: &[&str], op: &str, ids: &[&str]| on(&condition(selector, op, ids));
    let flags = json!([flag(
        "f",
        "local",
        &[
            segment(
                &["context", "user", "cohort_ids"],
                "set contains any",
                &["b", "a"]
            ),
            segment(
                &["context", "user", "cohort_ids"],
                "set does not contain any",
                &["a"]
            ),
            segment(
                &["context", "groups", "org", "cohort_ids"],
                "set contains any",
                &["g"]
            ),
            segment(&["context", "other", "cohort_ids"], "set contains any", &["x"]),
            segment(&["context", "user", "cohort_ids"], "set is", &["y"]),
            segment(&["user", "cohort_ids"], "set contains any", &["z"]),
        ]
    )]);
    let set = FlagSet::compile(flags.to_string().as_bytes()).unwrap();
    assert_eq!(
        Vec::from_iter(set.cohorts()),
        [("User", "a"), ("User", "b"), ("org", "g")]
    );
}

#[test]
fn sets_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<FlagSet>();
}
