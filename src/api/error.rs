//! Errors that flagside answers itself. Status and code are API; the text says what to do.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::key::Unreadable;

use super::answer::{AnswerBody, CACHE_STATUS};

/// `X-Flagside-Error`
pub const ERROR_CODE: HeaderName = HeaderName::from_static("x-flagside-error");

/// Why a request gets no answer but an error made here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// No usable `Authorization`.
    #[error("send one header 'Authorization: Api-Key <deployment key>'")]
    MissingKey,
    /// No environment can take this key.
    #[error(
        "this deployment key belongs to no environment of this proxy: add it to environments[].deployment_keys"
    )]
    UnknownKey,
    /// Upstream rejected this key while the request was under way.
    #[error("the deployment key was rejected by upstream")]
    RevokedKey,
    /// Neither readable here nor accepted by upstream.
    #[error("cannot read {0}")]
    Unreadable(Unreadable),
    /// HTTP/1.1 without `Host`, or with several (RFC 9112, 3.2).
    #[error("send exactly one Host header")]
    BadHost,
    /// Target and headers are longer than may be.
    #[error("the request head is larger than this proxy takes (listen.max_headers)")]
    HeadersTooLarge,
    /// The body is longer than may be.
    #[error("the request body is larger than this proxy takes (listen.max_body)")]
    BodyTooLarge,
    /// The body did not come in time.
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    /// The body broke off or was not framed as HTTP wants.
    #[error("the request body is incomplete or badly framed")]
    BrokenBody,
    /// No such route.
    #[error(
        "there is nothing at this path: Amplitude's routes begin with /sdk/ or /v1/, FeatBit's with /api/public/; those of a backend that is not configured are not there"
    )]
    NotFound,
    /// A route that does not know the method.
    #[error("this path knows these methods: {0}")]
    MethodNotAllowed(&'static str),
    /// Every rung of the ladder failed.
    #[error("upstream gave no answer and there is nothing to answer with instead: try again")]
    NoAnswer,
    /// An event stream that cannot be had; SDKs then poll (API 4.4).
    #[error("no event stream can be had: poll instead")]
    NoStream,
}

impl RequestError {
    /// Status and stable code.
    #[must_use]
    pub const fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::MissingKey => (StatusCode::UNAUTHORIZED, "missing_deployment_key"),
            Self::UnknownKey => (StatusCode::UNAUTHORIZED, "unknown_deployment_key"),
            Self::RevokedKey => (StatusCode::UNAUTHORIZED, "revoked_deployment_key"),
            Self::Unreadable(_) => (StatusCode::BAD_REQUEST, "unreadable_request"),
            Self::BadHost => (StatusCode::BAD_REQUEST, "bad_host"),
            Self::HeadersTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::BrokenBody => (StatusCode::BAD_REQUEST, "broken_body"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NoAnswer => (StatusCode::SERVICE_UNAVAILABLE, "no_answer"),
            Self::NoStream => (StatusCode::NOT_IMPLEMENTED, "no_stream"),
        }
    }

    /// The response: one line of plain text, as no body of ours may parse as flags (API 2.7).
    #[must_use]
    pub fn into_response(self) -> Response<AnswerBody> {
        let (status, code) = self.status_and_code();
        let mut response = Response::new(AnswerBody::full(Bytes::from(format!("{self}\n"))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.insert(ERROR_CODE, HeaderValue::from_static(code));
        match self {
            Self::NoAnswer => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                headers.insert(
                    CACHE_STATUS,
                    HeaderValue::from_static("flagside; fwd=miss; detail=no_answer"),
                );
            }
            Self::MethodNotAllowed(allowed) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_codes_are_pinned() {
        for (error, status, code) in [
            (RequestError::MissingKey, 401, "missing_deployment_key"),
            (RequestError::UnknownKey, 401, "unknown_deployment_key"),
            (RequestError::RevokedKey, 401, "revoked_deployment_key"),
            (
                RequestError::Unreadable(Unreadable::Context),
                400,
                "unreadable_request",
            ),
            (RequestError::BadHost, 400, "bad_host"),
            (RequestError::HeadersTooLarge, 431, "headers_too_large"),
            (RequestError::BodyTooLarge, 413, "body_too_large"),
            (RequestError::BodyTimeout, 408, "body_timeout"),
            (RequestError::BrokenBody, 400, "broken_body"),
            (RequestError::NotFound, 404, "not_found"),
            (RequestError::MethodNotAllowed("GET"), 405, "method_not_allowed"),
            (RequestError::NoAnswer, 503, "no_answer"),
            (RequestError::NoStream, 501, "no_stream"),
        ] {
            let response = error.into_response();
            assert_eq!(response.status().as_u16(), status, "{error:?}");
            assert_eq!(response.headers()[ERROR_CODE], code, "{error:?}");
        }
    }
}
