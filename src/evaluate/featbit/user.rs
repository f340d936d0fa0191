//! End users: whom flags are evaluated for (FB 3.2 and 5.1).

use std::fmt;

use super::condition::{Property, is_blank};
use super::request::{RequestFault, WrongType, field, text, without_mark};
use crate::evaluate::json::{Document, Kind, Value};

/// Arrays and objects inside each other in what clients send.
pub(super) const DEPTH_MAX: usize = 32;

/// Up to this many properties are compared one by one.
const FEW: usize = 8;

/// A user as a client describes it.
///
/// Invariants: the id is not blank; properties are sorted by name, each name is there once and not blank,
/// neither `keyId` nor `name`, and no value is empty, because that is the same as no property.
#[derive(Clone, Eq, PartialEq)]
pub struct EndUser {
    key_id: Box<str>,
    name: Option<Box<str>>,
    properties: Vec<(Box<str>, Box<str>)>,
    /// The list of properties held a null.
    pub(super) has_null: bool,
}

impl fmt::Debug for EndUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndUser")
            .field("properties", &self.properties.len())
            .finish_non_exhaustive()
    }
}

impl EndUser {
    /// Reads a body such as `{"keyId":"u1","name":"Ada","customizedProperties":[{"name":"plan","value":"pro"}]}`.
    ///
    /// # Errors
    ///
    /// The body is no JSON object of this form, or the id is missing or blank.
    pub fn parse(body: &[u8]) -> Result<Self, RequestFault> {
        let document = Document::parse(without_mark(body), DEPTH_MAX).map_err(RequestFault::Json)?;
        Self::from_json(document.root())
    }

    /// Like [`EndUser::parse`], for a value inside a larger document, such as the `user` of a stream's
    /// message.
    ///
    /// # Errors
    ///
    /// The value is no object of this form, or the id is missing or blank.
    pub fn from_json(user: Value<'_>) -> Result<Self, RequestFault> {
        match user.kind() {
            Kind::Object => Self::read(user)?.ok_or(RequestFault::NoUser),
            Kind::Null => Err(RequestFault::NoUser),
            _ => Err(RequestFault::WrongType),
        }
    }

    /// The user of an object; `None` if the id is missing or blank.
    pub(super) fn read(user: Value<'_>) -> Result<Option<Self>, WrongType> {
        let mut key_id = None;
        let mut name = None;
        let mut properties = Vec::new();
        let mut has_null = false;
        // What comes later replaces what came before, but has to be right all the same.
        for (member, value) in user.members_as_written() {
            if field(member, "keyId") {
                key_id = text(value)?;
            } else if field(member, "name") {
                name = text(value)?;
            } else if field(member, "customizedProperties") {
                (properties, has_null) = read_properties(value)?;
            }
        }
        Ok(key_id.filter(|id| !is_blank(id)).map(|key_id| Self {
            key_id: key_id.into(),
            name: name.map(Into::into),
            properties: reduced(properties),
            has_null,
        }))
    }

    /// The id.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The name, which may be missing.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The custom properties that can be read: sorted by name, each name once, no value empty.
    pub fn properties(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.properties.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a property: `None` is null, which only a name can be; what is not there is empty.
    pub(super) fn value_of(&self, property: &Property) -> Option<&str> {
        match property {
            Property::Blank => Some(""),
            Property::KeyId => Some(&self.key_id),
            Property::Name => self.name.as_deref(),
            Property::Custom(name) => Some(self.custom(name)),
        }
    }

    fn custom(&self, name: &str) -> &str {
        let found = if self.properties.len() <= FEW {
            self.properties.iter().find(|(known, _)| **known == *name)
        } else {
            let place = self.properties.binary_search_by(|(known, _)| (**known).cmp(name));
            place.ok().map(|place| &self.properties[place])
        };
        found.map_or("", |(_, value)| value)
    }
}

type Given<'d> = Vec<(&'d str, Option<&'d str>)>;

/// The properties that can be read, in their order, and whether the list holds a null.
fn read_properties(list: Value<'_>) -> Result<(Given<'_>, bool), WrongType> {
    let mut given = Vec::new();
    let mut has_null = false;
    match list.kind() {
        Kind::Null => return Ok((given, false)),
        Kind::Array => {}
        _ => return Err(WrongType),
    }
    for element in list.elements() {
        match element.kind() {
            Kind::Null => has_null = true,
            Kind::Object => {
                let (mut name, mut value) = (None, None);
                for (member, of) in element.members_as_written() {
                    if field(member, "name") {
                        name = text(of)?;
                    } else if field(member, "value") {
                        value = text(of)?;
                    }
                }
                if let Some(name) = name {
                    given.push((name, value));
                }
            }
            _ => return Err(WrongType),
        }
    }
    Ok((given, has_null))
}

/// Of each name the first, if it can be read and is not empty; sorted.
fn reduced(mut given: Given<'_>) -> Vec<(Box<str>, Box<str>)> {
    given.retain(|(name, _)| !is_blank(name) && !matches!(*name, "keyId" | "name"));
    // Stable: of equal names the first stays first.
    given.sort_by_key(|(name, _)| *name);
    given.dedup_by_key(|(name, _)| *name);
    let set = |(name, value): (&str, Option<&str>)| {
        let value = value.filter(|value| !value.is_empty())?;
        Some((name.into(), value.into()))
    };
    given.into_iter().filter_map(set).collect()
}
