//! What SDKs are told of the data: messages that are the same for many are made once.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use crate::evaluate::featbit::{DataSet, Extent, Flag, data_sync};

/// The messages of one environment that were made last.
#[derive(Default)]
pub(super) struct Messages {
    full: Mutex<Option<(Weak<DataSet>, Bytes)>>,
    changes: Mutex<Option<Made>>,
}

/// Changes and the two sets that they lie between.
struct Made {
    from: Weak<DataSet>,
    to: Weak<DataSet>,
    changes: Arc<Changes>,
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// What is different in one data set from another, for those who have the other one.
#[derive(Debug)]
pub struct Changes {
    /// For server SDKs: a patch, or everything where something is gone; none if nothing is different.
    pub server: Option<Bytes>,
    /// For client SDKs: the flags whose answers may be others, in the order of answers.
    pub flags: Vec<Arc<Flag>>,
    /// Something is gone: patches cannot tell that.
    pub is_full: bool,
}

impl Messages {
    /// Everything.
    pub(super) fn full(&self, data: &Arc<DataSet>) -> Bytes {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, message)) = &*full
            && std::ptr::eq(of.as_ptr(), Arc::as_ptr(data))
        {
            return message.clone();
        }
        let message = Bytes::from(data.to_data_sync(0).unwrap_or_default());
        *full = Some((Arc::downgrade(data), message.clone()));
        message
    }

    /// What `to` has that `from` has not.
    pub(super) fn changes(&self, from: &Arc<DataSet>, to: &Arc<DataSet>) -> Arc<Changes> {
        let mut made = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && std::ptr::eq(made.from.as_ptr(), Arc::as_ptr(from))
            && std::ptr::eq(made.to.as_ptr(), Arc::as_ptr(to))
        {
            return Arc::clone(&made.changes);
        }
        let changes = Arc::new(Changes::between(from, to));
        *made = Some(Made {
            from: Arc::downgrade(from),
            to: Arc::downgrade(to),
            changes: Arc::clone(&changes),
        });
        changes
    }
}

impl Changes {
    fn between(from: &DataSet, to: &DataSet) -> Self {
        let flags = new_of(from.flags(), to.flags());
        let segments = new_of(from.segments(), to.segments());
        let is_full = is_missing(from.flags(), to.flags(), |flag| flag.id())
            || is_missing(from.segments(), to.segments(), |segment| segment.id());
        let server = if is_full {
            to.to_data_sync(0)
        } else {
            (!flags.is_empty() || !segments.is_empty()).then(|| {
                let (flags, segments) = (flags.iter(), segments.iter());
                data_sync(
                    Extent::Patch,
                    flags.map(|it| it.raw()),
                    segments.map(|it| it.raw()),
                )
            })
        };
        let touched: HashSet<&str> = segments.iter().map(|segment| segment.id()).collect();
        let changed: HashSet<*const Flag> = flags.iter().map(|flag| Arc::as_ptr(flag)).collect();
        let is_other = |flag: &&Arc<Flag>| {
            changed.contains(&Arc::as_ptr(flag)) || flag.segments().any(|id| touched.contains(id))
        };
        Self {
            server: server.map(Bytes::from),
            flags: to.flags().iter().filter(is_other).cloned().collect(),
            is_full,
        }
    }
}

/// What is in `to` and not in `from`; what stayed the same is the same object.
fn new_of<'t, T>(from: &[Arc<T>], to: &'t [Arc<T>]) -> Vec<&'t Arc<T>> {
    let known: HashSet<*const T> = from.iter().map(Arc::as_ptr).collect();
    to.iter()
        .filter(|item| !known.contains(&Arc::as_ptr(item)))
        .collect()
}

fn is_missing<T>(from: &[Arc<T>], to: &[Arc<T>], id: fn(&T) -> &str) -> bool {
    let held: HashSet<&str> = to.iter().map(|item| id(item)).collect();
    from.iter().any(|item| !held.contains(id(item)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::featbit::DataSync;
    use serde_json::{Value, json};

    fn flag(key: &str, at: u8, segment: Option<&str>) -> Value {
        let conditions: Vec<Value> = segment
            .map(|id| {
                let value = json!([id]).to_string();
                json!({"id": "c", "property": "User is in segment", "op": "", "value": value})
            })
            .into_iter()
            .collect();
        let rollout = json!([{"id": "v", "rollout": [0, 1], "exptRollout": 1}]);
        json!({"id": format!("id-{key}"), "key": key, "variationType": "string",
            "variations": [{"id": "v", "name": "v", "value": "x"}], "targetUsers": [],
            "rules": [{"id": "r", "name": "r", "dispatchKey": null, "includedInExpt": false,
                "conditions": conditions, "variations": rollout}],
            "isEnabled": true, "disabledVariationId": "v", "tags": [],
            "fallthrough": {"dispatchKey": null, "includedInExpt": false, "variations": rollout},
            "updatedAt": format!("2024-01-01T00:00:{at:02}Z"), "isArchived": false})
    }

    fn segment(id: &str, at: u8) -> Value {
        json!({"id": id, "name": id, "included": [], "excluded": [], "rules": [],
            "updatedAt": format!("2024-01-01T00:00:{at:02}Z"), "isArchived": false})
    }

    fn apply(to: &DataSet, extent: &str, flags: &[Value], segments: &[Value]) -> Arc<DataSet> {
        let message = json!({"messageType": "data-sync",
            "data": {"eventType": extent, "featureFlags": flags, "segments": segments}});
        let message = DataSync::parse(message.to_string().as_bytes()).unwrap();
        assert!(message.rejected().is_empty(), "{:?}", message.rejected());
        Arc::new(to.apply(&message).set)
    }

    fn keys(changes: &Changes) -> Vec<&str> {
        changes.flags.iter().map(|flag| flag.key()).collect()
    }

    fn message(changes: &Changes) -> Value {
        changes
            .server
            .as_ref()
            .map_or(Value::Null, |text| serde_json::from_slice(text).unwrap())
    }

    #[test]
    fn changes_are_told_to_whom_they_concern() {
        let first = apply(
            &DataSet::empty(),
            "full",
            &[
                flag("a", 1, None),
                flag("b", 2, Some("s")),
                flag("c", 3, Some("t")),
            ],
            &[segment("s", 1), segment("t", 1)],
        );
        let messages = Messages::default();
        let same = messages.changes(&first, &first);
        assert!(same.server.is_none() && same.flags.is_empty() && !same.is_full);

        let second = apply(&first, "patch", &[flag("a", 9, None)], &[]);
        let changes = messages.changes(&first, &second);
        assert_eq!(keys(&changes), ["a"]);
        let data = &message(&changes)["data"];
        assert_eq!(data["eventType"], "patch");
        assert_eq!(data["featureFlags"], json!([flag("a", 9, None)]));
        assert_eq!(data["segments"], json!([]));
        assert!(
            Arc::ptr_eq(&changes, &messages.changes(&first, &second)),
            "made once"
        );

        let third = apply(&second, "patch", &[], &[segment("s", 9)]);
        let changes = messages.changes(&second, &third);
        assert_eq!(keys(&changes), ["b"]);
        assert_eq!(message(&changes)["data"]["segments"], json!([segment("s", 9)]));
        assert_eq!(keys(&messages.changes(&first, &third)), ["b", "a"]);

        let fourth = apply(&third, "patch", &[], &[segment("u", 9)]);
        assert!(
            keys(&messages.changes(&third, &fourth)).is_empty(),
            "no flag names it"
        );
    }

    #[test]
    fn what_is_gone_is_told_with_everything() {
        let both = [flag("a", 1, None), flag("b", 2, None)];
        let first = apply(&DataSet::empty(), "full", &both, &[]);
        let second = apply(&first, "full", &both[..1], &[]);
        let changes = Messages::default().changes(&first, &second);
        assert!(changes.is_full && changes.flags.is_empty());
        assert_eq!(message(&changes)["data"]["eventType"], "full");
        assert_eq!(message(&changes)["data"]["featureFlags"], json!(both[..1]));
    }

    #[test]
    fn everything_is_written_once_per_set() {
        let first = apply(&DataSet::empty(), "full", &[flag("a", 1, None)], &[]);
        let messages = Messages::default();
        let text = messages.full(&first);
        assert_eq!(text.as_ptr(), messages.full(&first).as_ptr());
        let second = apply(&first, "patch", &[flag("b", 2, None)], &[]);
        assert!(messages.full(&second).len() > text.len());
    }
}
