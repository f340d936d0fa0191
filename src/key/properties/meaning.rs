//! What a question asks, apart from how it is spelled.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::evaluate::json::{Document, Kind, Value};
use crate::metrics::Route;

/// A JSON value. Members of objects are unique; numbers are their tokens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// Whether the order of an object's members means nothing there (API 9.3, item 9).
pub(super) fn is_structural(path: &[&str]) -> bool {
    match path {
        [] | ["user_properties" | "groups"] => true,
        ["group_properties", rest @ ..] => rest.len() <= 2,
        ["group_cohort_ids", rest @ ..] => rest.len() <= 1,
        _ => false,
    }
}

impl Json {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Reads JSON. Not by `serde_json`, whose values do not keep the exact token of a number.
    pub(super) fn parse(text: &[u8]) -> Self {
        Self::of(Document::parse(text, 64).unwrap().root())
    }

    fn of(value: Value<'_>) -> Self {
        match value.kind() {
            Kind::Null => Self::Null,
            Kind::Bool => Self::Bool(value.as_bool().unwrap()),
            Kind::Number => Self::Number(value.as_number().unwrap().to_owned()),
            Kind::String => Self::text(value.as_str().unwrap()),
            Kind::Array => Self::List(value.elements().map(Self::of).collect()),
            Kind::Object => Self::Object(
                value
                    .members()
                    .map(|(name, value)| (name.to_owned(), Self::of(value)))
                    .collect(),
            ),
        }
    }

    /// One text per user that an engine could tell from others.
    pub(super) fn canonical(&self) -> String {
        self.canonical_at(&mut Vec::new())
    }

    fn canonical_at<'j>(&'j self, path: &mut Vec<&'j str>) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(token) => token.clone(),
            Self::Text(text) => serde_json::to_string(text).unwrap(),
            Self::List(items) => {
                // No path leads into a list.
                path.push("[]");
                let items: Vec<_> = items
                    .iter()
                    .map(|item| item.canonical_at(&mut vec!["[]"]))
                    .collect();
                path.pop();
                format!("[{}]", items.join(","))
            }
            Self::Object(members) => {
                let mut texts: Vec<(&str, String)> = Vec::new();
                for (name, value) in members {
                    path.push(name);
                    texts.push((name, value.canonical_at(path)));
                    path.pop();
                }
                if is_structural(path) {
                    texts.sort();
                }
                let texts: Vec<_> = texts
                    .iter()
                    .map(|(name, text)| format!("{name:?}:{text}"))
                    .collect();
                format!("{{{}}}", texts.join(","))
            }
        }
    }

    pub(super) fn members(&mut self) -> &mut Vec<(String, Self)> {
        match self {
            Self::Object(members) => members,
            other => panic!("{other:?} is no object"),
        }
    }

    pub(super) fn set(&mut self, name: &str, value: Self) {
        match self.members().iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => *own = value,
            None => self.members().push((name.to_owned(), value)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members
                .iter()
                .find(|(own, _)| own == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Meaning {
    pub(super) environment: &'static str,
    pub(super) route: Route,
    pub(super) deployment_key: &'static str,
    pub(super) user: Json,
    pub(super) flag_keys: BTreeSet<String>,
    pub(super) v: Option<&'static str>,
    pub(super) eval_mode: Option<&'static str>,
    pub(super) delivery_method: Option<&'static str>,
    /// Query parameters that nobody has documented.
    pub(super) parameters: Vec<(&'static str, String)>,
    /// Headers that nobody has documented.
    pub(super) headers: BTreeMap<&'static str, &'static str>,
    pub(super) track: &'static str,
    pub(super) exposure_track: &'static str,
}

impl Default for Meaning {
    fn default() -> Self {
        Self {
            environment: "main",
            route: Route::VardataV2,
            deployment_key: "client-0123456789",
            user: Json::Object(Vec::new()),
            flag_keys: BTreeSet::new(),
            v: None,
            eval_mode: None,
            delivery_method: None,
            parameters: Vec::new(),
            headers: BTreeMap::new(),
            track: "track",
            exposure_track: "no-track",
        }
    }
}

impl Meaning {
    pub(super) fn path(&self) -> &'static str {
        match self.route {
            Route::VardataV1 => "/v1/vardata",
            Route::VardataLegacy => "/sdk/vardata",
            Route::VardataV2 => "/sdk/v2/vardata",
            Route::FlagsV1 => "/v1/flags",
            _ => "/sdk/v2/flags",
        }
    }

    pub(super) fn is_flags(&self) -> bool {
        matches!(self.route, Route::FlagsV1 | Route::FlagsV2)
    }

    pub(super) fn sorted_flag_keys(&self) -> Vec<String> {
        self.flag_keys.iter().cloned().collect()
    }

    /// Whether the user can change the answer: always, but for flags only where they are made for a page.
    pub(super) fn has_user(&self) -> bool {
        !self.is_flags() || self.delivery_method == Some("web")
    }

    /// One text per question that upstream could tell from others.
    pub(super) fn identity(&self) -> String {
        let mut parameters = self.parameters.clone();
        parameters.sort();
        let user = self.has_user().then(|| self.user.canonical());
        let tracks = (!self.is_flags()).then_some((self.track, self.exposure_track));
        let head = (self.environment, self.route.as_str(), self.deployment_key);
        let options = (self.v, self.eval_mode, self.delivery_method);
        format!(
            "{head:?} {user:?} {:?} {options:?} {parameters:?} {:?} {tracks:?}",
            self.flag_keys, self.headers
        )
    }
}

pub(super) const ROUTES: [Route; 5] = [
    Route::VardataV1,
    Route::VardataLegacy,
    Route::VardataV2,
    Route::FlagsV1,
    Route::FlagsV2,
];

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ab]{0,2}",
        1 => "[a-c \"\\\\/<&+=%,{}\u{0}-\u{1f}\u{7f}ée\u{301}日😀]{0,6}",
        1 => prop::sample::select(vec!["1", "true", "null", "é", "e\u{301}", " a", "{}"]).prop_map(str::to_owned),
    ]
}

fn objects(values: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    proptest::collection::vec((texts(), values), 0..4).prop_map(|members| {
        let mut object = Json::Object(Vec::new());
        for (name, value) in members {
            object.set(&name, value);
        }
        object
    })
}

fn values() -> impl Strategy<Value = Json> {
    const NUMBERS: [&str; 12] = [
        "0",
        "-0",
        "1",
        "1.0",
        "10",
        "1e1",
        "1E1",
        "1e+1",
        "0.1",
        "9007199254740993",
        "9007199254740992",
        "1e999",
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        prop::sample::select(&NUMBERS[..]).prop_map(|token| Json::Number(token.to_owned())),
        texts().prop_map(Json::Text),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Json::List),
            objects(inner)
        ]
    })
}

fn users() -> impl Strategy<Value = Json> {
    let member = prop_oneof![
        (Just("user_id"), texts().prop_map(Json::Text)),
        (Just("device_id"), texts().prop_map(Json::Text)),
        (Just("user_id"), values()),
        (Just("country"), values()),
        (Just("user_properties"), objects(values())),
        (Just("groups"), objects(values())),
        (Just("group_properties"), objects(objects(objects(values())))),
        (Just("group_cohort_ids"), objects(objects(values()))),
        (Just("custom"), values()),
        (Just("custom"), Just(ordered())),
        (
            Just("user_properties"),
            Just(Json::Object(vec![("p".to_owned(), ordered())]))
        ),
    ];
    proptest::collection::vec(member, 0..6).prop_map(|members| {
        let mut user = Json::Object(Vec::new());
        for (name, value) in members {
            user.set(name, value);
        }
        user
    })
}

/// Questions from small alphabets, so that two of them are equal now and then.
pub(super) fn meanings() -> impl Strategy<Value = Meaning> {
    let option = |words: &'static [&'static str]| prop_oneof![3 => Just(None), 1 => prop::sample::select(words).prop_map(Some)];
    let head = (
        prop_oneof![3 => Just("main"), 1 => Just("other")],
        prop::sample::select(&ROUTES[..]),
        prop_oneof![3 => Just("client-0123456789"), 1 => Just("client-0123456780")],
        prop_oneof![2 => Just(Json::Object(Vec::new())), 3 => users()],
        proptest::collection::btree_set("[a-cA\u{e9}.:-]{1,2}", 0..3),
    );
    let options = (
        option(&["1", "2024-01-01", ""]),
        option(&["remote", "local"]),
        option(&["web", "feature"]),
        prop_oneof![2 => Just(vec![]), 1 => proptest::collection::vec((prop::sample::select(vec!["x", "y z", ""]), texts()), 0..3)],
        prop_oneof![2 => Just(BTreeMap::new()), 1 => Just(BTreeMap::from([("x-amp-exp-new", "1")]))],
        prop_oneof![3 => Just("track"), 1 => prop::sample::select(vec!["no-track", "read-only", ""])],
        prop_oneof![3 => Just("no-track"), 1 => Just("track")],
    );
    (head, options).prop_map(|(head, options)| Meaning {
        environment: head.0,
        route: head.1,
        deployment_key: head.2,
        user: head.3,
        flag_keys: head.4,
        v: options.0,
        eval_mode: options.1,
        delivery_method: options.2,
        parameters: options.3,
        headers: options.4,
        track: options.5,
        exposure_track: options.6,
    })
}

/// An object whose order means something where it is a property's value.
fn ordered() -> Json {
    let [one, two] = ["x", "y"].map(|name| (name.to_owned(), Json::text(name)));
    Json::Object(vec![one, two])
}

fn reverse(value: &mut Json) {
    if let Json::Object(members) = value {
        members.reverse();
    }
}

/// A change of one thing.
pub(super) type Change = fn(&mut Meaning);

/// Changes of one thing each, most of which ask something else; [`Meaning::identity`] says which do.
pub(super) const CHANGES: [(&str, Change); 22] = [
    ("nothing", |_| {}),
    ("environment", |it| it.environment = "elsewhere"),
    ("route", |it| {
        it.route = if it.route == Route::VardataV1 {
            Route::VardataV2
        } else {
            Route::VardataV1
        }
    }),
    ("deployment key", |it| it.deployment_key = "client-012345678"),
    ("user_id", |it| {
        it.user.set("user_id", Json::text("somebody else"))
    }),
    ("device_id as a number", |it| {
        it.user.set("device_id", Json::Number("7".to_owned()))
    }),
    ("explicit null", |it| it.user.set("city", Json::Null)),
    ("empty object", |it| {
        it.user.set("user_properties", Json::Object(Vec::new()))
    }),
    ("member removed", |it| drop(it.user.members().pop())),
    ("members in another order", |it| it.user.members().reverse()),
    ("text for a literal", |it| {
        for (_, value) in it.user.members() {
            if let Json::Number(text) = value.clone() {
                *value = Json::Text(text);
            }
        }
    }),
    ("number token", |it| {
        it.user.set("custom", Json::Number("1.00".to_owned()))
    }),
    ("order in a property value", |it| {
        for (_, value) in it.user.members() {
            match value {
                Json::Object(members) if members.len() == 1 => reverse(&mut members[0].1),
                other => reverse(other),
            }
        }
    }),
    ("flag key added", |it| {
        _ = it.flag_keys.insert("another".to_owned())
    }),
    ("flag keys removed", |it| it.flag_keys.clear()),
    ("v", |it| it.v = Some("0.0")),
    ("eval_mode", |it| it.eval_mode = Some("")),
    ("delivery_method", |it| it.delivery_method = Some("web")),
    ("parameter", |it| it.parameters.push(("x", "again".to_owned()))),
    ("header", |it| _ = it.headers.insert("x-amp-exp-new", "2")),
    ("track", |it| it.track = "other"),
    ("exposure track", |it| it.exposure_track = "other"),
];
