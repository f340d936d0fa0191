//! FeatBit: its evaluate endpoint, its polling, and example flags of a web dashboard (FB 3, 6.2).

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use crate::api::Proxy;
use crate::api::featbit::Caller;
use crate::evaluate::featbit::{DataSet, DataSync, Request as Wanted};
use crate::key::{query, question};

use super::client::{Person, Spelling};
use super::upstream::{json, plain};
use super::vendor::{Flags, Heard, Vendor, toggle_free_plan};

const EXAMPLE: &str = include_str!("featbit.json");
/// The flag that changes.
const CHANGING: &str = "new-dashboard-design";
/// A server secret; its second half names the environment of the example.
const SECRET: &str = "demo-0123456789-abcdef3l0M054oI0OKXOZNKhqS2w";
/// Columns that a value may take in a list of variants.
const VALUE_MAX: usize = 12;

/// The vendor.
#[derive(Debug)]
pub(super) struct Featbit;

/// Flags as its server has them.
#[derive(Debug)]
struct Example {
    message: Value,
    set: DataSet,
    /// How often they were changed.
    changes: u32,
}

impl Vendor for Featbit {
    fn product(&self) -> &'static str {
        "FeatBit"
    }

    fn key(&self) -> &'static str {
        SECRET
    }

    fn option(&self) -> &'static str {
        "--featbit-upstream"
    }

    fn settings(&self) -> &'static [&'static str] {
        // The built-in server has no streams.
        &["sync.streaming=false", "sync.featbit_poll_interval=1s"]
    }

    fn request(&self, person: &Person, spelling: Spelling, key: &str) -> String {
        let body = body(person, spelling);
        format!(
            "POST {} HTTP/1.1\r\nHost: flagside\r\nAuthorization: {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            question::EVALUATE,
            body.len()
        )
    }

    fn spellings(&self) -> [(&'static str, Spelling); 2] {
        [
            ("members and properties permuted", Spelling::Permuted),
            ("other case, unset things left out", Spelling::Compact),
        ]
    }

    fn is_question(&self, path: &str) -> bool {
        path == question::EVALUATE
    }

    fn variants(&self, body: &[u8]) -> Vec<String> {
        let Ok(Value::Array(flags)) = serde_json::from_slice(body) else {
            return Vec::new();
        };
        let variant = |flag: &Value| {
            let value = flag["variation"]["value"].as_str().unwrap_or("null");
            let shown: String = value.chars().take(VALUE_MAX).collect();
            let more = if shown.len() < value.len() { "…" } else { "" };
            format!("{}={shown}{more}", flag["key"].as_str().unwrap_or("?"))
        };
        flags.iter().map(variant).collect()
    }

    fn changing(&self) -> &'static str {
        CHANGING
    }

    fn example(&self) -> io::Result<Box<dyn Flags>> {
        let message = serde_json::from_str(EXAMPLE)?;
        Ok(Box::new(Example::of(message, 0)?))
    }

    fn revision(&self, proxy: &Proxy) -> Option<u64> {
        let held = proxy.featbit.environments.all().into_iter().next()?;
        held.synced()?;
        let changes = *held.changes().borrow();
        Some(changes)
    }

    fn run_arguments(&self) -> &'static str {
        "--featbit-upstream http://featbit:5100"
    }

    fn flags_file(&self) -> &'static str {
        "src/command/demo/featbit.json"
    }

    fn demo_arguments(&self) -> &'static str {
        "demo --engine featbit"
    }

    fn curl(&self, proxy: SocketAddr) -> Vec<String> {
        vec![
            format!("curl -i http://{proxy}{} \\", question::EVALUATE),
            format!("  -H 'Authorization: {SECRET}' \\"),
            "  -H 'Content-Type: application/json' \\".to_owned(),
            r#"  -d '{"user": {"keyId": "eve"}}'"#.to_owned(),
        ]
    }
}

fn body(person: &Person, spelling: Spelling) -> String {
    let Person {
        id,
        platform,
        version,
        plan,
    } = person;
    match spelling {
        Spelling::Usual => format!(
            r#"{{"user":{{"keyId":"{id}","name":null,"customizedProperties":[{{"name":"platform","value":"{platform}"}},{{"name":"version","value":"{version}"}},{{"name":"plan","value":"{plan}"}}]}},"filter":{{"tags":[],"keys":[]}}}}"#
        ),
        Spelling::Permuted => format!(
            r#"{{ "filter": {{ "keys": [], "tags": [] }}, "user": {{ "customizedProperties": [ {{ "value": "{plan}", "name": "plan" }}, {{ "value": "{version}", "name": "version" }}, {{ "value": "{platform}", "name": "platform" }} ], "keyId": "{id}" }} }}"#
        ),
        Spelling::Compact => format!(
            r#"{{"User":{{"KeyId":"{id}","CustomizedProperties":[{{"Name":"platform","Value":"{platform}"}},{{"Name":"plan","Value":"{plan}"}},{{"Name":"version","Value":"{version}"}}]}}}}"#
        ),
    }
}

impl Example {
    fn of(message: Value, changes: u32) -> io::Result<Self> {
        let read = DataSync::parse(message.to_string().as_bytes()).map_err(io::Error::other)?;
        let set = DataSet::empty().apply(&read).set;
        Ok(Self {
            message,
            set,
            changes,
        })
    }

    fn evaluate(&self, body: &[u8]) -> Option<Vec<u8>> {
        let wanted = Wanted::parse(body).ok()?;
        let mut answer = Vec::new();
        self.set.evaluate(&wanted).write_json(&mut answer);
        Some(answer)
    }
}

impl Flags for Example {
    fn len(&self) -> usize {
        self.set.flags().len()
    }

    fn changed(&self) -> io::Result<(Box<dyn Flags>, String)> {
        let missing = || io::Error::other(format!("there is no flag {CHANGING} with a rule for plans"));
        let mut message = self.message.clone();
        let flags = message
            .pointer_mut("/data/featureFlags")
            .and_then(Value::as_array_mut);
        let mut flags = flags.into_iter().flatten();
        let flag = flags.find(|flag| flag["key"] == CHANGING).ok_or_else(missing)?;
        let n = self.changes + 1;
        // Later than before, which is all that counts.
        flag["updatedAt"] = format!(
            "2030-01-01T{:02}:{:02}:{:02}Z",
            n / 3600 % 24,
            n / 60 % 60,
            n % 60
        )
        .into();
        let plans = flag
            .pointer_mut("/rules/0/conditions/0/value")
            .ok_or_else(missing)?;
        let mut list: Vec<Value> = serde_json::from_str(plans.as_str().ok_or_else(missing)?)?;
        let done = toggle_free_plan(&mut list);
        *plans = Value::Array(list).to_string().into();
        let changed = Self::of(message, n)?;
        Ok((Box::new(changed), format!("{CHANGING} is {done}")))
    }

    fn verdict(&self, person: &Person) -> Option<Vec<u8>> {
        self.evaluate(body(person, Spelling::Usual).as_bytes())
    }

    fn answer(&self, heard: &Heard<'_>) -> Response<Full<Bytes>> {
        let caller = Caller::of(heard.headers);
        if caller.is_none_or(|caller| caller.key.expose() != SECRET.as_bytes()) {
            return plain(StatusCode::UNAUTHORIZED, "");
        }
        match heard.path {
            question::EVALUATE if *heard.method == Method::POST => match self.evaluate(heard.body) {
                Some(answer) => json(answer.into()),
                None => plain(StatusCode::BAD_REQUEST, "invalid request\n"),
            },
            "/api/public/sdk/server/latest-all" if *heard.method == Method::GET => {
                let pairs = query::pairs(heard.query.unwrap_or_default()).unwrap_or_default();
                let since = pairs.iter().find(|pair| pair.name == "timestamp");
                let since = since.and_then(|pair| pair.value.parse().ok()).unwrap_or(0);
                json(self.set.to_data_sync(since).unwrap_or_default().into())
            }
            _ => plain(StatusCode::NOT_FOUND, "no such path\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_flag_can_be_evaluated() {
        let message = serde_json::from_str(EXAMPLE).unwrap();
        let example = Example::of(message, 0).unwrap();
        assert!(example.set.problems().is_empty());
        let secret = Caller::of_secret(SECRET).unwrap();
        assert_eq!(example.set.environment(), Some(secret.id));
        let ada = Person::named("ada", "Web", "4.1.9", "free");
        let answers = [Spelling::Usual, Spelling::Permuted, Spelling::Compact]
            .map(|spelling| example.evaluate(body(&ada, spelling).as_bytes()).unwrap());
        assert!(answers[0] == answers[1] && answers[1] == answers[2]);
    }
}
