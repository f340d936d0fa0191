//! A second opinion on evaluation: a small engine for the flags of [`super::flags`], and nothing more.
//!
//! It knows `is`, `is not` and `set contains any` over strings, buckets, dependencies that come earlier in the
//! list, and both result shapes (AE 6 to 9). It shares no code with the program.

use serde_json::{Map, Value, json};

/// Which of the two result shapes an answer has (API 3.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// `/v1/vardata` and `/sdk/vardata`: no default and no undeployed variants.
    V1,
    /// `/sdk/v2/vardata`: everything.
    V2,
}

/// What `user` gets of `flags`, as the engine has it before it is shaped; empty `wanted` = all.
pub fn evaluate(flags: &Value, user: &Value, wanted: &[String]) -> Map<String, Value> {
    let mut results = Map::new();
    let needed = with_dependencies(flags, wanted);
    for flag in flags.as_array().into_iter().flatten() {
        let key = flag["key"].as_str().unwrap_or_default();
        let is_wanted = wanted.is_empty() || needed.iter().any(|wanted| wanted == key);
        if let Some(variant) = variant_of(flag, user, &results).filter(|_| is_wanted) {
            results.insert(key.to_owned(), variant);
        }
    }
    results
}

/// An engine result in the shape that a route answers with.
pub fn shape(results: Map<String, Value>, shape: Shape) -> Value {
    match shape {
        Shape::V2 => Value::Object(results),
        Shape::V1 => Value::Object(
            results
                .into_iter()
                .filter(|(_, variant)| {
                    variant["metadata"]["default"] != json!(true)
                        && variant["metadata"]["deployed"] != json!(false)
                })
                .map(|(key, mut variant)| {
                    for (short, long) in [("expKey", "experimentKey"), ("evaluationId", "evaluationId")] {
                        if let Some(value) = variant["metadata"].get(long).cloned() {
                            variant[short] = value;
                        }
                    }
                    (key, variant)
                })
                .collect(),
        ),
    }
}

fn with_dependencies(flags: &Value, wanted: &[String]) -> Vec<String> {
    let mut needed = wanted.to_vec();
    let mut next = 0;
    while let Some(key) = needed.get(next).cloned() {
        next += 1;
        let flag = flags
            .as_array()
            .into_iter()
            .flatten()
            .find(|flag| flag["key"] == json!(key));
        for dependency in flag
            .and_then(|flag| flag["dependencies"].as_array())
            .into_iter()
            .flatten()
        {
            let dependency = dependency.as_str().unwrap_or_default().to_owned();
            if !needed.contains(&dependency) {
                needed.push(dependency);
            }
        }
    }
    needed
}

fn variant_of(flag: &Value, user: &Value, results: &Map<String, Value>) -> Option<Value> {
    flag["segments"].as_array()?.iter().find_map(|segment| {
        if !matches(segment, user, results) {
            return None;
        }
        let mut variant = flag["variants"].get(chosen(segment, user, results)?)?.clone();
        let mut metadata = Map::new();
        for part in [&flag["metadata"], &segment["metadata"], &variant["metadata"]] {
            metadata.extend(part.as_object().cloned().unwrap_or_default());
        }
        if !metadata.is_empty() {
            variant["metadata"] = Value::Object(metadata);
        }
        Some(variant)
    })
}

fn matches(segment: &Value, user: &Value, results: &Map<String, Value>) -> bool {
    segment["conditions"].as_array().is_none_or(|any| {
        any.iter().any(|all| {
            all.as_array().into_iter().flatten().all(|condition| {
                let value = select(&condition["selector"], user, results);
                let values: Vec<_> = condition["values"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect();
                match (condition["op"].as_str().unwrap_or_default(), value) {
                    ("is", Some(value)) => values.contains(&value),
                    ("is", None) | ("set contains any", None) => values.contains(&json!("(none)")),
                    ("is not", Some(value)) => !values.contains(&value),
                    ("is not", None) => !values.contains(&json!("(none)")),
                    ("set contains any", Some(value)) => value
                        .as_array()
                        .into_iter()
                        .flatten()
                        .any(|element| values.contains(element)),
                    (other, _) => panic!("this engine does not know `{other}`"),
                }
            })
        })
    })
}

fn select(selector: &Value, user: &Value, results: &Map<String, Value>) -> Option<Value> {
    let path: Vec<_> = selector.as_array()?.iter().filter_map(Value::as_str).collect();
    let (root, rest) = match path.as_slice() {
        ["context", "user", rest @ ..] => (user.clone(), rest),
        ["result", rest @ ..] => (Value::Object(results.clone()), rest),
        other => panic!("this engine does not know the selector {other:?}"),
    };
    let found = rest.iter().try_fold(&root, |value, name| value.get(name))?;
    (!found.is_null()).then(|| found.clone())
}

fn chosen<'a>(segment: &'a Value, user: &Value, results: &Map<String, Value>) -> Option<&'a str> {
    bucketed(&segment["bucket"], user, results).or_else(|| segment["variant"].as_str())
}

fn bucketed<'a>(bucket: &'a Value, user: &Value, results: &Map<String, Value>) -> Option<&'a str> {
    let value = select(&bucket["selector"], user, results)?;
    let text = value.as_str().filter(|text| !text.is_empty())?;
    let hash = murmur3(format!("{}/{text}", bucket["salt"].as_str()?).as_bytes());
    let within = |range: &Value, number: u32| {
        let bound = |at: usize| range[at].as_u64().unwrap_or_default();
        (bound(0)..bound(1)).contains(&u64::from(number))
    };
    let allocations = bucket["allocations"].as_array()?.iter();
    allocations
        .filter(|allocation| within(&allocation["range"], hash % 100))
        .find_map(|allocation| {
            let mut distributions = allocation["distributions"].as_array()?.iter();
            distributions.find(|distribution| within(&distribution["range"], hash / 100))?["variant"].as_str()
        })
}

/// 32-bit `MurmurHash3`, seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |word: u32| {
        word.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };
    let word = |chunk: &[u8]| {
        chunk
            .iter()
            .rev()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
    };
    let mut hash = 0_u32;
    let chunks = bytes.chunks_exact(4);
    let tail = chunks.remainder();
    for chunk in chunks {
        hash = (hash ^ mix(word(chunk)))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    hash ^= mix(word(tail));
    hash ^= u32::try_from(bytes.len()).expect("a salt and a name are short");
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[test]
fn this_engine_hashes_like_the_published_values() {
    for (text, wanted) in [("", 0_u32), ("hello", 0x248b_fa47), ("hello, world", 0x149b_bb7f)] {
        assert_eq!(murmur3(text.as_bytes()), wanted, "{text:?}");
    }
}
