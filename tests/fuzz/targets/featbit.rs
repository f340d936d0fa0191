//! FeatBit's data and requests against it: a message, `--`, further messages, `--`, the request.

#![no_main]

use flagside::evaluate::featbit::{DataSet, DataSync, Request};
use flagside::evaluate::json::{Document, Kind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut rest = bytes;
    let separator = b"\n--\n";
    while let Some(at) = rest
        .windows(separator.len())
        .position(|window| window == separator)
    {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    let mut set = DataSet::empty();
    for message in parts.iter().filter_map(|part| DataSync::parse(part).ok()) {
        set = set.apply(&message).set;
    }
    carried_on(&set);
    let Ok(request) = Request::parse(rest) else {
        return;
    };
    let answers = [(); 2].map(|()| {
        let mut answer = Vec::new();
        set.evaluate(&request).write_json(&mut answer);
        answer
    });
    assert_eq!(answers[0], answers[1], "the same question has two answers");
    let answer = Document::parse(&answers[0], 64).expect("an answer is JSON");
    assert_eq!(answer.root().kind(), Kind::Array);
    let client = set.client(request.user(), 0).expect("a full message always is");
    Document::parse(&client, 64).expect("a message is JSON");
});

/// Who syncs from this data set has the same.
fn carried_on(set: &DataSet) {
    let message = set.to_data_sync(0).expect("a full message always is");
    let message = DataSync::parse(message.as_bytes()).expect("what was read is written to be read");
    assert_eq!(message.rejected(), []);
    let again = DataSet::empty().apply(&message).set;
    assert_eq!(
        (again.version(), again.revision()),
        (set.version(), set.revision())
    );
    assert!(set.apply(&message).is_unchanged());
    assert_eq!(set.to_data_sync(set.version().max(1)), None);
}
