//! Evaluation of one user, or of many, against a flags file, offline.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// What to evaluate and how to print it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Flags: `/sdk/v2/flags` JSON.
    pub flags: Option<PathBuf>,
    /// The user as a JSON object.
    pub user: Option<String>,
    /// The user's id; replaces the one in `user`.
    pub user_id: Option<String>,
    /// The device's id; replaces the one in `user`.
    pub device_id: Option<String>,
    /// Flags to evaluate; empty = all.
    pub flag_keys: Vec<String>,
    /// Print the shape of v1.
    pub v1: bool,
    /// Print how each answer came about.
    pub explain: bool,
    /// One JSON request per line on standard input, one reply per line on standard output.
    pub jsonl: bool,
}

/// Evaluates as `options` say.
pub fn run(_options: &Options, _stdin: impl BufRead, _stdout: impl Write, _stderr: impl Write) -> ExitCode {
    ExitCode::SUCCESS
}
