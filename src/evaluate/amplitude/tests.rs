//! The vectors, and tables of what they do not cover.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value as Json;

use super::order::Order;
use super::*;
use crate::evaluate::json::Document;
use crate::evaluate::quick_map::WordMap;

mod hosts;
mod isolation;
mod rulings;

fn vectors(folder: &str, name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", folder, name]
        .iter()
        .collect();
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parsed(name: &str) -> Json {
    serde_json::from_str(&vectors("amplitude", name)).unwrap()
}

/// Numbers by value, everything else exactly.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The version 2 and version 1 answers for a user or context.
fn answers(set: &FlagSet, subject: &str, is_context: bool, wanted: &[&str]) -> (Json, Json) {
    let document = Document::parse(subject.as_bytes(), 64).unwrap();
    let root = document.root();
    let subject = if is_context {
        Subject::Context(root)
    } else {
        Subject::User(root)
    };
    let evaluation = set.evaluate(subject, wanted, &mut ());
    let (mut v2, mut v1) = (Vec::new(), Vec::new());
    evaluation.write_v2(&mut v2);
    evaluation.write_v1(&mut v1);
    (
        serde_json::from_slice(&v2).unwrap(),
        serde_json::from_slice(&v1).unwrap(),
    )
}

fn evaluation_vectors(name: &str) {
    let vectors = parsed(name);
    let mut cases = 0;
    for suite in vectors["suites"].as_array().unwrap() {
        let set = FlagSet::compile(suite["flags"].to_string().as_bytes()).unwrap();
        assert_eq!(set.problems(), [], "{name} {}", suite["name"]);
        for case in suite["cases"].as_array().unwrap() {
            let wanted: Vec<&str> = case["flagKeys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Json::as_str)
                .collect();
            let is_context = case.get("context").is_some();
            let subject = &case[if is_context { "context" } else { "user" }];
            let (v2, v1) = answers(&set, &subject.to_string(), is_context, &wanted);
            assert!(
                same(&v2, &case["expected"]),
                "{name} {}\nof {subject}\nwanted {}\ngot    {v2}",
                suite["name"],
                case["expected"]
            );
            let mut keys: Vec<&str> = v1.as_object().unwrap().keys().map(String::as_str).collect();
            keys.sort_unstable();
            assert_eq!(
                Json::from(keys),
                case["v1"],
                "{name} {} of {subject}",
                suite["name"]
            );
            cases += 1;
        }
    }
    assert!(cases > 100, "{name} has {cases} cases");
}

#[test]
fn vectors_bucketing() {
    evaluation_vectors("bucketing.json");
}

#[test]
fn vectors_dependencies() {
    evaluation_vectors("dependencies.json");
}

#[test]
fn vectors_groups_and_cohorts() {
    evaluation_vectors("groups-cohorts.json");
}

#[test]
fn vectors_mixed() {
    evaluation_vectors("mixed.json");
}

#[test]
fn vectors_null_and_types() {
    evaluation_vectors("null-and-types.json");
}

#[test]
fn vectors_operators_number_version() {
    evaluation_vectors("operators-number-version.json");
}

#[test]
fn vectors_operators_set_list() {
    evaluation_vectors("operators-set-list.json");
}

#[test]
fn vectors_operators_string() {
    evaluation_vectors("operators-string.json");
}

#[test]
fn vectors_structure() {
    evaluation_vectors("structure.json");
}

#[test]
fn vectors_order() {
    let vectors = parsed("topological-order.json");
    let texts = |list: &Json| -> Vec<String> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .map(str::to_owned)
            .collect()
    };
    for case in vectors["cases"].as_array().unwrap() {
        let flags = case["flags"].as_array().unwrap();
        let keys: Vec<&str> = flags.iter().filter_map(|flag| flag["key"].as_str()).collect();
        let boxed = |list: &Json| texts(list).into_iter().map(String::into_boxed_str).collect();
        let dependencies: Vec<Vec<Box<str>>> =
            flags.iter().map(|flag| boxed(&flag["dependencies"])).collect();
        let index: WordMap<u32> = keys.iter().map(|key| Box::from(*key)).zip(0..).collect();
        let order = Order::new(&index, dependencies.iter().map(Vec::as_slice));
        let mut wanted: Vec<u32> = Vec::new();
        for key in texts(&case["flagKeys"]) {
            wanted.extend(
                keys.iter()
                    .position(|known| *known == key)
                    .map(|at| u32::try_from(at).unwrap()),
            );
        }
        if texts(&case["flagKeys"]).is_empty() {
            wanted = (0..u32::try_from(keys.len()).unwrap()).collect();
        }
        if case["cycle"] == true {
            assert!(wanted.iter().any(|flag| order.is_cyclic(*flag)), "{case}");
            continue;
        }
        assert!(!wanted.iter().any(|flag| order.is_cyclic(*flag)), "{case}");
        let got: Vec<&str> = order
            .of(wanted.into_iter())
            .into_iter()
            .map(|flag| keys[flag as usize])
            .collect();
        assert_eq!(Json::from(got), case["order"], "{case}");
    }
}

#[test]
fn vectors_murmur3() {
    let vectors = parsed("murmur3.json");
    let all = ["known", "cases"].map(|part| vectors[part].as_array().unwrap());
    for case in all.into_iter().flatten() {
        let seed = u32::try_from(case["seed"].as_u64().unwrap()).unwrap();
        let input = case["input"].as_str().unwrap().as_bytes();
        assert_eq!(
            Some(u64::from(murmur3(input, seed))),
            case["hash"].as_u64(),
            "{case}"
        );
        if let Some(allocation) = case["mod100"].as_u64() {
            let bucketed = Bucketed::of(input);
            let got = (u64::from(bucketed.allocation), u64::from(bucketed.distribution));
            assert_eq!(got, (allocation, case["div100"].as_u64().unwrap()), "{case}");
        }
    }
}

#[test]
fn a_hundred_typical_flags_give_what_the_engines_give() {
    let set = FlagSet::compile(vectors("engines", "flags.json").as_bytes()).unwrap();
    let wanted: BTreeMap<String, String> =
        serde_json::from_str(&vectors("engines", "expected-keys.json")).unwrap();
    for (name, is_context) in [("user.json", false), ("context.json", true)] {
        let (v2, _) = answers(&set, &vectors("engines", name), is_context, &[]);
        let keys = v2.as_object().unwrap().iter();
        let got: BTreeMap<String, String> = keys
            .map(|(flag, variant)| (flag.clone(), variant["key"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(got, wanted, "{name}");
    }
}
