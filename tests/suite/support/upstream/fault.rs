//! The ways in which the fake cloud can fail, and to which requests a failure applies.

use std::time::Duration;

use crate::support::codec;

/// Which requests a rule applies to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    /// All of them.
    All,
    /// The three vardata paths.
    Vardata,
    /// The two flags paths, whatever the mode.
    Flags,
    /// A flags path with `eval_mode=remote`.
    RemoteFlags,
    /// `/sdk/v1/cohort/{id}`.
    Cohort,
    /// `/sdk/stream/…`.
    Stream,
    /// Anything else.
    Other,
}

impl Route {
    /// The narrowest route of a request.
    pub fn of(path: &str, query: &str) -> Self {
        match path {
            "/v1/vardata" | "/sdk/vardata" | "/sdk/v2/vardata" => Self::Vardata,
            "/v1/flags" | "/sdk/v2/flags" if query.contains("eval_mode=remote") => Self::RemoteFlags,
            "/v1/flags" | "/sdk/v2/flags" => Self::Flags,
            _ if path.starts_with("/sdk/v1/cohort/") => Self::Cohort,
            _ if path.starts_with("/sdk/stream/") => Self::Stream,
            _ => Self::Other,
        }
    }

    /// Whether a rule for `self` applies to a request whose narrowest route is `other`.
    pub fn covers(self, other: Self) -> bool {
        self == Self::All || self == other || (self == Self::Flags && other == Self::RemoteFlags)
    }
}

/// What happens to a request instead of a plain answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The request is read, then the connection is reset.
    Reset,
    /// The request is read, then the connection is closed without a byte.
    Close,
    /// The request is read and never answered.
    Hang,
    /// The answer is made at once and sent when the test calls `release`.
    Hold,
    /// The head of the answer, then silence.
    StallAfterHead,
    /// The head and half of the body, then silence.
    StallMidBody,
    /// One byte of the answer per interval.
    Drip(Duration),
    /// `Content-Length` promises more than comes; then the connection closes.
    LengthTooLong,
    /// `Content-Length` promises less than comes.
    LengthTooShort,
    /// A chunked body whose last chunk never comes; then the connection closes.
    TruncatedChunks,
    /// A chunk size that is no number.
    BadChunks,
    /// Bytes that are not HTTP.
    Garbage,
    /// Half a status line; then the connection closes.
    HalfHead,
    /// Another answer.
    Canned(Canned),
    /// The right answer, compressed although nobody asked.
    Gzip,
    /// The right answer as a chunked body.
    Chunked,
    /// A well-formed answer of about so many bytes.
    Huge(usize),
    /// The right answer, so much later.
    Late(Duration),
}

/// An answer that does not depend on the request.
#[derive(Clone, Debug)]
pub struct Canned {
    /// Status code.
    pub status: u16,
    /// Headers besides `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body as it is sent.
    pub body: Vec<u8>,
}

impl Fault {
    /// An answer with this status and a short text body.
    pub fn status(status: u16) -> Self {
        Self::canned(status, "text/plain", &format!("the cloud says {status}"))
    }

    /// A 200 whose body is `body`, sent as JSON.
    pub fn body(body: &str) -> Self {
        Self::canned(200, "application/json", body)
    }

    /// A 200 from a captive portal.
    pub fn html() -> Self {
        Self::canned(
            200,
            "text/html",
            "<!doctype html><title>Sign in</title><p>Please sign in",
        )
    }

    /// A 429 with `Retry-After` in seconds.
    pub fn throttled(seconds: u32) -> Self {
        Self::status(429).with("Retry-After", &seconds.to_string())
    }

    /// A redirect with this status.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::status(status).with("Location", location)
    }

    /// An answer made of its three parts.
    pub fn canned(status: u16, content_type: &str, body: &str) -> Self {
        Self::Canned(Canned {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: body.as_bytes().to_vec(),
        })
    }

    /// The same canned answer with one more header.
    pub fn with(self, name: &str, value: &str) -> Self {
        match self {
            Self::Canned(mut canned) => {
                canned.headers.push((name.to_owned(), value.to_owned()));
                Self::Canned(canned)
            }
            other => panic!("{other:?} has no headers of its own"),
        }
    }
}

/// A fault, the requests it applies to, and how many of them it lets pass or takes.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which requests.
    pub route: Route,
    /// What happens to them.
    pub fault: Fault,
    /// So many are answered properly first.
    pub skip: usize,
    /// So many are struck, then it is over; `None` = all.
    pub times: Option<usize>,
}

impl Rule {
    /// Whether this rule strikes now; counts `skip` and `times` down.
    pub fn strikes(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.times {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

/// The state of the listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// Connections are accepted and served.
    Open,
    /// The listener is closed: connections are refused. The port stays reserved.
    Refused,
    /// Connections are reset as soon as they are accepted.
    Reset,
    /// Connections are accepted and never read.
    Mute,
    /// Connections wait in the accept queue.
    Unaccepted,
    /// The accept queue is full: connections are not even established.
    Full,
}

/// An answer as the fake cloud means it, before a fault touches it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers besides `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer with a body of this type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self {
            status,
            headers,
            body: body.into(),
        }
    }

    /// The same answer with one more header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same answer as a gzip body.
    pub fn gzipped(mut self) -> Self {
        self.body = codec::gzip(&self.body);
        self.with("Content-Encoding", "gzip")
    }

    /// Status line and headers with a `Content-Length` of `length`, or chunked when there is none.
    pub fn head(&self, length: Option<usize>) -> Vec<u8> {
        let framing = length.map_or("Transfer-Encoding: chunked".to_owned(), |length| {
            format!("Content-Length: {length}")
        });
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        // A 204 and a 304 have no body, and a 204 no length either (RFC 9110, 8.6).
        if self.status != 204 && self.status != 304 {
            head.push_str(&framing);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200..=299 => "Fine",
        300..=399 => "Elsewhere",
        400..=499 => "Your Fault",
        _ => "My Fault",
    }
}
