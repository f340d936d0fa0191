//! Which flags were asked for: a set of flag keys; the empty set means all (API 3.1, 11).

use crate::evaluate::json::Document;

use super::{Unreadable, base64};

/// Flag keys asked for, sorted by bytes, each once; empty = all flags of the deployment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FlagKeys(Vec<String>);

impl FlagKeys {
    /// From a comma-separated list: blanks around keys trimmed, empty ones dropped.
    #[must_use]
    pub fn from_list(list: &str) -> Self {
        Self::collect(list.split(',').map(|key| key.trim_matches([' ', '\t'])))
    }

    /// From `X-Amp-Exp-Flag-Keys`: base64 of a JSON array of strings, taken as they are.
    ///
    /// # Errors
    /// [`Unreadable::FlagKeys`] when it is anything else.
    pub fn from_header(value: &[u8]) -> Result<Self, Unreadable> {
        let text = base64::decode(value).ok_or(Unreadable::FlagKeys)?;
        let document = Document::parse(&text, 2).map_err(|_| Unreadable::FlagKeys)?;
        let root = document.root();
        if root.kind() != crate::evaluate::json::Kind::Array {
            return Err(Unreadable::FlagKeys);
        }
        let keys: Option<Vec<&str>> = root.elements().map(|element| element.as_str()).collect();
        Ok(Self::collect(keys.ok_or(Unreadable::FlagKeys)?.into_iter()))
    }

    fn collect<'k>(keys: impl Iterator<Item = &'k str>) -> Self {
        let mut keys: Vec<String> = keys.filter(|key| !key.is_empty()).map(str::to_owned).collect();
        keys.sort_unstable();
        keys.dedup();
        Self(keys)
    }

    /// The keys; empty = all flags.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Whether all flags were asked for.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` was asked for.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.is_empty() || self.0.binary_search_by(|own| own.as_str().cmp(key)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_set_are_equal() {
        let wanted = FlagKeys::from_list("a,b");
        for list in ["b,a,a,", "a, b", " b ,,a", "\tb,a"] {
            assert_eq!(FlagKeys::from_list(list), wanted, "{list}");
        }
        for json in [r#"["b","a"]"#, r#"["a","b","a",""]"#, r#" [ "\u0061" , "b" ] "#] {
            let header = base64::encode(json.as_bytes());
            assert_eq!(
                FlagKeys::from_header(header.as_bytes()).as_ref(),
                Ok(&wanted),
                "{json}"
            );
        }
    }

    #[test]
    fn an_empty_list_means_all_flags() {
        for list in ["", ",", " , "] {
            assert!(FlagKeys::from_list(list).is_all(), "{list}");
        }
        assert!(FlagKeys::from_header(base64::encode(b"[]").as_bytes()).is_ok_and(|keys| keys.is_all()));
    }

    #[test]
    fn keys_keep_case_and_commas() {
        assert_ne!(FlagKeys::from_list("A"), FlagKeys::from_list("a"));
        let header = base64::encode(br#"["a,b"]"#);
        assert_ne!(
            FlagKeys::from_header(header.as_bytes()),
            Ok(FlagKeys::from_list("a,b"))
        );
    }

    #[test]
    fn other_headers_are_refused() {
        for json in [
            "{}",
            "null",
            "[1]",
            "[null]",
            r#"["a""#,
            "",
            r#"[["a"]]"#,
            r#"["\ud800"]"#,
        ] {
            let header = base64::encode(json.as_bytes());
            assert_eq!(
                FlagKeys::from_header(header.as_bytes()),
                Err(Unreadable::FlagKeys),
                "{json}"
            );
        }
        assert_eq!(FlagKeys::from_header(b"!!"), Err(Unreadable::FlagKeys));
    }
}
