//! The flags and segments of an environment (FB 6.3).

use std::sync::{Arc, OnceLock};

use super::condition::BadList;
use super::flag::{Flag, Item, RuleCondition, Segment};
use super::run::Cause;
use super::secret::EnvironmentId;
use super::sync::{DataSync, Extent};
use crate::evaluate::quick_map::{QuickMap, WordMap};

/// The flags and segments of an environment at one time.
///
/// It never changes: [`DataSet::apply`] makes the next one, which shares what stayed the same.
#[derive(Debug, Default)]
pub struct DataSet {
    /// In the order of answers: by time of the last change, then by id.
    pub(super) flags: Vec<Arc<Flag>>,
    /// In the same order.
    pub(super) segments: Vec<Arc<Segment>>,
    /// Numbers of flags, by key.
    by_key: Vec<u32>,
    /// Numbers of segments.
    segment_ids: WordMap<u32>,
    version: i64,
    revision: u128,
    problems: OnceLock<Vec<Problem>>,
}

/// What a message made of a data set.
#[derive(Debug)]
pub struct Applied {
    /// The data set afterwards.
    pub set: DataSet,
    /// Flags that are new or not what they were, in the order of answers.
    pub flags: Vec<Arc<Flag>>,
    /// Segments that are new or not what they were.
    pub segments: Vec<Arc<Segment>>,
    /// Ids of flags and segments that are gone.
    pub removed: Vec<Box<str>>,
    /// How many of the message's flags and segments were older than what is held.
    pub stale: usize,
}

impl Applied {
    /// Whether nothing came of the message.
    pub fn is_unchanged(&self) -> bool {
        self.flags.is_empty() && self.segments.is_empty() && self.removed.is_empty()
    }
}

/// Something that keeps a flag from being evaluated, at least for some users.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The key of the flag.
    pub flag: Box<str>,
    /// What is wrong, for people.
    pub why: String,
}

impl DataSet {
    /// A data set without flags.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The data set after a message: a full one replaces everything, a patch what it holds, unless what is
    /// held is newer.
    pub fn apply(&self, message: &DataSync) -> Applied {
        let full = message.extent == Extent::Full;
        let flags = merge(&self.flags, &message.flags, full, |flag| &flag.item);
        let segments = merge(&self.segments, &message.segments, full, |segment| &segment.item);
        Applied {
            set: Self::new(flags.items, segments.items),
            flags: flags.changed,
            segments: segments.changed,
            removed: flags.removed.into_iter().chain(segments.removed).collect(),
            stale: flags.stale + segments.stale,
        }
    }

    fn new(flags: Vec<Arc<Flag>>, segments: Vec<Arc<Segment>>) -> Self {
        let number = |index| u32::try_from(index).unwrap_or(u32::MAX);
        let mut by_key: Vec<u32> = (0..number(flags.len())).collect();
        by_key.sort_by_key(|&flag| &*flags[flag as usize].key);
        let numbered = segments.iter().enumerate();
        let segment_ids = numbered
            .map(|(at, segment)| (segment.item.id.clone(), number(at)))
            .collect();
        let of_flags = flags.iter().map(|flag| (1, &flag.item));
        let items = of_flags.chain(segments.iter().map(|segment| (2, &segment.item)));
        let (mut version, mut revision) = (0, 0u128);
        for (kind, item) in items {
            version = item.updated_ms.max(version);
            // A sum does not depend on the order; ids differ, so that nothing is in it twice.
            revision = revision.wrapping_add(item.definition.rotate_left(kind));
        }
        Self {
            flags,
            segments,
            by_key,
            segment_ids,
            version,
            revision,
            problems: OnceLock::new(),
        }
    }

    /// The time of the last change of a flag or segment, in milliseconds since 1970; 0 if there is none.
    /// This is what to ask upstream for changes since.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// A hash of what evaluation reads: equal for equal flags and segments, however they arrived; the same
    /// in every process.
    pub fn revision(&self) -> u128 {
        self.revision
    }

    /// The environment that the flags belong to, as far as they say.
    pub fn environment(&self) -> Option<EnvironmentId> {
        let of_flags = self.flags.iter().find_map(|flag| flag.item.environment);
        of_flags.or_else(|| self.segments.iter().find_map(|segment| segment.item.environment))
    }

    /// Whether there are neither flags nor segments.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty() && self.segments.is_empty()
    }

    /// The flags, archived ones too, in the order of answers: by time of the last change, then by id.
    pub fn flags(&self) -> &[Arc<Flag>] {
        &self.flags
    }

    /// The segments, by time of the last change, then by id.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// The flag with this key; of several, which deleting and creating again leaves behind, the one that
    /// was changed last.
    pub fn flag(&self, key: &str) -> Option<&Arc<Flag>> {
        let last = self.numbers_of(key).last()?;
        Some(&self.flags[*last as usize])
    }

    /// The flags whose rules name this segment.
    pub fn flags_of_segment<'s>(&'s self, id: &'s str) -> impl Iterator<Item = &'s Arc<Flag>> {
        self.flags
            .iter()
            .filter(move |flag| flag.segments().any(|named| named == id))
    }

    /// The numbers of the flags with this key, ascending.
    pub(super) fn numbers_of(&self, key: &str) -> &[u32] {
        let of = |flag: &u32| &*self.flags[*flag as usize].key;
        let start = self.by_key.partition_point(|flag| of(flag) < key);
        let length = self.by_key[start..].partition_point(|flag| of(flag) == key);
        &self.by_key[start..start + length]
    }

    /// The number of the segment with this id.
    pub(super) fn segment_number(&self, id: &str) -> Option<usize> {
        self.segment_ids.get(id).map(|number| *number as usize)
    }

    /// Flags that cannot be evaluated, at least for some users, with the first reason.
    ///
    /// The first call compiles every pattern that was not used yet, which may take milliseconds each; after
    /// it no evaluation has to.
    pub fn problems(&self) -> &[Problem] {
        self.problems.get_or_init(|| {
            // Every pattern is to be compiled, so that this must not stop at the first problem.
            let segments: Vec<Option<Cause<'_>>> =
                self.segments.iter().map(|of| segment_problem(of)).collect();
            let flags = self.flags.iter();
            let found = flags.filter_map(|flag| Some((flag, self.flag_problem(flag, &segments)?)));
            found
                .map(|(flag, cause)| Problem {
                    flag: flag.key.clone(),
                    why: cause.to_string(),
                })
                .collect()
        })
    }

    fn flag_problem<'s>(&'s self, flag: &'s Flag, segments: &[Option<Cause<'s>>]) -> Option<Cause<'s>> {
        let mut first = None;
        for rule in &flag.rules {
            for condition in &rule.conditions {
                let problem = match condition {
                    RuleCondition::Ordinary(condition) => condition.problem().map(Cause::Condition),
                    RuleCondition::Segments(of) => match &of.ids {
                        Err(BadList::Null) => Some(Cause::NoSegments),
                        Err(BadList::Malformed) => Some(Cause::SegmentList),
                        Ok(ids) => ids.iter().find_map(|id| match id {
                            Some(id) => match self.segment_number(id) {
                                Some(number) => segments[number],
                                None => Some(Cause::UnknownSegment(id)),
                            },
                            None => Some(Cause::UnknownSegment("")),
                        }),
                    },
                };
                first = first.or(problem);
            }
        }
        let splits = flag.rules.iter().map(|rule| &rule.split).chain(&flag.fallthrough);
        let mut entries = splits.flat_map(|split| &split.entries);
        let bad_range = || entries.any(|entry| entry.range.is_none()).then_some(Cause::Range);
        first
            .or_else(bad_range)
            .or(flag.fallthrough.is_none().then_some(Cause::NoFallthrough))
    }

    /// The message that brings somebody up to date who has everything up to `since_ms`: full for 0, else a
    /// patch; `None`: there is nothing newer.
    pub fn to_data_sync(&self, since_ms: i64) -> Option<String> {
        if since_ms != 0 && self.version <= since_ms {
            return None;
        }
        let newer = |item: &Item| since_ms == 0 || item.updated_ms > since_ms;
        let flags = self.flags.iter().filter(|flag| newer(&flag.item));
        let segments = self.segments.iter().filter(|segment| newer(&segment.item));
        let extent = if since_ms == 0 {
            Extent::Full
        } else {
            Extent::Patch
        };
        Some(data_sync(
            extent,
            flags.map(|flag| flag.raw()),
            segments.map(|of| of.raw()),
        ))
    }
}

/// A `data-sync` message of flags and segments as they came.
pub fn data_sync<'t>(
    extent: Extent,
    flags: impl Iterator<Item = &'t str>,
    segments: impl Iterator<Item = &'t str>,
) -> String {
    let extent = match extent {
        Extent::Full => "full",
        Extent::Patch => "patch",
    };
    let mut out = format!(r#"{{"messageType":"data-sync","data":{{"eventType":"{extent}","featureFlags":["#);
    push_list(&mut out, flags);
    out.push_str(r#"],"segments":["#);
    push_list(&mut out, segments);
    out.push_str("]}}");
    out
}

fn push_list<'t>(out: &mut String, items: impl Iterator<Item = &'t str>) {
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(item);
    }
}

fn segment_problem(segment: &Segment) -> Option<Cause<'_>> {
    let conditions = segment.rules.iter().flatten();
    let problems: Vec<_> = conditions.filter_map(|condition| condition.problem()).collect();
    problems.first().copied().map(Cause::Condition)
}

struct Merged<T> {
    items: Vec<Arc<T>>,
    changed: Vec<Arc<T>>,
    removed: Vec<Box<str>>,
    stale: usize,
}

/// What is held and what came, item by item.
fn merge<T>(held: &[Arc<T>], came: &[Arc<T>], full: bool, item: fn(&T) -> &Item) -> Merged<T> {
    let mut kept: QuickMap<&str, &Arc<T>> = held.iter().map(|of| (&*item(of).id, of)).collect();
    let mut items: QuickMap<&str, Arc<T>> = QuickMap::default();
    let (mut stale, mut touched) = (0, Vec::new());
    for new in came {
        let id = &*item(new).id;
        let known = items.get(id).or_else(|| kept.get(id).copied().filter(|_| !full));
        if known.is_some_and(|known| item(known).updated_ms > item(new).updated_ms) {
            stale += 1;
            continue;
        }
        // What is the same stays, with all that was compiled for it.
        let same = kept
            .get(id)
            .copied()
            .filter(|held| item(held).raw == item(new).raw);
        if items.insert(id, Arc::clone(same.unwrap_or(new))).is_none() {
            touched.push(id);
        }
    }
    let is_other = |id: &&str| match (items.get(id), kept.get(id)) {
        (Some(new), Some(held)) => !Arc::ptr_eq(new, held),
        _ => true,
    };
    touched.retain(is_other);
    let mut changed: Vec<Arc<T>> = touched.iter().filter_map(|id| items.get(id).cloned()).collect();
    kept.retain(|id, _| !items.contains_key(id));
    let removed = if full {
        kept.into_keys().map(Into::into).collect()
    } else {
        items.extend(kept.into_iter().map(|(id, held)| (id, Arc::clone(held))));
        Vec::new()
    };
    let order = |a: &Arc<T>, b: &Arc<T>| {
        let [a, b] = [a, b].map(|of| item(of));
        (a.updated_ms, &a.id).cmp(&(b.updated_ms, &b.id))
    };
    let mut items: Vec<Arc<T>> = items.into_values().collect();
    items.sort_unstable_by(order);
    changed.sort_unstable_by(order);
    Merged {
        items,
        changed,
        removed,
        stale,
    }
}
