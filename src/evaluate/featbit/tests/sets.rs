//! Data sets: what messages make of them, and flags that cannot be evaluated.

use super::*;

fn flag(id: &str, updated: &str, rest: &str) -> String {
    format!(
        r#"{{"id":"{id}","key":"k{id}","updatedAt":"2024-01-01T00:00:{updated}Z","isEnabled":true,
            "variations":[{{"id":"v","value":"x"}}],"fallthrough":{{"variations":[{{"id":"v","rollout":[0,1]}}]}}{rest}}}"#
    )
}

fn message(kind: &str, flags: &[String], segments: &[String]) -> DataSync {
    let text = format!(
        r#"{{"eventType":"{kind}","featureFlags":[{}],"segments":[{}]}}"#,
        flags.join(","),
        segments.join(",")
    );
    DataSync::parse(text.as_bytes()).unwrap()
}

fn keys(set: &DataSet) -> Vec<&str> {
    set.flags().iter().map(|flag| flag.key()).collect()
}

fn request(filter: &str) -> Request {
    Request::parse(format!(r#"{{"user":{{"keyId":"u"}},"filter":{filter}}}"#).as_bytes()).unwrap()
}

const SECOND_MS: i64 = 1_704_067_200_000;

#[test]
fn patches_add_and_replace_and_full_messages_remove() {
    let full = message("full", &[flag("b", "02", ""), flag("a", "01", "")], &[]);
    let first = DataSet::empty().apply(&full);
    assert_eq!(keys(&first.set), ["ka", "kb"]);
    assert_eq!((first.flags.len(), first.set.version()), (2, SECOND_MS + 2_000));

    let patch = message(
        "patch",
        &[
            flag("a", "01", r#","tags":["t"]"#),
            flag("b", "01", ""),
            flag("c", "00", ""),
        ],
        &[],
    );
    let second = first.set.apply(&patch);
    let changed: Vec<&str> = second.flags.iter().map(|flag| flag.id()).collect();
    assert_eq!(
        changed,
        ["c", "a"],
        "an equal time replaces, an older one does not"
    );
    assert_eq!((second.stale, second.removed.len()), (1, 0));
    assert_eq!(keys(&second.set), ["kc", "ka", "kb"]);
    assert_ne!(first.set.revision(), second.set.revision());

    let third = second.set.apply(&full);
    assert_eq!(third.removed, ["c".into()]);
    let changed: Vec<&str> = third.flags.iter().map(|flag| flag.id()).collect();
    assert_eq!(changed, ["a"], "what is the same is no change");
    assert_eq!(third.set.revision(), first.set.revision());
    assert!(third.set.apply(&full).is_unchanged());
    assert!(third.set.apply(&message("patch", &[], &[])).is_unchanged());

    let gone = third.set.apply(&message("full", &[], &[]));
    assert_eq!(
        (gone.removed.len(), gone.set.version(), gone.set.is_empty()),
        (2, 0, true)
    );
}

#[test]
fn what_is_the_same_keeps_what_was_compiled() {
    let full = |rest| message("full", &[flag("a", "01", rest), flag("b", "01", "")], &[]);
    let before = DataSet::empty().apply(&full("")).set;
    let after = before.apply(&full(r#","isArchived":true"#)).set;
    let same = |number: usize| std::sync::Arc::ptr_eq(&before.flags()[number], &after.flags()[number]);
    assert_eq!([same(0), same(1)], [false, true]);
}

#[test]
fn one_message_may_hold_an_item_twice() {
    let twice = [
        flag("a", "02", ""),
        flag("a", "01", r#","tags":["old"]"#),
        flag("a", "02", r#","tags":["new"]"#),
    ];
    for kind in ["full", "patch"] {
        let applied = DataSet::empty().apply(&message(kind, &twice, &[]));
        assert_eq!((applied.stale, applied.flags.len()), (1, 1));
        assert!(applied.set.flags()[0].raw().contains("new"));
    }
}

#[test]
fn of_equal_keys_the_last_changed_is_looked_up_and_all_are_answered() {
    let with_key = |id, updated| flag(id, updated, "").replace(&format!("k{id}"), "same");
    let set = DataSet::empty()
        .apply(&message("full", &[with_key("b", "05"), with_key("a", "03")], &[]))
        .set;
    assert_eq!(set.flag("same").map(|flag| flag.id()), Some("b"));
    assert!(set.flag("other").is_none());
    assert_eq!(set.evaluate(&request(r#"{"keys":["same","same"]}"#)).len(), 2);
}

#[test]
fn revisions_depend_on_content_alone() {
    let segment = r#"{"id":"s","updatedAt":"2024-01-01T00:00:01Z","included":["u"]}"#.to_owned();
    let apply = |messages: &[DataSync]| {
        let apply = |set: DataSet, message| set.apply(message).set;
        messages.iter().fold(DataSet::empty(), apply)
    };
    let (a, b) = (flag("a", "01", ""), flag("b", "02", ""));
    let base = apply(&[message(
        "full",
        &[a.clone(), b.clone()],
        std::slice::from_ref(&segment),
    )]);
    let spelled = a.replace(
        r#""id":"a","key":"ka""#,
        r#""creatorId":"x", "key" : "k\u0061","id":"a""#,
    );
    assert_ne!(a, spelled);
    let patched = apply(&[
        message("patch", &[], std::slice::from_ref(&segment)),
        message("patch", std::slice::from_ref(&b), &[]),
        message("patch", &[spelled], &[]),
    ]);
    assert_eq!(base.revision(), patched.revision());
    for other in [
        apply(&[message("full", &[a.clone(), b.clone()], &[])]),
        apply(&[message(
            "full",
            &[a.clone(), b.replace("\"x\"", "\"y\"")],
            std::slice::from_ref(&segment),
        )]),
        apply(&[message(
            "full",
            &[a.clone(), flag("b", "03", "")],
            std::slice::from_ref(&segment),
        )]),
        apply(&[message(
            "full",
            &[a, b],
            &[segment.replace("included", "excluded")],
        )]),
    ] {
        assert_ne!(base.revision(), other.revision());
    }
    assert_eq!(
        DataSet::empty().revision(),
        apply(&[message("full", &[], &[])]).revision()
    );
}

#[test]
fn messages_carry_items_unchanged_to_who_is_behind() {
    let odd = flag("a", "01", r#", "unknown" : [1.50, "\u0041"]"#);
    let segment = r#"{"id":"s" , "updatedAt":"2024-01-01T00:00:03Z"}"#.to_owned();
    let set = DataSet::empty()
        .apply(&message(
            "full",
            &[odd.clone(), flag("b", "02", "")],
            std::slice::from_ref(&segment),
        ))
        .set;
    let full = set.to_data_sync(0).unwrap();
    assert!(full.contains(&odd) && full.contains(&segment));
    let again = DataSync::parse(full.as_bytes()).unwrap();
    assert_eq!((again.extent(), again.len()), (Extent::Full, 3));
    assert_eq!(DataSet::empty().apply(&again).set.revision(), set.revision());
    let patch = set.to_data_sync(SECOND_MS + 1_000).unwrap();
    let patch = DataSync::parse(patch.as_bytes()).unwrap();
    assert_eq!((patch.extent(), patch.len()), (Extent::Patch, 2));
    assert_eq!(set.to_data_sync(SECOND_MS + 3_000), None);
    assert!(DataSet::empty().to_data_sync(0).is_some());
    assert_eq!(DataSet::empty().to_data_sync(1), None);
}

#[test]
fn malformed_items_are_left_out_and_named() {
    let text = r#"{"data":{"featureFlags":[
        1, {"key":"no-id"}, {"id":"no-key"}, {"id":"x","key":"rules","rules":{}}, {"id":"x","key":"rule","rules":[1]},
        {"id":"x","key":"time","updatedAt":"soon"}, {"id":"x","key":"on","isEnabled":"true"}, {"id":"good","key":"k"}],
        "segments":[{"id":"s","included":[1]},{"id":"t","included":null,"rules":[{"conditions":[null]}]}]}}"#;
    let message = DataSync::parse(text.as_bytes()).unwrap();
    let rejected: Vec<String> = message
        .rejected()
        .iter()
        .map(|of| format!("{}: {}", of.name, of.why))
        .collect();
    assert_eq!(
        rejected,
        [
            "featureFlags[0]: it is no JSON object",
            "no-id: it has no `id`",
            "no-key: it has no `key`",
            "rules: `rules` has the wrong type",
            "rule: `rules` has the wrong type",
            "time: `updatedAt` is no time",
            "on: `isEnabled` has the wrong type",
            "s: `included` has the wrong type",
            "t: `conditions` has the wrong type",
        ]
    );
    assert_eq!(message.len(), 1);
}

#[test]
fn other_messages_are_refused() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"messageType":"pong","data":{}}"#,
        r#"{"messageType":5,"data":{"featureFlags":[]}}"#,
        r#"{"data":null}"#,
        r#"{"data":{"eventType":"rp_full","featureFlags":[]}}"#,
        r#"{"data":{"eventType":null,"featureFlags":[]}}"#,
        r#"{"featureFlags":{}}"#,
        r#"{"featureFlags":[],"segments":"s"}"#,
        &format!(r#"{{"featureFlags":[{}{}]}}"#, "[".repeat(70), "]".repeat(70)),
    ] {
        assert!(DataSync::parse(text.as_bytes()).is_err(), "{text}");
    }
    for text in [
        r#"{"messageType":"Data-Sync","data":{"featureFlags":[],"segments":null}}"#,
        r#"{"eventType":"patch"}"#,
    ] {
        assert!(DataSync::parse(text.as_bytes()).is_ok(), "{text}");
    }
}

/// A flag with one rule of these conditions.
fn with_rule(id: &str, conditions: &str) -> String {
    let rollout = r#""variations":[{"id":"v","rollout":[0,1]}]"#;
    flag(
        id,
        "01",
        &format!(r#","rules":[{{"name":"r","conditions":[{conditions}],{rollout}}}]"#),
    )
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn what_cannot_be_evaluated_fails_no_other_flag_and_is_named() {
    let never = r#"{"property":"p","op":"Equal","value":"no"},"#;
    let broken = [
        (
            "1",
            r#"{"property":"p","op":"MatchRegex","value":"("}"#,
            "the pattern of a condition is invalid: not enough )'s",
        ),
        (
            "2",
            r#"{"property":"p","op":"IsOneOf","value":"[1]"}"#,
            "the value of a condition is no JSON list of texts",
        ),
        (
            "3",
            r#"{"property":"User is in segment"}"#,
            "a condition on segments has no value",
        ),
        (
            "4",
            r#"{"property":"User is in segment","value":"x"}"#,
            "the value of a condition on segments is no JSON list of texts",
        ),
        (
            "5",
            r#"{"property":"User is not in segment","value":"[\"nope\"]"}"#,
            "there is no segment \"nope\"",
        ),
        (
            "6",
            r#"{"property":"User is in segment","value":"[null]"}"#,
            "there is no segment \"\"",
        ),
        (
            "7",
            r#"{"property":"User is in segment","value":"[\"s\"]"}"#,
            "the pattern of a condition is invalid: unterminated [] set",
        ),
    ];
    let segment =
        r#"{"id":"s","rules":[{"conditions":[{"property":"p","op":"MatchRegex","value":"["}]}]}"#.to_owned();
    let mut flags: Vec<String> = broken
        .iter()
        .map(|(id, conditions, _)| with_rule(id, conditions))
        .collect();
    flags.push(flag("8", "01", r#","fallthrough":null"#));
    flags.push(flag(
        "9",
        "01",
        r#","fallthrough":{"variations":[{"id":"v","rollout":[0]}]}"#,
    ));
    flags.push(with_rule(
        "good",
        r#"{"property":"User is not in segment","value":"null"}"#,
    ));
    let set = DataSet::empty()
        .apply(&message("full", &flags, std::slice::from_ref(&segment)))
        .set;
    let evaluation = set.evaluate(&request("{}"));
    let got: Vec<(&str, String)> = evaluation
        .unevaluable()
        .iter()
        .map(|of| (of.flag().id(), of.cause().to_string()))
        .collect();
    let mut wanted: Vec<(&str, String)> = broken.map(|(id, _, why)| (id, why.to_owned())).to_vec();
    wanted.push(("8", "it has no fallthrough".to_owned()));
    wanted.push(("9", "a range of a rollout has fewer than two numbers".to_owned()));
    assert_eq!(got, wanted);
    assert_eq!((evaluation.len(), evaluation.reasons().rule), (1, 1));
    let problems: Vec<(String, String)> = set
        .problems()
        .iter()
        .map(|of| (of.flag.to_string(), of.why.clone()))
        .collect();
    let wanted: Vec<(String, String)> = wanted
        .into_iter()
        .map(|(id, why)| (format!("k{id}"), why))
        .collect();
    assert_eq!(problems, wanted);

    // What is not reached fails nothing, but is a problem all the same.
    let hidden: Vec<String> = broken
        .iter()
        .map(|(id, conditions, _)| with_rule(id, &format!("{never}{conditions}")))
        .collect();
    let set = DataSet::empty().apply(&message("full", &hidden, &[segment])).set;
    let evaluation = set.evaluate(&request("{}"));
    assert_eq!(
        (
            evaluation.len(),
            evaluation.unevaluable().len(),
            set.problems().len()
        ),
        (7, 0, 7)
    );
}

#[test]
fn flags_of_a_segment_are_found() {
    let of = |ids: &str| format!(r#"{{"property":"User is in segment","value":"[{ids}]"}}"#);
    let flags = [
        with_rule("a", &of(r#"\"s\",\"t\""#)),
        with_rule("b", &of(r#"\"t\""#)),
        flag("c", "01", ""),
    ];
    let set = DataSet::empty().apply(&message("full", &flags, &[])).set;
    let found = |id| -> Vec<&str> { set.flags_of_segment(id).map(|flag| flag.id()).collect() };
    assert_eq!(
        (found("s"), found("t"), found("u")),
        (vec!["a"], vec!["a", "b"], vec![])
    );
}

#[test]
fn clients_get_patches_of_single_flags() {
    let set = DataSet::empty()
        .apply(&message("full", &[flag("a", "01", ""), flag("b", "02", "")], &[]))
        .set;
    let user = EndUser::parse(br#"{"keyId":"u\"1"}"#).unwrap();
    let patch = set.client_patch(&user, set.flag("kb").map(|flag| &**flag));
    let wanted = r#"{"messageType":"data-sync","data":{"eventType":"patch","userKeyId":"u\"1","featureFlags":[{"id":"kb","variation":"x","variationType":"string","variationId":"v","matchReason":"default","variationOptions":[{"id":"v","value":"x"}],"sendToExperiment":false,"timestamp":1704067202000}]}}"#;
    assert_eq!(String::from_utf8(patch).unwrap(), wanted);
}
