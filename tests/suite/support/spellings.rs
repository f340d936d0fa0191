//! One question in many spellings: what SDKs of different languages send for the same user (API 2 and 3.5).

#![allow(clippy::too_many_lines, reason = "a table is as long as what it lists")]

use serde_json::Value;

use super::ask::{Alphabet, Ask};
use super::codec;
use super::upstream::KEY;

/// A request and what is peculiar about it.
#[derive(Clone, Debug)]
pub struct Spelling {
    /// What is peculiar.
    pub name: &'static str,
    /// The request as it goes over the wire.
    pub bytes: Vec<u8>,
}

/// How JSON is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Members in reverse order, where order carries no meaning (API 9.3, step 9).
    pub reversed: bool,
    /// White space between all tokens.
    pub spaced: bool,
    /// Non-ASCII characters, `<` and `>` as `\uXXXX`.
    pub escaped: bool,
    /// The digits of such an escape in upper case.
    pub upper: bool,
    /// `/` as `\/`.
    pub solidus: bool,
}

impl Style {
    /// `value`, which is a user object, as text.
    pub fn write(self, value: &Value) -> String {
        let mut out = String::new();
        self.value(value, usize::from(value.is_object()), true, &mut out);
        out
    }

    /// `levels` = so many levels of objects, this one included, whose member order carries no meaning.
    fn value(self, value: &Value, levels: usize, root: bool, out: &mut String) {
        let gap = if self.spaced { " \t\n" } else { "" };
        match value {
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if self.reversed && levels > 0 {
                    members.reverse();
                }
                out.push('{');
                for (at, (name, member)) in members.into_iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(gap);
                    self.string(name, out);
                    out.push_str(gap);
                    out.push(':');
                    out.push_str(gap);
                    let below = match name.as_str() {
                        "user_properties" | "groups" if root => 1,
                        "group_properties" if root => 3,
                        "group_cohort_ids" if root => 2,
                        _ if root => 0,
                        _ => levels.saturating_sub(1),
                    };
                    self.value(member, below, false, out);
                }
                out.push_str(gap);
                out.push('}');
            }
            Value::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(gap);
                    self.value(element, 0, false, out);
                }
                out.push(']');
            }
            Value::String(text) => self.string(text, out),
            other => out.push_str(&other.to_string()),
        }
    }

    fn string(self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '/' if self.solidus => out.push_str("\\/"),
                '"' | '\\' => out.extend(['\\', character]),
                other if other < ' ' || (self.escaped && (!other.is_ascii() || "<>&".contains(other))) => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        out.push_str(&if self.upper {
                            format!("\\u{unit:04X}")
                        } else {
                            format!("\\u{unit:04x}")
                        });
                    }
                }
                other => out.push(other),
            }
        }
        out.push('"');
    }
}

/// `user` and the flag keys, asked on `/sdk/v2/vardata` in more than thirty ways.
///
/// `user` needs a `user_id`, which one spelling gives twice; at least two flag keys make the list worth sorting.
pub fn sdk_spellings(user: &Value, keys: &[&str]) -> Vec<Spelling> {
    let plain = Style::default().write(user);
    let path = "/sdk/v2/vardata";
    let get = |user: &str| Ask::sdk_get(user).flag_keys(keys);
    let post = |user: &str| Ask::sdk_post(user).flag_keys(keys);
    let with_query = |query: &str| Ask::sdk_get(&plain).to(&format!("{path}?{query}"));
    let comma = keys.join(",");
    let mut backwards = keys.to_vec();
    backwards.reverse();
    backwards.extend(keys);
    let mut asks = vec![
        ("node", get(&plain)),
        (
            "android",
            Ask::sdk_get_in(&plain, Alphabet::UrlSafe).flag_keys(keys),
        ),
        ("go", Ask::sdk_get_in(&plain, Alphabet::Standard).flag_keys(keys)),
        ("post", post(&plain)),
        (
            "python",
            post(
                &Style {
                    escaped: true,
                    spaced: true,
                    ..Style::default()
                }
                .write(user),
            )
            .header("Accept-Encoding", "identity"),
        ),
        (
            "members reversed",
            get(&Style {
                reversed: true,
                ..Style::default()
            }
            .write(user)),
        ),
        (
            "white space",
            get(&Style {
                spaced: true,
                ..Style::default()
            }
            .write(user)),
        ),
        (
            "escapes",
            get(&Style {
                escaped: true,
                ..Style::default()
            }
            .write(user)),
        ),
        (
            "escapes in upper case",
            get(&Style {
                escaped: true,
                upper: true,
                ..Style::default()
            }
            .write(user)),
        ),
        (
            "escaped solidus",
            get(&Style {
                solidus: true,
                ..Style::default()
            }
            .write(user)),
        ),
        (
            "reversed, spaced, escaped post",
            post(
                &Style {
                    reversed: true,
                    spaced: true,
                    escaped: true,
                    upper: true,
                    solidus: true,
                }
                .write(user),
            ),
        ),
        (
            "flag keys reversed and doubled",
            Ask::sdk_get(&plain).flag_keys(&backwards),
        ),
        ("flag_keys", with_query(&format!("v=0&flag_keys={comma}"))),
        ("flag_key", with_query(&format!("v=0&flag_key={comma}"))),
        (
            "flag_keys with blanks",
            with_query(&format!("flag_keys=+{}%2c,&v=0", keys.join("%2C+"))),
        ),
        (
            "flag keys in both places",
            Ask::sdk_get(&plain)
                .to(&format!("{path}?flag_keys=other"))
                .flag_keys(keys),
        ),
        ("no v", get(&plain).to(path)),
        ("empty query", get(&plain).to(&format!("{path}?"))),
        ("doubled slashes", get(&plain).to("//sdk//v2/vardata?v=0")),
        ("trailing slash", get(&plain).to("/sdk/v2/vardata/?v=0")),
        (
            "absolute target",
            get(&plain).to("http://127.0.0.1:3546/sdk/v2/vardata?v=0"),
        ),
        (
            "absolute target of another host",
            get(&plain).to("HTTP://flags.example/sdk/v2/vardata?v=0"),
        ),
        ("empty pairs", get(&plain).to(&format!("{path}?&v=0&&"))),
        (
            "scheme in lower case",
            get(&plain)
                .without("Authorization")
                .line(&format!("Authorization: api-key {KEY}")),
        ),
        (
            "blanks around the key",
            get(&plain)
                .without("Authorization")
                .line(&format!("Authorization:  \tApi-Key   {KEY}  ")),
        ),
        (
            "content type on a get",
            get(&plain).header("Content-Type", "application/json; charset=UTF-8"),
        ),
        (
            "browser",
            get(&plain)
                .header("Cache-Control", "no-cache")
                .header("Pragma", "no-cache")
                .header("Origin", "https://shop.example")
                .header("Sec-Fetch-Site", "cross-site"),
        ),
        (
            "another client",
            get(&plain)
                .header("User-Agent", "Other/2")
                .header("Accept", "*/*")
                .header("Cookie", "a=b"),
        ),
        (
            "another library",
            get(&plain).header("X-Amp-Exp-Library", "experiment-ruby-server/1.10.0"),
        ),
        (
            "a trace",
            get(&plain)
                .header(
                    "traceparent",
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                )
                .header("tracestate", "a=b")
                .header("X-Request-Id", "abc"),
        ),
        ("gzip accepted", get(&plain).header("Accept-Encoding", "gzip")),
        (
            "the default of tracking",
            get(&plain)
                .header("X-Amp-Exp-Track", "track")
                .header("X-Amp-Exp-Exposure-Track", "no-track"),
        ),
        (
            "forwarded",
            get(&plain)
                .header("X-Forwarded-For", "203.0.113.9")
                .header("Forwarded", "for=203.0.113.9"),
        ),
        (
            "member twice",
            get(&plain.replacen('{', r#"{"user_id":"somebody else","#, 1)),
        ),
        (
            "blanks around the user",
            Ask::get("/sdk/v2/vardata?v=0").flag_keys(keys).line(&format!(
                "X-Amp-Exp-User: \t{} ",
                Alphabet::Standard.encode(&plain)
            )),
        ),
    ];
    let shout = get(&plain);
    let lines = shout
        .headers
        .iter()
        .map(|line| line.split_once(':').expect("it is a header"));
    let whisper = lines
        .clone()
        .map(|(name, value)| format!("{}:{value}", name.to_lowercase()))
        .collect();
    let loud = lines
        .map(|(name, value)| format!("{}:{value}", name.to_uppercase()))
        .collect();
    asks.push((
        "header names in lower case",
        Ask {
            headers: whisper,
            ..shout.clone()
        },
    ));
    asks.push((
        "header names in upper case",
        Ask {
            headers: loud,
            ..shout
        },
    ));
    let mut spellings: Vec<_> = asks
        .into_iter()
        .map(|(name, ask)| Spelling {
            name,
            bytes: ask.bytes(),
        })
        .collect();
    spellings.push(Spelling {
        name: "chunked post",
        bytes: chunked(&post(&plain)),
    });
    spellings
}

/// The same for `/v1/vardata`; `user` needs a `user_id` and a `device_id`.
pub fn rest_spellings(user: &Value, keys: &[&str]) -> Vec<Spelling> {
    let mut rest = user.clone();
    let ids = rest.as_object_mut().expect("a user is an object");
    let [user_id, device_id] = ["user_id", "device_id"].map(|id| {
        let id = ids.shift_remove(id).expect("the user has both ids");
        codec::percent(id.as_str().expect("an id is a string"))
    });
    let (whole, rest) = (
        codec::percent(&user.to_string()),
        codec::percent(&rest.to_string()),
    );
    let reversed = codec::percent(
        &Style {
            reversed: true,
            spaced: true,
            escaped: true,
            ..Style::default()
        }
        .write(user),
    );
    let list = keys.join(",");
    let lower = lower_hex(&whole);
    let post = Ask::post(&format!("/v1/vardata?flag_keys={list}"), user.to_string());
    let asks = [
        ("context", Ask::v1(&format!("context={whole}&flag_keys={list}"))),
        (
            "lower-case percent",
            Ask::v1(&format!("context={lower}&flag_keys={list}")),
        ),
        (
            "plus for space",
            Ask::v1(&format!("context={}&flag_keys={list}", whole.replace("%20", "+"))),
        ),
        (
            "other order",
            Ask::v1(&format!("flag_keys={list}&context={whole}")),
        ),
        (
            "other member order",
            Ask::v1(&format!("flag_keys={list}&context={reversed}")),
        ),
        (
            "ids in the query",
            Ask::v1(&format!(
                "user_id={user_id}&device_id={device_id}&context={rest}&flag_keys={list}"
            )),
        ),
        (
            "ids in both",
            Ask::v1(&format!(
                "user_id={user_id}&device_id={device_id}&context={whole}&flag_keys={list}"
            )),
        ),
        ("flag_key", Ask::v1(&format!("context={whole}&flag_key={list}"))),
        (
            "flag keys in the header",
            Ask::v1(&format!("context={whole}")).flag_keys(keys),
        ),
        ("post", post.clone()),
        (
            "post with an id in the query",
            post.to(&format!("/v1/vardata?flag_keys={list}&user_id={user_id}")),
        ),
        (
            "leading ampersand",
            Ask::v1(&format!("&context={whole}&&flag_keys={list}&")),
        ),
        (
            "escaped name",
            Ask::v1(&format!("%63ontext={whole}&flag%5Fkeys={list}")),
        ),
    ];
    asks.into_iter()
        .map(|(name, ask)| Spelling {
            name,
            bytes: ask.bytes(),
        })
        .collect()
}

fn lower_hex(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        format!("{text}%{}{}", part[..2].to_lowercase(), &part[2..])
    })
}

/// The request with its body in chunks of seven bytes.
pub fn chunked(ask: &Ask) -> Vec<u8> {
    let body = ask.body.clone().unwrap_or_default();
    let bodiless = Ask {
        body: None,
        ..ask.clone()
    }
    .header("Transfer-Encoding", "chunked");
    let mut bytes = bodiless.bytes();
    for chunk in body.chunks(7) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}
