//! `Authorization` headers: which deployment key they carry, and that it does not print.

#![no_main]

use flagside::key::{DeploymentKey, authorization};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(AUTHORIZATION, value);
        }
    }
    let Some(key) = authorization::deployment_key(&headers).and_then(DeploymentKey::new) else {
        return;
    };
    let forwarded = key.authorization().expect("a key is a header value");
    let shown = key.hint();
    assert!(
        shown.chars().count() <= 1 + 4 * "\\xff".len(),
        "more than four bytes of a key are shown"
    );
    let mut again = HeaderMap::new();
    again.insert(AUTHORIZATION, forwarded);
    assert_eq!(authorization::deployment_key(&again), Some(key.expose()));
});
