//! The many ways to write one question down.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::meaning::{Json, Meaning, is_structural};
use super::{EXPOSURE_TRACK, FLAG_KEYS, IGNORED, TRACK, USER, base64};
use crate::metrics::Route;

/// Decisions from a seed (`SplitMix64`).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ bits >> 31) % sides as u64).unwrap()
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.roll(at + 1));
        }
    }
}

/// A request as it may come.
#[derive(Clone, Debug)]
pub(super) struct Spelled {
    pub(super) post: bool,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Spelled {
    /// One spelling of `meaning`.
    pub(super) fn of(meaning: &Meaning, dice: &mut Dice) -> Self {
        let mut spelled = Self {
            post: false,
            query: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        spelled.write_user(meaning, dice, &mut pairs);
        spelled.write_flag_keys(meaning, dice, &mut pairs);
        let options = [
            ("v", meaning.v),
            ("eval_mode", meaning.eval_mode),
            ("delivery_method", meaning.delivery_method),
        ];
        for (name, value) in options {
            pairs.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        }
        if meaning.v.is_none() && dice.one_in(2) {
            pairs.push(("v".to_owned(), "0".to_owned()));
        }
        pairs.extend(
            meaning
                .parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        if dice.one_in(4) {
            pairs.push((IGNORED.to_owned(), "mail".to_owned()));
        }
        if dice.one_in(4) {
            pairs.push(("d".to_owned(), dice.roll(1000).to_string()));
        }
        dice.shuffle(&mut pairs);
        spelled.query = query(&pairs, dice);
        let scheme = ["Api-Key ", "api-key   ", "API-KEY\t", " Api-Key "][dice.roll(4)];
        spelled.add("authorization", &format!("{scheme}{}", meaning.deployment_key));
        for (name, value) in &meaning.headers {
            spelled.add(name, value);
        }
        for (name, value, default) in [
            (TRACK, meaning.track, "track"),
            (EXPOSURE_TRACK, meaning.exposure_track, "no-track"),
        ] {
            if value != default || dice.one_in(2) {
                spelled.add(name.as_str(), value);
            }
        }
        if dice.one_in(2) {
            spelled.add("x-amp-exp-library", "experiment-node-server/1.14.0");
        }
        spelled.tell_more(dice);
        // No part of an Amplitude question, but of the raw parts: FeatBit refuses some.
        if dice.one_in(3) {
            spelled.add("Content-Type", "application/json");
        }
        spelled
    }

    /// Adds what nobody's answer depends on.
    pub(super) fn tell_more(&mut self, dice: &mut Dice) {
        for (name, value) in [
            ("User-Agent", "curl/8"),
            ("accept-encoding", "gzip, br"),
            ("Cache-Control", "no-cache"),
            ("cookie", "session=1"),
            (
                "Traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            ("X-Request-Id", "r-1"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("if-none-match", "\"x\""),
        ] {
            if dice.one_in(3) {
                self.add(name, value);
            }
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
    }

    fn write_user(&mut self, meaning: &Meaning, dice: &mut Dice, pairs: &mut Vec<(String, String)>) {
        if meaning.is_flags() {
            let counts = meaning.delivery_method == Some("web");
            if counts || dice.one_in(2) {
                let user = if counts {
                    &meaning.user
                } else {
                    &Json::Object(vec![("x".to_owned(), Json::Null)])
                };
                self.write_user_header(user, dice);
            }
            return;
        }
        let by_header = meaning.route != Route::VardataV1;
        match dice.roll(3) {
            0 if by_header => self.write_user_header(&meaning.user, dice),
            0 | 1 => {
                let user = move_identity(&meaning.user, dice, pairs);
                if !is_empty(&user) || dice.one_in(2) {
                    pairs.push(("context".to_owned(), json_or_blank(&user, dice)));
                }
            }
            _ => {
                self.post = true;
                let user = move_identity(&meaning.user, dice, pairs);
                self.body = Bytes::from(json_or_blank(&user, dice));
            }
        }
    }

    fn write_user_header(&mut self, user: &Json, dice: &mut Dice) {
        // Without the header, identity would be looked for in the query.
        let value = base64_of(json_or_blank(user, dice).as_bytes(), dice);
        self.add(USER.as_str(), &value);
    }

    fn write_flag_keys(&mut self, meaning: &Meaning, dice: &mut Dice, pairs: &mut Vec<(String, String)>) {
        let mut keys: Vec<&str> = meaning.flag_keys.iter().map(String::as_str).collect();
        if keys.is_empty() && dice.one_in(2) {
            return;
        }
        for _ in 0..dice.roll(3) {
            if let Some(again) = keys.get(dice.roll(keys.len().max(1))) {
                keys.push(again);
            }
        }
        if dice.one_in(4) {
            keys.push("");
        }
        dice.shuffle(&mut keys);
        let as_header = dice.one_in(3);
        if as_header {
            let list = Json::List(keys.iter().map(|key| Json::text(key)).collect());
            let value = base64_of(json(&list, dice).as_bytes(), dice);
            self.add(FLAG_KEYS.as_str(), &value);
        }
        // What stands below the header, or below `flag_keys`, does not count.
        let blank = if dice.one_in(3) { " " } else { "" };
        let list = keys.join(&format!("{blank},{blank}"));
        let name = if dice.one_in(2) { "flag_keys" } else { "flag_key" };
        if !as_header {
            pairs.push((name.to_owned(), list));
        } else if dice.one_in(2) {
            pairs.push((name.to_owned(), "overruled".to_owned()));
        }
        if name == "flag_keys" && dice.one_in(3) {
            pairs.push(("flag_key".to_owned(), "overruled".to_owned()));
        }
    }
}

fn is_empty(user: &Json) -> bool {
    matches!(user, Json::Object(members) if members.is_empty())
}

/// Moves identity that is text from the user into the query, now and then; what it leaves does not count.
fn move_identity(user: &Json, dice: &mut Dice, pairs: &mut Vec<(String, String)>) -> Json {
    let mut user = user.clone();
    for name in ["user_id", "device_id"] {
        let Some(Json::Text(text)) = user.get(name).cloned() else {
            continue;
        };
        if dice.one_in(2) {
            pairs.push((name.to_owned(), text));
            match dice.roll(2) {
                0 => user.members().retain(|(own, _)| own != name),
                _ => user.set(name, Json::Number("0".to_owned())),
            }
        }
    }
    user
}

fn base64_of(bytes: &[u8], dice: &mut Dice) -> String {
    let mut text = base64::encode(bytes);
    if dice.one_in(2) {
        text = text.replace('-', "+").replace('_', "/");
    }
    if dice.one_in(2) {
        text.push_str(&"=".repeat((4 - text.len() % 4) % 4));
    }
    text
}

fn query(pairs: &[(String, String)], dice: &mut Dice) -> Option<String> {
    if pairs.is_empty() && dice.one_in(2) {
        return None;
    }
    let mut out = String::new();
    for (name, value) in pairs {
        out.push_str(&form(name, dice));
        if !value.is_empty() || name.is_empty() || dice.one_in(2) {
            out.push('=');
            out.push_str(&form(value, dice));
        }
        out.push_str(if dice.one_in(5) { "&&" } else { "&" });
    }
    Some(out)
}

fn form(text: &str, dice: &mut Dice) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b',' | b':' if !dice.one_in(6) => {
                out.push(char::from(byte));
            }
            b' ' if dice.one_in(2) => out.push('+'),
            _ if dice.one_in(2) => out.push_str(&format!("%{byte:02x}")),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `value` as JSON text: any white space, any escapes, members in any order where order means nothing, and
/// members that are overruled by later ones of their name.
fn json(value: &Json, dice: &mut Dice) -> String {
    let mut out = String::new();
    write(value, &mut Vec::new(), dice, &mut out);
    blank(dice, &mut out);
    out
}

/// Nothing but blanks is the empty user too.
fn json_or_blank(user: &Json, dice: &mut Dice) -> String {
    if is_empty(user) && dice.one_in(2) {
        return " ".repeat(dice.roll(4));
    }
    json(user, dice)
}

fn write<'j>(value: &'j Json, path: &mut Vec<&'j str>, dice: &mut Dice, out: &mut String) {
    blank(dice, out);
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(&value.to_string()),
        Json::Number(token) => out.push_str(token),
        Json::Text(text) => write_text(text, dice, out),
        Json::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(item, &mut vec!["[]"], dice, out);
            }
            blank(dice, out);
            out.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if is_structural(path) {
                dice.shuffle(&mut members);
            }
            out.push('{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                if dice.one_in(8) {
                    write_text(name, dice, out);
                    out.push_str(":[{}],");
                }
                blank(dice, out);
                write_text(name, dice, out);
                blank(dice, out);
                out.push(':');
                path.push(name);
                write(value, path, dice, out);
                path.pop();
            }
            blank(dice, out);
            out.push('}');
        }
    }
}

fn blank(dice: &mut Dice, out: &mut String) {
    out.push_str(["", "", "", "", " ", "\n", "\t ", "\r\n"][dice.roll(8)]);
}

fn write_text(text: &str, dice: &mut Dice, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' if dice.one_in(2) => out.push_str("\\/"),
            '\n' if dice.one_in(2) => out.push_str("\\n"),
            '\t' if dice.one_in(2) => out.push_str("\\t"),
            '\u{8}' if dice.one_in(2) => out.push_str("\\b"),
            _ if char < ' ' || dice.one_in(5) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    out.push_str(&if dice.one_in(2) {
                        format!("\\u{unit:04x}")
                    } else {
                        format!("\\u{unit:04X}")
                    });
                }
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}
