//! Upstream bases: `https://host[:port][/prefix]` and nothing else.

use std::fmt;
use std::net::Ipv6Addr;

use super::fault::{Problem, looks_secret};

/// An upstream base: scheme, host, port and path prefix; no user-info, query or fragment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BaseUrl {
    /// `true` for https.
    pub tls: bool,
    /// Host name or address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path prefix, empty or `/a/b` without trailing slash.
    pub path: String,
}

/// What a base is written for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UrlForm {
    /// Amplitude's requests: the documents print bases with `/v1` at the end, which is dropped.
    Amplitude,
    /// FeatBit's requests.
    Featbit,
    /// FeatBit's websockets: `ws` and `wss` are read as `http` and `https`.
    FeatbitStream,
}

impl UrlForm {
    /// What would be right.
    const fn expected(self) -> &'static str {
        match self {
            Self::Amplitude | Self::Featbit => {
                "http:// or https://, a host, and if need be a port and a path prefix"
            }
            Self::FeatbitStream => {
                "http://, https://, ws:// or wss://, a host, and if need be a port and a path prefix"
            }
        }
    }
}

/// Paths that are added to FeatBit's bases: a base that ends in one is the URL of the endpoint itself.
const FEATBIT_ENDPOINTS: [&str; 3] = [
    "/streaming",
    "/api/public/featureflag/evaluate",
    "/api/public/insight/track",
];

impl BaseUrl {
    /// Reads `http[s]://host[:port][/prefix]` of Amplitude's.
    ///
    /// The second value is what was dropped from the end, to be mentioned to the user: a trailing `/v1`
    /// (flagside adds the version itself), with or without a slash after it, or a slash after a prefix.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that says what to write instead.
    pub fn parse(text: &str) -> Result<(Self, Option<&'static str>), Problem> {
        Self::parse_as(text, UrlForm::Amplitude)
    }

    /// The same of any form; of FeatBit's only a slash after a prefix is dropped.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that says what to write instead.
    pub fn parse_as(text: &str, form: UrlForm) -> Result<(Self, Option<&'static str>), Problem> {
        let text = text.trim();
        let fault = |what: &str| Problem::new(what).got(text).expected(form.expected());
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(fault("no scheme").meant(with_scheme(text)));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            "wss" if form == UrlForm::FeatbitStream => true,
            "ws" if form == UrlForm::FeatbitStream => false,
            other => {
                let meant = match other {
                    "ws" => Some(format!("http://{rest}")),
                    _ if other.starts_with("http") || other == "wss" => Some(format!("https://{rest}")),
                    _ => None,
                };
                return Err(fault("not a scheme flagside speaks").meant(meant));
            }
        };
        if let Some(end) = rest.find(['?', '#']) {
            let kind = if rest[end..].starts_with('?') {
                "a query"
            } else {
                "a fragment"
            };
            return Err(fault(&format!("a base URL has no room for {kind}"))
                .meant((end > 0).then(|| format!("{scheme}://{}", &rest[..end]))));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if let Some((_, host)) = authority.rsplit_once('@') {
            return Err(fault("a user name or password in the URL")
                .meant((!host.is_empty()).then(|| format!("{scheme}://{host}{path}"))));
        }
        let (host, port) = split_port(authority).ok_or_else(|| fault("not a host and port"))?;
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(digits) => digits
                .parse::<u16>()
                .ok()
                .filter(|port| *port != 0 && digits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| fault("not a port").expected("a port from 1 to 65535"))?,
        };
        let host = checked_host(host).map_err(fault)?;
        let (path, dropped) = trimmed(path, form);
        check_path(path, form).map_err(fault)?;
        let endpoint = FEATBIT_ENDPOINTS.iter().find_map(|end| path.strip_suffix(end));
        if let Some(prefix) = endpoint.filter(|_| form != UrlForm::Amplitude) {
            return Err(fault("the URL of an endpoint, not of the server")
                .meant(Some(format!("{scheme}://{authority}{prefix}"))));
        }
        Ok((
            Self {
                tls,
                host,
                port,
                path: path.to_owned(),
            },
            dropped,
        ))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let default_port = if self.tls { 443 } else { 80 };
        f.write_str(scheme)?;
        if self.host.contains(':') {
            write!(f, "://[{}]", self.host)?;
        } else {
            write!(f, "://{}", self.host)?;
        }
        if self.port != default_port {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

/// `text` with the scheme it probably lacks, if the result is a base URL.
fn with_scheme(text: &str) -> Option<String> {
    if looks_secret(text) {
        return None;
    }
    let local = ["localhost", "127.", "[::1]"]
        .iter()
        .any(|start| text.starts_with(start));
    let whole = format!(
        "{}://{}",
        if local { "http" } else { "https" },
        text.trim_start_matches('/')
    );
    BaseUrl::parse(&whole).is_ok().then_some(whole)
}

/// Host (IPv6 in its brackets) and port digits, if there is a colon.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match authority.split_once(':') {
        None => Some((authority, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

fn checked_host(host: &str) -> Result<String, &'static str> {
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return address
            .parse::<Ipv6Addr>()
            .map(|a| a.to_string())
            .map_err(|_| "not an IPv6 address");
    }
    if host.is_empty() {
        return Err("no host");
    }
    if !host.is_ascii() {
        return Err("a host name that is not ASCII (write its xn-- form)");
    }
    let labels_fit = host
        .strip_suffix('.')
        .unwrap_or(host)
        .split('.')
        .all(|l| (1..=63).contains(&l.len()) && !l.starts_with('-') && !l.ends_with('-'));
    let letters_fit = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if host.len() > 253 || !labels_fit || !letters_fit {
        return Err("not a host name");
    }
    Ok(host.to_ascii_lowercase())
}

/// The path without the end that flagside adds itself, and the name of what was dropped.
fn trimmed(path: &str, form: UrlForm) -> (&str, Option<&'static str>) {
    let without_slash = path.strip_suffix('/').unwrap_or(path);
    let without_version = without_slash.strip_suffix("/v1");
    match without_version.filter(|_| form == UrlForm::Amplitude) {
        Some(prefix) => (prefix, Some("/v1")),
        None if without_slash.len() < path.len() && !without_slash.is_empty() => (without_slash, Some("/")),
        None => (without_slash, None),
    }
}

fn check_path(path: &str, form: UrlForm) -> Result<(), &'static str> {
    if path.ends_with("/v1") && form == UrlForm::Amplitude {
        return Err("the version twice at the end");
    }
    for segment in path.split('/').skip(1) {
        if segment.is_empty() {
            return Err("an empty path segment");
        }
        if segment == "." || segment == ".." {
            return Err("a relative path segment");
        }
        if !is_segment(segment) {
            return Err("a character that a path cannot hold");
        }
    }
    Ok(())
}

/// RFC 3986 `pchar`s.
pub(super) fn is_segment(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    bytes.iter().enumerate().all(|(at, b)| match b {
        b'%' => bytes
            .get(at + 1..at + 3)
            .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        _ => b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(b),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bases_are_read() {
        for (text, wanted, dropped) in [
            (
                "https://api.lab.amplitude.com",
                "https://api.lab.amplitude.com",
                None,
            ),
            (
                "HTTPS://API.Lab.Amplitude.com/",
                "https://api.lab.amplitude.com",
                None,
            ),
            (
                "https://api.lab.amplitude.com/v1/",
                "https://api.lab.amplitude.com",
                Some("/v1"),
            ),
            (
                "https://api.lab.amplitude.com/v1",
                "https://api.lab.amplitude.com",
                Some("/v1"),
            ),
            ("http://flags:8080/team/", "http://flags:8080/team", Some("/")),
            ("http://flags:8080/team/v1", "http://flags:8080/team", Some("/v1")),
            ("http://[::1]:9000", "http://[::1]:9000", None),
            ("http://[0:0::1]", "http://[::1]", None),
            ("http://my_service.ns.svc.", "http://my_service.ns.svc.", None),
            ("http://h:80/a%20b", "http://h/a%20b", None),
        ] {
            let (url, note) = BaseUrl::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), note), (wanted, dropped), "{text}");
        }
        let (url, _) = BaseUrl::parse("https://[::1]/x").unwrap();
        assert_eq!(
            (url.tls, url.host.as_str(), url.port, url.path.as_str()),
            (true, "::1", 443, "/x")
        );
    }

    #[test]
    #[rustfmt::skip] // A table, one case a line.
    fn other_things_are_refused_with_a_remedy() {
        for (text, what, meant) in [
            ("", "no scheme", None),
            ("localhost:80", "no scheme", Some("http://localhost:80")),
            ("a.example", "no scheme", Some("https://a.example")),
            ("ftp://h", "not a scheme flagside speaks", None),
            ("httpss://h", "not a scheme flagside speaks", Some("https://h")),
            ("https://u:p@h/x", "a user name or password in the URL", Some("https://h/x")),
            ("https://h/?a=1", "a base URL has no room for a query", Some("https://h/")),
            ("https://h#x", "a base URL has no room for a fragment", Some("https://h")),
            ("https://", "no host", None),
            ("https:///x", "no host", None),
            ("https://h:0", "not a port", None),
            ("https://h:+80", "not a port", None),
            ("https://h:99999", "not a port", None),
            ("https://::1", "not a host and port", None),
            ("https://[::1", "not a host and port", None),
            ("https://[zz]", "not an IPv6 address", None),
            ("https://-h", "not a host name", None),
            ("https://h h", "not a host name", None),
            ("https://fläg", "a host name that is not ASCII (write its xn-- form)", None),
            ("https://h//", "an empty path segment", None),
            ("https://h/v1/v1", "the version twice at the end", None),
            ("https://h/../x", "a relative path segment", None),
            ("https://h/a b", "a character that a path cannot hold", None),
            ("https://h/%zz", "a character that a path cannot hold", None),
        ] {
            let problem = BaseUrl::parse(text).unwrap_err();
            assert_eq!((problem.what.as_str(), problem.meant.as_deref()), (what, meant), "{text}");
        }
        assert_eq!(
            BaseUrl::parse("https://u:p@h/x").unwrap_err().to_string(),
            format!(
                "a user name or password in the URL (got ***); expected {}; did you mean https://h/x?",
                UrlForm::Amplitude.expected()
            )
        );
    }

    #[test]
    #[rustfmt::skip] // A table, one case a line.
    fn bases_of_featbit_are_read() {
        use UrlForm::{Featbit, FeatbitStream};
        for (form, text, wanted, dropped) in [
            (Featbit, "http://featbit:5100", "http://featbit:5100", None),
            (Featbit, "http://featbit:5100/", "http://featbit:5100", None),
            (Featbit, "https://x/api/v1", "https://x/api/v1", None),
            (Featbit, "https://x/api/v1/", "https://x/api/v1", Some("/")),
            (FeatbitStream, "ws://x", "http://x", None),
            (FeatbitStream, "WSS://x:5100/p/", "https://x:5100/p", Some("/")),
            (FeatbitStream, "https://x", "https://x", None),
        ] {
            let (url, note) = BaseUrl::parse_as(text, form).unwrap();
            assert_eq!((url.to_string().as_str(), note), (wanted, dropped), "{text}");
        }
        let (scheme, endpoint) = ("not a scheme flagside speaks", "the URL of an endpoint, not of the server");
        for (form, text, what, meant) in [
            (Featbit, "ws://x/y", scheme, Some("http://x/y")),
            (Featbit, "wss://x", scheme, Some("https://x")),
            (FeatbitStream, "wsss://x", scheme, None),
            (FeatbitStream, "wss://x/p/streaming", endpoint, Some("wss://x/p")),
            (Featbit, "http://x/api/public/featureflag/evaluate/", endpoint, Some("http://x")),
            (Featbit, "http://x//", "an empty path segment", None),
        ] {
            let problem = BaseUrl::parse_as(text, form).unwrap_err();
            assert_eq!((problem.what.as_str(), problem.meant.as_deref()), (what, meant), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reading_is_stable(text in "(https?://)?[a-z0-9\\[\\]:/.@?#%-]{0,30}|.{0,30}") {
            if let Ok((url, _)) = BaseUrl::parse(&text) {
                let printed = url.to_string();
                prop_assert_eq!(BaseUrl::parse(&printed).unwrap(), (url, None));
            }
        }
    }
}
