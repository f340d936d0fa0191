//! FeatBit: the evaluate endpoint on the answer ladder, and flagside in the place of an evaluation server.

mod evaluate;
mod ladder;
mod requests;
mod running;
mod secrets;

use serde_json::{Value, json};

use crate::support::{Ask, Builder, FakeFeatbit, Response, Sidecar, eventually};

const PATH: &str = "/api/public/featureflag/evaluate";

/// Settings of a FeatBit environment that only a file can have.
fn configured(featbit: &FakeFeatbit, lines: &str) -> Builder {
    Sidecar::alone()
        .config(&featbit.environment(lines))
        .set("sync.featbit_poll_interval", "1s")
}

/// `POST /api/public/featureflag/evaluate` with this secret and body.
fn evaluate(secret: &str, body: impl Into<Vec<u8>>) -> Ask {
    let mut ask = Ask::new("POST", PATH)
        .header("Authorization", secret)
        .header("Content-Type", "application/json");
    ask.body = Some(body.into());
    ask
}

/// The question for all flags of a user.
fn body(user: &str) -> Value {
    json!({"user": {"keyId": user, "name": "Somebody", "customizedProperties": [{"name": "plan", "value": "free"}]}})
}

/// The same, asked with the server's secret.
fn about(featbit: &FakeFeatbit, user: &str) -> Ask {
    evaluate(&featbit.secret("server"), body(user).to_string())
}

/// What matters of an answer at first sight.
fn gist(answer: &Response) -> (u16, &str) {
    (answer.status, answer.source())
}

/// Asks until the answer has this source.
fn ask_until(sidecar: &Sidecar, ask: &Ask, source: &str) -> Response {
    eventually(source, || {
        let answer = sidecar.ask(ask);
        (answer.source() == source).then_some(answer)
    })
}

/// Whether these are the same evaluated flags, in whichever order.
#[track_caller]
fn assert_same_flags(one: &Value, other: &Value) {
    let sorted = |flags: &Value| {
        let mut flags = flags.as_array().expect("a list of flags").clone();
        flags.sort_by_key(|flag| flag["key"].as_str().unwrap_or_default().to_owned());
        flags
    };
    assert_eq!(sorted(one), sorted(other));
}
