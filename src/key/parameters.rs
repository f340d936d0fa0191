//! The query parameters of the cacheable routes, sorted into what they mean (API 3.1, 3.4, 4.2).

use std::borrow::Cow;

use super::flag_keys::FlagKeys;
use super::query::{self, Pair};
use super::{Unreadable, hash::Encoding};

/// The query of one request. Borrowed from its text.
#[derive(Debug, Default)]
pub(super) struct Parameters<'q> {
    pub(super) user_id: Option<Pair<'q>>,
    pub(super) device_id: Option<Pair<'q>>,
    pub(super) context: Option<Pair<'q>>,
    flag_keys: Option<Pair<'q>>,
    flag_key: Option<Pair<'q>>,
    v: Option<Pair<'q>>,
    pub(super) eval_mode: Option<Pair<'q>>,
    pub(super) delivery_method: Option<Pair<'q>>,
    d: Option<Pair<'q>>,
    unknown: Vec<Pair<'q>>,
    /// Of the whole query.
    n_bytes: usize,
}

impl<'q> Parameters<'q> {
    /// Sorts `query`; pairs named in `ignored` vanish.
    ///
    /// # Errors
    /// When it is not form-encoded, or a known parameter is there twice with different values.
    pub(super) fn read(query: Option<&'q str>, ignored: &[String]) -> Result<Self, Unreadable> {
        let query = query.unwrap_or_default();
        let mut all = Self {
            n_bytes: query.len(),
            ..Self::default()
        };
        for pair in query::pairs(query)? {
            if ignored.iter().any(|name| *name == pair.name) {
                continue;
            }
            let slot = match pair.name.as_ref() {
                "user_id" => &mut all.user_id,
                "device_id" => &mut all.device_id,
                "context" => &mut all.context,
                "flag_keys" => &mut all.flag_keys,
                "flag_key" => &mut all.flag_key,
                "v" => &mut all.v,
                "eval_mode" => &mut all.eval_mode,
                "delivery_method" => &mut all.delivery_method,
                "d" => &mut all.d,
                _ => {
                    all.unknown.push(pair);
                    continue;
                }
            };
            match slot {
                Some(first) if first.value != pair.value => return Err(Unreadable::AmbiguousQuery),
                Some(_) => {}
                None => *slot = Some(pair),
            }
        }
        Ok(all)
    }

    /// Treats a pair as one that has no meaning here: it joins the key and is forwarded.
    pub(super) fn demote(&mut self, pair: Option<Pair<'q>>) {
        self.unknown.extend(pair);
    }

    /// Whether the Go SDK's cache buster is there: the cache is not read, the answer is stored.
    pub(super) fn bypasses(&self) -> bool {
        self.d.is_some()
    }

    /// Whether nothing but the flag keys and spellings of the default is there.
    pub(super) fn are_plain(&self) -> bool {
        self.delivery_method.is_none() && self.unknown.is_empty() && self.version().is_none()
    }

    /// The flag keys asked for; a header wins over `flag_keys`, that over `flag_key`. The parameters
    /// that lost, or that name no flag, are dropped, so that upstream sees the one that counts.
    pub(super) fn choose_flag_keys(&mut self, header: Option<&FlagKeys>) -> FlagKeys {
        let chosen = match (header, &self.flag_keys, &self.flag_key) {
            (Some(keys), _, _) => keys.clone(),
            (None, Some(pair), _) | (None, None, Some(pair)) => FlagKeys::from_list(&pair.value),
            (None, None, None) => FlagKeys::default(),
        };
        if header.is_some() || chosen.is_all() {
            self.flag_keys = None;
            self.flag_key = None;
        } else if self.flag_keys.is_some() {
            self.flag_key = None;
        }
        chosen
    }

    fn version(&self) -> Option<&str> {
        self.v
            .as_ref()
            .map(|pair| pair.value.as_ref())
            .filter(|version| *version != "0")
    }

    /// Appends everything that is neither identity nor flag keys.
    pub(super) fn encode(&self, encoding: &mut Encoding) {
        encoding.optional(self.version().map(str::as_bytes));
        for pair in [&self.eval_mode, &self.delivery_method] {
            encoding.optional(pair.as_ref().map(|pair| pair.value.as_bytes()));
        }
        let mut unknown: Vec<_> = self
            .unknown
            .iter()
            .map(|pair| (&pair.name, &pair.value))
            .collect();
        unknown.sort_unstable();
        encoding.number(unknown.len() as u64);
        for (name, value) in unknown {
            encoding.part(name.as_bytes());
            encoding.part(value.as_bytes());
        }
    }

    /// `path` with the query that goes to upstream: the client's own spelling, but `flag_keys` for `flag_key`.
    pub(super) fn forward(&self, path: &str) -> String {
        let renamed = self.flag_key.as_ref().map(|pair| {
            let value = pair.text.split_once('=').map_or("", |(_, value)| value);
            Cow::Owned(format!("flag_keys={value}"))
        });
        let known = [
            &self.v,
            &self.user_id,
            &self.device_id,
            &self.context,
            &self.flag_keys,
            &self.eval_mode,
            &self.delivery_method,
            &self.d,
        ];
        let texts = known
            .into_iter()
            .flatten()
            .chain(&self.unknown)
            .map(|pair| Cow::Borrowed(pair.text))
            .chain(renamed);
        // With `?`, and one letter for `flag_keys`.
        let mut out = String::with_capacity(path.len() + self.n_bytes + 2);
        out.push_str(path);
        for (at, text) in texts.enumerate() {
            out.push(if at == 0 { '?' } else { '&' });
            out.push_str(&text);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_for_upstream_names_the_flag_keys_that_count() {
        for (query, header, wanted, keys) in [
            ("flag_key=a,b", None, "/p?flag_keys=a,b", &["a", "b"][..]),
            ("flag_key=b%2Ca&v=0", None, "/p?v=0&flag_keys=b%2Ca", &["a", "b"]),
            ("flag_keys=a&flag_key=b", None, "/p?flag_keys=a", &["a"]),
            ("flag_keys=a&x=1", Some("b"), "/p?x=1", &["b"]),
            ("flag_keys=&flag_key=b", None, "/p", &[]),
            ("flag_keys=a&flag_keys=a", None, "/p?flag_keys=a", &["a"]),
            ("&user_id=u+1&&", None, "/p?user_id=u+1", &[]),
            ("flag_keys=a", Some(""), "/p", &[]),
        ] {
            let mut parameters = Parameters::read(Some(query), &[]).unwrap();
            let chosen = parameters.choose_flag_keys(header.map(FlagKeys::from_list).as_ref());
            assert_eq!(chosen.as_slice(), keys, "{query}");
            assert_eq!(parameters.forward("/p"), wanted, "{query}");
        }
    }

    #[test]
    fn a_parameter_with_two_values_is_ambiguous() {
        for query in [
            "user_id=a&user_id=b",
            "v=0&v=1",
            "context={}&context=%7B%20%7D",
            "flag_key=a&flag_key=b",
        ] {
            assert_eq!(
                Parameters::read(Some(query), &[]).err(),
                Some(Unreadable::AmbiguousQuery),
                "{query}"
            );
        }
        assert!(Parameters::read(Some("user_id=a&user_id=%61&x=1&x=2"), &[]).is_ok());
    }

    #[test]
    fn ignored_parameters_vanish() {
        let parameters = Parameters::read(Some("utm=1&user_id=a"), &["utm".to_owned()]).unwrap();
        assert_eq!(parameters.forward("/p"), "/p?user_id=a");
        assert!(parameters.are_plain());
    }
}
