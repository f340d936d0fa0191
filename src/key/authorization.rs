//! The deployment key of a request (API 2.2).

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};

/// Longest deployment key that is taken, in bytes.
pub const DEPLOYMENT_KEY_BYTES_MAX: usize = 512;

/// A deployment key: opaque bytes, case-sensitive. Prints as its last four characters at most.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeploymentKey(Arc<[u8]>);

impl DeploymentKey {
    /// Takes `bytes` as a key, if they can be one: not empty, at most 512 bytes, no blanks or controls.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let fits = !bytes.is_empty()
            && bytes.len() <= DEPLOYMENT_KEY_BYTES_MAX
            && bytes.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
        fits.then(|| Self(Arc::from(bytes)))
    }

    /// The key itself; for upstream and for comparison, never for output.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// `Api-Key …`, as upstream wants it.
    #[must_use]
    pub fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_bytes(&[b"Api-Key ", self.expose()].concat()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// At most the last four characters, for people who compare it with what they configured.
    #[must_use]
    pub fn hint(&self) -> String {
        let shown = if self.0.len() >= 12 { 4 } else { 0 };
        let tail = self.0.get(self.0.len() - shown..).unwrap_or_default();
        format!("…{}", tail.escape_ascii())
    }
}

impl fmt::Debug for DeploymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hint())
    }
}

/// The deployment key of a request, borrowed. `None` when there is none that could be one, when the
/// scheme is another, or when there are two `Authorization` headers: all of that is a 401.
#[must_use]
pub fn deployment_key(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked(b"api-key".len())?;
    let key = rest.trim_ascii_start();
    (scheme.eq_ignore_ascii_case(b"api-key") && key.len() < rest.len() && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_and_blanks_vary() {
        for (value, wanted) in [
            ("Api-Key k", Some("k")),
            ("api-key   k", Some("k")),
            ("API-KEY\tserver-abc ", Some("server-abc")),
            ("Api-Key", None),
            ("Api-Key ", None),
            ("Api-Keyk", None),
            ("Bearer k", None),
            ("", None),
            ("k", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            assert_eq!(deployment_key(&headers), wanted.map(str::as_bytes), "{value}");
        }
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, HeaderValue::from_static("Api-Key a"));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Api-Key a"));
        assert_eq!(deployment_key(&twice), None);
    }

    #[test]
    fn keys_do_not_print() {
        let key = DeploymentKey::new(b"server-0123456789abcdef").unwrap();
        assert_eq!(format!("{key:?}"), "…cdef");
        assert_eq!(format!("{:?}", DeploymentKey::new(b"short").unwrap()), "…");
        assert!(!format!("{:?}", key.authorization()).contains("0123"));
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        for bytes in [&b""[..], b"a b", b"a\x7f", &[b'a'; DEPLOYMENT_KEY_BYTES_MAX + 1]] {
            assert!(DeploymentKey::new(bytes).is_none());
        }
    }
}
