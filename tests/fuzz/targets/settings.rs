//! Values of settings: lines of `NAME=value`, variables where the name is one of ours, `--set` otherwise. And the quantities and URLs they are made of.

#![no_main]

use std::num::NonZeroUsize;
use std::path::PathBuf;

use flagside::config::{
    Arguments, BaseUrl, Machine, Sources, format_duration, format_size, load, parse_duration, parse_size,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut arguments = Arguments::default();
    let mut variables = Vec::new();
    for line in text.lines() {
        quantities(line);
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        // Paths are read where they point; what the fuzzer makes up is none of its business.
        let is_path = ["file", "config"]
            .iter()
            .any(|word| line.to_ascii_lowercase().contains(word));
        if is_path {
            continue;
        }
        if name.starts_with("FLAGSIDE_") {
            variables.push((name.into(), value.into()));
        } else {
            arguments.options.push(("--set", line.to_owned()));
        }
    }
    let machine = Machine {
        cpus: NonZeroUsize::MIN,
        memory_limit: None,
        terminal: false,
    };
    let sources = Sources {
        arguments,
        variables,
        default_file: PathBuf::from("/nonexistent"),
        machine,
    };
    if let Err(rejected) = load(&sources) {
        assert!(!rejected.faults.is_empty(), "rejected without a reason");
    }
});

fn quantities(text: &str) {
    if let Ok(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&format_duration(duration)).ok(), Some(duration));
    }
    if let Ok(size) = parse_size(text) {
        assert_eq!(parse_size(&format_size(size)).ok(), Some(size));
    }
    if let Ok((url, _)) = BaseUrl::parse(text) {
        let again = BaseUrl::parse(&url.to_string());
        assert_eq!(again.ok(), Some((url, None)));
    }
}
