//! Messages that carry flags and segments (FB 6.1 and 6.2).

use std::sync::Arc;

use super::compile::{self, Malformed};
use super::flag::{Flag, Segment};
use super::pattern::Patterns;
use super::secret::EnvironmentId;
use crate::evaluate::json::{Document, JsonError, Kind, Value};

/// Arrays and objects inside each other in a message.
const DEPTH_MAX: usize = 64;

/// A `data-sync` message, its flags and segments compiled.
#[derive(Clone, Debug)]
pub struct DataSync {
    pub(super) extent: Extent,
    pub(super) flags: Vec<Arc<Flag>>,
    pub(super) segments: Vec<Arc<Segment>>,
    rejected: Vec<Rejected>,
}

/// How much a message tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// Everything: what is not in it is gone.
    Full,
    /// What has changed.
    Patch,
}

/// A flag or segment that was left out because it is malformed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejected {
    /// Its key, its id, or its place in the list, such as `featureFlags[3]`.
    pub name: String,
    /// What is wrong, for people.
    pub why: String,
}

/// Why a text is no `data-sync` message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DataSyncError {
    /// It is no JSON.
    #[error("it is no valid JSON: {0}")]
    Json(#[from] JsonError),
    /// It is JSON, but of another form.
    #[error("it is no data-sync message: {0}")]
    Form(&'static str),
}

impl DataSync {
    /// Reads a message, or only its `data`. Without `eventType` it is full.
    ///
    /// Flags and segments that are malformed are left out; see [`DataSync::rejected`].
    ///
    /// # Errors
    ///
    /// The text is no JSON object of this form.
    pub fn parse(text: &[u8]) -> Result<Self, DataSyncError> {
        Self::from_json(Document::parse(text, DEPTH_MAX)?.root())
    }

    /// Like [`DataSync::parse`], for a value inside a larger document.
    ///
    /// # Errors
    ///
    /// The value is no object of this form.
    pub fn from_json(message: Value<'_>) -> Result<Self, DataSyncError> {
        let form = |why| Err(DataSyncError::Form(why));
        if message.kind() != Kind::Object {
            return form("it is no object");
        }
        let is_other = |kind: Value<'_>| {
            kind.as_str()
                .is_none_or(|kind| !kind.eq_ignore_ascii_case("data-sync"))
        };
        if message.get("messageType").is_some_and(is_other) {
            return form("`messageType` is another");
        }
        let data = message.get("data").unwrap_or(message);
        if data.kind() != Kind::Object {
            return form("`data` is no object");
        }
        let extent = match data.get("eventType").map(|kind| kind.as_str()) {
            None | Some(Some("full")) => Extent::Full,
            Some(Some("patch")) => Extent::Patch,
            Some(_) => return form("`eventType` is neither `full` nor `patch`"),
        };
        if extent == Extent::Full && data.get("featureFlags").is_none() {
            // An answer of something else must not pass for one without flags.
            return form("it has no `featureFlags`");
        }
        let mut rejected = Vec::new();
        let mut patterns = Patterns::default();
        let flags = items(data, "featureFlags", &mut rejected, |json| {
            compile::flag(json, &mut patterns)
        })?;
        let segments = items(data, "segments", &mut rejected, |json| {
            compile::segment(json, &mut patterns)
        })?;
        Ok(Self {
            extent,
            flags,
            segments,
            rejected,
        })
    }

    /// How much it tells.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The environment that its flags belong to, or else its segments, as far as they say.
    pub fn environment(&self) -> Option<EnvironmentId> {
        let of_flags = self.flags.iter().find_map(|flag| flag.item.environment);
        let of_segments = || self.segments.iter().find_map(|segment| segment.item.environment);
        of_flags.or_else(of_segments)
    }

    /// What was left out because it is malformed.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// How many flags and segments it holds, without those that were left out.
    pub fn len(&self) -> usize {
        self.flags.len() + self.segments.len()
    }

    /// Whether it holds neither flags nor segments.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn items<T>(
    data: Value<'_>,
    name: &'static str,
    rejected: &mut Vec<Rejected>,
    mut compile: impl FnMut(Value<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, DataSyncError> {
    let Some(list) = data.get(name) else {
        return Ok(Vec::new());
    };
    match list.kind() {
        Kind::Null => return Ok(Vec::new()),
        Kind::Array => {}
        _ => return Err(DataSyncError::Form("`featureFlags` or `segments` is no list")),
    }
    let mut items = Vec::new();
    for (at, json) in list.elements().enumerate() {
        match compile(json) {
            Ok(item) => items.push(item),
            Err(why) => {
                let text = |member| json.get(member).and_then(Value::as_str);
                let known = text("key").or_else(|| text("id"));
                rejected.push(Rejected {
                    name: known.map_or_else(|| format!("{name}[{at}]"), str::to_owned),
                    why: why.to_string(),
                });
            }
        }
    }
    Ok(items)
}
