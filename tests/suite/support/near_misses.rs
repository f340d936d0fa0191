//! Pairs of questions that look alike and must never share an answer (API 9.2 and 9.3).

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

/// Every pair.
pub fn near_misses() -> Vec<NearMiss> {
    let user = r#"{"user_id":"near"}"#;
    let get = || Ask::sdk_get(user);
    let to = |target: &str| get().to(target);
    let rest = Ask::v1;
    let path = "/sdk/v2/vardata";
    let mut pairs: Vec<_> = USERS
        .iter()
        .map(|(name, one, other)| (*name, Ask::sdk_get(one), Ask::sdk_get(other)))
        .collect();
    pairs.extend([
        ("deployment key", get(), get().key("server-another")),
        ("case of the key", get().key("server-a"), get().key("server-A")),
        ("end of the key", get().key("server-a"), get().key("server-aa")),
        (
            "where the key ends",
            get().key("server-a"),
            get().key("server-a,server-b"),
        ),
        ("route and shape", get(), get().to("/sdk/vardata")),
        (
            "route",
            Ask::post("/v1/vardata", user),
            Ask::post("/sdk/vardata", user),
        ),
        ("flag keys or all", get(), get().flag_keys(&["theme"])),
        (
            "flag keys",
            get().flag_keys(&["theme"]),
            get().flag_keys(&["banner"]),
        ),
        (
            "case of a flag key",
            get().flag_keys(&["A"]),
            get().flag_keys(&["a"]),
        ),
        (
            "one or two flag keys",
            get().flag_keys(&["a", "b"]),
            get().flag_keys(&["ab"]),
        ),
        (
            "comma in a flag key",
            get().flag_keys(&["a", "b"]),
            get().flag_keys(&["a,b"]),
        ),
        ("v", to(&format!("{path}?v=0")), to(&format!("{path}?v=1"))),
        ("eval_mode", get(), to(&format!("{path}?eval_mode=local"))),
        (
            "delivery_method",
            get(),
            to(&format!("{path}?delivery_method=web")),
        ),
        (
            "value of eval_mode",
            to(&format!("{path}?eval_mode=local")),
            to(&format!("{path}?eval_mode=remote")),
        ),
        ("unknown parameter", get(), to(&format!("{path}?v=0&new=1"))),
        (
            "value of an unknown parameter",
            to(&format!("{path}?new=1")),
            to(&format!("{path}?new=2")),
        ),
        (
            "unknown experiment header",
            get(),
            get().header("X-Amp-Exp-New", "1"),
        ),
        ("space or plus", rest("user_id=a+b"), rest("user_id=a%2Bb")),
        ("comma in an id", rest("user_id=a,b"), rest("user_id=a%2Cb,")),
        (
            "ampersand in an id",
            rest("user_id=a%26device_id=b"),
            rest("user_id=a&device_id=b"),
        ),
        (
            "empty or absent id",
            rest("user_id=a&device_id="),
            rest("user_id=a"),
        ),
        (
            "number in the context",
            rest("user_id=7"),
            rest("context=%7B%22user_id%22:7%7D"),
        ),
        (
            "flag key or user",
            rest("user_id=a&flag_keys=b"),
            rest("user_id=b&flag_keys=a"),
        ),
        (
            "assignment tracking",
            get(),
            get().header("X-Amp-Exp-Track", "no-track"),
        ),
        (
            "exposure tracking",
            get(),
            get().header("X-Amp-Exp-Exposure-Track", "track"),
        ),
    ]);
    pairs
        .into_iter()
        .map(|(name, one, other)| NearMiss { name, one, other })
        .collect()
}
