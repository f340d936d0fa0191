//! The example flags of a shop: a holdout, an experiment, releases by plan, version and prerequisite, and
//! one flag in local mode.

use bytes::Bytes;
use serde_json::Value;

use crate::evaluate::amplitude::{FlagSet, FlagSetError, Subject};
use crate::evaluate::json::Document;
use crate::key::USER_DEPTH_MAX;

const EXAMPLE: &str = include_str!("flags.json");
/// The flag that changes.
pub(super) const CHANGING: &str = "loyalty-prices";

/// Flags as the upstream publishes them.
#[derive(Debug)]
pub(super) struct Flags {
    /// All of them: `eval_mode=remote`.
    pub(super) all: Bytes,
    /// Those in local mode.
    pub(super) local: Bytes,
    document: Value,
    set: FlagSet,
}

/// Why there are no flags: the example was edited and is broken.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlagsError {
    /// Not JSON.
    #[error("the example flags are not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not flags.
    #[error("the example flags cannot be used: {0}")]
    Set(#[from] FlagSetError),
    /// Without the flag that changes.
    #[error("there is no flag {CHANGING} with a segment for plans")]
    Missing,
}

impl Flags {
    /// The flags as they are at first.
    pub(super) fn example() -> Result<Self, FlagsError> {
        Self::of(serde_json::from_str(EXAMPLE)?)
    }

    fn of(document: Value) -> Result<Self, FlagsError> {
        let in_local_mode = |flag: &&Value| flag["metadata"]["evaluationMode"] == "local";
        let local: Vec<&Value> = document
            .as_array()
            .into_iter()
            .flatten()
            .filter(in_local_mode)
            .collect();
        let local = Bytes::from(serde_json::to_vec(&local)?);
        let all = Bytes::from(serde_json::to_vec(&document)?);
        let set = FlagSet::compile(&all)?;
        Ok(Self {
            all,
            local,
            document,
            set,
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// These flags with [`CHANGING`] open to the free plan, or closed to it again; and what was done.
    pub(super) fn changed(&self) -> Result<(Self, &'static str), FlagsError> {
        let mut document = self.document.clone();
        let mut flags = document.as_array_mut().into_iter().flatten();
        let flag = flags
            .find(|flag| flag["key"] == CHANGING)
            .ok_or(FlagsError::Missing)?;
        let version = flag
            .pointer("/metadata/flagVersion")
            .and_then(Value::as_u64)
            .ok_or(FlagsError::Missing)?;
        flag["metadata"]["flagVersion"] = Value::from(version + 1);
        let plans = flag
            .pointer_mut("/segments/0/conditions/0/0/values")
            .and_then(Value::as_array_mut);
        let plans = plans.ok_or(FlagsError::Missing)?;
        let done = match plans.iter().position(|plan| plan == "free") {
            Some(free) => {
                plans.remove(free);
                "loyalty-prices is closed to the free plan"
            }
            None => {
                plans.push(Value::from("free"));
                "loyalty-prices is opened to the free plan"
            }
        };
        Ok((Self::of(document)?, done))
    }

    /// The answer about a user, in the shape of version 1 or 2; `None` if that is no user.
    pub(super) fn evaluate(&self, user: &[u8], wanted: &[&str], v1: bool) -> Option<Vec<u8>> {
        let user = Document::parse(user, USER_DEPTH_MAX).ok()?;
        let evaluation = self.set.evaluate(Subject::User(user.root()), wanted, &mut ());
        let mut body = Vec::new();
        if v1 {
            evaluation.write_v1(&mut body);
        } else {
            evaluation.write_v2(&mut body);
        }
        Some(body)
    }
}

/// The variants in an answer of version 2, as `flag=variant`.
pub(super) fn variants(body: &[u8]) -> Vec<String> {
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
        return Vec::new();
    };
    let variant = |value: &Value| value["key"].as_str().unwrap_or("?").to_owned();
    answer
        .iter()
        .map(|(flag, value)| format!("{flag}={}", variant(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: &[u8] =
        br#"{"user_id":"a","platform":"Web","version":"4.1.9","user_properties":{"plan":"free"}}"#;

    #[test]
    fn every_example_flag_can_be_evaluated() {
        let flags = Flags::example().unwrap();
        assert_eq!(flags.set.problems(), []);
        let body = flags.evaluate(FREE, &[], false).unwrap();
        assert_eq!(variants(&body).len(), flags.len());
        assert_ne!(flags.all, flags.local);
        assert_eq!(FlagSet::compile(&flags.local).unwrap().len(), 1);
    }

    #[test]
    fn the_change_changes_what_it_says_and_can_be_undone() {
        let before = Flags::example().unwrap();
        let shows = |flags: &Flags, text: &str| {
            variants(&flags.evaluate(FREE, &[CHANGING], false).unwrap()) == [format!("{CHANGING}={text}")]
        };
        let (opened, said) = before.changed().unwrap();
        assert!(said.contains("opened"), "{said}");
        let (closed, said) = opened.changed().unwrap();
        assert!(said.contains("closed"), "{said}");
        assert!(shows(&before, "off") && shows(&opened, "on") && shows(&closed, "off"));
    }
}
