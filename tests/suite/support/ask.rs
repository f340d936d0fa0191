//! A request to the program, byte for byte as the test wants it.

use super::codec;
use super::upstream::KEY;

/// The base64 spellings that SDKs use (API 2.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alphabet {
    /// Standard alphabet, padded: Go, JVM, PHP.
    Standard,
    /// URL-safe alphabet, padded: Android.
    UrlSafe,
    /// URL-safe alphabet, not padded: Node, JS, iOS.
    UrlSafeUnpadded,
}

impl Alphabet {
    /// `text` in this spelling.
    pub fn encode(self, text: &str) -> String {
        match self {
            Self::Standard => codec::base64(text.as_bytes()),
            Self::UrlSafe => codec::base64_url(text.as_bytes()),
            Self::UrlSafeUnpadded => codec::base64_url(text.as_bytes())
                .trim_end_matches('=')
                .to_owned(),
        }
    }
}

/// A request: method, target, headers in order, body.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Method.
    pub method: String,
    /// Target as it is sent.
    pub target: String,
    /// Value of `Host`.
    pub host: String,
    /// Header lines without their line ends, after `Host`.
    pub headers: Vec<String>,
    /// The body, sent with `Content-Length`; `None` = neither.
    pub body: Option<Vec<u8>>,
}

impl Ask {
    /// A request without headers and body.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: "127.0.0.1:3546".to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// A GET with the usual key.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target).key(KEY)
    }

    /// A POST with the usual key.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: Some(body.into()),
            ..Self::new("POST", target).key(KEY)
        }
    }

    /// `GET /sdk/v2/vardata?v=0` as Node sends it: the user in a header.
    pub fn sdk_get(user: &str) -> Self {
        Self::sdk_get_in(user, Alphabet::UrlSafeUnpadded)
    }

    /// The same with this base64 spelling.
    pub fn sdk_get_in(user: &str, alphabet: Alphabet) -> Self {
        Self::get("/sdk/v2/vardata?v=0").user_in(user, alphabet)
    }

    /// `POST /sdk/v2/vardata?v=0` as Python sends it: the user as the body.
    pub fn sdk_post(user: &str) -> Self {
        Self::post("/sdk/v2/vardata?v=0", user).header("Content-Type", "application/json;charset=utf-8")
    }

    /// `GET /v1/vardata?…` as a REST caller sends it.
    pub fn v1(query: &str) -> Self {
        Self::get(&format!("/v1/vardata?{query}"))
    }

    /// The question of one user id, in the most common form.
    pub fn about(user_id: &str) -> Self {
        Self::sdk_get(&serde_json::json!({ "user_id": user_id }).to_string())
    }

    /// `GET /sdk/v2/flags` as Node sends it.
    pub fn flags() -> Self {
        Self::get("/sdk/v2/flags").header("X-Amp-Exp-Library", "experiment-node-server/1.13.6")
    }

    /// One more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}"));
        self
    }

    /// One more header line, as it is.
    pub fn line(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// The same request without the headers of this name.
    pub fn without(mut self, name: &str) -> Self {
        let is = |line: &String| {
            line.split(':')
                .next()
                .is_some_and(|other| other.eq_ignore_ascii_case(name))
        };
        self.headers.retain(|line| !is(line));
        self
    }

    /// The same request with this deployment key instead of the one it has.
    pub fn key(self, key: &str) -> Self {
        self.without("Authorization")
            .header("Authorization", &format!("Api-Key {key}"))
    }

    /// `X-Amp-Exp-User` in this spelling.
    pub fn user_in(self, user: &str, alphabet: Alphabet) -> Self {
        self.header("X-Amp-Exp-User", &alphabet.encode(user))
    }

    /// `X-Amp-Exp-Flag-Keys` as Node sends it.
    pub fn flag_keys(self, keys: &[&str]) -> Self {
        let list = serde_json::json!(keys).to_string();
        self.header("X-Amp-Exp-Flag-Keys", &Alphabet::UrlSafeUnpadded.encode(&list))
    }

    /// The same request with another target.
    pub fn to(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// The same request with another `Host`.
    pub fn host(mut self, host: &dyn ToString) -> Self {
        self.host = host.to_string();
        self
    }

    /// The request as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method, self.target, self.host
        );
        for line in &self.headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), self.body.as_deref().unwrap_or_default()].concat()
    }
}
