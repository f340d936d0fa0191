//! Reading one request head: is it for the lane, where does it end, what does it ask?

use std::mem::MaybeUninit;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri, Version};
use httparse::{Header, Status};

use crate::api::hit::{Plain, PlainMethod, Rest};
use crate::api::{Arriving, Worker};
use crate::metrics::Route;

/// Header lines of a request; one with more goes to the HTTP library, which may refuse it.
const HEADERS_MAX: usize = 96;

/// Headers of most requests that nothing on a vardata or flags route reads or forwards: not worth a copy.
const IDLE_HEADERS: [&str; 5] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "user-agent",
];

/// What the first request in some bytes is.
pub(super) enum Read {
    /// Its head is not all there.
    PartialHead,
    /// Its head is there, its body is not.
    PartialBody,
    /// Not for the lane.
    Foreign,
    /// Answered: the response was appended.
    Answered {
        /// Bytes it took.
        used: usize,
        /// Whether another request may follow.
        keep_alive: bool,
        /// What belongs behind the appended bytes.
        rest: Rest,
    },
    /// To be asked the long way.
    Asked {
        /// Bytes it took.
        used: usize,
        /// Whether another request may follow.
        keep_alive: bool,
        /// The request.
        request: Box<Request<Arriving>>,
    },
}

/// Reads the first request in `bytes`; answers it at once, if it may be `recall`ed and is known.
#[inline]
pub(super) fn read(bytes: &[u8], worker: &Rc<Worker>, recall: bool, now: Instant, out: &mut Vec<u8>) -> Read {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let head = match parsed.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) if bytes.len() <= worker.proxy.max_headers => return Read::PartialHead,
        Ok(Status::Partial) | Err(_) => return Read::Foreign,
    };
    let Some(framing) = Framing::of(&parsed, worker.proxy.max_body) else {
        return Read::Foreign;
    };
    let used = head + framing.body_bytes;
    let Some(body) = bytes.get(head..used) else {
        return Read::PartialBody;
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // The end of a connection is announced the long way.
    if recall && framing.keep_alive {
        let plain = Plain {
            method: framing.method,
            path: path.as_bytes(),
            query: query.as_bytes(),
            body,
        };
        let lines = parsed
            .headers
            .iter()
            .map(|header| (header.name.as_bytes(), header.value));
        if let Some(rest) = worker.recall_plain(&plain, lines, now, out) {
            return Read::Answered {
                used,
                keep_alive: framing.keep_alive,
                rest,
            };
        }
    }
    if head > worker.proxy.max_headers {
        // Which of them is too large is said elsewhere, where all headers are counted.
        return Read::Foreign;
    }
    let route = worker.proxy.routing.target(path).route;
    let is_whole = matches!(
        route,
        Route::VardataV1
            | Route::VardataLegacy
            | Route::VardataV2
            | Route::FlagsV1
            | Route::FlagsV2
            | Route::FbEvaluate
            | Route::FbEvents
            | Route::Status
            | Route::Other
    );
    if !is_whole {
        return Read::Foreign;
    }
    let reads_all = !matches!(
        route,
        Route::VardataV1 | Route::VardataLegacy | Route::VardataV2 | Route::FlagsV1 | Route::FlagsV2
    );
    match request(&parsed, framing.method, target, body, reads_all) {
        Some(request) => Read::Asked {
            used,
            keep_alive: framing.keep_alive,
            request,
        },
        None => Read::Foreign,
    }
}

/// How a request is framed, if it is one for the lane.
struct Framing {
    method: PlainMethod,
    body_bytes: usize,
    keep_alive: bool,
}

impl Framing {
    fn of(parsed: &httparse::Request<'_, '_>, max_body: usize) -> Option<Self> {
        let method = match parsed.method? {
            "GET" => PlainMethod::Get,
            "POST" => PlainMethod::Post,
            "HEAD" => PlainMethod::Head,
            _ => return None,
        };
        let target = parsed.path?;
        if parsed.version? != 1 || !target.starts_with('/') || target.contains('#') {
            return None;
        }
        let mut length = None;
        let mut keep_alive = true;
        for header in &*parsed.headers {
            let name = header.name;
            match name.len() {
                6 if name.eq_ignore_ascii_case("expect") => return None,
                7 if name.eq_ignore_ascii_case("upgrade") => return None,
                10 if name.eq_ignore_ascii_case("connection") => {
                    if header.value.eq_ignore_ascii_case(b"close") {
                        keep_alive = false;
                    } else if !header.value.eq_ignore_ascii_case(b"keep-alive") {
                        return None;
                    }
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    if length.is_some() {
                        return None;
                    }
                    length = Some(digits(header.value)?);
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => return None,
                _ => {}
            }
        }
        let body_bytes = length.unwrap_or(0);
        let fits = if method == PlainMethod::Post {
            body_bytes <= max_body
        } else {
            body_bytes == 0
        };
        fits.then_some(Self {
            method,
            body_bytes,
            keep_alive,
        })
    }
}

/// A decimal number of at most 9 digits and nothing else.
fn digits(value: &[u8]) -> Option<usize> {
    if value.is_empty() || value.len() > 9 {
        return None;
    }
    value.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + usize::from(digit - b'0'))
    })
}

fn request(
    parsed: &httparse::Request<'_, '_>,
    method: PlainMethod,
    target: &str,
    body: &[u8],
    reads_all: bool,
) -> Option<Box<Request<Arriving>>> {
    let mut headers = HeaderMap::with_capacity(if reads_all { parsed.headers.len() } else { 4 });
    for header in &*parsed.headers {
        if !reads_all
            && IDLE_HEADERS
                .iter()
                .any(|idle| header.name.eq_ignore_ascii_case(idle))
        {
            continue;
        }
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    let mut request = Box::new(Request::new(Arriving::Whole(Bytes::copy_from_slice(body))));
    *request.method_mut() = match method {
        PlainMethod::Get => Method::GET,
        PlainMethod::Head => Method::HEAD,
        PlainMethod::Post => Method::POST,
    };
    *request.uri_mut() = target.parse::<Uri>().ok()?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(text: &str) -> Option<(usize, bool)> {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(
            parsed
                .parse(text.as_bytes())
                .is_ok_and(|status| status.is_complete()),
            "{text}"
        );
        Framing::of(&parsed, 100).map(|framing| (framing.body_bytes, framing.keep_alive))
    }

    #[test]
    fn only_requests_that_end_where_they_say_are_for_the_lane() {
        for (text, wanted) in [
            ("GET /a HTTP/1.1\r\n\r\n", Some((0, true))),
            (
                "GET /a HTTP/1.1\r\nConnection: keep-alive\r\n\r\n",
                Some((0, true)),
            ),
            ("GET /a HTTP/1.1\r\nconnection: Close\r\n\r\n", Some((0, false))),
            ("GET /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Some((0, true))),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 100\r\n\r\n",
                Some((100, true)),
            ),
            ("POST /a HTTP/1.1\r\n\r\n", Some((0, true))),
            ("HEAD /a HTTP/1.1\r\n\r\n", Some((0, true))),
            ("GET /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n", None),
            ("POST /a HTTP/1.1\r\nContent-Length: 101\r\n\r\n", None),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                None,
            ),
            ("POST /a HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", None),
            ("POST /a HTTP/1.1\r\nContent-Length: +1\r\n\r\n", None),
            ("POST /a HTTP/1.1\r\nContent-Length:\r\n\r\n", None),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                None,
            ),
            ("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", None),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 1\r\ntransfer-encoding: x\r\n\r\n",
                None,
            ),
            ("POST /a HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", None),
            (
                "GET /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
                None,
            ),
            ("GET /a HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", None),
            ("GET /a HTTP/1.0\r\n\r\n", None),
            ("GET http://h/a HTTP/1.1\r\n\r\n", None),
            ("GET /a#b HTTP/1.1\r\n\r\n", None),
            ("OPTIONS /a HTTP/1.1\r\n\r\n", None),
            ("get /a HTTP/1.1\r\n\r\n", None),
        ] {
            assert_eq!(framing(text), wanted, "{text}");
        }
    }
}
