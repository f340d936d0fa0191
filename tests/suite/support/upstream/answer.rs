//! What the fake cloud answers when nothing is wrong with it (API 3 to 5).

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use serde_json::{Value, json};

use super::fault::{Answer, Route};
use super::request::{Question, Recorded};
use super::state::State;
use crate::support::{codec, opinion};

/// The secret pair that the cohort route wants.
pub const COHORT_SECRET: &str = "api123:sec456";

/// The proper answer to `request` in the present state.
pub fn answer(state: &State, request: &Recorded) -> Answer {
    let mut answer = match (request.method.as_str(), request.route()) {
        ("GET" | "POST" | "HEAD", Route::Vardata) => vardata(state, request),
        ("GET" | "HEAD", Route::Flags | Route::RemoteFlags) => flags(state, request),
        ("GET" | "HEAD", Route::Cohort) => cohort(request),
        (_, Route::Other) if request.path().starts_with("/web/v1/") => echo(request),
        _ => Answer::new(404, "application/json", r#"{"error":"not found"}"#),
    };
    for (name, value) in &state.headers {
        answer = answer.with(name, value);
    }
    answer
}

fn refused() -> Answer {
    Answer::new(401, "text/plain; charset=utf-8", "Invalid deployment key")
}

fn vardata(state: &State, request: &Recorded) -> Answer {
    if !state.accepts(request.key()) {
        return refused();
    }
    match request.question() {
        Ok(question) => Answer::new(
            200,
            "application/json",
            (state.answer)(&question, state.flags_of(&question.key)).to_string(),
        ),
        Err(fault) => Answer::new(400, "text/plain; charset=utf-8", fault),
    }
}

/// The evaluated flags and the flag `who`, whose payload says whom and what the answer was made for.
pub fn evaluated_and_who(question: &Question, flags: &Value) -> Value {
    let results = opinion::evaluate(flags, &question.user, &question.flag_keys);
    let mut answer = opinion::shape(results, question.shape);
    answer["who"] = json!({
        "key": "asked",
        "value": "asked",
        "payload": {"user": question.user, "flag_keys": question.flag_keys, "deployment": digest(&question.key)},
    });
    answer
}

fn flags(state: &State, request: &Recorded) -> Answer {
    if !state.accepts(request.key()) {
        return refused();
    }
    let query = codec::query_pairs(request.query());
    let parameter = |name: &str| {
        query
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    };
    let remote = parameter("eval_mode") == Some("remote");
    let wanted: Vec<_> = parameter("flag_keys")
        .unwrap_or_default()
        .split(',')
        .filter(|key| !key.is_empty())
        .collect();
    let all = state.flags_of(request.key().unwrap_or_default());
    let chosen: Vec<_> = all
        .as_array()
        .into_iter()
        .flatten()
        .filter(|flag| remote || flag["metadata"]["evaluationMode"] != json!("remote"))
        .filter(|flag| wanted.is_empty() || wanted.iter().any(|key| flag["key"] == json!(key)))
        .collect();
    let body = json!(chosen).to_string();
    if !state.etags {
        return Answer::new(200, "application/json", body);
    }
    let etag = format!("\"{}\"", digest(&body));
    if request.header("if-none-match") == Some(&etag) {
        return Answer {
            status: 304,
            headers: vec![("ETag".to_owned(), etag)],
            body: Vec::new(),
        };
    }
    Answer::new(200, "application/json", body).with("ETag", &etag)
}

fn cohort(request: &Recorded) -> Answer {
    let wanted = format!("Basic {}", codec::base64(COHORT_SECRET.as_bytes()));
    if request.header("authorization") != Some(&wanted) {
        return refused();
    }
    let id = request.path().trim_start_matches("/sdk/v1/cohort/");
    let body = json!({
        "cohortId": id, "groupType": "User", "groupTypeId": -1, "lastComputed": 1_700_000_000_000_u64,
        "lastModified": 1_700_000_000_000_u64, "size": 2, "memberIds": ["u-1", "u-2"],
    });
    Answer::new(200, "application/json", body.to_string())
}

fn echo(request: &Recorded) -> Answer {
    let body = json!({
        "method": request.method, "target": request.target, "body": String::from_utf8_lossy(&request.body),
    });
    Answer::new(200, "application/json", body.to_string()).with("X-Cloud", "here")
}

fn digest(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
