//! The flags that the fake cloud serves unless a test says otherwise.
//!
//! Their answers differ from user to user, so that an answer given to the wrong user is seen, and they use only
//! what [`super::opinion`] knows.

use serde_json::{Value, json};

/// Six flags: by property, by bucket of each id, remote ones, a dependency, an undeployed one.
///
/// `version` stands in every flag's metadata and in the payload of `theme`, so that each version is another
/// revision and an answer shows which one it was computed from.
pub fn flags(version: u32) -> Value {
    json!([
        {
            "key": "theme",
            "variants": {"on": {"key": "on", "value": "on", "payload": {"version": version}}, "off": off()},
            "segments": [
                when(&["context", "user", "user_properties", "plan"], "is", &["pro"], "on", "Pro"),
                otherwise("off"),
            ],
            "metadata": metadata("release", "local", version),
        },
        {
            "key": "checkout",
            "variants": {
                "control": {"key": "control", "value": "control"},
                "treatment": {"key": "treatment", "value": "treatment", "payload": {"price": 99.5}},
                "off": off(),
            },
            "segments": [split("user_id", "checkout-salt", &["control", "treatment"])],
            "metadata": {
                "deployed": true, "evaluationMode": "remote", "flagType": "experiment",
                "flagVersion": version, "experimentKey": "exp-1",
            },
        },
        {
            "key": "banner",
            "variants": {"on": {"key": "on", "value": "on"}, "off": off()},
            "segments": [
                when(&["context", "user", "country"], "is", &["DE", "FR"], "on", "Europe"),
                otherwise("off"),
            ],
            "metadata": metadata("release", "remote", version),
        },
        {
            "key": "layout",
            "variants": {"a": {"key": "a", "value": "a"}, "b": {"key": "b", "value": "b"}, "off": off()},
            "segments": [split("device_id", "layout-salt", &["a", "b"])],
            "metadata": metadata("experiment", "local", version),
        },
        {
            "key": "beta",
            "dependencies": ["theme"],
            "variants": {"on": {"key": "on", "value": "on"}, "off": off()},
            "segments": [when(&["result", "theme", "key"], "is", &["on"], "on", "Has theme"), otherwise("off")],
            "metadata": metadata("release", "local", version),
        },
        {
            "key": "hidden",
            "variants": {"on": {"key": "on", "value": "on"}},
            "segments": [{"variant": "on", "metadata": {"segmentName": "Everybody"}}],
            "metadata": {"deployed": false, "evaluationMode": "local", "flagType": "release", "flagVersion": version},
        },
    ])
}

/// A flag that cannot be evaluated faithfully here: it reads a cohort that nobody synced.
pub fn cohort_flag(version: u32) -> Value {
    json!({
        "key": "vip",
        "variants": {"on": {"key": "on", "value": "on"}, "off": off()},
        "segments": [
            when(&["context", "user", "cohort_ids"], "set contains any", &["cohort-1"], "on", "In the cohort"),
            otherwise("off"),
        ],
        "metadata": metadata("release", "remote", version),
    })
}

/// A segment that gives `variant` when the condition holds.
pub fn when(selector: &[&str], op: &str, values: &[&str], variant: &str, name: &str) -> Value {
    json!({
        "conditions": [[{"selector": selector, "op": op, "values": values}]],
        "variant": variant,
        "metadata": {"segmentName": name},
    })
}

/// The segment for everybody else.
pub fn otherwise(variant: &str) -> Value {
    json!({"variant": variant, "metadata": {"segmentName": "All Other Users"}})
}

fn split(id: &str, salt: &str, variants: &[&str]) -> Value {
    let width = 42_949_673 / variants.len() + 1;
    let distributions: Vec<_> = variants
        .iter()
        .enumerate()
        .map(|(at, variant)| json!({"variant": variant, "range": [at * width, (at + 1) * width]}))
        .collect();
    json!({
        "bucket": {
            "selector": ["context", "user", id], "salt": salt,
            "allocations": [{"range": [0, 100], "distributions": distributions}],
        },
        "variant": "off",
        "metadata": {"segmentName": "Split"},
    })
}

fn off() -> Value {
    json!({"key": "off", "metadata": {"default": true}})
}

fn metadata(kind: &str, mode: &str, version: u32) -> Value {
    json!({"deployed": true, "evaluationMode": mode, "flagType": kind, "flagVersion": version})
}
