//! `flagside print-config`.

use std::process::ExitCode;

use crate::config::{self, Arguments};

/// Prints the effective configuration as YAML, each line with its origin if wanted; warnings go to
/// standard error.
pub(super) fn run(arguments: Arguments, origin: bool) -> ExitCode {
    match super::load(arguments) {
        Ok(loaded) => {
            super::complain(&super::warning_lines(&loaded.warnings));
            super::say(&config::print(&loaded, origin))
        }
        Err(code) => code,
    }
}
