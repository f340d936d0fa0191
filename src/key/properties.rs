//! Properties of keys over generated questions: every spelling of one question has one key, two questions have
//! two, and what is forwarded asks exactly what the key says.
//!
//! [`Meaning`] says what is asked, [`Meaning::identity`] is an independent reading of API 9.2 and 9.3, and
//! [`spelling`] writes a meaning down in one of the many ways that SDKs and people do.

mod forwarded;
mod meaning;
mod spelling;

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use proptest::prelude::*;

use crate::metrics::Route;

use super::question::{EXPOSURE_TRACK, FLAG_KEYS, TRACK, USER};
use super::{
    Asked, Asks, DeploymentKey, Fingerprint, Key, Keyer, Question, Routing, Unreadable, authorization,
    base64, raw,
};
use meaning::{Json, Meaning, meanings};
use spelling::{Dice, Spelled};

/// One process, one keyer.
static KEYER: LazyLock<Keyer> = LazyLock::new(|| Keyer::random().unwrap());

/// The parameters that a configuration ignores.
const IGNORED: &str = "utm";

fn read(meaning: &Meaning, spelled: &Spelled) -> Result<Question, Unreadable> {
    let deployment_key = authorization::deployment_key(&spelled.headers).and_then(DeploymentKey::new);
    let deployment_key = deployment_key.unwrap_or_else(|| DeploymentKey::new(b"none").unwrap());
    let asked = Asked {
        route: meaning.route,
        path: meaning.path(),
        query: spelled.query.as_deref(),
        post: spelled.post,
        headers: &spelled.headers,
        body: &spelled.body,
        deployment_key: &deployment_key,
        environment: meaning.environment,
        ignore_query: &[IGNORED.to_owned()],
    };
    if meaning.is_flags() {
        Question::flags(&asked, &KEYER)
    } else {
        Question::vardata(&asked, &KEYER)
    }
}

fn spell_and_read(meaning: &Meaning, seed: u64) -> (Spelled, Question) {
    let spelled = Spelled::of(meaning, &mut Dice(seed));
    let question = read(meaning, &spelled).unwrap_or_else(|error| panic!("{error}: {spelled:?}"));
    (spelled, question)
}

fn key(meaning: &Meaning, seed: u64) -> Key {
    spell_and_read(meaning, seed).1.key
}

/// What the memo is asked for.
fn fingerprint(meaning: &Meaning, spelled: &Spelled) -> Fingerprint {
    let target = format!(
        "{}?{}",
        meaning.path(),
        spelled.query.as_deref().unwrap_or_default()
    );
    let uri: Uri = target.parse().unwrap();
    let method = if spelled.post { Method::POST } else { Method::GET };
    let mut out = Vec::new();
    raw::write(&mut out, &method, &uri, &spelled.headers, &spelled.body);
    KEYER.fingerprint(&out)
}

/// The user that the engine is given.
fn user_of(question: &Question) -> &[u8] {
    match &question.asks {
        Asks::Variants { user, .. } => user,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn every_spelling_of_a_question_has_one_key(meaning in meanings(), seeds in any::<[u64; 3]>()) {
        let [one, two, three] = seeds.map(|seed| spell_and_read(&meaning, seed));
        prop_assert_eq!(one.1.key, two.1.key, "{:?}\n{:?}", one.0, two.0);
        prop_assert_eq!(one.1.key, three.1.key, "{:?}\n{:?}", one.0, three.0);
    }

    #[test]
    fn two_questions_have_two_keys(one in meanings(), two in meanings(), seeds in any::<[u64; 2]>()) {
        let equal = key(&one, seeds[0]) == key(&two, seeds[1]);
        prop_assert_eq!(equal, one.identity() == two.identity());
    }

    #[test]
    fn one_change_to_a_question_changes_its_key(
        meaning in meanings(),
        change in 0..meaning::CHANGES.len(),
        seeds in any::<[u64; 2]>(),
    ) {
        let (name, change) = meaning::CHANGES[change];
        let mut changed = meaning.clone();
        change(&mut changed);
        let equal = key(&meaning, seeds[0]) == key(&changed, seeds[1]);
        prop_assert_eq!(equal, meaning.identity() == changed.identity(), "{}", name);
    }

    #[test]
    fn upstream_is_asked_what_the_key_says(meaning in meanings(), seed in any::<u64>()) {
        let (spelled, question) = spell_and_read(&meaning, seed);
        let read = forwarded::read(&meaning, &question.forward);
        prop_assert_eq!(read.identity(), meaning.identity(), "{:?}\n{:?}", spelled, question.forward);
        if !meaning.is_flags() {
            prop_assert_eq!(Json::parse(user_of(&question)).canonical(), meaning.user.canonical());
        }
        let (Asks::Variants { flag_keys, .. } | Asks::Flags { flag_keys, .. }) = &question.asks else {
            panic!("{:?}", question.asks)
        };
        prop_assert_eq!(flag_keys.as_slice(), meaning.sorted_flag_keys());
    }

    #[test]
    fn the_forwarded_request_has_the_same_key(meaning in meanings(), seed in any::<u64>()) {
        let (spelled, question) = spell_and_read(&meaning, seed);
        let target = question.forward.target.as_str();
        let again = Spelled {
            post: question.forward.method == Method::POST,
            query: target.split_once('?').map(|(_, query)| query.to_owned()),
            headers: question.forward.headers.clone(),
            body: question.forward.body.clone(),
        };
        prop_assert_eq!(read(&meaning, &again).map(|it| it.key), Ok(question.key), "{:?}\n{:?}", spelled, again);
    }

    #[test]
    fn equal_fingerprints_mean_equal_keys(meaning in meanings(), seed in any::<u64>()) {
        let (spelled, question) = spell_and_read(&meaning, seed);
        let mut other = spelled.clone();
        other.tell_more(&mut Dice(!seed));
        prop_assert_eq!(fingerprint(&meaning, &spelled), fingerprint(&meaning, &other));
        prop_assert_eq!(read(&meaning, &other).map(|it| it.key), Ok(question.key));
    }

    #[test]
    fn different_keys_mean_different_fingerprints(
        meaning in meanings(),
        change in 0..meaning::CHANGES.len(),
        seeds in any::<[u64; 2]>(),
    ) {
        let mut changed = meaning.clone();
        meaning::CHANGES[change].1(&mut changed);
        // What raw parts do not show is the same for all requests of a process: the environment by key.
        changed.environment = meaning.environment;
        let [one, two] = [(&meaning, seeds[0]), (&changed, seeds[1])].map(|(meaning, seed)| {
            let (spelled, question) = spell_and_read(meaning, seed);
            (question.key, fingerprint(meaning, &spelled))
        });
        prop_assert!(one.0 == two.0 || one.1 != two.1);
    }
}

/// Text that is nearly what a part should be.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let json = prop_oneof![
        Just(r#"{"user_id":"a","user_properties":{"x":[1,{}]}}"#.to_owned()),
        Just(r#"["a","b"]"#.to_owned()),
        Just("{".repeat(80)),
        Just(r#"{"a":"\ud800"}"#.to_owned()),
    ];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        json.clone().prop_map(String::into_bytes),
        json.prop_map(|text| base64::encode(text.as_bytes()).into_bytes()),
        (proptest::collection::vec(any::<u8>(), 0..80)).prop_map(|bytes| base64::encode(&bytes).into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_bytes_make_reading_panic(
        route in 0..5usize,
        post in any::<bool>(),
        query in ".{0,60}",
        pairs in proptest::collection::vec((0..9usize, ".{0,20}"), 0..4),
        headers in proptest::collection::vec((0..8usize, nearly()), 0..6),
        body in nearly(),
    ) {
        const NAMES: [&str; 9] =
            ["user_id", "device_id", "context", "flag_keys", "flag_key", "v", "eval_mode", "delivery_method", "d"];
        let names = [
            USER, FLAG_KEYS, TRACK, EXPOSURE_TRACK, http::header::AUTHORIZATION, http::header::CONTENT_ENCODING,
            http::header::CONTENT_TYPE, http::HeaderName::from_static("x-amp-exp-new"),
        ];
        let query = pairs.iter().fold(query, |query, (name, value)| format!("{query}&{}={value}", NAMES[*name]));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                map.append(names[name].clone(), value);
            }
        }
        let meaning = Meaning { route: meaning::ROUTES[route], ..Meaning::default() };
        let spelled = Spelled { post, query: Some(query), headers: map, body: Bytes::from(body) };
        let [one, two] = [read(&meaning, &spelled), read(&meaning, &spelled)].map(|read| read.map(|it| it.key));
        prop_assert_eq!(one, two);
    }

    #[test]
    fn no_path_makes_routing_panic(path in ".{0,40}", slashes in "[/.%2eE]{0,12}", prefix in "(/[a-z]{1,3})?") {
        for path in [path.clone(), slashes.clone(), format!("/sdk/{slashes}{path}"), format!("{prefix}{slashes}")] {
            let routing = Routing { prefix: prefix.clone(), amplitude: true, featbit: true };
            let target = routing.target(&path);
            prop_assert!(target.path.starts_with('/'), "{path}");
            let dots = target.path.split('/').any(|part| matches!(part, "." | ".."));
            prop_assert!(!dots || target.route == Route::Other, "{path}");
        }
    }
}

#[test]
fn a_blank_body_is_the_empty_user_of_any_length() {
    let deployment_key = DeploymentKey::new(b"k").unwrap();
    let headers = HeaderMap::new();
    let ask = |body: &'static str| {
        let asked = Asked {
            route: Route::VardataV2,
            path: "/sdk/v2/vardata",
            query: None,
            post: true,
            headers: &headers,
            body: &Bytes::from_static(body.as_bytes()),
            deployment_key: &deployment_key,
            environment: "main",
            ignore_query: &[],
        };
        Question::vardata(&asked, &KEYER).unwrap()
    };
    let empty = ask("{}");
    for blank in ["", " ", "  ", "\r\n", "\n\n\n"] {
        let question = ask(blank);
        assert_eq!(question.key, empty.key, "{blank:?}");
        assert_eq!(user_of(&question), b"{}", "{blank:?}: the engine reads it");
        assert_eq!(
            &question.forward.body[..],
            b"{}",
            "{blank:?}: equal keys ask upstream the same"
        );
    }
}
