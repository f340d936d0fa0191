//! Configuration files: YAML and JSON. What is printed of one is a configuration that means the same.

#![no_main]

use flagside::config::{load_text, print};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Paths are read where they point; what the fuzzer makes up is none of its business.
    if text.contains("file") {
        return;
    }
    let Ok(loaded) = load_text(text) else { return };
    let printed = print(&loaded, false);
    // Keys are left out of what is printed, and with them an environment may lose what made it valid.
    if text.contains("deployment_keys") || text.contains("env_secret") {
        return;
    }
    match load_text(&printed) {
        Ok(again) => assert_eq!(print(&again, false), printed),
        Err(rejected) => panic!("{:?} in\n{printed}", rejected.faults),
    }
});
