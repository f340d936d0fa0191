//! The raw parts of a request that can change its answer, undecoded: what the memo is looked up by.
//!
//! Two requests with equal raw parts ask the same question, whatever the spelling means; so an answer may
//! be found without decoding anything. The converse need not hold: spellings differ, keys meet later.

use http::{HeaderMap, Method, Uri};

use super::question::EXPERIMENT_PREFIX;

/// Headers that shape the response without changing the answer, found on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noted<'r> {
    /// `Origin`: a browser asks.
    pub origin: Option<&'r [u8]>,
    /// `If-None-Match`
    pub if_none_match: Option<&'r [u8]>,
    /// Bytes of target and headers, about as they came.
    pub head_bytes: usize,
    /// How many `Host` headers there are.
    pub n_hosts: u32,
    /// `X-Request-Id`
    pub request_id: Option<&'r [u8]>,
    /// `traceparent`; no part of the key.
    pub traceparent: Option<&'r [u8]>,
}

/// Gathers the raw parts of one request, length-prefixed, in a buffer that its caller keeps, so that
/// nothing is allocated per request. Duplicate headers are all in, so none of them can hide.
#[derive(Debug)]
pub struct RawParts<'b, 'r> {
    out: &'b mut Vec<u8>,
    noted: Noted<'r>,
}

impl<'b, 'r> RawParts<'b, 'r> {
    /// Begins with what the request line says; `out` is cleared. HEAD counts as GET: the connection leaves
    /// the body out. A query that is empty but present cannot change an answer.
    pub fn begin(out: &'b mut Vec<u8>, is_post: bool, path: &[u8], query: &[u8]) -> Self {
        out.clear();
        out.push(u8::from(is_post));
        part(out, path);
        part(out, query);
        let noted = Noted {
            head_bytes: path.len() + query.len(),
            ..Noted::default()
        };
        Self { out, noted }
    }

    /// Takes a header; `name` in any case.
    #[inline]
    pub fn header(&mut self, name: &[u8], value: &'r [u8]) {
        self.noted.head_bytes += name.len() + value.len();
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.noted.n_hosts += 1,
            // Of what is repeated the first counts, as it does where the request is read.
            6 if name.eq_ignore_ascii_case(b"origin") => first(&mut self.noted.origin, value),
            11 if name.eq_ignore_ascii_case(b"traceparent") => first(&mut self.noted.traceparent, value),
            // Another content type is another request, which FeatBit refuses.
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                self.out.push(b't');
                part(self.out, value);
            }
            12 if name.eq_ignore_ascii_case(b"x-request-id") => first(&mut self.noted.request_id, value),
            13 if name.eq_ignore_ascii_case(b"authorization") => {
                self.out.push(b'a');
                part(self.out, value);
            }
            13 if name.eq_ignore_ascii_case(b"if-none-match") => first(&mut self.noted.if_none_match, value),
            16 if name.eq_ignore_ascii_case(b"content-encoding") => {
                self.out.push(b'e');
                part(self.out, value);
            }
            length if length >= EXPERIMENT_PREFIX.len() => self.experiment(name, value),
            _ => {}
        }
    }

    fn experiment(&mut self, name: &[u8], value: &[u8]) {
        let prefix = name.get(..EXPERIMENT_PREFIX.len()).unwrap_or_default();
        if prefix.eq_ignore_ascii_case(EXPERIMENT_PREFIX.as_bytes()) {
            self.out.push(b'x');
            part(self.out, name);
            let name_at = self.out.len() - name.len();
            if let Some(name) = self.out.get_mut(name_at..) {
                name.make_ascii_lowercase();
            }
            part(self.out, value);
        }
    }

    /// Ends with the body.
    pub fn end(self, body: &[u8]) -> Noted<'r> {
        self.out.push(b'b');
        part(self.out, body);
        self.noted
    }
}

/// The raw parts of a parsed request.
pub fn write<'r>(
    out: &mut Vec<u8>,
    method: &Method,
    uri: &Uri,
    headers: &'r HeaderMap,
    body: &[u8],
) -> Noted<'r> {
    let query = uri.query().unwrap_or_default();
    let mut parts = RawParts::begin(
        out,
        *method == Method::POST,
        uri.path().as_bytes(),
        query.as_bytes(),
    );
    for (name, value) in headers {
        parts.header(name.as_str().as_bytes(), value.as_bytes());
    }
    parts.end(body)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "heads and bodies are far below 4 GiB, by limits that cannot be set higher"
)]
fn part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    out.extend_from_slice(part);
}

fn first<'r>(noted: &mut Option<&'r [u8]>, value: &'r [u8]) {
    noted.get_or_insert(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_repeated_the_first_counts() {
        let mut out = Vec::new();
        let mut parts = RawParts::begin(&mut out, false, b"/", b"");
        for name in ["origin", "Traceparent", "x-request-id", "if-none-match"] {
            parts.header(name.as_bytes(), b"one");
            parts.header(name.as_bytes(), b"two");
        }
        let noted = parts.end(b"");
        let all = [
            noted.origin,
            noted.traceparent,
            noted.request_id,
            noted.if_none_match,
        ];
        assert_eq!(all, [Some(&b"one"[..]); 4]);
    }
}
