//! Query strings.

#![no_main]

use flagside::key::query;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(pairs) = query::pairs(text) else { return };
    let encoded: Vec<_> = pairs
        .iter()
        .map(|pair| format!("{}={}", encode(&pair.name), encode(&pair.value)))
        .collect();
    let encoded = encoded.join("&");
    let again = query::pairs(&encoded).expect("what was encoded can be decoded");
    assert_eq!(again.len(), pairs.len());
    for (one, two) in pairs.iter().zip(&again) {
        assert_eq!((&one.name, &one.value), (&two.name, &two.value));
    }
});

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
