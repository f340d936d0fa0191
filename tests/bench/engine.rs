//! Times of the Amplitude engine on 100 typical flags and one user: `cargo bench --bench engine`.
//!
//! Each line is the median of eleven runs, in nanoseconds of processor time (of wall time where the system
//! does not tell it) per evaluation of all flags. With the name of a
//! line as argument, only that one runs, a fixed number of times: for callgrind.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench prints, and may die"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use flagside::evaluate::amplitude::{FlagSet, Subject};
use flagside::evaluate::json::Document;

const RUNS: usize = 11;
const RUN_TIME: Duration = Duration::from_millis(150);
const FIXED_ROUNDS: u32 = 1_000;

fn main() {
    // Cargo adds `--bench`.
    let only = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let flags = read("flags.json");
    let user = read("user.json");
    let context = read("context.json");
    let set = FlagSet::compile(&flags).expect("the flags are in the repository");
    let parsed_context = Document::parse(&context, 64).expect("so is the context");
    let parsed_user = Document::parse(&user, 64).expect("and the user");
    let mut out = Vec::with_capacity(1 << 16);
    let ten: Vec<&str> = set.flags().take(10).map(|flag| flag.key).collect();

    let mut measure = |name: &str, work: &mut dyn FnMut(&mut Vec<u8>) -> usize| {
        if only.as_deref().is_none_or(|only| only == name) {
            report(name, only.is_some(), &mut || work(&mut out));
        }
    };
    measure("engine", &mut |_| {
        set.evaluate(Subject::Context(parsed_context.root()), &[], &mut ())
            .len()
    });
    measure("context+engine", &mut |_| {
        set.evaluate(Subject::User(parsed_user.root()), &[], &mut ())
            .len()
    });
    measure("parse", &mut |_| {
        Document::parse(&user, 64).map_or(0, |parsed| parsed.text().len())
    });
    measure("parse+context+engine+serialize", &mut |out| {
        let Ok(parsed) = Document::parse(&user, 64) else {
            return 0;
        };
        out.clear();
        set.evaluate(Subject::User(parsed.root()), &[], &mut ())
            .write_v2(out);
        out.len()
    });
    measure("ten-flags", &mut |out| {
        let Ok(parsed) = Document::parse(&user, 64) else {
            return 0;
        };
        out.clear();
        set.evaluate(Subject::User(parsed.root()), &ten, &mut ())
            .write_v2(out);
        out.len()
    });
    measure("compile", &mut |_| {
        FlagSet::compile(&flags).map_or(0, |set| set.len())
    });
}

fn read(name: &str) -> Vec<u8> {
    let path: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", "engines", name]
        .iter()
        .collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn report(name: &str, fixed: bool, work: &mut dyn FnMut() -> usize) {
    if fixed {
        let sum: usize = (0..FIXED_ROUNDS).map(|_| black_box(work())).sum();
        println!("{name}: {FIXED_ROUNDS} rounds, check {sum}");
        return;
    }
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let cpu = cpu_ns();
            let mut rounds = 0u32;
            while start.elapsed() < RUN_TIME {
                for _ in 0..64 {
                    black_box(work());
                }
                rounds += 64;
            }
            let spent = match (cpu, cpu_ns()) {
                (Some(from), Some(to)) => to - from,
                _ => start.elapsed().as_secs_f64() * 1e9,
            };
            spent / f64::from(rounds)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name:32} {:10.0} ns (least {:.0})", times[RUNS / 2], times[0]);
}

/// The processor time of this thread so far.
fn cpu_ns() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}
