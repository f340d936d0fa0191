//! Base64 as SDKs send it.

#![no_main]

use flagside::key::base64;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Some(bytes) = base64::decode(text) {
        let again = base64::encode(&bytes);
        assert_eq!(base64::decode(again.as_bytes()), Some(bytes));
        let other = again.replace('-', "+").replace('_', "/");
        assert_eq!(base64::decode(other.as_bytes()), base64::decode(again.as_bytes()));
    }
});
