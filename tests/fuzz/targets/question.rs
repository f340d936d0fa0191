//! Whole requests, from the raw parts to the key and to what is forwarded.
//!
//! The input reads like a request: `METHOD target`, lines of headers, a blank line, the body.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use flagside::evaluate::json::{Document, Kind};
use flagside::key::{
    Asked, Asks, DeploymentKey, Key, Keyer, Question, Routing, USER_DEPTH_MAX, authorization, raw,
};
use flagside::metrics::Route;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;

static KEYER: LazyLock<Keyer> = LazyLock::new(|| Keyer::random().expect("random numbers"));

#[derive(Clone)]
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

fuzz_target!(|bytes: &[u8]| {
    let Some(request) = parse(bytes) else { return };
    let mut parts = Vec::new();
    raw::write(
        &mut parts,
        &request.method,
        &request.uri,
        &request.headers,
        &request.body,
    );
    let Some(question) = read(&request) else { return };
    if let Asks::Variants { user, .. } = &question.asks {
        let user = Document::parse(user, USER_DEPTH_MAX).expect("an effective user is JSON");
        assert_eq!(user.root().kind(), Kind::Object);
    }
    assert_eq!(key(&reordered(&request)), Some(question.key), "order matters");
    let forwarded = Request {
        method: question.forward.method.clone(),
        uri: question
            .forward
            .target
            .parse()
            .expect("a forwarded target is a URI"),
        headers: question.forward.headers.clone(),
        body: question.forward.body.clone(),
    };
    assert_eq!(
        key(&forwarded),
        Some(question.key),
        "forwarded as another question"
    );
});

fn read(request: &Request) -> Option<Question> {
    let routing = Routing {
        amplitude: true,
        ..Routing::default()
    };
    let target = routing.target(request.uri.path());
    let deployment_key = authorization::deployment_key(&request.headers).and_then(DeploymentKey::new)?;
    let post = request.method == Method::POST;
    let body = if post { request.body.clone() } else { Bytes::new() };
    let asked = Asked {
        route: target.route,
        path: &target.path,
        query: request.uri.query(),
        post,
        headers: &request.headers,
        body: &body,
        deployment_key: &deployment_key,
        environment: "main",
        ignore_query: &[],
    };
    match target.route {
        Route::VardataV1 | Route::VardataLegacy | Route::VardataV2 => Question::vardata(&asked, &KEYER).ok(),
        Route::FlagsV1 | Route::FlagsV2 if !post => Question::flags(&asked, &KEYER).ok(),
        _ => None,
    }
}

fn key(request: &Request) -> Option<Key> {
    read(request).map(|question| question.key)
}

/// The same request with headers and query parameters the other way round.
fn reordered(request: &Request) -> Request {
    let mut other = request.clone();
    let mut headers: Vec<_> = request.headers.iter().collect();
    headers.reverse();
    other.headers = headers
        .into_iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(query) = request.uri.query() {
        let mut pairs: Vec<_> = query.split('&').collect();
        pairs.reverse();
        let target = format!("{}?{}", request.uri.path(), pairs.join("&"));
        other.uri = target.parse().expect("the parts of a URI make a URI");
    }
    other
}

fn parse(bytes: &[u8]) -> Option<Request> {
    let end = bytes
        .windows(2)
        .position(|window| window == b"\n\n")
        .unwrap_or(bytes.len());
    let body = Bytes::copy_from_slice(bytes.get(end + 2..).unwrap_or_default());
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(
            name,
            HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?,
        );
    }
    Some(Request {
        method: method.parse().ok()?,
        uri: target.parse().ok()?,
        headers,
        body,
    })
}
