//! The subcommands: what the command line asks for, and the exit code of the answer.
//!
//! Exit codes (OPS 11.1): 0 done, 1 failed at run time, 2 configuration or usage, 3 address in use,
//! 4 `check --online` failed, 124 drain timed out, 130 second signal.

mod check;
pub mod demo;
pub mod evaluate;
mod help;
mod inject;
mod injector;
mod parse;
mod print_config;
mod probe;
mod sleep;
mod version;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{self, Arguments, Fault, Loaded, Rejected, Sources};
use crate::inject::review::Admission;
use crate::metrics;
use parse::Command;

/// A configuration or usage error.
const USAGE: u8 = 2;

/// Runs the command named by `arguments` (program name first) and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match parse::parse(arguments.into_iter().skip(1)) {
        Ok(command) => execute(command),
        Err(problem) => {
            complain(&format!("flagside: {problem}\n"));
            ExitCode::from(USAGE)
        }
    }
}

fn execute(command: Command) -> ExitCode {
    match command {
        Command::Run {
            arguments,
            dry_run: true,
        } => check::run(arguments, false),
        Command::Run {
            arguments,
            dry_run: false,
        } => match load(arguments) {
            Ok(loaded) => crate::run::run(loaded.config, &loaded.warnings),
            Err(code) => code,
        },
        Command::Check { arguments, online } => check::run(arguments, online),
        Command::PrintConfig { arguments, origin } => print_config::run(arguments, origin),
        Command::Demo { engine, keep } => demo::run(engine, keep),
        Command::Evaluate(options) => evaluate::run(
            &options,
            io::stdin().lock(),
            io::stdout().lock(),
            io::stderr().lock(),
        ),
        Command::Inject(options) => inject::run(&options),
        Command::Injector(options) => injector::run(*options),
        Command::Probe { target, wait } => probe::run(&target, wait),
        Command::Schema => say(&config::schema_text()),
        Command::Sleep(duration) => sleep::run(duration),
        Command::Version => say(&version::text()),
        Command::Help(topic) => say(help::text(topic)),
        Command::Settings { markdown: false } => say(&config::reference_text()),
        Command::Metrics { markdown: false } => say(&metrics::reference::list(&ends())),
        Command::Metrics { markdown: true } => say(&metrics::reference::reference_markdown(&ends())),
        Command::Settings { markdown: true } => say(&config::reference_markdown()),
    }
}

/// The labels of every way an admission can end.
fn ends() -> Vec<[&'static str; 2]> {
    Admission::ALL.map(Admission::labels).to_vec()
}

/// The configuration of this process; if it is wrong, all faults are printed.
fn load(arguments: Arguments) -> Result<Loaded, ExitCode> {
    config::load(&Sources::of_process(arguments)).map_err(|Rejected { faults, warnings }| {
        let count = match faults.len() {
            1 => "1 fault".to_owned(),
            n => format!("{n} faults"),
        };
        let lines: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
        complain(&format!(
            "{}{lines}flagside: {count} in the configuration\n",
            warning_lines(&warnings)
        ));
        ExitCode::from(USAGE)
    })
}

fn warning_lines(warnings: &[Fault]) -> String {
    warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect()
}

/// Writes to standard output. A reader that went away (`| head`) is no failure.
fn say(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Writes to standard error; there is nobody to tell if that fails.
fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
