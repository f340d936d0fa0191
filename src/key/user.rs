//! The canonical user: lossless, so that equal users and only equal users meet (API 9.3).

use std::borrow::Cow;

use crate::evaluate::json::{Document, Kind, Value, write_string};

use super::{USER_DEPTH_MAX, Unreadable};

/// An effective user: JSON text of one object, members in the order of the source.
///
/// `text` is what an engine reads, `canonical` what the key is made of.
#[derive(Debug)]
pub struct EffectiveUser<'t> {
    /// JSON text; borrowed where the request's own text already is the effective user.
    pub text: Cow<'t, [u8]>,
    /// Canonical bytes.
    pub canonical: Vec<u8>,
}

/// Identity given outside the user object, which replaces the members of that name by strings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overlay<'q> {
    /// `user_id`
    pub user_id: Option<&'q str>,
    /// `device_id`
    pub device_id: Option<&'q str>,
}

impl Overlay<'_> {
    /// Whether it replaces anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.user_id.is_none() && self.device_id.is_none()
    }

    fn of(&self, name: &str) -> Option<&str> {
        match name {
            "user_id" => self.user_id,
            "device_id" => self.device_id,
            _ => None,
        }
    }
}

/// Reads a user and lays `overlay` over it. Blank text is the empty user.
///
/// # Errors
/// [`Unreadable::User`] unless `text` is one strict JSON object of at most 64 levels.
pub fn read<'t>(text: &'t [u8], overlay: Overlay<'_>) -> Result<EffectiveUser<'t>, Unreadable> {
    let is_blank = text.trim_ascii().is_empty();
    if is_blank && !overlay.is_empty() {
        return Ok(identity_alone(overlay));
    }
    let text: &[u8] = if is_blank { b"{}" } else { text };
    let document = Document::parse(text, USER_DEPTH_MAX).map_err(|_| Unreadable::User)?;
    let root = document.root();
    if root.kind() != Kind::Object {
        return Err(Unreadable::User);
    }
    if overlay.is_empty() {
        let mut canonical = Vec::with_capacity(text.len());
        write_sorted(root, Level::Root, &mut canonical);
        return Ok(EffectiveUser {
            text: Cow::Borrowed(text),
            canonical,
        });
    }
    let laid = lay_over(root, overlay);
    let user = read(&laid, Overlay::default())?;
    Ok(EffectiveUser {
        canonical: user.canonical,
        text: Cow::Owned(laid),
    })
}

/// The overlay as a user.
fn identity_alone(overlay: Overlay<'_>) -> EffectiveUser<'static> {
    let n_bytes = [overlay.user_id, overlay.device_id]
        .into_iter()
        .flatten()
        .map(|id| id.len() + 16)
        .sum();
    // In the order of names, as the canonical form has them, and in the order in which the query has them.
    let mut canonical = Vec::with_capacity(n_bytes);
    canonical.push(b'{');
    if let Some(id) = overlay.device_id {
        canonical.extend_from_slice(b"\"device_id\":");
        write_string(id, &mut canonical);
    }
    let device_end = canonical.len();
    let Some(id) = overlay.user_id else {
        canonical.push(b'}');
        let text = Cow::Owned(canonical.clone());
        return EffectiveUser { canonical, text };
    };
    if overlay.device_id.is_some() {
        canonical.push(b',');
    }
    let user_start = canonical.len();
    canonical.extend_from_slice(b"\"user_id\":");
    write_string(id, &mut canonical);
    let mut text = Vec::with_capacity(canonical.len() + 1);
    text.push(b'{');
    text.extend_from_slice(&canonical[user_start..]);
    text.extend_from_slice(&canonical[device_end..user_start]);
    text.extend_from_slice(&canonical[1..device_end]);
    text.push(b'}');
    canonical.push(b'}');
    EffectiveUser {
        text: Cow::Owned(text),
        canonical,
    }
}

/// The user's text with the overlay's members in place of its own, or at the end where it has none.
fn lay_over(root: Value<'_>, overlay: Overlay<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(root.raw().len() + 64);
    let mut member = |name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_string(name, &mut out);
        out.push(b':');
        write(&mut out);
    };
    for (name, value) in root.members() {
        match overlay.of(name) {
            Some(identity) => member(name, &|out| write_string(identity, out)),
            None => member(name, &|out| value.write_compact(out)),
        }
    }
    for name in ["user_id", "device_id"] {
        if let (Some(identity), None) = (overlay.of(name), root.get(name)) {
            member(name, &|out| write_string(identity, out));
        }
    }
    out.push(b'}');
    out
}

/// How far below a value members are sorted. Order inside property values means something to engines
/// (they compare such a value by its text), so it is kept there.
#[derive(Clone, Copy)]
enum Level {
    /// The user itself.
    Root,
    /// An object whose members are sorted, as are those of objects in it, so many levels down.
    Sorted(u8),
}

impl Level {
    fn below(self, name: &str) -> Option<Self> {
        match self {
            Self::Root => match name {
                "user_properties" | "groups" => Some(Self::Sorted(0)),
                "group_properties" => Some(Self::Sorted(2)),
                "group_cohort_ids" => Some(Self::Sorted(1)),
                _ => None,
            },
            Self::Sorted(0) => None,
            Self::Sorted(levels) => Some(Self::Sorted(levels - 1)),
        }
    }
}

fn write_sorted(value: Value<'_>, level: Level, out: &mut Vec<u8>) {
    if value.kind() != Kind::Object {
        value.write_compact(out);
        return;
    }
    let mut members: Vec<_> = value.members().collect();
    members.sort_unstable_by(|(one, _), (two, _)| one.as_bytes().cmp(two.as_bytes()));
    out.push(b'{');
    for (at, (name, member)) in members.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(name, out);
        out.push(b':');
        match level.below(name) {
            Some(below) => write_sorted(member, below, out),
            None => member.write_compact(out),
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(read(text.as_bytes(), Overlay::default()).unwrap().canonical).unwrap()
    }

    #[test]
    fn pairs_of_the_contract_share_a_form_or_do_not() {
        for (one, two, same) in [
            (
                r#"{"user_id":"a","device_id":"b"}"#,
                r#"{ "device_id" : "b", "user_id" : "a" }"#,
                true,
            ),
            (r#"{"p":"caf\u00e9"}"#, r#"{"p":"café"}"#, true),
            (r#"{"p":"\u003c"}"#, r#"{"p":"<"}"#, true),
            (r#"{"p":"\/"}"#, r#"{"p":"/"}"#, true),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#, true),
            (
                r#"{"user_properties":{"x":1,"y":2}}"#,
                r#"{"user_properties":{"y":2,"x":1}}"#,
                true,
            ),
            (
                r#"{"groups":{"a":["1"],"b":["2"]}}"#,
                r#"{"groups":{"b":["2"],"a":["1"]}}"#,
                true,
            ),
            (
                r#"{"group_properties":{"a":{"n":{"x":1,"y":2},"m":{}},"b":{}}}"#,
                r#"{"group_properties":{"b":{},"a":{"m":{},"n":{"y":2,"x":1}}}}"#,
                true,
            ),
            (
                r#"{"group_cohort_ids":{"a":{"n":[],"m":[]}}}"#,
                r#"{"group_cohort_ids":{"a":{"m":[],"n":[]}}}"#,
                true,
            ),
            ("{\"p\":\"\u{e9}\"}", "{\"p\":\"e\u{301}\"}", false),
            (r#"{"user_id":"7"}"#, r#"{"user_id":7}"#, false),
            (r#"{"n":1}"#, r#"{"n":1.0}"#, false),
            (r#"{"n":1}"#, r#"{"n":"1"}"#, false),
            (r#"{"n":1e2}"#, r#"{"n":1E2}"#, false),
            (r#"{"n":0}"#, r#"{"n":-0}"#, false),
            (r#"{"b":true}"#, r#"{"b":"true"}"#, false),
            (r#"{"x":null}"#, "{}", false),
            (r#"{"user_properties":{}}"#, "{}", false),
            (r#"{"user_id":""}"#, "{}", false),
            (r#"{"user_id":" a"}"#, r#"{"user_id":"a"}"#, false),
            (
                r#"{"groups":{"org":["a","b"]}}"#,
                r#"{"groups":{"org":["b","a"]}}"#,
                false,
            ),
            (
                r#"{"user_properties":{"p":{"x":1,"y":2}}}"#,
                r#"{"user_properties":{"p":{"y":2,"x":1}}}"#,
                false,
            ),
            (
                r#"{"custom":{"x":1,"y":2}}"#,
                r#"{"custom":{"y":2,"x":1}}"#,
                false,
            ),
            (
                r#"{"group_properties":{"a":{"n":{"p":{"x":1,"y":2}}}}}"#,
                r#"{"group_properties":{"a":{"n":{"p":{"y":2,"x":1}}}}}"#,
                false,
            ),
        ] {
            assert_eq!(canonical(one) == canonical(two), same, "{one} / {two}");
        }
    }

    #[test]
    fn identity_of_the_query_replaces_the_members_by_strings() {
        let overlay = Overlay {
            user_id: Some("7"),
            device_id: Some("d\"1"),
        };
        for (text, wanted) in [
            ("", r#"{"user_id":"7","device_id":"d\"1"}"#),
            (
                r#"{"user_id":8,"x":[1, 2]}"#,
                r#"{"user_id":"7","x":[1,2],"device_id":"d\"1"}"#,
            ),
            (
                r#"{"device_id":null,"user_id":"a"}"#,
                r#"{"device_id":"d\"1","user_id":"7"}"#,
            ),
        ] {
            let user = read(text.as_bytes(), overlay).unwrap();
            assert_eq!(std::str::from_utf8(&user.text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn only_json_objects_are_users() {
        let deep = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
        for text in [
            "[]",
            "null",
            "1",
            "\"a\"",
            "{",
            "{}x",
            "{'a':1}",
            r#"{"a":"\ud800"}"#,
            "{\"a\":01}",
            &deep,
        ] {
            assert_eq!(
                read(text.as_bytes(), Overlay::default()).err(),
                Some(Unreadable::User),
                "{text}"
            );
        }
        assert!(read(b"{\"a\":\"\xff\"}", Overlay::default()).is_err());
        for text in ["", " \n", "{}", " { } "] {
            assert_eq!(canonical(text), "{}", "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn identity_without_a_user_is_that_of_the_empty_user(
            user_id in proptest::option::of(any::<String>()),
            device_id in proptest::option::of(any::<String>()),
        ) {
            let overlay = Overlay { user_id: user_id.as_deref(), device_id: device_id.as_deref() };
            let [alone, laid] = [&b""[..], b"{ }"].map(|text| read(text, overlay).unwrap());
            prop_assert_eq!(alone.canonical, laid.canonical);
            if !overlay.is_empty() {
                prop_assert_eq!(alone.text, laid.text);
            }
        }
    }
}
