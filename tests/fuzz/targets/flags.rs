//! Flag sets as upstream sends them, and users against them: `[flags]`, a line with `--`, the user.

#![no_main]

use bytes::Bytes;
use flagside::evaluate::amplitude::{FlagSet, Subject};
use flagside::evaluate::json::{Document, Kind, Value};
use flagside::key::USER_DEPTH_MAX;
use flagside::key::flag_keys::FlagKeys;
use flagside::store::FlagData;
use libfuzzer_sys::fuzz_target;

/// Answers hold payloads, which may be nested as deeply as flags may be.
const DEPTH: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let separator = b"\n--\n";
    let at = bytes
        .windows(separator.len())
        .position(|window| window == separator)
        .unwrap_or(bytes.len());
    let user = bytes.get(at + separator.len()..).unwrap_or(b"{}");
    let Ok(set) = FlagSet::compile(&bytes[..at]) else {
        return;
    };
    filter(&bytes[..at]);
    let Ok(user) = Document::parse(user, USER_DEPTH_MAX) else {
        return;
    };
    for subject in [Subject::User(user.root()), Subject::Context(user.root())] {
        let answers = [(); 2].map(|()| {
            let evaluation = set.evaluate(subject, &[], &mut ());
            let mut v1 = Vec::new();
            evaluation.write_v1(&mut v1);
            let mut v2 = Vec::new();
            evaluation.write_v2(&mut v2);
            [v1, v2]
        });
        assert_eq!(answers[0], answers[1], "the same question has two answers");
        for answer in &answers[0] {
            let answer = Document::parse(answer, DEPTH).expect("an answer is JSON");
            assert_eq!(answer.root().kind(), Kind::Object);
        }
    }
    for flag in set.flags() {
        let _ = set
            .evaluate(Subject::User(user.root()), &[flag.key], &mut ())
            .unfaithful();
    }
});

/// A flags response with some of its flags is a flags response of those; one with all is the response itself, which may
/// name a flag twice.
fn filter(bytes: &[u8]) {
    let Ok(data) = FlagData::compile(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let Some(first) = data.set.flags().next().map(|flag| flag.key.to_owned()) else {
        return;
    };
    // A key of spaces or commas asks for nothing, which is everything.
    let wanted = FlagKeys::from_list(&first);
    let filtered = data.filtered(&wanted);
    if wanted.is_all() {
        assert_eq!(filtered, data.body);
        return;
    }
    let filtered = Document::parse(&filtered, DEPTH).expect("a part of a flags response is JSON");
    let selected: Vec<_> = filtered.root().elements().map(Value::raw).collect();
    let flags = data.set.flags();
    let asked_for: Vec<_> = flags
        .filter(|flag| wanted.as_slice().iter().any(|wanted| wanted == flag.key))
        .map(|flag| flag.text.as_bytes())
        .collect();
    assert_eq!(selected, asked_for);
}
