//! Preflights of browsers (API 3.9) and `/status`.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN,
    VARY,
};
use http::{HeaderMap, Response, StatusCode};

use super::answer::{AnswerBody, Cors, status_only};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
const HEADERS: &str = "authorization, content-type, x-amp-exp-user, x-amp-exp-flag-keys, x-amp-exp-track, \
                       x-amp-exp-exposure-track, x-amp-exp-library";
const ASKS_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOWS_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Longest list of requested headers that is echoed, in bytes.
const REQUESTED_BYTES_MAX: usize = 2048;

/// The answer to an `OPTIONS`: 204, no authorization needed. `Access-Control-Allow-Origin` is added by
/// the caller, as on every response.
pub(super) fn answer(cors: &Cors, asked: &HeaderMap) -> Response<AnswerBody> {
    let mut response = status_only(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ALLOW, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        allowed(asked.get(ACCESS_CONTROL_REQUEST_HEADERS)),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(
        VARY,
        HeaderValue::from_static("Origin, Access-Control-Request-Headers"),
    );
    // A page on the internet may reach into a private network only from an origin that is listed (design 7).
    let private = asked
        .get(ASKS_PRIVATE_NETWORK)
        .is_some_and(|value| value == "true");
    let listed = cors.is_listed() && asked.get(ORIGIN).is_some_and(|origin| cors.allows(origin));
    if private && listed {
        headers.insert(ALLOWS_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    response
}

/// The headers that SDKs send, and those that were asked for.
fn allowed(requested: Option<&HeaderValue>) -> HeaderValue {
    let requested = requested
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut all = String::from(HEADERS);
    if requested.len() <= REQUESTED_BYTES_MAX {
        for name in requested.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            let known = HEADERS.split(", ").any(|own| own == name);
            if !known && HeaderName::from_bytes(name.as_bytes()).is_ok() {
                all.push_str(", ");
                all.push_str(&name);
            }
        }
    }
    HeaderValue::from_str(&all).unwrap_or(HeaderValue::from_static(HEADERS))
}

/// `/status`: alive.
pub(super) fn status() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(Bytes::from_static(b"OK")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_asked_for_are_allowed_once() {
        let asked = HeaderValue::from_static("X-Custom, authorization, bad header, X-Amp-Exp-User,");
        assert_eq!(
            allowed(Some(&asked)).to_str().unwrap(),
            format!("{HEADERS}, x-custom")
        );
        assert_eq!(allowed(None), HEADERS);
    }

    #[test]
    fn private_networks_are_for_listed_origins_only() {
        let mut asked = HeaderMap::new();
        asked.insert(ASKS_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        asked.insert(ORIGIN, HeaderValue::from_static("https://shop.example"));
        let allows = |origins: &[&str]| {
            let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
            answer(&Cors::new(&origins), &asked)
                .headers()
                .contains_key(ALLOWS_PRIVATE_NETWORK)
        };
        assert!(!allows(&[]));
        assert!(allows(&["https://shop.example"]));
        assert!(!allows(&["https://other.example"]));
    }
}
