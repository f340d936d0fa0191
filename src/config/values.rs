//! One text becomes one value, within the bounds of its setting's [`Kind`].
//!
//! The problems returned here have no place yet; the reader adds it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::fault::{Problem, looks_secret};
use super::quantity;
use super::settings::Kind;
use super::suggest::nearest;
use super::url::is_segment;
use crate::evaluate::featbit::secret::{SECRET_CHARS, environment_of};

type Parsed<T> = Result<T, Problem>;

fn fault(kind: Kind, text: &str, what: &str) -> Problem {
    let fault = Problem::new(what).expected(kind.item());
    if kind.is_secret() { fault } else { fault.got(text) }
}

pub(super) fn duration(kind: Kind, text: &str) -> Parsed<Duration> {
    let value = quantity::parse_duration(text).map_err(|problem| with_fitting_unit(kind, text, problem))?;
    match kind {
        Kind::Duration(min, _) if value < min => Err(fault(kind, text, "too short")),
        Kind::Duration(_, max) if value > max => Err(fault(kind, text, "too long")),
        _ => Ok(value),
    }
}

/// For a number without unit: the suggestion is the unit with which the setting takes it.
fn with_fitting_unit(kind: Kind, text: &str, problem: Problem) -> Problem {
    let Kind::Duration(min, max) = kind else {
        return problem;
    };
    if !text.trim().bytes().all(|b| b.is_ascii_digit()) {
        return problem;
    }
    let fitting = ["s", "ms"]
        .iter()
        .map(|unit| format!("{}{unit}", text.trim()))
        .find(|meant| quantity::parse_duration(meant).is_ok_and(|duration| (min..=max).contains(&duration)));
    problem.meant(fitting)
}

pub(super) fn size(kind: Kind, text: &str) -> Parsed<u64> {
    let value = quantity::parse_size(text)?;
    match kind {
        Kind::Size(min, _) if value < min => Err(fault(kind, text, "too small")),
        Kind::Size(_, max) if value > max => Err(fault(kind, text, "too large")),
        _ => Ok(value),
    }
}

pub(super) fn count(kind: Kind, text: &str) -> Parsed<u64> {
    let digits = text.trim();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(fault(kind, text, "not a whole number"));
    }
    let value = digits
        .parse::<u64>()
        .map_err(|_| fault(kind, text, "too large"))?;
    match kind {
        Kind::Count(min, _) if value < min => Err(fault(kind, text, "too small")),
        Kind::Count(_, max) if value > max => Err(fault(kind, text, "too large")),
        _ => Ok(value),
    }
}

pub(super) fn share(kind: Kind, text: &str) -> Parsed<f64> {
    let plain = text
        .trim()
        .bytes()
        .all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    let value = text.trim().parse::<f64>().ok().filter(|_| plain).ok_or_else(|| {
        let percent = text
            .trim()
            .strip_suffix('%')
            .and_then(|n| n.trim().parse::<f64>().ok());
        fault(kind, text, "not a number").meant(percent.map(|n| (n / 100.0).to_string()))
    })?;
    match kind {
        Kind::Share(min, _) if value < min => Err(fault(kind, text, "too small")),
        Kind::Share(_, max) if value > max => Err(fault(kind, text, "too large")),
        _ => Ok(value),
    }
}

pub(super) fn switch(kind: Kind, text: &str) -> Parsed<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        "yes" | "on" | "1" | "y" | "enabled" => {
            Err(fault(kind, text, "neither true nor false").meant(Some("true")))
        }
        "no" | "off" | "0" | "n" | "disabled" => {
            Err(fault(kind, text, "neither true nor false").meant(Some("false")))
        }
        _ => Err(fault(kind, text, "neither true nor false")),
    }
}

/// One of the kind's words, in any case.
pub(super) fn word(kind: Kind, text: &str) -> Parsed<&'static str> {
    let Kind::Word(words) = kind else {
        return Err(fault(kind, text, "not a word"));
    };
    if let Some(word) = words.iter().find(|w| w.eq_ignore_ascii_case(text.trim())) {
        return Ok(word);
    }
    Err(fault(kind, text, "unknown word").meant(nearest(text.trim(), words.iter().copied())))
}

pub(super) fn name(kind: Kind, text: &str) -> Parsed<String> {
    let fits = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        && !text.starts_with(['_', '-']);
    if fits {
        return Ok(text.to_owned());
    }
    let mapped: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let mapped = mapped.trim_matches(['-', '_']);
    let meant = ((1..=63).contains(&mapped.len()) && !looks_secret(text)).then_some(mapped);
    Err(fault(kind, text, "not a name").meant(meant))
}

/// A path prefix; `/` alone is none.
pub(super) fn prefix(kind: Kind, text: &str) -> Parsed<String> {
    if text.is_empty() || text == "/" {
        return Ok(String::new());
    }
    let meant = format!("/{}", text.trim_matches('/'));
    let is_prefix = |text: &str| {
        text.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|s| !s.is_empty() && s != "." && s != ".." && is_segment(s))
        })
    };
    if is_prefix(text) {
        return Ok(text.to_owned());
    }
    Err(fault(kind, text, "not a path prefix").meant(is_prefix(&meant).then_some(meant)))
}

/// `http[s]://host[:port]` as browsers send it: lower case, no default port, no path.
pub(super) fn origin(kind: Kind, text: &str) -> Parsed<String> {
    let Ok((url, _)) = super::BaseUrl::parse(text) else {
        return Err(fault(kind, text, "not an origin"));
    };
    let canonical = super::BaseUrl {
        path: String::new(),
        ..url
    }
    .to_string();
    if canonical.eq_ignore_ascii_case(text) {
        return Ok(canonical);
    }
    Err(fault(kind, text, "not an origin").meant(Some(canonical)))
}

/// A query parameter's name that may be ignored: none that answers depend on.
pub(super) fn parameter(kind: Kind, text: &str) -> Parsed<String> {
    const MEANINGFUL: [&str; 9] = [
        "context",
        "d",
        "delivery_method",
        "device_id",
        "eval_mode",
        "flag_key",
        "flag_keys",
        "user_id",
        "v",
    ];
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == '&' || c == '=') {
        return Err(fault(kind, text, "not a parameter's name"));
    }
    if MEANINGFUL.contains(&text) {
        return Err(fault(kind, text, "a parameter that answers depend on"));
    }
    Ok(text.to_owned())
}

/// A deployment key, or an environment secret. What is wrong is said without anything of it.
pub(super) fn key(kind: Kind, text: &str) -> Parsed<super::Secret> {
    if matches!(kind, Kind::EnvSecrets) {
        return match not_env_secret(text) {
            None => Ok(super::Secret::new(text)),
            Some(what) => Err(fault(kind, text, &format!("not an environment secret: {what}"))),
        };
    }
    if (1..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(super::Secret::new(text));
    }
    Err(fault(
        kind,
        text,
        "not a key: empty, longer than 512, or with blanks or special characters in it",
    ))
}

/// Why `text` is no environment secret that a header can carry (FB 2.1).
fn not_env_secret(text: &str) -> Option<String> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Some("blanks or special characters in it".to_owned());
    }
    if text.starts_with("rp-") {
        return Some("it is the key of a relay proxy".to_owned());
    }
    if text.starts_with("api-") {
        return Some("it is an access token of FeatBit's management API".to_owned());
    }
    if text.len() != SECRET_CHARS {
        return Some(format!("{} characters instead of {SECRET_CHARS}", text.len()));
    }
    let is_secret = environment_of(text).is_some();
    (!is_secret).then(|| "its last 22 characters name no environment".to_owned())
}

/// `ADDRESS:PORT`, `:PORT` or `PORT`; without address (or with `localhost`), the `defaults`.
///
/// A free port (0) is one port: it gets the first default alone.
pub(super) fn addresses(kind: Kind, text: &str, defaults: &[IpAddr]) -> Parsed<Vec<SocketAddr>> {
    let text = text.trim();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    let expand = |port: u16, hosts: &[IpAddr]| -> Vec<SocketAddr> {
        let count = if port == 0 { 1 } else { hosts.len() };
        hosts
            .iter()
            .take(count)
            .map(|host| SocketAddr::new(*host, port))
            .collect()
    };
    let (host, digits) = text.rsplit_once(':').unwrap_or(("", text));
    let port = digits
        .parse::<u16>()
        .ok()
        .filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    match (host, port) {
        ("", Some(port)) => Ok(expand(port, defaults)),
        ("localhost", Some(port)) => Ok(expand(port, &LOOPBACK)),
        ("*", Some(port)) => Err(fault(kind, text, "not an address").meant(Some(format!("0.0.0.0:{port}")))),
        (host, Some(port)) if host.parse::<Ipv6Addr>().is_ok() => {
            Err(fault(kind, text, "not an address").meant(Some(format!("[{host}]:{port}"))))
        }
        (_, Some(_)) => Err(fault(kind, text, "not an IP address")),
        (_, None) => Err(fault(kind, text, "not an address")),
    }
}

/// IPv4 and IPv6 loopback.
pub(super) const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_have_short_forms() {
        let listed = |text: &str| -> Vec<String> {
            addresses(Kind::Addresses, text, &LOOPBACK)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(listed("10.0.0.1:80"), ["10.0.0.1:80"]);
        assert_eq!(listed("[::]:80"), ["[::]:80"]);
        assert_eq!(listed(":80"), ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(listed("80"), ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(listed("localhost:80"), ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(listed("0"), ["127.0.0.1:0"]);
        let form = "expected ADDRESS:PORT, :PORT or PORT";
        for (text, wanted) in [
            (
                "*:80",
                format!("not an address (got *:80); {form}; did you mean 0.0.0.0:80?"),
            ),
            (
                "::1:80",
                format!("not an address (got ::1:80); {form}; did you mean [::1]:80?"),
            ),
            (
                "example.com:80",
                format!("not an IP address (got example.com:80); {form}"),
            ),
            ("127.0.0.1", format!("not an address (got 127.0.0.1); {form}")),
            ("70000", format!("not an address (got 70000); {form}")),
            ("+80", format!("not an address (got +80); {form}")),
            ("", format!("not an address (got \"\"); {form}")),
        ] {
            let fault = addresses(Kind::Addresses, text, &LOOPBACK).unwrap_err();
            assert_eq!(fault.to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn names_prefixes_and_origins() {
        assert_eq!(name(Kind::Name, "my_env-2").unwrap(), "my_env-2");
        assert_eq!(
            name(Kind::Name, "My Env!").unwrap_err().meant.as_deref(),
            Some("my-env")
        );
        assert_eq!(name(Kind::Name, "").unwrap_err().meant, None);
        let secret = name(Kind::Name, "gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w").unwrap_err();
        assert_eq!(
            secret.to_string(),
            format!("not a name (got ***); expected {}", Kind::Name)
        );
        assert_eq!(prefix(Kind::Prefix, "/a/b").unwrap(), "/a/b");
        assert_eq!(prefix(Kind::Prefix, "/").unwrap(), "");
        assert_eq!(
            prefix(Kind::Prefix, "a/b/").unwrap_err().meant.as_deref(),
            Some("/a/b")
        );
        assert_eq!(prefix(Kind::Prefix, "/a b").unwrap_err().meant, None);
        assert_eq!(
            origin(Kind::Origins, "https://App.example.com").unwrap(),
            "https://app.example.com"
        );
        let fault = origin(Kind::Origins, "https://app.example.com/x").unwrap_err();
        assert_eq!(fault.meant.as_deref(), Some("https://app.example.com"));
        assert!(parameter(Kind::Parameters, "user_id").is_err());
        assert_eq!(parameter(Kind::Parameters, "cb").unwrap(), "cb");
    }

    #[test]
    fn a_refused_key_is_not_shown() {
        for kind in [Kind::Secrets, Kind::EnvSecrets] {
            let message = key(kind, "my secret").unwrap_err().to_string();
            assert!(!message.contains("my secret"), "{message}");
        }
    }

    #[test]
    fn environment_secrets_are_checked() {
        let secret = "gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w";
        assert_eq!(key(Kind::EnvSecrets, secret).unwrap().expose(), secret);
        let long = format!("{secret}=");
        let unreadable = "its last 22 characters name no environment";
        for (text, wanted) in [
            ("", "0 characters instead of 44"),
            (&secret[1..], "43 characters instead of 44"),
            (&long, "45 characters instead of 44"),
            ("gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3.", unreadable),
            ("gpnOV3wI3kKAO9q9viC0wQAAAAAAAAAAAAAAAAAAAAAA", unreadable),
            (
                "gpnOV3wI3kKAO9q9viC0w WdKZrVAf2U6gAnxl4lSH3w",
                "blanks or special characters in it",
            ),
            ("rp-0123456789", "it is the key of a relay proxy"),
            (
                "api-0123456789",
                "it is an access token of FeatBit's management API",
            ),
        ] {
            let problem = key(Kind::EnvSecrets, text).unwrap_err();
            let expected = "an environment secret, 44 characters as FeatBit shows it";
            let message = format!("not an environment secret: {wanted}; expected {expected}");
            assert_eq!(problem.to_string(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}|[0-9.:%/\\[\\]-]{0,20}") {
            let kind = Kind::Word(&["a", "b"]);
            let _ = duration(kind, &text);
            let _ = (size(kind, &text), count(kind, &text), share(kind, &text), switch(kind, &text));
            let _ = (word(kind, &text), name(kind, &text), prefix(kind, &text), origin(kind, &text));
            let _ = (parameter(kind, &text), key(kind, &text), addresses(kind, &text, &LOOPBACK));
        }
    }
}
