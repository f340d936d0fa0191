//! Costs from a request to its stored response: `cargo bench --bench key`.
//!
//! `key` lines decode and canonicalize a whole request, as a raw miss does; `raw` lines gather its raw parts,
//! and `memo` lines look these up among 10,000. With the name of a line as argument, only that one runs, a
//! fixed number of times: for callgrind.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and may die"
)]

mod timing;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flagside::cache::{Label, Memo, Stored};
use flagside::key::{Asked, DeploymentKey, Key, Keyer, Question, base64, raw};
use flagside::metrics::Route;
use flagside::store::Deployment;
use http::{HeaderMap, HeaderValue, Method, Uri};
use timing::Timing;

const USERS: usize = 10_000;

fn main() {
    let timing = Timing::from_arguments();
    let keyer = Keyer::random().expect("the system has random numbers");
    let requests = [
        ("v1", query()),
        ("header", header(&small(1))),
        ("header-40", header(&large(1))),
        ("post", post(&small(1))),
        ("post-40", post(&large(1))),
    ];
    for (name, request) in &requests {
        timing.measure(&format!("key {name}"), || request.key(&keyer));
    }
    let mut scratch = Vec::new();
    for (name, request) in &requests {
        timing.measure(&format!("raw {name}"), || {
            request.raw(&mut scratch);
            scratch.len()
        });
    }
    for (name, make) in [("header", small as fn(usize) -> String), ("header-40", large)] {
        let requests: Vec<Request> = (0..USERS).map(|user| header(&make(user))).collect();
        let stored = stored();
        let mut memo = Memo::new(1 << 30);
        for request in &requests {
            request.raw(&mut scratch);
            memo.learn(keyer.fingerprint(&scratch), request.key(&keyer), &stored);
        }
        let mut user = 0;
        timing.measure(&format!("raw+memo {name}"), || {
            // A prime: neighbours in time are none in memory.
            user = (user + 7_919) % USERS;
            requests[user].raw(&mut scratch);
            memo.find(keyer.fingerprint(&scratch)).map(|found| found.key)
        });
    }
}

/// A request as the server hands it on.
struct Request {
    route: Route,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    deployment_key: DeploymentKey,
}

impl Request {
    fn key(&self, keyer: &Keyer) -> Key {
        let asked = Asked {
            route: self.route,
            path: self.uri.path(),
            query: self.uri.query(),
            post: self.method == Method::POST,
            headers: &self.headers,
            body: &self.body,
            deployment_key: &self.deployment_key,
            environment: "production",
            ignore_query: &[],
        };
        Question::vardata(&asked, keyer).expect("a readable request").key
    }

    fn raw(&self, scratch: &mut Vec<u8>) {
        raw::write(scratch, &self.method, &self.uri, &self.headers, &self.body);
    }
}

fn request(route: Route, method: Method, uri: &'static str, body: &str) -> Request {
    const KEY: &str = "server-0123456789abcdef0123456789abcdef";
    let mut headers = HeaderMap::new();
    let value = format!("Api-Key {KEY}");
    headers.insert("host", HeaderValue::from_static("127.0.0.1:3546"));
    headers.insert("authorization", HeaderValue::try_from(value).expect("plain text"));
    headers.insert("accept", HeaderValue::from_static("*/*"));
    headers.insert("user-agent", HeaderValue::from_static("experiment-sdk/1.0"));
    Request {
        route,
        method,
        uri: Uri::from_static(uri),
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
        deployment_key: DeploymentKey::new(KEY.as_bytes()).expect("a key"),
    }
}

fn query() -> Request {
    const TARGET: &str = "/v1/vardata?user_id=user-000001&device_id=9e3779b1-6d1f-4c3e-9a55-1b2c3d4e5f60";
    request(Route::VardataV1, Method::GET, TARGET, "")
}

fn header(user: &str) -> Request {
    let mut request = request(Route::VardataV2, Method::GET, "/sdk/v2/vardata?v=0", "");
    let value = base64::encode(user.as_bytes());
    request
        .headers
        .insert("x-amp-exp-user", HeaderValue::try_from(value).expect("base64"));
    request
}

fn post(user: &str) -> Request {
    let mut request = request(Route::VardataV2, Method::POST, "/sdk/v2/vardata?v=0", user);
    request
        .headers
        .insert("content-type", HeaderValue::from_static("application/json"));
    request
}

/// 150 bytes.
fn small(user: usize) -> String {
    format!(
        r#"{{"user_id":"user-{user:06}","device_id":"9e3779b1-6d1f-4c3e-9a55-1b2c3d4e5f60","platform":"Web","user_properties":{{"premium":true,"plan":"gold"}}}}"#
    )
}

/// The same user with 40 properties.
fn large(user: usize) -> String {
    let properties: Vec<String> = (0..40)
        .map(|number| {
            format!(r#""property {number:02}":"value {number} of user {user:06}, as long as usual""#)
        })
        .collect();
    format!(
        r#"{{"user_id":"user-{user:06}","platform":"Web","user_properties":{{{}}}}}"#,
        properties.join(",")
    )
}

fn stored() -> Arc<Stored> {
    let key = DeploymentKey::new(b"key").expect("a key");
    let deployment = Arc::new(Deployment::new(0, key, true));
    let now = Instant::now();
    Arc::new(Stored {
        body: Box::from(*b"{}"),
        content_type: Label::Json,
        etag: None,
        asked_at: now,
        epoch: deployment.epoch(),
        deployment,
        route: Route::VardataV2,
        definitions: None,
        marks: flagside::cache::Marks::default(),
        held: None,
    })
}
