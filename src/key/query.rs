//! Query strings, decoded as HTML forms encode them: `+` is a blank, `%XX` a byte, UTF-8 throughout.

use std::borrow::Cow;

use super::Unreadable;

/// One decoded pair and its text as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pair<'q> {
    /// Decoded name.
    pub name: Cow<'q, str>,
    /// Decoded value; empty where there is no `=`.
    pub value: Cow<'q, str>,
    /// The pair as it came, without the `&` around it.
    pub text: &'q str,
}

/// The pairs of a query (without its `?`) in their order; empty pairs are skipped (API 2.1).
///
/// # Errors
/// [`Unreadable::Query`] for a `%` without two hexadecimal digits and for bytes that are no UTF-8.
pub fn pairs(query: &str) -> Result<Vec<Pair<'_>>, Unreadable> {
    if query.is_empty() {
        return Ok(Vec::new());
    }
    let mut pairs = Vec::with_capacity(4);
    // By hand, because the standard searches cost more than they find in texts as short as these.
    let mut rest = query;
    while !rest.is_empty() {
        let end = rest.bytes().position(|byte| byte == b'&').unwrap_or(rest.len());
        let text = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if text.is_empty() {
            continue;
        }
        let (name, value) = match text.bytes().position(|byte| byte == b'=') {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, ""),
        };
        pairs.push(Pair {
            name: decode(name)?,
            value: decode(value)?,
            text,
        });
    }
    Ok(pairs)
}

fn decode(text: &str) -> Result<Cow<'_, str>, Unreadable> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                let [high, low, tail @ ..] = tail else {
                    return Err(Unreadable::Query);
                };
                let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
                    return Err(Unreadable::Query);
                };
                out.push(high << 4 | low);
                rest = tail;
            }
            plain => out.push(*plain),
        }
    }
    String::from_utf8(out)
        .map(Cow::Owned)
        .map_err(|_| Unreadable::Query)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(query: &str) -> Option<Vec<(String, String)>> {
        let pairs = pairs(query).ok()?;
        Some(
            pairs
                .into_iter()
                .map(|pair| (pair.name.into_owned(), pair.value.into_owned()))
                .collect(),
        )
    }

    #[test]
    fn queries_decode_as_forms() {
        for (query, wanted) in [
            ("", vec![]),
            ("&&", vec![]),
            ("&user_id=a&", vec![("user_id", "a")]),
            ("a=b=c", vec![("a", "b=c")]),
            ("a", vec![("a", "")]),
            ("=x", vec![("", "x")]),
            ("a=x+y%2Bz", vec![("a", "x y+z")]),
            (
                "c=%7B%22country%22%3A%22S%C3%A3o+Tom%C3%A9%22%7D",
                vec![("c", r#"{"country":"São Tomé"}"#)],
            ),
            ("c=%7b%7d", vec![("c", "{}")]),
        ] {
            let wanted: Vec<_> = wanted
                .into_iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect();
            assert_eq!(decoded(query), Some(wanted), "{query}");
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for query in ["a=%", "a=%4", "a=%zz", "%=1", "a=%ff", "a=%C3%28", "a=%+1"] {
            assert_eq!(pairs(query), Err(Unreadable::Query), "{query}");
        }
    }
}
