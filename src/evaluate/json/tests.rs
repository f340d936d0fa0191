use proptest::prelude::*;

use super::*;

/// The value as `serde_json` understands the compact text.
fn compact(text: &str) -> String {
    let document = Document::parse(text.as_bytes(), 64).unwrap();
    let mut out = Vec::new();
    document.root().write_compact(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn compact_form_keeps_order_and_literals() {
    for (text, wanted) in [
        (" 1 ", "1"),
        ("-0.50e+07", "-0.50e+07"),
        ("[1e5,1E5,0e0,1E-05]", "[1e5,1E5,0e0,1E-05]"),
        ("[ ]", "[]"),
        (" { } ", "{}"),
        (
            "[1 , [ ] ,{\"b\" : null, \"a\":true}]",
            "[1,[],{\"b\":null,\"a\":true}]",
        ),
        (r#""\u0041\/\n\u001f\u00e9\ud83d\ude00""#, "\"A/\\n\\u001fé😀\""),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
        (r#"{"a":1,"\u0061":2,"a":[3,{}]}"#, r#"{"a":[3,{}]}"#),
        (
            r#"{"x":{"a":1,"a":2},"x":{"b":[],"b":[1]}}"#,
            r#"{"x":{"b":[1]}}"#,
        ),
        (r#"{"":1,"":2}"#, r#"{"":2}"#),
    ] {
        assert_eq!(compact(text), wanted, "{text}");
    }
}

#[test]
fn faults_are_named_and_placed() {
    for (text, what, offset) in [
        (&b""[..], Fault::UnexpectedEnd, 0),
        (b"  ", Fault::UnexpectedEnd, 2),
        (b"[1,]", Fault::ValueExpected, 3),
        (b"[,1]", Fault::ValueExpected, 1),
        (b"[1 2]", Fault::CommaOrEndExpected, 3),
        (b"[1", Fault::UnexpectedEnd, 2),
        (b"[1}", Fault::CommaOrEndExpected, 2),
        (b"{\"a\" 1}", Fault::ColonExpected, 5),
        (b"{\"a\":1,}", Fault::NameExpected, 7),
        (b"{a:1}", Fault::NameExpected, 1),
        (b"{\"a\":}", Fault::ValueExpected, 5),
        (b"{\"a\"}", Fault::ColonExpected, 4),
        (b"01", Fault::BadNumber, 1),
        (b"1.", Fault::UnexpectedEnd, 2),
        (b"1.e1", Fault::BadNumber, 2),
        (b"-", Fault::UnexpectedEnd, 1),
        (b"+1", Fault::ValueExpected, 0),
        (b"1e", Fault::UnexpectedEnd, 2),
        (b"tru", Fault::ValueExpected, 0),
        (b"nul", Fault::ValueExpected, 0),
        (b"NaN", Fault::ValueExpected, 0),
        (b"truex", Fault::TrailingText, 4),
        (b"1 1", Fault::TrailingText, 2),
        (b"{}x", Fault::TrailingText, 2),
        (b"\"a", Fault::UnexpectedEnd, 2),
        (b"\"a\\", Fault::UnexpectedEnd, 3),
        (b"\"\\x\"", Fault::BadEscape, 2),
        (b"\"\\u12g4\"", Fault::BadEscape, 5),
        (b"\"\\ud800\"", Fault::LoneSurrogate, 1),
        (b"\"\\udc00\"", Fault::LoneSurrogate, 1),
        (b"\"\\ud800\\u0041\"", Fault::LoneSurrogate, 1),
        (b"\"a\nb\"", Fault::ControlCharacter, 2),
        (b"\"\\n\x01\"", Fault::ControlCharacter, 3),
        (b"\"\xff\"", Fault::InvalidUtf8, 1),
        (b"\"\xed\xa0\x80\"", Fault::InvalidUtf8, 1),
        (b"\xef\xbb\xbf{}", Fault::ValueExpected, 0),
        (b"/**/1", Fault::ValueExpected, 0),
    ] {
        let error = Document::parse(text, 8).unwrap_err();
        assert_eq!(
            error,
            JsonError { what, offset },
            "{}",
            String::from_utf8_lossy(text)
        );
    }
}

#[test]
fn depth_counts_arrays_and_objects() {
    for (text, max_depth, accepted) in [
        ("1", 0, true),
        ("[]", 0, false),
        ("[]", 1, true),
        ("[1,\"a\"]", 1, true),
        ("[{}]", 1, false),
        ("[[],{\"a\":[]}]", 3, true),
        ("[[],{\"a\":[[]]}]", 3, false),
    ] {
        assert_eq!(
            Document::parse(text.as_bytes(), max_depth).is_ok(),
            accepted,
            "{text} {max_depth}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let document = Document::parse(deep.as_bytes(), 100_000).unwrap();
    let mut out = Vec::new();
    document.root().write_compact(&mut out);
    assert_eq!(out, deep.as_bytes());
}

#[test]
fn values_are_reached_and_give_their_source() {
    let text = r#" {"s":"a\tb" , "n": -1.50, "t":true,"o":{"x":[1, 2,null]}} "#;
    let document = Document::parse(text.as_bytes(), 8).unwrap();
    let root = document.root();
    assert_eq!(root.get("s").and_then(Value::as_str), Some("a\tb"));
    assert_eq!(root.get("s").map(Value::raw), Some(&b"\"a\\tb\""[..]));
    assert_eq!(root.get("n").and_then(Value::as_number), Some("-1.50"));
    assert_eq!(root.get("t").and_then(Value::as_bool), Some(true));
    let list = root.get("o").and_then(|o| o.get("x")).unwrap();
    assert_eq!(list.raw(), b"[1, 2,null]");
    assert_eq!(
        list.elements().map(Value::kind).collect::<Vec<_>>(),
        [Kind::Number, Kind::Number, Kind::Null]
    );
    assert!(root.get("missing").is_none() && list.get("0").is_none() && root.elements().next().is_none());
    assert_eq!(root.raw(), text.trim().as_bytes());
}

#[test]
fn debug_shows_no_contents() {
    let document = Document::parse(br#"{"secret":"hunter2"}"#, 8).unwrap();
    let shown = format!(
        "{document:?} {:?} {:?}",
        document.root(),
        document.root().members()
    );
    assert!(!shown.contains("hunter2") && !shown.contains("secret"), "{shown}");
}

#[test]
fn many_repeated_names_resolve_quickly_and_rightly() {
    for distinct in [1, 2, 40, 3_000] {
        let members: Vec<String> = (0..distinct * 3)
            .map(|i| format!("\"k{}\":{i}", i % distinct))
            .collect();
        let text = format!("{{{}}}", members.join(","));
        let document = Document::parse(text.as_bytes(), 2).unwrap();
        let got: Vec<_> = document
            .root()
            .members()
            .map(|(k, v)| (k.to_owned(), v.as_number().unwrap()))
            .collect();
        assert_eq!(got.len(), distinct);
        for (i, (name, value)) in got.iter().enumerate() {
            assert_eq!(
                (name, *value),
                (&format!("k{i}"), (distinct * 2 + i).to_string().as_str())
            );
        }
    }
}

/// Any JSON value, as text with random white space and spelling.
pub(super) fn json_text() -> impl Strategy<Value = String> {
    let space = "[ \t\n\r]{0,2}";
    let string = prop_oneof![
        "[a-c\"\\\\\u{1}é😀]{0,12}".prop_map(|s| serde_json::to_string(&s).unwrap()),
        "(\\\\u00[0-7][0-9a-fA-F]|\\\\[nrtbf/\"\\\\]|[a-z]|\\\\ud83d\\\\ude0[0-9]){0,6}"
            .prop_map(|s| format!("\"{s}\"")),
    ];
    // One spelling of exponents: serde_json writes them all as `e+5`.
    let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?(e[+-][0-9]{1,2})?";
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number,
        string.clone(),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let padded = (space, inner, space).prop_map(|(a, v, b)| format!("{a}{v}{b}"));
        prop_oneof![
            prop::collection::vec(padded.clone(), 0..6).prop_map(|v| format!("[{}]", v.join(","))),
            prop::collection::vec((space, string.clone(), space, padded), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(a, k, b, v)| format!("{a}{k}{b}:{v}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// The canonical form, written the plain way.
fn sorted_plainly(value: Value<'_>, out: &mut Vec<u8>) {
    match value.kind() {
        Kind::Object => {
            let mut members: Vec<_> = value.members().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                out.extend_from_slice(if at > 0 { b"," } else { b"" });
                write_string(name, out);
                out.push(b':');
                sorted_plainly(value, out);
            }
            out.push(b'}');
        }
        Kind::Array => {
            out.push(b'[');
            for (at, element) in value.elements().enumerate() {
                out.extend_from_slice(if at > 0 { b"," } else { b"" });
                sorted_plainly(element, out);
            }
            out.push(b']');
        }
        _ => value.write_compact(out),
    }
}

#[test]
fn members_are_sorted_by_their_bytes() {
    for (text, wanted) in [
        (r#"{"b":1,"a":[{"d":1,"c":2}]}"#, r#"{"a":[{"c":2,"d":1}],"b":1}"#),
        (
            r#"{"abcdefgh2":1,"abcdefgh":2,"abcdefgh1":3,"":4,"abc":5}"#,
            r#"{"":4,"abc":5,"abcdefgh":2,"abcdefgh1":3,"abcdefgh2":1}"#,
        ),
        (r#"{"é":1,"z":2,"\u0061":[ ],"a":{}}"#, r#"{"a":{},"z":2,"é":1}"#),
        (r#"{"a\u0000":1,"a":2}"#, r#"{"a":2,"a\u0000":1}"#),
        (r#"[[{"b":0,"a":0}],1,"x"]"#, r#"[[{"a":0,"b":0}],1,"x"]"#),
    ] {
        let document = Document::parse(text.as_bytes(), 8).unwrap();
        let mut out = Vec::new();
        document.root().write_sorted(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), wanted, "{text}");
    }
}

#[test]
fn members_are_picked_by_name() {
    let document = Document::parse(br#"{"a":1,"b":2,"a":3,"\u0063":4}"#, 8).unwrap();
    let picked = document.root().pick(["c", "a", "x"]);
    assert_eq!(
        picked.map(|found| found.and_then(Value::as_number)),
        [Some("4"), Some("3"), None]
    );
    assert!(document.root().get("a").unwrap().pick(["a"])[0].is_none());
}

proptest! {
    #[test]
    fn texts_that_are_compact_are_copied_as_others_are_written(text in json_text()) {
        let compact = compact(&text);
        let sorted = |text: &str| {
            let document = Document::parse(text.as_bytes(), 64).unwrap();
            let (mut quickly, mut plainly) = (Vec::new(), Vec::new());
            document.root().write_sorted(&mut quickly);
            sorted_plainly(document.root(), &mut plainly);
            assert_eq!(quickly, plainly);
            quickly
        };
        prop_assert_eq!(sorted(&text), sorted(&compact));
        let document = Document::parse(compact.as_bytes(), 64).unwrap();
        let mut written = Vec::new();
        document.root().write_with(&mut written, &mut |literal, out| out.extend_from_slice(literal.as_bytes()));
        prop_assert_eq!(written, compact.as_bytes());
        for (name, value) in document.root().members() {
            let (mut member, mut wanted) = (Vec::new(), Vec::new());
            value.write_member(name, &mut member);
            write_string(name, &mut wanted);
            wanted.push(b':');
            wanted.extend_from_slice(value.raw());
            prop_assert_eq!(member, wanted);
        }
    }

    #[test]
    fn agrees_with_serde_json_on_valid_texts(text in json_text()) {
        let wanted: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(compact(&text), serde_json::to_string(&wanted).unwrap());
    }

    #[test]
    fn accepts_what_serde_json_accepts(mut text in json_text().prop_map(String::into_bytes),
                                       edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(&b"[]{},:\"\\0-.e \n"[..])]), 0..3)) {
        for (index, byte) in edits {
            let at = index.index(text.len());
            text[at] = byte;
        }
        // serde_json reads lone surrogates and exponents differently only through its value type.
        let theirs = serde_json::from_slice::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(Document::parse(&text, 100).is_ok(), theirs, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(document) = Document::parse(&bytes, 4) {
            let mut out = Vec::new();
            document.root().write_compact(&mut out);
            prop_assert!(Document::parse(&out, 4).is_ok());
        }
    }

    #[test]
    fn special_bytes_are_found(bytes in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..40)) {
        let wanted = bytes.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\');
        prop_assert_eq!(scan::find_special(&bytes), wanted);
    }
}

#[test]
fn members_as_written_hide_nothing() {
    let document = Document::parse(br#"{"a":1,"b":[{"a":2}],"a":3,"A":4}"#, 8).unwrap();
    let members = |value: Value<'_>| -> Vec<(String, String)> {
        let text = |value: Value<'_>| String::from_utf8(value.raw().to_vec()).unwrap();
        value
            .members_as_written()
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect()
    };
    let wanted = [("a", "1"), ("b", r#"[{"a":2}]"#), ("a", "3"), ("A", "4")];
    assert_eq!(
        members(document.root()),
        wanted.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(members(document.root().get("b").unwrap()), []);
}
