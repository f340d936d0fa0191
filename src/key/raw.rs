//! The raw parts of a request that can change its answer, undecoded: what the memo is looked up by.
//!
//! Two requests with equal raw parts ask the same question, whatever the spelling means; so an answer may
//! be found without decoding anything. The converse need not hold: spellings differ, keys meet later.

use http::header::{AUTHORIZATION, CONTENT_ENCODING, HOST, IF_NONE_MATCH, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::question::EXPERIMENT_PREFIX;

/// Headers that shape the response without changing the answer, found on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noted<'r> {
    /// `Origin`: a browser asks.
    pub origin: Option<&'r HeaderValue>,
    /// `If-None-Match`
    pub if_none_match: Option<&'r HeaderValue>,
    /// Bytes of target and headers, about as they came.
    pub head_bytes: usize,
    /// How many `Host` headers there are.
    pub n_hosts: u32,
    /// `X-Request-Id`
    pub request_id: Option<&'r HeaderValue>,
}

/// Writes the raw parts to `out`, length-prefixed. `out` is cleared first and kept by the caller, so that
/// nothing is allocated per request. Duplicate headers are all in, so none of them can hide.
pub fn write<'r>(
    out: &mut Vec<u8>,
    method: &Method,
    uri: &Uri,
    headers: &'r HeaderMap,
    body: &[u8],
) -> Noted<'r> {
    let query = uri.query().unwrap_or_default();
    let mut noted = Noted {
        head_bytes: uri.path().len() + query.len(),
        ..Noted::default()
    };
    out.clear();
    // HEAD is answered as GET is: the connection leaves the body out.
    out.push(u8::from(*method == Method::POST));
    // The path as it came; the query may be empty but present, which cannot change an answer.
    part(out, uri.path().as_bytes());
    part(out, query.as_bytes());
    for (name, value) in headers {
        noted.head_bytes += name.as_str().len() + value.len();
        // Standard names are compared by number, so this costs little for headers of no interest.
        if *name == AUTHORIZATION {
            out.push(b'a');
            part(out, value.as_bytes());
        } else if *name == HOST {
            noted.n_hosts += 1;
        } else if *name == ORIGIN {
            noted.origin = Some(value);
        } else if *name == IF_NONE_MATCH {
            noted.if_none_match = Some(value);
        } else if *name == CONTENT_ENCODING {
            out.push(b'e');
            part(out, value.as_bytes());
        } else {
            let name = name.as_str();
            if name.starts_with(EXPERIMENT_PREFIX) {
                out.push(b'x');
                part(out, name.as_bytes());
                part(out, value.as_bytes());
            } else if name == "x-request-id" {
                noted.request_id = Some(value);
            }
        }
    }
    out.push(b'b');
    part(out, body);
    noted
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "heads and bodies are far below 4 GiB, by limits that cannot be set higher"
)]
fn part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    out.extend_from_slice(part);
}
