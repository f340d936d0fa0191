//! How the benches here measure: processor time, medians, and a fixed number of rounds for callgrind.

use std::hint::black_box;
use std::time::{Duration, Instant};

const RUNS: usize = 11;
const RUN_TIME: Duration = Duration::from_millis(150);
const FIXED_ROUNDS: u32 = 1_000;

/// The lines of one bench.
pub(crate) struct Timing {
    /// Only this line runs, a fixed number of times.
    only: Option<String>,
}

impl Timing {
    /// Reads the command line: the name of a line, or nothing. Cargo adds `--bench`.
    pub(crate) fn from_arguments() -> Self {
        let only = std::env::args()
            .skip(1)
            .find(|argument| !argument.starts_with("--"));
        Self { only }
    }

    /// Prints what `work` costs: the median of eleven runs in nanoseconds of processor time (of wall time where
    /// the system does not tell it). What it returns is kept alive, so that nothing is optimized away.
    pub(crate) fn measure<T>(&self, name: &str, mut work: impl FnMut() -> T) {
        match self.only.as_deref() {
            Some(only) if only != name => {}
            Some(_) => {
                for _ in 0..FIXED_ROUNDS {
                    black_box(work());
                }
                println!("{name}: {FIXED_ROUNDS} rounds");
            }
            None => {
                let mut times: Vec<f64> = (0..RUNS).map(|_| run(&mut work)).collect();
                times.sort_by(f64::total_cmp);
                println!("{name:32} {:10.0} ns (least {:.0})", times[RUNS / 2], times[0]);
            }
        }
    }
}

fn run<T>(work: &mut impl FnMut() -> T) -> f64 {
    let (start, cpu) = (Instant::now(), cpu_ns());
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
}

/// The processor time of this thread so far.
fn cpu_ns() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}
