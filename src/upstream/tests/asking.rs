//! What a whole request looks like on the wire.

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::upstream::NoObserver;
use crate::upstream::ask::BODY_BYTES_MAX;
use crate::upstream::exchange::Outgoing;

fn origin(base: &str) -> Arc<Origin> {
    let shared = Shared::new(&patient(), Arc::new(NoObserver)).unwrap();
    let (base, _) = BaseUrl::parse(base).unwrap();
    shared.origin(&Arc::new(base)).unwrap()
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = lines
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
    pairs.collect()
}

/// Head line, sorted headers and body.
fn taken_apart(text: &[u8]) -> (String, Vec<(String, String)>, Vec<u8>) {
    let mut lines = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut lines);
    let head = parsed.parse(text).unwrap().unwrap();
    let line = format!("{} {}", parsed.method.unwrap(), parsed.path.unwrap());
    let mut headers: Vec<_> = parsed
        .headers
        .iter()
        .map(|header| {
            (
                header.name.to_owned(),
                String::from_utf8(header.value.to_vec()).unwrap(),
            )
        })
        .collect();
    headers.sort();
    (line, headers, text[head..].to_vec())
}

#[test]
fn what_is_written_here_is_what_the_library_would_send() {
    let id = HeaderValue::from_static("id-1");
    let client = [
        ("authorization", "Api-Key k"),
        ("x-amp-exp-user", "e30"),
        ("cookie", "a=b"),
        ("host", "elsewhere"),
        ("x-forwarded-for", "1.2.3.4"),
        ("content-length", "7"),
        ("accept-encoding", "gzip"),
        ("te", "trailers"),
    ];
    for base in ["http://upstream.test:81", "http://upstream.test/below"] {
        let origin = origin(base);
        for (method, body, agent, request_id) in [
            (Method::GET, "", None, None),
            (Method::GET, "", Some("sdk/1"), Some(&id)),
            (Method::POST, "{}", None, Some(&id)),
        ] {
            let mut headers = headers(&client);
            headers.extend(agent.map(|agent| (USER_AGENT, HeaderValue::from_static(agent))));
            let body = Bytes::from_static(body.as_bytes());
            let ask = Ask {
                method: &method,
                target: "/sdk/v2/vardata?v=0",
                headers: &headers,
                request_id,
                body: &body,
            };
            ask.check().unwrap();
            let mut out = Vec::new();
            assert!(ask.write(&origin, &mut out));
            let (line, written, sent) = taken_apart(&out);
            let library = Outgoing::whole(&origin, &ask, true).unwrap();
            let mut wanted: Vec<_> = library
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            wanted.push(("host".to_owned(), origin.host().to_owned()));
            wanted.extend((!body.is_empty()).then(|| ("content-length".to_owned(), body.len().to_string())));
            wanted.sort();
            assert_eq!(written, wanted);
            assert_eq!(
                line,
                format!("{method} {}/sdk/v2/vardata?v=0", origin.base().path)
            );
            assert_eq!(sent, body);
        }
    }
}

#[test]
fn what_is_not_for_this_way_is_left_to_the_library() {
    let origin = origin("http://upstream.test");
    let long = Bytes::from(vec![b' '; BODY_BYTES_MAX + 1]);
    for (lines, body) in [
        (&[][..], &long),
        (&[("connection", "x-own"), ("x-own", "1")], &Bytes::new()),
    ] {
        let headers = headers(lines);
        let ask = Ask {
            method: &Method::POST,
            target: "/",
            headers: &headers,
            request_id: None,
            body,
        };
        let mut out = Vec::new();
        assert!(!ask.write(&origin, &mut out) && out.is_empty());
    }
}

#[test]
fn what_would_be_another_request_is_refused() {
    let (headers, body) = (HeaderMap::new(), Bytes::new());
    for (method, target, wanted) in [
        (Method::GET, "/a?b=%20", true),
        (Method::GET, "", false),
        (Method::GET, "*", false),
        (Method::GET, "http://elsewhere/", false),
        (Method::GET, "/a b", false),
        (Method::GET, "/a\r\nx: y", false),
        (Method::GET, "/a\u{7f}", false),
        (Method::GET, "/a#b", false),
        (Method::CONNECT, "/", false),
        (Method::TRACE, "/", false),
    ] {
        let ask = Ask {
            method: &method,
            target,
            headers: &headers,
            request_id: None,
            body: &body,
        };
        assert_eq!(ask.check().is_ok(), wanted, "{method} {target:?}");
    }
}
