//! Upstream's reading of what is forwarded to it, as its documents describe it and no more leniently: the user
//! from the header on SDK routes, from the query on `/v1/vardata`, from the body of a POST (API 2 and 3).

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};

use super::super::question::Forward;
use super::meaning::{Json, Meaning};
use super::{EXPOSURE_TRACK, FLAG_KEYS, TRACK, USER, base64};
use crate::metrics::Route;

/// What `forward` asks. `asked` gives what no request says: the environment and the route.
pub(super) fn read(asked: &Meaning, forward: &Forward) -> Meaning {
    let (path, query) = forward.target.split_once('?').unwrap_or((&forward.target, ""));
    assert_eq!(path, asked.path());
    let mut pairs = Pairs::read(query);
    let user = user(asked, forward, &mut pairs);
    let flag_keys = flag_keys(forward, &mut pairs);
    let _ = pairs.take("d");
    Meaning {
        environment: asked.environment,
        route: asked.route,
        deployment_key: text(forward, AUTHORIZATION)
            .and_then(|value| value.strip_prefix("Api-Key "))
            .map(leak)
            .unwrap(),
        user,
        flag_keys,
        v: pairs.take("v").filter(|v| v != "0").map(leak),
        eval_mode: pairs.take("eval_mode").map(leak),
        delivery_method: pairs.take("delivery_method").map(leak),
        parameters: pairs
            .0
            .into_iter()
            .map(|(name, value)| (leak(name), value))
            .collect(),
        headers: headers(forward),
        track: text(forward, TRACK).map_or("track", leak),
        exposure_track: text(forward, EXPOSURE_TRACK).map_or("no-track", leak),
    }
}

fn user(asked: &Meaning, forward: &Forward, pairs: &mut Pairs) -> Json {
    let [user_id, device_id, context] = ["user_id", "device_id", "context"].map(|name| pairs.take(name));
    let json = |text: &[u8]| match text.trim_ascii() {
        b"" => Json::Object(Vec::new()),
        text => Json::parse(text),
    };
    if forward.method == Method::GET && asked.route == Route::VardataV1 {
        let mut user = json(context.unwrap_or_default().as_bytes());
        for (name, value) in [("user_id", user_id), ("device_id", device_id)] {
            if let Some(value) = value {
                user.set(name, Json::Text(value));
            }
        }
        return user;
    }
    assert_eq!(
        (user_id, device_id, context),
        (None, None, None),
        "identity where upstream does not look"
    );
    if forward.method == Method::POST {
        assert_eq!(text(forward, CONTENT_TYPE), Some("application/json"));
        return json(&forward.body);
    }
    assert!(forward.body.is_empty());
    json(&base64::decode(text(forward, USER).unwrap_or_default().as_bytes()).unwrap())
}

fn flag_keys(forward: &Forward, pairs: &mut Pairs) -> BTreeSet<String> {
    let (header, listed) = (text(forward, FLAG_KEYS), pairs.take("flag_keys"));
    assert!(header.is_none() || listed.is_none(), "two lists of flag keys");
    assert_eq!(
        pairs.take("flag_key"),
        None,
        "the spelling that is not documented"
    );
    let keys: Vec<String> = match header {
        Some(value) => serde_json::from_slice(&base64::decode(value.as_bytes()).unwrap()).unwrap(),
        None => listed
            .unwrap_or_default()
            .split(',')
            .map(|key| key.trim().to_owned())
            .collect(),
    };
    keys.into_iter().filter(|key| !key.is_empty()).collect()
}

fn text(forward: &Forward, name: HeaderName) -> Option<&str> {
    forward.headers.get(name).map(|value| value.to_str().unwrap())
}

/// The decoded pairs of a query.
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn read(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(
            pairs
                .map(|(name, value)| (decoded(name), decoded(value)))
                .collect(),
        )
    }

    /// The value of a parameter that may be there once.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        let (_, value) = self.0.remove(at);
        assert!(self.0.iter().all(|(own, _)| own != name), "{name} is there twice");
        Some(value)
    }
}

/// The headers nobody has documented; those that must not travel are not among them.
fn headers(forward: &Forward) -> BTreeMap<&'static str, &'static str> {
    let known: BTreeSet<&str> = [
        "authorization",
        "content-type",
        "x-amp-exp-user",
        "x-amp-exp-flag-keys",
        "x-amp-exp-track",
        "x-amp-exp-exposure-track",
        "x-amp-exp-library",
        "traceparent",
        "x-request-id",
    ]
    .into();
    let others = forward
        .headers
        .iter()
        .filter(|(name, _)| !known.contains(name.as_str()));
    others
        .map(|(name, value)| (leak(name.as_str()), leak(value.to_str().unwrap())))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            plain => plain,
        });
    }
    String::from_utf8(out).unwrap()
}

/// Meanings are made of words from tables; those that were read live as long as the test.
fn leak(text: impl Into<String>) -> &'static str {
    text.into().leak()
}
