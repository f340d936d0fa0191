//! Replies in the forms of FeatBit's server.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};

use crate::api::answer::{AnswerBody, JSON_UTF8, NO_STORE, status_only};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Stable code of an error made here (design 7).
const ERROR_CODE: HeaderName = HeaderName::from_static("x-flagside-error");

/// 200 with JSON, or with nothing where nothing is newer.
pub(super) fn json(body: impl Into<Bytes>) -> Response<AnswerBody> {
    let body = body.into();
    let is_empty = body.is_empty();
    let mut response = with(StatusCode::OK, body, JSON_UTF8);
    if is_empty {
        response.headers_mut().remove(CONTENT_TYPE);
    }
    response
}

/// A text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<AnswerBody> {
    with(status, Bytes::from_static(text.as_bytes()), TEXT)
}

/// What a request without a secret gets.
pub(in crate::api) fn without_secret() -> Response<AnswerBody> {
    unauthorized("missing_environment_secret")
}

/// 401 without body and without `WWW-Authenticate`.
pub(super) fn unauthorized(code: &'static str) -> Response<AnswerBody> {
    let mut response = status_only(StatusCode::UNAUTHORIZED);
    mark(&mut response, code);
    response
}

/// Another status without body.
pub(super) fn bare(status: StatusCode, code: &'static str) -> Response<AnswerBody> {
    let mut response = status_only(status);
    mark(&mut response, code);
    response
}

/// 415: the body is not said to be JSON.
pub(super) fn not_json() -> Response<AnswerBody> {
    bare(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
}

/// 503: there is nothing to answer with, now.
pub(super) fn no_answer() -> Response<AnswerBody> {
    let body =
        br#"{"message":"upstream gave no answer and there is nothing to answer with instead: try again"}"#;
    let mut response = with(
        StatusCode::SERVICE_UNAVAILABLE,
        Bytes::from_static(body),
        JSON_UTF8,
    );
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    mark(&mut response, "no_answer");
    response
}

/// 400 with a message, in the documented form (FB 3.3).
pub(super) fn message(text: &str) -> Response<AnswerBody> {
    let mut body = Vec::from(br#"{"message":"#);
    crate::evaluate::json::write_string(text, &mut body);
    body.push(b'}');
    let mut response = with(StatusCode::BAD_REQUEST, Bytes::from(body), JSON_UTF8);
    mark(&mut response, "invalid_request");
    response
}

/// 400 with a problem document: `detail` says what could not be read.
#[must_use]
pub fn problem(detail: &str) -> Response<AnswerBody> {
    let mut body = Vec::from(
        br#"{"type":"https://tools.ietf.org/html/rfc9110#section-15.5.1","title":"One or more validation errors occurred.","status":400,"errors":{"$":["#,
    );
    crate::evaluate::json::write_string(detail, &mut body);
    body.extend_from_slice(b"]}}");
    let mut response = with(StatusCode::BAD_REQUEST, Bytes::from(body), PROBLEM);
    mark(&mut response, "unreadable_request");
    response
}

fn with(status: StatusCode, body: Bytes, content_type: HeaderValue) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

fn mark(response: &mut Response<AnswerBody>, code: &'static str) {
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, HeaderValue::from_static(code));
    headers.insert(CACHE_CONTROL, NO_STORE);
}

/// Whether a body is said to be JSON: `application/json`, `text/json` or `application/*+json`, with any parameters.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(text) = value.to_str() else { return false };
    let media = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match media.split_once('/') {
        Some(("application", "json") | ("text", "json")) => true,
        Some(("application", subtype)) => subtype.len() > 5 && subtype.ends_with("+json"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_recognised_by_its_type() {
        for (text, wanted) in [
            ("application/json", true),
            ("Application/JSON ; charset=utf-8", true),
            ("text/json", true),
            ("application/problem+json", true),
            ("application/+json", false),
            ("text/x+json", false),
            ("text/plain", false),
            ("application/jsonp", false),
            ("json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            assert_eq!(is_json(&headers), wanted, "{text}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
