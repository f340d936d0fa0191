//! Costs of the Amplitude engine on 100 typical flags and one user: `cargo bench --bench engine`.
//!
//! Each line is for an evaluation of all flags (of ten where it says so). With the name of a line as
//! argument, only that one runs, a fixed number of times: for callgrind. `tests/bench/engines` runs the
//! vendor's engine on the same flags.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench prints, and may die"
)]

mod timing;

use flagside::evaluate::amplitude::{FlagSet, Subject};
use flagside::evaluate::json::Document;
use serde_json::value::RawValue;
use timing::Timing;

fn main() {
    let timing = Timing::from_arguments();
    let (flags, user, context) = (read("flags.json"), read("user.json"), read("context.json"));
    let set = FlagSet::compile(&flags).expect("the flags are in the repository");
    let parsed_context = Document::parse(&context, 64).expect("so is the context");
    let parsed_user = Document::parse(&user, 64).expect("and the user");
    let all: Vec<&RawValue> = serde_json::from_slice(&flags).expect("as above");
    let ten = serde_json::to_vec(&all[..10]).expect("as above");
    let ten = FlagSet::compile(&ten).expect("none of the ten needs another flag");
    let everything = |set: &FlagSet, out: &mut Vec<u8>| {
        let parsed = Document::parse(&user, 64).expect("as above");
        out.clear();
        set.evaluate(Subject::User(parsed.root()), &[], &mut ())
            .write_v2(out);
        out.len()
    };
    let mut out = Vec::with_capacity(1 << 16);

    timing.measure("engine", || {
        set.evaluate(Subject::Context(parsed_context.root()), &[], &mut ())
            .len()
    });
    timing.measure("engine-10", || {
        ten.evaluate(Subject::Context(parsed_context.root()), &[], &mut ())
            .len()
    });
    timing.measure("context+engine", || {
        set.evaluate(Subject::User(parsed_user.root()), &[], &mut ())
            .len()
    });
    timing.measure("parse", || {
        Document::parse(&user, 64).map(|parsed| parsed.text().len())
    });
    timing.measure("parse+engine+serialize", || everything(&set, &mut out));
    timing.measure("parse+engine+serialize-10", || everything(&ten, &mut out));
    let evaluated = set.evaluate(Subject::User(parsed_user.root()), &[], &mut ());
    timing.measure("serialize", || {
        out.clear();
        evaluated.write_v2(&mut out);
        out.len()
    });
    timing.measure("compile", || FlagSet::compile(&flags).map(|set| set.len()));
}

fn read(name: &str) -> Vec<u8> {
    let path: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", "engines", name]
        .iter()
        .collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
