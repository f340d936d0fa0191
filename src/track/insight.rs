//! FeatBit's insights: what its SDKs report of evaluations and metrics (FB 7).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Uri};

use super::{Form, Outbound};
use crate::evaluate::json::{Document, JsonError, Kind, Value};
use crate::metrics::EventKind;
use crate::upstream::{Gate, Origin};

/// Where upstream takes insights.
const PATH: &str = "/api/public/insight/track";
/// Depth of JSON, as FeatBit bounds it.
const DEPTH_MAX: usize = 32;

/// What keeps its order: the insights of one secret.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Lane {
    /// Index of the environment.
    pub environment: usize,
    /// The `Authorization` of the caller, which is forwarded.
    pub authorization: Arc<str>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

/// The elements of an insight body that have a valid user, in their order and without white space.
///
/// # Errors
/// When `body` is not a JSON list.
pub fn elements(body: &[u8]) -> Result<Vec<Bytes>, Unreadable> {
    let document = Document::parse(body, DEPTH_MAX)?;
    let root = document.root();
    if root.kind() != Kind::Array {
        return Err(Unreadable::NoList);
    }
    let (mut text, mut ends) = (Vec::new(), Vec::new());
    for element in root.elements().filter(|element| has_user(*element)) {
        element.write_compact(&mut text);
        ends.push(text.len());
    }
    // One allocation for all of them; they are delivered together.
    let text = Bytes::from(text);
    let mut start = 0;
    let cut = |end: usize| text.slice(std::mem::replace(&mut start, end)..end);
    Ok(ends.into_iter().map(cut).collect())
}

/// Why a body holds no insights.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] JsonError),
    /// It is something else than a list.
    #[error("not a list")]
    NoList,
}

/// Whether an element has a user with a key that is not blank.
fn has_user(element: Value<'_>) -> bool {
    let key = member(element, "user").and_then(|user| member(user, "keyId"));
    key.and_then(Value::as_str)
        .is_some_and(|key| !key.chars().all(char::is_whitespace))
}

/// The member of an object whose name equals `name` in any case; of several the last one.
fn member<'d>(object: Value<'d>, name: &str) -> Option<Value<'d>> {
    object
        .members()
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .last()
        .map(|(_, value)| value)
}

/// Where insights go, by index of the environment.
#[derive(Debug)]
pub struct Insights {
    /// None for environments that are not FeatBit's or have no upstream.
    pub destinations: Vec<Option<(Arc<Origin>, Arc<Gate>)>>,
}

impl Form for Insights {
    type Lane = Lane;

    const KIND: EventKind = EventKind::Insight;

    fn outbound(&self, lane: &Lane, events: &[Bytes]) -> Option<Outbound> {
        let (origin, gate) = self.destinations.get(lane.environment)?.clone()?;
        let mut body = Vec::with_capacity(2 + events.iter().map(|event| event.len() + 1).sum::<usize>());
        body.push(b'[');
        for event in events {
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(event);
        }
        body.push(b']');
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(PATH);
        let mut authorization = HeaderValue::from_str(&lane.authorization).ok()?;
        authorization.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, authorization);
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        Some(Outbound {
            origin,
            gate,
            request,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_without_a_valid_user_are_skipped() {
        for (body, wanted) in [
            ("[]", &[][..]),
            (
                r#" [ { "user" : { "keyId" : "a" }, "variations" : [ ] } , {"user":{"keyId":"b"}} ] "#,
                &[
                    r#"{"user":{"keyId":"a"},"variations":[]}"#,
                    r#"{"user":{"keyId":"b"}}"#,
                ],
            ),
            (r#"[{"user":{"keyId":""}},{"user":{"keyId":" \t"}}]"#, &[]),
            (
                r#"[{"user":null},{"user":{}},{},null,1,"x",[],{"user":{"keyId":7}}]"#,
                &[],
            ),
            (r#"[{"User":{"KEYID":"a"}}]"#, &[r#"{"User":{"KEYID":"a"}}"#]),
            (r#"[{"user":{"keyId":"a","keyid":" "}}]"#, &[]),
            (
                r#"[{"user":{"keyId":"\u200b"},"n":1.50}]"#,
                &["{\"user\":{\"keyId\":\"\u{200b}\"},\"n\":1.50}"],
            ),
        ] {
            let found = elements(body.as_bytes()).unwrap();
            let found: Vec<&str> = found.iter().map(|it| std::str::from_utf8(it).unwrap()).collect();
            assert_eq!(found, wanted, "{body}");
        }
    }

    #[test]
    fn a_body_that_is_no_list_is_refused() {
        for body in ["", "null", "{}", "[", "[1,]", "\"x\"", "[]x", "\u{feff}[]"] {
            assert!(elements(body.as_bytes()).is_err(), "{body}");
        }
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        assert!(elements(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_lane_does_not_show_its_secret() {
        let lane = Lane {
            environment: 1,
            authorization: Arc::from("hush"),
        };
        assert!(!format!("{lane:?}").contains("hush"));
    }
}
