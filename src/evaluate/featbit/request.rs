//! Questions of the evaluate endpoint (FB 3.2 to 3.4 and 8).

use std::fmt;

use super::condition::is_blank;
use super::flag::Flag;
use super::user::{DEPTH_MAX, EndUser};
use crate::evaluate::json::{Document, JsonError, Kind, Value};

/// A valid body of `POST /api/public/featureflag/evaluate`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    pub(super) user: EndUser,
    pub(super) filter: Filter,
}

/// Which flags are wanted; what does not act is left out.
#[derive(Clone, Default, Eq, PartialEq)]
pub(super) struct Filter {
    /// Sorted, without repetitions; `None`: all.
    pub(super) keys: Option<Vec<Box<str>>>,
    /// Sorted, without repetitions; `None`: whatever the tags are.
    tags: Option<Tags>,
    /// Only flags changed after this time; 0: all.
    after_ms: i64,
    has_null: bool,
}

#[derive(Clone, Eq, PartialEq)]
struct Tags {
    wanted: Vec<Box<str>>,
    /// One is enough.
    any: bool,
    /// A null is wanted, which no flag has.
    null: bool,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("keys", &self.keys.as_ref().map(Vec::len))
            .field("tags", &self.tags.as_ref().map(|tags| tags.wanted.len()))
            .field("after_ms", &self.after_ms)
            .finish_non_exhaustive()
    }
}

/// Why a body is no valid question.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestFault {
    /// It is no JSON: 400 with a problem document.
    #[error("the body is no valid JSON: {0}")]
    Json(JsonError),
    /// It is JSON, but a member has the wrong type: 400 with a problem document.
    #[error("the body is not of the form of an evaluate request")]
    WrongType,
    /// There is no user, or its id is blank: 400 with this message.
    #[error("A valid user is required.")]
    NoUser,
    /// The tag filter mode (as sent) is none: 400 with this message.
    #[error("Invalid tag filter mode: {0}. Valid values are 'and' or 'or'.")]
    TagMode(String),
}

impl RequestFault {
    /// Whether the server says so in a problem document, instead of a message.
    pub const fn is_malformed(&self) -> bool {
        matches!(self, Self::Json(_) | Self::WrongType)
    }
}

/// A value of another type than its member has.
#[derive(Clone, Copy, Debug)]
pub(super) struct WrongType;

impl From<WrongType> for RequestFault {
    fn from(_: WrongType) -> Self {
        Self::WrongType
    }
}

/// Whether a member has this name, in any case.
pub(super) fn field(member: &str, name: &str) -> bool {
    member.eq_ignore_ascii_case(name)
}

/// A text or null.
pub(super) fn text(value: Value<'_>) -> Result<Option<&str>, WrongType> {
    match value.kind() {
        Kind::Null => Ok(None),
        _ => value.as_str().map(Some).ok_or(WrongType),
    }
}

/// A body without the byte order mark before it, which the server's reader of streams skips.
pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// See [`RequestFault`]; what is malformed comes first, then the user, then the mode.
    pub fn parse(body: &[u8]) -> Result<Self, RequestFault> {
        let document = Document::parse(without_mark(body), DEPTH_MAX).map_err(RequestFault::Json)?;
        Self::from_json(document.root())
    }

    /// Like [`Request::parse`], for a value inside a larger document.
    ///
    /// # Errors
    ///
    /// See [`RequestFault`].
    pub fn from_json(root: Value<'_>) -> Result<Self, RequestFault> {
        if root.kind() != Kind::Object {
            return Err(RequestFault::WrongType);
        }
        let mut user = None;
        let mut filter = Given::default();
        for (member, value) in root.members_as_written() {
            if field(member, "user") {
                user = match value.kind() {
                    Kind::Object => EndUser::read(value)?,
                    Kind::Null => None,
                    _ => return Err(RequestFault::WrongType),
                };
            } else if field(member, "filter") {
                filter = match value.kind() {
                    Kind::Object => Given::read(value)?,
                    Kind::Null => Given::default(),
                    _ => return Err(RequestFault::WrongType),
                };
            }
        }
        let user = user.ok_or(RequestFault::NoUser)?;
        let filter = filter.reduced()?;
        Ok(Self { user, filter })
    }

    /// The user.
    pub fn user(&self) -> &EndUser {
        &self.user
    }

    /// Appends a form that is equal for two requests exactly if no data set can tell them apart, as far as
    /// FB 8 goes; every part has its length before it. False: a list held a null, and the request should be
    /// neither stored nor folded with others.
    pub fn canonical(&self, out: &mut Vec<u8>) -> bool {
        write_text(self.user.key_id(), out);
        match self.user.name() {
            None => out.push(0),
            Some(name) => {
                out.push(1);
                write_text(name, out);
            }
        }
        write_count(self.user.properties().len(), out);
        for (name, value) in self.user.properties() {
            write_text(name, out);
            write_text(value, out);
        }
        self.filter.canonical(out);
        !self.user.has_null && !self.filter.has_null
    }
}

/// A filter as it was sent.
struct Given<'d> {
    mode: Option<&'d str>,
    tags: Vec<Option<&'d str>>,
    keys: Vec<Option<&'d str>>,
    timestamp: i64,
}

impl Default for Given<'_> {
    fn default() -> Self {
        Self {
            mode: Some("and"),
            tags: Vec::new(),
            keys: Vec::new(),
            timestamp: 0,
        }
    }
}

impl<'d> Given<'d> {
    fn read(filter: Value<'d>) -> Result<Self, WrongType> {
        let mut given = Self::default();
        for (member, value) in filter.members_as_written() {
            if field(member, "tagFilterMode") {
                given.mode = text(value)?;
            } else if field(member, "tags") {
                given.tags = texts(value)?;
            } else if field(member, "keys") {
                given.keys = texts(value)?;
            } else if field(member, "timestamp") {
                given.timestamp = timestamp(value)?;
            }
        }
        Ok(given)
    }

    fn reduced(self) -> Result<Filter, RequestFault> {
        let mode = self.mode.filter(|mode| !is_blank(mode));
        if let Some(mode) = mode.filter(|mode| !matches!(*mode, "and" | "or")) {
            return Err(RequestFault::TagMode(mode.to_owned()));
        }
        let is_null = |element: &Option<&str>| element.is_none();
        let null_tag = self.tags.iter().any(is_null);
        let has_null = null_tag || self.keys.iter().any(is_null);
        let tags = mode.filter(|_| !self.tags.is_empty()).map(|mode| Tags {
            wanted: sorted(&self.tags),
            any: mode == "or",
            null: null_tag,
        });
        Ok(Filter {
            keys: (!self.keys.is_empty()).then(|| sorted(&self.keys)),
            tags,
            after_ms: self.timestamp.max(0),
            has_null,
        })
    }
}

fn texts(list: Value<'_>) -> Result<Vec<Option<&str>>, WrongType> {
    match list.kind() {
        Kind::Null => Ok(Vec::new()),
        Kind::Array => list.elements().map(text).collect(),
        _ => Err(WrongType),
    }
}

/// An integer of 64 bits, also inside a string, where it may have a plus sign.
fn timestamp(value: Value<'_>) -> Result<i64, WrongType> {
    match (value.as_number(), value.as_str()) {
        (Some(digits), _) | (_, Some(digits)) => digits.parse().map_err(|_| WrongType),
        _ if value.is_null() => Ok(0),
        _ => Err(WrongType),
    }
}

fn sorted(texts: &[Option<&str>]) -> Vec<Box<str>> {
    let mut texts: Vec<&str> = texts.iter().flatten().copied().collect();
    texts.sort_unstable();
    texts.dedup();
    texts.into_iter().map(Into::into).collect()
}

impl Filter {
    /// Whether a flag whose key is wanted is wanted in every other respect.
    pub(super) fn wants(&self, flag: &Flag) -> bool {
        let wants_tags = |tags: &Tags| {
            if tags.any {
                tags.wanted.iter().any(|tag| flag.tags.contains(tag))
            } else {
                !tags.null && tags.wanted.iter().all(|tag| flag.tags.contains(tag))
            }
        };
        (self.after_ms == 0 || flag.updated_ms() > self.after_ms) && self.tags.as_ref().is_none_or(wants_tags)
    }

    fn canonical(&self, out: &mut Vec<u8>) {
        match &self.keys {
            None => out.push(0),
            Some(keys) => {
                out.push(1);
                write_list(keys, out);
            }
        }
        match &self.tags {
            None => out.push(0),
            Some(tags) => {
                // With one tag both modes are the same.
                let any = tags.any && (tags.wanted.len() > 1 || tags.null);
                out.push(1 + u8::from(any));
                write_list(&tags.wanted, out);
            }
        }
        out.extend_from_slice(&self.after_ms.to_le_bytes());
    }
}

fn write_list(texts: &[Box<str>], out: &mut Vec<u8>) {
    write_count(texts.len(), out);
    for text in texts {
        write_text(text, out);
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    write_count(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Readable documents are below 4 GiB; eight bytes cost nothing that counts.
fn write_count(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(count as u64).to_le_bytes());
}
