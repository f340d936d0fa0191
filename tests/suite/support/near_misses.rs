//! Pairs of questions that look alike and must never share an answer (API 9.2 and 9.3).

#![allow(clippy::too_many_lines, reason = "a table is as long as what it lists")]

use super::ask::Ask;

/// Two requests that ask different questions.
#[derive(Clone, Debug)]
pub struct NearMiss {
    /// What tells them apart.
    pub name: &'static str,
    /// The one.
    pub one: Ask,
    /// The other.
    pub other: Ask,
}

/// Users that differ in what the name says.
const USERS: &[(&str, &str, &str)] = &[
    ("string or number id", r#"{"user_id":"7"}"#, r#"{"user_id":7}"#),
    ("user or device id", r#"{"user_id":"a"}"#, r#"{"device_id":"a"}"#),
    (
        "ids swapped",
        r#"{"user_id":"a","device_id":"b"}"#,
        r#"{"user_id":"b","device_id":"a"}"#,
    ),
    (
        "where an id ends",
        r#"{"user_id":"ab","device_id":"c"}"#,
        r#"{"user_id":"a","device_id":"bc"}"#,
    ),
    ("case of an id", r#"{"user_id":"A"}"#, r#"{"user_id":"a"}"#),
    ("blank after an id", r#"{"user_id":"a"}"#, r#"{"user_id":"a "}"#),
    ("NUL in an id", r#"{"user_id":"a"}"#, r#"{"user_id":"a\u0000"}"#),
    (
        "composed or decomposed",
        "{\"user_id\":\"\u{e9}\"}",
        "{\"user_id\":\"e\u{301}\"}",
    ),
    (
        "full-width digit",
        r#"{"user_id":"1"}"#,
        "{\"user_id\":\"\u{ff11}\"}",
    ),
    ("empty id", r#"{"user_id":""}"#, "{}"),
    ("null id", r#"{"user_id":null}"#, "{}"),
    ("null or empty id", r#"{"user_id":null}"#, r#"{"user_id":""}"#),
    (
        "null or text null",
        r#"{"user_id":null}"#,
        r#"{"user_id":"null"}"#,
    ),
    (
        "integer or decimal",
        r#"{"user_properties":{"n":1}}"#,
        r#"{"user_properties":{"n":1.0}}"#,
    ),
    (
        "number or text",
        r#"{"user_properties":{"n":1}}"#,
        r#"{"user_properties":{"n":"1"}}"#,
    ),
    (
        "zero or minus zero",
        r#"{"user_properties":{"n":0}}"#,
        r#"{"user_properties":{"n":-0}}"#,
    ),
    (
        "exponent",
        r#"{"user_properties":{"n":1000}}"#,
        r#"{"user_properties":{"n":1e3}}"#,
    ),
    (
        "case of the exponent",
        r#"{"user_properties":{"n":1e3}}"#,
        r#"{"user_properties":{"n":1E3}}"#,
    ),
    (
        "beyond double precision",
        r#"{"user_properties":{"n":9007199254740993}}"#,
        r#"{"user_properties":{"n":9007199254740992}}"#,
    ),
    (
        "beyond 64 bits",
        r#"{"user_properties":{"n":184467440737095516160}}"#,
        r#"{"user_properties":{"n":184467440737095516161}}"#,
    ),
    (
        "trailing digits",
        r#"{"user_properties":{"n":0.1}}"#,
        r#"{"user_properties":{"n":0.10}}"#,
    ),
    (
        "boolean or text",
        r#"{"user_properties":{"b":true}}"#,
        r#"{"user_properties":{"b":"true"}}"#,
    ),
    (
        "true or false",
        r#"{"user_properties":{"b":true}}"#,
        r#"{"user_properties":{"b":false}}"#,
    ),
    (
        "null property",
        r#"{"user_properties":{"x":null}}"#,
        r#"{"user_properties":{}}"#,
    ),
    ("empty properties", r#"{"user_properties":{}}"#, "{}"),
    ("null or no properties", r#"{"user_properties":null}"#, "{}"),
    (
        "empty list",
        r#"{"user_properties":{"l":[]}}"#,
        r#"{"user_properties":{"l":{}}}"#,
    ),
    (
        "list or its element",
        r#"{"user_properties":{"l":["a"]}}"#,
        r#"{"user_properties":{"l":"a"}}"#,
    ),
    (
        "list or its text",
        r#"{"user_properties":{"l":["a"]}}"#,
        r#"{"user_properties":{"l":"[\"a\"]"}}"#,
    ),
    (
        "one or two elements",
        r#"{"user_properties":{"l":["a","b"]}}"#,
        r#"{"user_properties":{"l":["a,b"]}}"#,
    ),
    (
        "order of a list",
        r#"{"user_properties":{"l":[1,2]}}"#,
        r#"{"user_properties":{"l":[2,1]}}"#,
    ),
    (
        "repeated element",
        r#"{"user_properties":{"l":[1]}}"#,
        r#"{"user_properties":{"l":[1,1]}}"#,
    ),
    (
        "order inside a value",
        r#"{"user_properties":{"p":{"x":1,"y":2}}}"#,
        r#"{"user_properties":{"p":{"y":2,"x":1}}}"#,
    ),
    (
        "level of a member",
        r#"{"plan":"pro"}"#,
        r#"{"user_properties":{"plan":"pro"}}"#,
    ),
    (
        "case of a name",
        r#"{"user_properties":{"Plan":"pro"}}"#,
        r#"{"user_properties":{"plan":"pro"}}"#,
    ),
    (
        "dot in a name",
        r#"{"user_properties":{"a.b":1}}"#,
        r#"{"user_properties":{"a":{"b":1}}}"#,
    ),
    (
        "name or value",
        r#"{"user_properties":{"a":"b"}}"#,
        r#"{"user_properties":{"b":"a"}}"#,
    ),
    (
        "order of groups",
        r#"{"groups":{"org":["a","b"]}}"#,
        r#"{"groups":{"org":["b","a"]}}"#,
    ),
    (
        "group type",
        r#"{"groups":{"org":["a"]}}"#,
        r#"{"groups":{"team":["a"]}}"#,
    ),
    (
        "group property",
        r#"{"group_properties":{"org":{"a":{"x":1}}}}"#,
        r#"{"group_properties":{"org":{"a":{"x":2}}}}"#,
    ),
    ("cohorts", r#"{"cohort_ids":["a"]}"#, r#"{"cohort_ids":["b"]}"#),
    (
        "group cohorts",
        r#"{"group_cohort_ids":{"o":{"a":["x"]}}}"#,
        r#"{"group_cohort_ids":{"o":{"b":["x"]}}}"#,
    ),
    ("library", r#"{"library":"a/1"}"#, r#"{"library":"a/2"}"#),
    (
        "address",
        r#"{"ip_address":"192.0.2.1"}"#,
        r#"{"ip_address":"192.0.2.2"}"#,
    ),
    (
        "unknown member",
        r#"{"url_param":{"a":"1"}}"#,
        r#"{"url_param":{"a":"2"}}"#,
    ),
    (
        "backslash or escape",
        r#"{"user_id":"\\u0041"}"#,
        r#"{"user_id":"A"}"#,
    ),
];

/// Every pair. No question of one pair occurs in another.
pub fn near_misses() -> Vec<NearMiss> {
    let mut pairs: Vec<_> = USERS
        .iter()
        .map(|(name, one, other)| {
            let [one, other] = [one, other].map(|user| {
                let comma = if *user == "{}" { "" } else { "," };
                Ask::sdk_get(&user.replacen('{', &format!(r#"{{"pair":"{name}"{comma}"#), 1))
            });
            NearMiss { name, one, other }
        })
        .collect();
    pairs.extend(requests());
    pairs
}

/// Requests that differ outside the user.
fn requests() -> Vec<NearMiss> {
    type Change = fn(Ask) -> Ask;
    const PATH: &str = "/sdk/v2/vardata";
    let to = |query: &'static str| move |ask: Ask| ask.to(&format!("{PATH}?{query}"));
    let same: Change = |ask| ask;
    let mut pairs = Vec::new();
    let mut pair = |name: &'static str, one: &dyn Fn(Ask) -> Ask, other: &dyn Fn(Ask) -> Ask| {
        let ask = Ask::about(name);
        pairs.push(NearMiss {
            name,
            one: one(ask.clone()),
            other: other(ask),
        });
    };
    pair("deployment key", &same, &|ask| ask.key("server-another"));
    pair("case of the key", &|ask| ask.key("server-a"), &|ask| {
        ask.key("server-A")
    });
    pair("end of the key", &|ask| ask.key("server-a"), &|ask| {
        ask.key("server-aa")
    });
    pair("where the key ends", &|ask| ask.key("server-a"), &|ask| {
        ask.key("server-a,server-b")
    });
    pair("route and shape", &same, &|ask| ask.to("/sdk/vardata"));
    pair("flag keys or all", &same, &|ask| ask.flag_keys(&["theme"]));
    pair("flag keys", &|ask| ask.flag_keys(&["theme"]), &|ask| {
        ask.flag_keys(&["banner"])
    });
    pair("case of a flag key", &|ask| ask.flag_keys(&["A"]), &|ask| {
        ask.flag_keys(&["a"])
    });
    pair(
        "one or two flag keys",
        &|ask| ask.flag_keys(&["a", "b"]),
        &|ask| ask.flag_keys(&["ab"]),
    );
    pair("comma in a flag key", &|ask| ask.flag_keys(&["a", "b"]), &|ask| {
        ask.flag_keys(&["a,b"])
    });
    pair("v", &to("v=0"), &to("v=1"));
    pair("eval_mode", &same, &to("eval_mode=local"));
    pair("delivery_method", &same, &to("delivery_method=web"));
    pair(
        "value of eval_mode",
        &to("eval_mode=local"),
        &to("eval_mode=remote"),
    );
    pair("unknown parameter", &same, &to("v=0&new=1"));
    pair("value of an unknown parameter", &to("new=1"), &to("new=2"));
    pair("repeated unknown parameter", &to("new=1"), &to("new=1&new=1"));
    pair("unknown experiment header", &same, &|ask| {
        ask.header("X-Amp-Exp-New", "1")
    });
    pair("assignment tracking", &same, &|ask| {
        ask.header("X-Amp-Exp-Track", "no-track")
    });
    pair("exposure tracking", &same, &|ask| {
        ask.header("X-Amp-Exp-Exposure-Track", "track")
    });
    for (name, one, other) in [
        ("space or plus", "user_id=a+b", "user_id=a%2Bb"),
        ("comma in an id", "user_id=a,b", "user_id=a%2Cb,"),
        (
            "ampersand in an id",
            "user_id=a%26device_id=b",
            "user_id=a&device_id=b",
        ),
        (
            "empty or absent id in the query",
            "user_id=a&device_id=",
            "user_id=a",
        ),
        (
            "number in the context",
            "user_id=7",
            "context=%7B%22user_id%22:7%7D",
        ),
        (
            "flag key or user",
            "user_id=a&flag_keys=b",
            "user_id=b&flag_keys=a",
        ),
    ] {
        let [one, other] =
            [one, other].map(|query| Ask::v1(&format!("{query}&pair={}", name.replace(' ', "-"))));
        pairs.push(NearMiss { name, one, other });
    }
    let body = r#"{"user_id":"route"}"#;
    pairs.push(NearMiss {
        name: "route",
        one: Ask::post("/v1/vardata", body),
        other: Ask::post("/sdk/vardata", body),
    });
    pairs
}
