//! Amplitude: how its SDKs ask, how its cloud answers (API 3, 4), and the example flags of a shop: a holdout, an
//! experiment, releases by plan, version and prerequisite, and one flag in local mode.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use crate::api::Proxy;
use crate::evaluate::amplitude::{FlagSet, Subject};
use crate::evaluate::json::Document;
use crate::key::question::FlagsMode;
use crate::key::{
    Asked, Asks, DeploymentKey, Keyer, Question, Routing, USER_DEPTH_MAX, authorization, base64,
};
use crate::metrics::Route;

use super::client::{Person, Spelling};
use super::upstream::{json, plain};
use super::vendor::{Flags, Heard, Vendor, toggle_free_plan};

const EXAMPLE: &str = include_str!("flags.json");
/// The flag that changes.
const CHANGING: &str = "loyalty-prices";
/// The deployment key that its cloud knows.
const KEY: &str = "demo-key";

/// The vendor.
#[derive(Debug)]
pub(super) struct Amplitude;

/// Flags as its cloud publishes them.
#[derive(Debug)]
struct Example {
    /// All of them: `eval_mode=remote`.
    all: Bytes,
    /// Those in local mode.
    local: Bytes,
    document: Value,
    set: FlagSet,
    keyer: Arc<Keyer>,
}

impl Vendor for Amplitude {
    fn product(&self) -> &'static str {
        "Amplitude"
    }

    fn key(&self) -> &'static str {
        KEY
    }

    fn option(&self) -> &'static str {
        "--upstream"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["sync.flags_interval=1s"]
    }

    fn request(&self, person: &Person, spelling: Spelling, key: &str) -> String {
        let head = format!("Host: flagside\r\nAuthorization: Api-Key {key}\r\n");
        let in_header =
            |user: &str| format!("GET /sdk/v2/vardata?v=0 HTTP/1.1\r\n{head}X-Amp-Exp-User: {user}\r\n\r\n");
        match spelling {
            Spelling::Usual => in_header(&padded(&base64::encode(user(person).as_bytes()))),
            Spelling::Compact => in_header(&base64::encode(user(person).as_bytes())),
            Spelling::Permuted => {
                let user = user_permuted(person);
                format!(
                    "POST /sdk/v2/vardata?v=0 HTTP/1.1\r\n{head}Content-Type: application/json;charset=utf-8\r\nContent-Length: {}\r\n\r\n{user}",
                    user.len()
                )
            }
        }
    }

    fn spellings(&self) -> [(&'static str, Spelling); 2] {
        [
            ("POST, members in another order", Spelling::Permuted),
            ("GET, base64 without padding", Spelling::Compact),
        ]
    }

    fn is_question(&self, path: &str) -> bool {
        !matches!(route(path), Route::FlagsV1 | Route::FlagsV2)
    }

    fn variants(&self, body: &[u8]) -> Vec<String> {
        let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
            return Vec::new();
        };
        let variant = |value: &Value| value["key"].as_str().unwrap_or("?").to_owned();
        answer
            .iter()
            .map(|(flag, value)| format!("{flag}={}", variant(value)))
            .collect()
    }

    fn changing(&self) -> &'static str {
        CHANGING
    }

    fn example(&self) -> io::Result<Box<dyn Flags>> {
        let keyer = Keyer::random().map_err(|error| io::Error::other(error.to_string()))?;
        let example = Example::of(serde_json::from_str(EXAMPLE)?, Arc::new(keyer))?;
        Ok(Box::new(example))
    }

    fn revision(&self, proxy: &Proxy) -> Option<u64> {
        let deployment = proxy.deployments.get(0, &DeploymentKey::new(KEY.as_bytes())?)?;
        deployment.flags().evaluation()?;
        Some(deployment.epoch())
    }

    fn run_arguments(&self) -> &'static str {
        "--region us          # then http://127.0.0.1:3546"
    }

    fn flags_file(&self) -> &'static str {
        "src/command/demo/flags.json"
    }

    fn demo_arguments(&self) -> &'static str {
        "demo"
    }

    fn curl(&self, proxy: SocketAddr) -> Vec<String> {
        vec![
            format!("curl -i 'http://{proxy}/v1/vardata?user_id=eve' \\"),
            format!("  -H 'Authorization: Api-Key {KEY}'"),
        ]
    }
}

/// The user object.
fn user(person: &Person) -> String {
    let Person {
        id,
        platform,
        version,
        plan,
    } = person;
    format!(
        r#"{{"user_id":"{id}","platform":"{platform}","version":"{version}","user_properties":{{"plan":"{plan}"}}}}"#
    )
}

/// The same object, spelled as differently as JSON permits.
fn user_permuted(person: &Person) -> String {
    let Person {
        id,
        platform,
        version,
        plan,
    } = person;
    format!(
        r#"{{ "user_properties": {{ "plan": "{plan}" }}, "version": "{version}", "platform": "{platform}", "user_id": "{id}" }}"#
    )
}

/// URL-safe base64 in the standard alphabet, padded.
fn padded(text: &str) -> String {
    let mut text = text.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

fn route(path: &str) -> Route {
    let routing = Routing {
        amplitude: true,
        ..Routing::default()
    };
    routing.target(path).route
}

impl Example {
    fn of(document: Value, keyer: Arc<Keyer>) -> io::Result<Self> {
        let in_local_mode = |flag: &&Value| flag["metadata"]["evaluationMode"] == "local";
        let local: Vec<&Value> = document
            .as_array()
            .into_iter()
            .flatten()
            .filter(in_local_mode)
            .collect();
        let local = Bytes::from(serde_json::to_vec(&local)?);
        let all = Bytes::from(serde_json::to_vec(&document)?);
        let set = FlagSet::compile(&all).map_err(io::Error::other)?;
        Ok(Self {
            all,
            local,
            document,
            set,
            keyer,
        })
    }

    /// The answer about a user, in the shape of version 1 or 2; `None` if that is no user.
    fn evaluate(&self, user: &[u8], wanted: &[&str], v1: bool) -> Option<Vec<u8>> {
        let user = Document::parse(user, USER_DEPTH_MAX).ok()?;
        let evaluation = self.set.evaluate(Subject::User(user.root()), wanted, &mut ());
        let mut body = Vec::new();
        if v1 {
            evaluation.write_v1(&mut body);
        } else {
            evaluation.write_v2(&mut body);
        }
        Some(body)
    }

    fn hand_out(&self, asked: &Asked<'_>) -> Response<Full<Bytes>> {
        let question = Question::flags(asked, &self.keyer);
        let remote = question.is_ok_and(|question| {
            let mode = Some(FlagsMode::Remote);
            matches!(question.asks, Asks::Flags { mode: asked, .. } if asked == mode)
        });
        json(if remote {
            self.all.clone()
        } else {
            self.local.clone()
        })
    }
}

impl Flags for Example {
    fn len(&self) -> usize {
        self.set.len()
    }

    fn changed(&self) -> io::Result<(Box<dyn Flags>, String)> {
        let missing = || io::Error::other(format!("there is no flag {CHANGING} with a segment for plans"));
        let mut document = self.document.clone();
        let mut flags = document.as_array_mut().into_iter().flatten();
        let flag = flags.find(|flag| flag["key"] == CHANGING).ok_or_else(missing)?;
        let version = flag
            .pointer("/metadata/flagVersion")
            .and_then(Value::as_u64)
            .ok_or_else(missing)?;
        flag["metadata"]["flagVersion"] = Value::from(version + 1);
        let plans = flag
            .pointer_mut("/segments/0/conditions/0/0/values")
            .and_then(Value::as_array_mut);
        let done = toggle_free_plan(plans.ok_or_else(missing)?);
        let changed = Self::of(document, Arc::clone(&self.keyer))?;
        Ok((Box::new(changed), format!("{CHANGING} is {done}")))
    }

    fn verdict(&self, person: &Person) -> Option<Vec<u8>> {
        self.evaluate(user(person).as_bytes(), &[], false)
    }

    fn answer(&self, heard: &Heard<'_>) -> Response<Full<Bytes>> {
        let key = authorization::deployment_key(heard.headers).and_then(DeploymentKey::new);
        let Some(key) = key.filter(|key| key.expose() == KEY.as_bytes()) else {
            return plain(StatusCode::UNAUTHORIZED, "invalid deployment key\n");
        };
        let asked = Asked {
            route: route(heard.path),
            path: heard.path,
            query: heard.query,
            post: *heard.method == Method::POST,
            headers: heard.headers,
            body: heard.body,
            deployment_key: &key,
            environment: "demo",
            ignore_query: &[],
        };
        let v1 = match asked.route {
            Route::FlagsV1 | Route::FlagsV2 => return self.hand_out(&asked),
            Route::VardataV1 | Route::VardataLegacy => true,
            Route::VardataV2 => false,
            _ => return plain(StatusCode::NOT_FOUND, "no such path\n"),
        };
        let question = Question::vardata(&asked, &self.keyer).ok();
        let body = question.and_then(|question| match &question.asks {
            Asks::Variants { user, flag_keys } => {
                let wanted: Vec<&str> = flag_keys.as_slice().iter().map(String::as_str).collect();
                self.evaluate(user, &wanted, v1)
            }
            _ => None,
        });
        match body {
            Some(body) => json(body.into()),
            None => plain(StatusCode::BAD_REQUEST, "invalid user\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: &[u8] =
        br#"{"user_id":"a","platform":"Web","version":"4.1.9","user_properties":{"plan":"free"}}"#;

    #[test]
    fn every_example_flag_can_be_evaluated() {
        let keyer = Arc::new(Keyer::random().unwrap());
        let flags = Example::of(serde_json::from_str(EXAMPLE).unwrap(), keyer).unwrap();
        assert_eq!(flags.set.problems(), []);
        let body = flags.evaluate(FREE, &[], false).unwrap();
        assert_eq!(Amplitude.variants(&body).len(), flags.len());
        assert_ne!(flags.all, flags.local);
        assert_eq!(FlagSet::compile(&flags.local).unwrap().len(), 1);
    }

    #[test]
    fn users_are_spelled_otherwise_and_mean_the_same() {
        let ada = Person::named("ada", "Web", "4.1.9", "free");
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_ne!(user(&ada), user_permuted(&ada));
        assert_eq!(parse(&user(&ada)), parse(&user_permuted(&ada)));
        assert_eq!(base64::decode(padded("-_8").as_bytes()), base64::decode(b"-_8"));
        assert_eq!(padded("-_8"), "+/8=");
    }
}
