//! JSON of users, flags and answers: read as strictly as another reader does, and written back without loss.

#![no_main]

use flagside::evaluate::json::{Document, Fault};
use libfuzzer_sys::fuzz_target;

const DEPTH: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
    let ours = match Document::parse(bytes, DEPTH) {
        Ok(document) => document,
        Err(error) => {
            assert!(
                theirs.is_err() || error.what == Fault::TooDeep,
                "refused: {error}"
            );
            return;
        }
    };
    let mut compact = Vec::new();
    ours.root().write_compact(&mut compact);
    let again = Document::parse(&compact, DEPTH).expect("what was written can be read");
    let mut twice = Vec::new();
    again.root().write_compact(&mut twice);
    assert_eq!(compact, twice);
    // The other reader gives objects with a member of such a name a meaning of its own.
    if !compact.windows(7).any(|window| window == b"$serde_") {
        assert_eq!(
            theirs.ok(),
            serde_json::from_slice(&compact).ok(),
            "read or written with another meaning"
        );
    }
});
