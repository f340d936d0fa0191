//! Input that is wrong, and the class of answer that it gets: a client error, never a 5xx, a hang or a crash.

#![allow(clippy::too_many_lines, reason = "a table is as long as what it lists")]

use super::ask::{Alphabet, Ask};
use super::spellings::chunked;
use super::upstream::KEY;

/// What a malformed request gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// Exactly this status.
    Status(u16),
    /// Any 4xx.
    ClientError,
    /// Any 4xx, or an answer after which the connection closes (RFC 9112, 6.1).
    ClientErrorOrLast,
    /// Any 4xx, or the connection closed without an answer, where HTTP leaves both open.
    ClientErrorOrClosed,
}

/// A malformed request.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// What is wrong with it.
    pub name: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What it gets.
    pub wanted: Wanted,
    /// Whether the client says that no more bytes will come.
    pub finished: bool,
}

use Wanted::{ClientError, ClientErrorOrClosed, ClientErrorOrLast, Status};

/// Every one of them.
pub fn malformed() -> Vec<Malformed> {
    let case = |(name, bytes, wanted): (&'static str, Vec<u8>, Wanted)| Malformed {
        name,
        bytes,
        wanted,
        finished: false,
    };
    let cut_off = |(name, bytes, wanted): (&'static str, Vec<u8>, Wanted)| Malformed {
        name,
        bytes,
        wanted,
        finished: true,
    };
    let mut all: Vec<_> = questions().into_iter().map(case).collect();
    all.extend(keys_and_methods().into_iter().map(case));
    all.extend(heads().into_iter().map(case));
    all.extend(framing().into_iter().map(case));
    all.extend(truncated().into_iter().map(cut_off));
    all
}

type Case = (&'static str, Vec<u8>, Wanted);

fn questions() -> Vec<Case> {
    let raw = |value: &str| Ask::get("/sdk/v2/vardata?v=0").header("X-Amp-Exp-User", value);
    let user = |json: &str| Ask::sdk_get_in(json, Alphabet::Standard);
    let body = |bytes: &[u8]| Ask::post("/sdk/v2/vardata", bytes);
    let keys = |value: &str| Ask::about("m").header("X-Amp-Exp-Flag-Keys", value);
    let deep = |open: &str, close: &str| format!("{{\"a\":{}1{}}}", open.repeat(400), close.repeat(400));
    let asks = vec![
        ("user is not base64", raw("!!!")),
        ("user has blanks inside", raw("eyJ1 c2Vy X2lk")),
        ("user of one symbol", raw("e")),
        ("user has padding inside", raw("ey=J1")),
        ("user is base64 of no JSON", user("hello")),
        ("user is base64 of half an object", user(r#"{"user_id":"a""#)),
        ("user is an array", user("[]")),
        ("user is a string", user(r#""a""#)),
        ("user is a number", user("7")),
        ("user is null", user("null")),
        ("user is true", user("true")),
        ("two users", user(r#"{"user_id":"a"}{"user_id":"b"}"#)),
        ("comma at the end", user(r#"{"user_id":"a",}"#)),
        ("unquoted name", user(r#"{user_id:"a"}"#)),
        ("single quotes", user("{'user_id':'a'}")),
        ("a comment", user(r#"{"user_id":"a"/*b*/}"#)),
        ("lone surrogate", user(r#"{"user_id":"\ud800"}"#)),
        ("surrogates swapped", user(r#"{"user_id":"\udc00\ud800"}"#)),
        ("bad escape", user(r#"{"user_id":"\x41"}"#)),
        ("raw control character", user("{\"user_id\":\"a\u{1}\"}")),
        ("leading zero", user(r#"{"user_properties":{"n":01}}"#)),
        ("not a number", user(r#"{"user_properties":{"n":NaN}}"#)),
        ("deep objects", user(&deep("{\"a\":", "}"))),
        ("deep arrays", user(&deep("[", "]"))),
        ("deep and never closed", user(&"[".repeat(5000))),
        ("body is no JSON", body(b"user_id=a")),
        ("body is an array", body(b"[1]")),
        ("body is not UTF-8", body(b"{\"user_id\":\"\xff\xfe\"}")),
        ("body is overlong UTF-8", body(b"{\"user_id\":\"\xc0\xaf\"}")),
        ("body begins with a NUL", body(b"\0{}")),
        ("body in UTF-16", body(b"\xff\xfe{\0}\0")),
        ("flag keys are not base64", keys("***")),
        (
            "flag keys are no list",
            keys(&Alphabet::Standard.encode(r#"{"a":1}"#)),
        ),
        ("flag keys are numbers", keys(&Alphabet::Standard.encode("[1,2]"))),
        (
            "flag keys are half a list",
            keys(&Alphabet::Standard.encode(r#"["a""#)),
        ),
        ("context is no JSON", Ask::v1("context=hello")),
        ("context is an array", Ask::v1("context=%5B%5D")),
        ("context is half an object", Ask::v1("context=%7B%22user_id%22")),
        (
            "context is not UTF-8",
            Ask::v1("context=%7B%22user_id%22:%22%ff%22%7D"),
        ),
    ];
    asks.into_iter()
        .map(|(name, ask)| (name, ask.bytes(), Status(400)))
        .collect()
}

fn keys_and_methods() -> Vec<Case> {
    let get = Ask::about("m");
    let authorization = |value: &str| {
        get.clone()
            .without("Authorization")
            .line(&format!("Authorization: {value}"))
    };
    let asks = vec![
        ("no key", get.clone().without("Authorization"), Status(401)),
        ("empty key", authorization("Api-Key "), Status(401)),
        ("scheme alone", authorization("Api-Key"), Status(401)),
        (
            "wrong scheme",
            authorization(&format!("Bearer {KEY}")),
            Status(401),
        ),
        ("key without scheme", authorization(KEY), Status(401)),
        ("unknown key", get.clone().key("nobody's key"), Status(401)),
        (
            "wrong method",
            Ask {
                method: "PUT".to_owned(),
                ..get.clone()
            },
            Status(405),
        ),
        (
            "lower-case method",
            Ask {
                method: "get".to_owned(),
                ..get.clone()
            },
            ClientError,
        ),
        (
            "unknown method",
            Ask {
                method: "BREW".to_owned(),
                ..get.clone()
            },
            ClientError,
        ),
        (
            "trace",
            Ask {
                method: "TRACE".to_owned(),
                ..get.clone()
            },
            ClientError,
        ),
        (
            "connect",
            Ask::new("CONNECT", "flags.test:443"),
            ClientErrorOrClosed,
        ),
        ("post to flags", Ask::post("/sdk/v2/flags", "{}"), Status(405)),
        ("shutdown", Ask::post("/shutdown", ""), Status(404)),
        ("unknown path", Ask::get("/"), Status(404)),
        (
            "path that climbs",
            get.clone().to("/sdk/../shutdown"),
            ClientError,
        ),
        (
            "path that climbs in disguise",
            get.clone().to("/sdk/%2e%2e/%2e%2e/shutdown"),
            ClientError,
        ),
    ];
    asks.into_iter()
        .map(|(name, ask, wanted)| (name, ask.bytes(), wanted))
        .collect()
}

fn heads() -> Vec<Case> {
    let get = Ask::about("m");
    let head = |text: &str| text.as_bytes().to_vec();
    let replaced = |from: &str, to: &str| {
        let text = String::from_utf8(get.bytes()).expect("it is ASCII");
        text.replacen(from, to, 1).into_bytes()
    };
    let long = "x".repeat(80 << 10);
    let many = (0..3000).fold(get.clone(), |ask, number| {
        ask.header(&format!("X-Header-{number}"), "some value here")
    });
    vec![
        ("no request line", head("\r\n\r\n\r\n"), ClientErrorOrClosed),
        ("one word", head("GET\r\n\r\n"), ClientError),
        ("two words", head("GET /\r\n\r\n"), ClientErrorOrClosed),
        (
            "four words",
            replaced(" HTTP/1.1", " extra HTTP/1.1"),
            ClientError,
        ),
        (
            "unknown version",
            replaced("HTTP/1.1", "HTTP/9.9"),
            ClientErrorOrClosed,
        ),
        ("version is a word", replaced("HTTP/1.1", "HTTP/one"), ClientError),
        ("method is no token", replaced("GET ", "G(T "), ClientError),
        (
            "target is a word",
            replaced("/sdk/v2/vardata?v=0", "vardata"),
            ClientError,
        ),
        ("NUL in the target", replaced("v=0", "v=\0"), ClientError),
        (
            "TLS",
            head("\x16\x03\x01\x02\0\x01\0\x01\u{7c}\x03\x03\r\n\r\n"),
            ClientErrorOrClosed,
        ),
        (
            "binary",
            (0..=255).chain(b"\r\n\r\n".iter().copied()).collect(),
            ClientErrorOrClosed,
        ),
        ("no host", replaced("Host: 127.0.0.1:3546\r\n", ""), Status(400)),
        (
            "two hosts",
            get.clone().header("Host", "other.test").bytes(),
            Status(400),
        ),
        (
            "header without a colon",
            get.clone().line("Nonsense").bytes(),
            ClientError,
        ),
        (
            "header without a name",
            get.clone().line(": value").bytes(),
            ClientError,
        ),
        (
            "blank before the colon",
            get.clone().line("X-Header : value").bytes(),
            ClientError,
        ),
        (
            "blank in a name",
            get.clone().line("X Header: value").bytes(),
            ClientError,
        ),
        (
            "folded header",
            get.clone().line("X-Header: a\r\n b").bytes(),
            ClientError,
        ),
        (
            "NUL in a header",
            get.clone().line("X-Header: a\0b").bytes(),
            ClientError,
        ),
        (
            "carriage return in a header",
            get.clone().line("X-Header: a\rb").bytes(),
            ClientError,
        ),
        (
            "huge header",
            get.clone().header("X-Header", &long).bytes(),
            Status(431),
        ),
        ("huge user", Ask::about(&long).bytes(), Status(431)),
        (
            "huge target",
            get.clone().to(&format!("/sdk/v2/vardata?a={long}")).bytes(),
            ClientError,
        ),
        ("too many headers", many.bytes(), Status(431)),
    ]
}

fn framing() -> Vec<Case> {
    let user = r#"{"user_id":"m"}"#;
    let post = Ask::post("/sdk/v2/vardata", user);
    let bodiless = Ask { body: None, ..post };
    let with = |lines: &[&str], body: &str| {
        let ask = lines.iter().fold(bodiless.clone(), |ask, line| ask.line(line));
        [ask.bytes(), body.as_bytes().to_vec()].concat()
    };
    let chunks = |body: &str| with(&["Transfer-Encoding: chunked"], body);
    vec![
        (
            "length and chunks",
            chunked(&bodiless.clone().header("Content-Length", "15")),
            ClientErrorOrLast,
        ),
        (
            "two lengths",
            with(&["Content-Length: 15", "Content-Length: 3"], user),
            ClientError,
        ),
        (
            "list of lengths",
            with(&["Content-Length: 15, 3"], user),
            ClientError,
        ),
        (
            "negative length",
            with(&["Content-Length: -1"], user),
            ClientError,
        ),
        (
            "length with a sign",
            with(&["Content-Length: +15"], user),
            ClientError,
        ),
        (
            "length is hexadecimal",
            with(&["Content-Length: 0xf"], user),
            ClientError,
        ),
        ("length is empty", with(&["Content-Length:"], user), ClientError),
        (
            "length overflows",
            with(&["Content-Length: 99999999999999999999999"], user),
            ClientError,
        ),
        (
            "body too large by its length",
            with(&["Content-Length: 104857600"], ""),
            Status(413),
        ),
        (
            "body too large",
            Ask::post("/sdk/v2/vardata", vec![b' '; (1 << 20) + 1]).bytes(),
            Status(413),
        ),
        (
            "chunked body too large",
            chunks(&format!(
                "{:x}\r\n{}\r\n0\r\n\r\n",
                (1 << 20) + 1,
                " ".repeat((1 << 20) + 1)
            )),
            Status(413),
        ),
        (
            "unknown coding",
            with(&["Transfer-Encoding: xchunked"], "0\r\n\r\n"),
            ClientErrorOrClosed,
        ),
        (
            "chunked is not last",
            with(&["Transfer-Encoding: chunked, identity"], "0\r\n\r\n"),
            ClientErrorOrClosed,
        ),
        (
            "chunk size is a word",
            chunks("zz\r\n{}\r\n0\r\n\r\n"),
            ClientErrorOrClosed,
        ),
        (
            "chunk size is negative",
            chunks("-2\r\n{}\r\n0\r\n\r\n"),
            ClientErrorOrClosed,
        ),
        (
            "chunk size overflows",
            chunks("fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            ClientErrorOrClosed,
        ),
        (
            "chunk is longer than its size",
            chunks("1\r\n{}\r\n0\r\n\r\n"),
            ClientErrorOrClosed,
        ),
    ]
}

/// Requests that break off; the client says so by closing its side.
fn truncated() -> Vec<Case> {
    let post = Ask::post("/sdk/v2/vardata", r#"{"user_id":"m"}"#).bytes();
    vec![
        ("half a head", post[..40].to_vec(), ClientErrorOrClosed),
        (
            "half a body",
            post[..post.len() - 5].to_vec(),
            ClientErrorOrClosed,
        ),
        (
            "no last chunk",
            {
                let bytes = chunked(&Ask::post("/sdk/v2/vardata", "{}"));
                bytes[..bytes.len() - 5].to_vec()
            },
            ClientErrorOrClosed,
        ),
    ]
}
