//! The vectors.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::condition::{Condition, Property};
use super::pattern::Patterns;
use super::*;
use crate::evaluate::pattern::Effort;

mod requests;
mod sets;

const ENVIRONMENTS: [&str; 9] = [
    "bank-mobile-2",
    "bank-mobile-6",
    "edge-1",
    "media-streaming-4",
    "media-streaming-8",
    "saas-admin-3",
    "saas-admin-7",
    "shop-production-1",
    "shop-production-5",
];

fn vectors(name: &str) -> Json {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", "featbit", name]
        .iter()
        .collect();
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn cases(vectors: &Json) -> &[Json] {
    vectors["cases"].as_array().unwrap()
}

fn rows<'v>(vectors: &'v Json, name: &str) -> &'v [Json] {
    vectors[name].as_array().unwrap()
}

fn data_set(payload: &Json) -> DataSet {
    let message = DataSync::parse(payload.to_string().as_bytes()).unwrap();
    assert_eq!(message.rejected(), []);
    DataSet::empty().apply(&message).set
}

fn environment(name: &str) -> DataSet {
    data_set(&vectors(&format!("env-{name}.json"))["payload"])
}

/// The answer in the form of the vectors.
fn answer(set: &DataSet, request: &Json) -> Json {
    let request = match Request::parse(request.to_string().as_bytes()) {
        Ok(request) => request,
        Err(fault) => return json!({"status": 400, "message": fault.to_string()}),
    };
    let evaluation = set.evaluate(&request);
    let mut written = Vec::new();
    evaluation.write_json(&mut written);
    let results: Json = serde_json::from_slice(&written).unwrap();
    let keys: Vec<&str> = evaluation
        .unevaluable()
        .iter()
        .map(|of| of.flag().key())
        .collect();
    let mut answer = json!({"status": 200, "results": results});
    if !keys.is_empty() {
        answer["unevaluable"] = keys.into();
    }
    answer
}

/// Numbers by value, everything else exactly.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn vectors_evaluate() {
    for name in ENVIRONMENTS {
        let set = environment(name);
        let vectors = vectors(&format!("evaluate-{name}.json"));
        assert!(cases(&vectors).len() > 100);
        for case in cases(&vectors) {
            let got = answer(&set, &case["request"]);
            assert_eq!(
                got, case["expect"],
                "{} {}\n{}",
                case["id"], case["why"], case["request"]
            );
        }
    }
}

#[test]
fn vectors_examples() {
    for (name, cases) in vectors("example-answers.json")["cases"].as_object().unwrap() {
        let set = data_set(&vectors(&format!("{name}.json")));
        assert_eq!(set.problems(), []);
        for case in cases.as_array().unwrap() {
            assert_eq!(answer(&set, &case["request"]), case["expect"], "{}", case["id"]);
        }
    }
}

#[test]
fn vectors_sync() {
    for sequence in rows(&vectors("sync.json"), "sequences") {
        let mut set = DataSet::empty();
        for (number, step) in sequence["steps"].as_array().unwrap().iter().enumerate() {
            let message = DataSync::parse(step["message"].to_string().as_bytes()).unwrap();
            set = set.apply(&message).set;
            assert_eq!(
                json!(set.version()),
                step["version"],
                "{} {number}",
                sequence["id"]
            );
            let got = answer(&set, &sequence["request"]);
            assert_eq!(got, step["expect"], "{} {number}", sequence["id"]);
        }
    }
}

#[test]
fn vectors_client() {
    for case in cases(&vectors("client-latest-all.json")) {
        let set = environment(case["env"].as_str().unwrap());
        let user = EndUser::parse(case["user"].to_string().as_bytes()).unwrap();
        let got = set.client(&user, case["timestamp"].as_i64().unwrap());
        let wanted = &case["expect"];
        if wanted["emptyBody"] == true {
            assert_eq!(got, None, "{}", case["id"]);
            continue;
        }
        let got: Json = serde_json::from_slice(&got.unwrap()).unwrap();
        let wanted = json!({"messageType": wanted["messageType"], "data": wanted["data"]});
        assert!(same(&got, &wanted), "{}\n{got}\n{wanted}", case["id"]);
    }
}

/// What an operator says of two texts or nulls, in the form of the vectors.
fn operator(row: &Json) -> Json {
    let condition = Condition::new(
        Some("p"),
        row[0].as_str(),
        row[2].as_str(),
        &mut Patterns::default(),
    );
    assert_eq!(condition.property, Property::Custom("p".into()));
    condition
        .holds(row[1].as_str(), &Effort::default())
        .map_or_else(|_| json!("error"), Json::from)
}

#[test]
fn vectors_operators() {
    let operators = vectors("operators.json");
    let facts = vectors("facts.json");
    assert!(cases(&operators).len() > 500);
    for row in cases(&operators)
        .iter()
        .chain(rows(&facts, "other"))
        .chain(rows(&facts, "regex"))
    {
        // Balancing groups are beyond what backtracking in bounded time knows.
        if row[2].as_str().is_some_and(|pattern| pattern.contains("(?<-")) {
            assert_eq!(operator(row), "error", "{row}");
            continue;
        }
        assert_eq!(operator(row), row[3], "{row}");
    }
}

/// Characters that make the server's comparison by culture differ from an exact one.
fn is_cultural(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{ad}' | '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200d}' | '\u{feff}')
}

#[test]
fn vectors_culture() {
    let mut mandatory = 0;
    for row in rows(&vectors("facts.json"), "culture") {
        let texts = [&row[1], &row[2]].map(|text| text.as_str().unwrap());
        if !texts.concat().contains(is_cultural) {
            assert_eq!(operator(row), row[3], "{row}");
            mandatory += 1;
        }
    }
    assert!(mandatory > 20);
}

#[test]
fn vectors_numbers() {
    for row in rows(&vectors("facts.json"), "numbers") {
        let wanted = match row[1].as_str() {
            // Compares with nothing, as what is no number.
            Some("NaN") => None,
            Some("Infinity") => Some(f64::INFINITY),
            Some(other) => panic!("{other}"),
            None => row[1].as_f64(),
        };
        assert_eq!(number::parse(row[0].as_str().unwrap()), wanted, "{row}");
    }
}

#[test]
fn vectors_hash() {
    for row in cases(&vectors("hash.json")) {
        let position = rollout::position(row[0].as_str().unwrap().as_bytes());
        assert_eq!(Some(position), row[1].as_f64(), "{row}");
    }
}

#[test]
fn vectors_secrets() {
    for row in rows(&vectors("facts.json"), "secrets") {
        let got = secret::environment_of(row[0].as_str().unwrap()).map(|id| id.to_string());
        assert_eq!(json!(got), row[1], "{row}");
    }
    for name in ENVIRONMENTS {
        let environment = vectors(&format!("env-{name}.json"));
        for secret in rows(&environment, "secrets") {
            let got = secret::environment_of(secret["value"].as_str().unwrap());
            assert_eq!(json!(got.unwrap().to_string()), environment["envId"]);
        }
    }
}

#[test]
fn vectors_tokens() {
    for case in cases(&vectors("tokens.json")) {
        let secret = case["secret"].as_str().unwrap();
        let start = usize::try_from(case["start"].as_u64().unwrap()).unwrap();
        let unix_ms = case["timestamp"].as_u64().unwrap();
        let token = token::encode(secret, unix_ms, start);
        assert_eq!(json!(token), case["token"]);
        let decoded = token::decode(&token).unwrap();
        assert_eq!((decoded.0.as_str(), decoded.1), (secret, unix_ms.cast_signed()));
    }
    for row in rows(&vectors("facts.json"), "tokens") {
        let got = token::decode(row[0].as_str().unwrap());
        let got = got.map(|(secret, timestamp)| json!({"secret": secret, "timestamp": timestamp}));
        assert_eq!(json!(got), row[1], "{row}");
    }
}

fn canonical(body: &Json) -> Vec<u8> {
    let mut key = Vec::new();
    let request = Request::parse(body.to_string().as_bytes()).unwrap();
    assert!(request.canonical(&mut key), "{body}");
    key
}

#[test]
fn vectors_normalize() {
    let mut compared = 0;
    for group in rows(&vectors("normalize.json"), "groups") {
        let base = canonical(&group["base"]["body"]);
        let authorization = |of: &Json| -> Vec<Json> {
            let headers = of["headers"].as_object().unwrap().iter();
            headers
                .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
                .map(|(_, secret)| secret.clone())
                .collect()
        };
        for variant in rows(group, "variants") {
            if authorization(variant) == authorization(&group["base"]) {
                let same = canonical(&variant["body"]) == base;
                assert_eq!(json!(same), variant["same"], "{}", variant["change"]);
                compared += 1;
            }
        }
        for pair in rows(group, "pairs") {
            let same = canonical(&pair["a"]) == canonical(&pair["b"]);
            assert_eq!(json!(same), pair["same"], "{pair}");
            compared += 1;
        }
    }
    assert!(compared > 100);
}

#[test]
fn vectors_requests() {
    let vectors = vectors("http.json");
    let evaluate = |case: &&Json| {
        let path = case["path"].as_str().unwrap().to_ascii_lowercase();
        path.starts_with("/api/public/featureflag/evaluate") && case["body"].is_string()
    };
    let mut judged = 0;
    for case in cases(&vectors).iter().filter(evaluate) {
        let got = Request::parse(case["body"].as_str().unwrap().as_bytes());
        let wanted = &case["expect"];
        match wanted["status"].as_u64().unwrap() {
            200 => assert!(got.is_ok(), "{case}"),
            400 if wanted["problem"] == true => assert!(got.unwrap_err().is_malformed(), "{case}"),
            400 => assert_eq!(json!(got.unwrap_err().to_string()), wanted["message"], "{case}"),
            _ => continue,
        }
        judged += 1;
    }
    assert!(judged > 30);
}
