//! One request as the fake cloud received it, and the question it asks.

use std::time::Instant;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::fault::Route;
use crate::support::codec;
use crate::support::opinion::Shape;

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which connection it came on, counted from 1 as they were accepted.
    pub connection: u64,
    /// Method.
    pub method: String,
    /// Request target as sent.
    pub target: String,
    /// Headers in order, names as sent.
    pub headers: Vec<(String, String)>,
    /// Body, chunks joined.
    pub body: Vec<u8>,
    /// When its last byte was read.
    pub at: Instant,
}

impl Recorded {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query as sent, empty when there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The narrowest route it belongs to.
    pub fn route(&self) -> Route {
        Route::of(self.path(), self.query())
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The deployment key.
    pub fn key(&self) -> Option<&str> {
        let (scheme, key) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("api-key").then(|| key.trim())
    }

    /// What the request asks, read by API 3; `Err` says what is wrong with it.
    pub fn question(&self) -> Result<Question, String> {
        let query = codec::query_pairs(self.query());
        let pairs = self.query().split('&').filter(|pair| !pair.is_empty()).count();
        if query.len() < pairs {
            return Err("the query is not UTF-8".to_owned());
        }
        let parameter = |name: &str| {
            query
                .iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.as_str())
        };
        let mut user = self.user(parameter("context"))?;
        for id in ["user_id", "device_id"] {
            if let Some(value) = parameter(id) {
                user.insert(id.to_owned(), json!(value));
            }
        }
        let flag_keys = match self.header("x-amp-exp-flag-keys") {
            Some(header) => {
                let bytes = codec::unbase64(header).ok_or("flag keys are not base64")?;
                serde_json::from_slice(&bytes).map_err(|error| format!("flag keys: {error}"))?
            }
            None => {
                let list = parameter("flag_keys")
                    .or_else(|| parameter("flag_key"))
                    .unwrap_or_default();
                list.split(',')
                    .map(str::trim)
                    .filter(|key| !key.is_empty())
                    .map(str::to_owned)
                    .collect()
            }
        };
        Ok(Question {
            key: self.key().unwrap_or_default().to_owned(),
            user: Value::Object(user),
            flag_keys,
            shape: if self.path() == "/sdk/v2/vardata" {
                Shape::V2
            } else {
                Shape::V1
            },
        })
    }

    fn user(&self, context: Option<&str>) -> Result<Map<String, Value>, String> {
        let bytes = match (self.method.as_str(), self.header("x-amp-exp-user"), context) {
            ("POST", _, _) => self.body.clone(),
            (_, Some(header), _) => codec::unbase64(header).ok_or("the user is not base64")?,
            (_, None, Some(context)) => context.as_bytes().to_vec(),
            (_, None, None) => Vec::new(),
        };
        if bytes.is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("the user is not a JSON object: {error}"))
    }
}

/// What a vardata request asks.
#[derive(Clone, Debug)]
pub struct Question {
    /// Deployment key.
    pub key: String,
    /// The effective user.
    pub user: Value,
    /// Flags asked for; empty = all.
    pub flag_keys: Vec<String>,
    /// The result shape of the route.
    pub shape: Shape,
}

/// Reads one request; `None` when the peer closed, broke off, or sent what is no request.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    connection: u64,
) -> Option<Recorded> {
    let end = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut request = Recorded {
        connection,
        method,
        target,
        headers,
        body: Vec::new(),
        at: Instant::now(),
    };
    request.body = match (
        request.header("transfer-encoding"),
        request.header("content-length"),
    ) {
        (Some(_), _) => chunks(stream, buffer).await?,
        (None, Some(length)) => exactly(stream, buffer, length.parse().ok()?).await?,
        (None, None) => Vec::new(),
    };
    request.at = Instant::now();
    Some(request)
}

async fn chunks(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(stream, buffer).await?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            while !line(stream, buffer).await?.is_empty() {}
            return Some(body);
        }
        body.extend(exactly(stream, buffer, size).await?);
        line(stream, buffer).await?;
    }
}

async fn line(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = find(buffer, b"\r\n") {
            let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 2);
            return Some(line);
        }
        more(stream, buffer).await?;
    }
}

async fn exactly(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    length: usize,
) -> Option<Vec<u8>> {
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    Some(buffer.drain(..length).collect())
}

async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    const MOST: usize = 16 << 20;
    let read = stream.read_buf(buffer).await.ok()?;
    (read > 0 && buffer.len() <= MOST).then_some(())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
