//! What can be said about a sidecar, by name: in annotations of the pod, in options, in a template file.
//!
//! The names are the same in all three; here each text becomes a value or a sentence about what is wrong with it.

use std::cmp::Ordering;

use crate::config::nearest;

/// What all annotations begin with.
pub const PREFIX: &str = "flagside.io/";
/// Written by injection: version and template.
pub const STATUS: &str = "flagside.io/status";
/// The label and annotation that ask for the sidecar or refuse it.
pub const INJECT: &str = "flagside.io/inject";
/// The label of pods that have the sidecar.
pub const INJECTED: &str = "flagside.io/injected";

/// Annotations that change the template, without prefix.
pub(super) const OVERRIDES: [&str; 11] = [
    "config",
    "secret",
    "image",
    "log-level",
    "cpu-request",
    "memory-request",
    "memory-limit",
    "port",
    "admin-port",
    "set-env",
    "native",
];

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A variable of the application that is to point at the sidecar.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SetEnv {
    /// Name of the variable.
    pub name: String,
    /// Its value, with `{port}` and `{admin-port}` to be filled in.
    pub template: String,
}

impl SetEnv {
    const DEFAULT: &str = "http://127.0.0.1:{port}";

    /// Reads `NAME` or `NAME=template`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, template) = match text.trim().split_once('=') {
            Some((name, template)) => (name.trim(), template.trim()),
            None => (text.trim(), Self::DEFAULT),
        };
        let is_name = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if !is_name {
            return Err(format!("not a variable's name (got {})", shown(name)));
        }
        let rest = template.replace("{port}", "").replace("{admin-port}", "");
        if rest.contains(['{', '}']) || rest.chars().any(char::is_control) {
            return Err(format!(
                "only {{port}} and {{admin-port}} can be filled in (got {})",
                shown(template)
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            template: template.to_owned(),
        })
    }

    /// The value for these ports.
    #[must_use]
    pub fn value(&self, port: u16, admin_port: u16) -> String {
        self.template
            .replace("{port}", &port.to_string())
            .replace("{admin-port}", &admin_port.to_string())
    }
}

/// A Kubernetes quantity, more than nothing, and its size in thousandths.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quantity {
    text: String,
    thousandths: u128,
}

impl Quantity {
    /// Reads `10m`, `0.5`, `128Mi`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a quantity such as 10m, 1 or 128Mi (got {})", shown(text));
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let factor: u128 = match suffix {
            "m" => 1,
            "" => 1_000,
            "k" => 1_000_000,
            "M" => 1_000_000_000,
            "G" => 1_000_000_000_000,
            "T" => 1_000_000_000_000_000,
            "Ki" => 1_000 << 10,
            "Mi" => 1_000 << 20,
            "Gi" => 1_000 << 30,
            "Ti" => 1_000 << 40,
            _ => return Err(wrong()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || part.contains('.') || whole.len() > 15 || part.len() > 9 {
            return Err(wrong());
        }
        let scale = 10_u128.pow(u32::try_from(part.len()).map_err(|_| wrong())?);
        let units: u128 = format!("{whole}{part}").parse().map_err(|_| wrong())?;
        match units * factor / scale {
            0 => Err(format!("must be more than nothing (got {})", shown(text))),
            thousandths => Ok(Self {
                text: text.to_owned(),
                thousandths,
            }),
        }
    }

    /// One that is known to be right.
    pub(super) fn known(text: &str, thousandths: u128) -> Self {
        Self {
            text: text.to_owned(),
            thousandths,
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.thousandths.partial_cmp(&other.thousandths)
    }
}

/// A port that an unprivileged process may listen on.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| is_number && *port >= 1024)
        .ok_or_else(|| format!("not a port from 1024 to 65535 (got {})", shown(text)))
}

/// The name of a `ConfigMap` or `Secret`.
pub(super) fn object_name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(format!("not the name of an object (got {})", shown(text)))
}

pub(super) fn image(text: &str) -> Result<String, String> {
    let is_image = !text.is_empty() && text.len() <= 512 && text.bytes().all(|b| b.is_ascii_graphic());
    let found = is_image.then(|| text.to_owned());
    found.ok_or_else(|| format!("not an image (got {})", shown(text)))
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("neither true nor false (got {})", shown(other))),
    }
}

pub(super) fn level(text: &str) -> Result<&'static str, String> {
    LEVELS
        .iter()
        .find(|level| **level == text)
        .copied()
        .ok_or_else(|| format!("not one of {} (got {})", LEVELS.join(", "), shown(text)))
}

/// Whether the sidecar is wanted: `enabled` or `disabled`, `true` or `false`.
pub(super) fn wish(text: &str) -> Result<bool, String> {
    match text {
        "enabled" | "true" => Ok(true),
        "disabled" | "false" => Ok(false),
        other => Err(format!("neither enabled nor disabled (got {})", shown(other))),
    }
}

/// What is to be said about an annotation below the prefix that means nothing; none if `name` is known.
pub(super) fn unknown(name: &str) -> Option<String> {
    let known = OVERRIDES.iter().copied().chain(["inject", "status", "injected"]);
    if known.clone().any(|known| known == name) {
        return None;
    }
    let meant = nearest(name, known).map(|meant| format!("; did you mean {PREFIX}{meant}?"));
    Some(format!(
        "the annotation {PREFIX}{} means nothing{}",
        shown(name),
        meant.unwrap_or_default()
    ))
}

/// At most 60 characters of something that somebody else wrote.
fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(60)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    if shown.is_empty() {
        shown.push_str("\"\"");
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities() {
        for (text, thousandths) in [
            ("10m", 10),
            ("1", 1_000),
            ("0.5", 500),
            ("1.5Ki", 1_536_000),
            ("128Mi", 134_217_728_000),
            ("1G", 1_000_000_000_000),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().thousandths, thousandths, "{text}");
        }
        for text in [
            "",
            "0",
            "0m",
            "-1",
            "1mi",
            "1 Mi",
            "Mi",
            "1.2.3",
            ".5",
            "1e3",
            "1MB",
            "99999999999999999999",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        assert!(Quantity::parse("128Mi").unwrap() > Quantity::parse("128M").unwrap());
    }

    #[test]
    fn variables_are_filled_in() {
        let set = |text: &str| SetEnv::parse(text).map(|set| (set.name.clone(), set.value(1, 2)));
        assert_eq!(set("A"), Ok(("A".to_owned(), "http://127.0.0.1:1".to_owned())));
        assert_eq!(
            set(" A = x{port}/{admin-port} "),
            Ok(("A".to_owned(), "x1/2".to_owned()))
        );
        assert_eq!(set("A="), Ok(("A".to_owned(), String::new())));
        assert_eq!(set("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        for text in ["", "=x", "1A=x", "A B=x", "A={host}", "A={port", "A=a\nb"] {
            assert!(set(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_and_ports() {
        for text in ["a", "a-b.c", "0"] {
            assert!(object_name(text).is_ok(), "{text}");
        }
        for text in ["", "A", "a_b", "-a", "a-", "a..b", "a/b"] {
            assert!(object_name(text).is_err(), "{text}");
        }
        assert_eq!(port("1024"), Ok(1024));
        for text in ["", "0", "1023", "65536", "+2000", "8080 "] {
            assert!(port(text).is_err(), "{text}");
        }
        assert_eq!(
            unknown("cpu-requets").as_deref(),
            Some(
                "the annotation flagside.io/cpu-requets means nothing; did you mean flagside.io/cpu-request?"
            )
        );
        assert_eq!(unknown("native"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}|[0-9.mkMKi]{0,8}|[A-Z]{1,3}=[{}a-z-]{0,12}") {
            let _ = (Quantity::parse(&text), SetEnv::parse(&text), port(&text), object_name(&text));
            let _ = (image(&text), wish(&text), level(&text), unknown(&text));
        }
    }
}
