//! `flagside evaluate --jsonl`: one reply per line, whatever the line holds.

#![no_main]

use flagside::command::evaluate::{Options, run};
use flagside::evaluate::json::{Document, Kind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = Options {
        jsonl: true,
        ..Options::default()
    };
    let mut out = Vec::new();
    let _ = run(&options, bytes, &mut out, std::io::sink());
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
    assert_eq!(
        out.split_inclusive(|byte| *byte == b'\n').count(),
        lines,
        "a line without its reply"
    );
    for reply in out.split_inclusive(|byte| *byte == b'\n') {
        let reply = Document::parse(reply, 1 << 16).expect("a reply is JSON");
        assert_eq!(reply.root().kind(), Kind::Object);
        let kinds = ["result", "status", "error"].map(|kind| reply.root().get(kind).is_some());
        assert_eq!(kinds.into_iter().filter(|is_there| *is_there).count(), 1);
    }
});
