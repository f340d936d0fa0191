//! FeatBit's secrets and the tokens of its streams.

#![no_main]

use flagside::evaluate::featbit::{secret, token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some((secret, unix_ms)) = token::decode(text) {
        // A secret that ends with an equals sign is not encoded as it is; none does.
        if let (Ok(unix_ms), false) = (u64::try_from(unix_ms), secret.ends_with('=')) {
            for start in [0, 2, 20, 43] {
                let again = token::encode(&secret, unix_ms, start);
                let (decoded, at) = token::decode(&again).expect("what is encoded is decoded");
                assert_eq!((decoded.as_str(), at), (secret.as_str(), unix_ms.cast_signed()));
            }
        }
    }
    if let Some(environment) = secret::environment_of(text) {
        let again = secret::encode([7; 16], environment);
        assert_eq!(secret::environment_of(&again), Some(environment));
        assert_eq!(
            secret::EnvironmentId::parse(&environment.to_string()),
            Some(environment)
        );
    }
    let _ = token::encode(text, 1_666_018_247_603, text.len() / 2);
});
