//! Answering here: the engine for questions, the synced sets for flags (design 5).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;

use crate::api::answer::Answer;
use crate::api::ladder::Climb;
use crate::cache::Stored;
use crate::evaluate::amplitude::{Evaluation, FlagText, Host, Subject, Substitute};
use crate::evaluate::json::{Document, Value};
use crate::key::flag_keys::FlagKeys;
use crate::key::question::FlagsMode;
use crate::key::{Asks, USER_DEPTH_MAX};
use crate::metrics::{self, Engine, EvaluatedFlags, Route};
use crate::store::{Definitions, FlagData};

use super::upstream::ANSWER_DEPTH_MAX;

/// The answer that can be computed here, if there are flags for it.
///
/// `stored` is an older answer to the same question: flags that cannot be evaluated faithfully keep the
/// variant they have in it. `upstream` is what upstream said instead of an answer.
#[must_use]
pub fn local(climb: &Climb, stored: Option<&Arc<Stored>>, upstream: Option<StatusCode>) -> Option<Answer> {
    match &climb.question.asks {
        Asks::Flags { flag_keys, mode, .. } => flags(climb, flag_keys, (*mode)?, upstream),
        Asks::Variants { user, flag_keys } => variants(climb, user, flag_keys, stored, upstream),
        Asks::Evaluation(_) => None,
    }
}

/// Whether the flags of this key were not synced yet and could be.
#[must_use]
pub fn awaits_sync(climb: &Climb) -> bool {
    let may_be_synced = !matches!(climb.question.asks, Asks::Flags { mode: None, .. });
    let is_synced = || {
        climb
            .known()
            .is_some_and(|deployment| deployment.flags().evaluation().is_some())
    };
    may_be_synced && !is_synced()
}

/// A flags request is served only from the set of its own mode, of whatever age.
fn flags(climb: &Climb, wanted: &FlagKeys, mode: FlagsMode, upstream: Option<StatusCode>) -> Option<Answer> {
    let deployment = climb.known();
    let synced = deployment.as_ref().map(|deployment| deployment.flags());
    let data = match mode {
        FlagsMode::Plain => synced.as_ref().and_then(|flags| flags.plain.clone()),
        FlagsMode::Remote => synced.as_ref().and_then(|flags| flags.remote.clone()),
    };
    // The file stands in for what was never synced, not for a set that upstream refuses to give.
    let is_synced = synced.as_ref().is_some_and(|flags| flags.evaluation().is_some());
    let data = data.or_else(|| climb.environment.bootstrap.clone().filter(|_| !is_synced))?;
    let etag = wanted.is_all().then(|| data.etag().clone());
    Some(Answer::local(data.filtered(wanted), etag, upstream))
}

fn variants(
    climb: &Climb,
    user: &[u8],
    flag_keys: &FlagKeys,
    stored: Option<&Arc<Stored>>,
    upstream: Option<StatusCode>,
) -> Option<Answer> {
    let began = Instant::now();
    let deployment = climb.known();
    let data = climb.environment.evaluation_set(deployment.as_deref())?;
    let user = Document::parse(user, USER_DEPTH_MAX).ok()?;
    let wanted: Vec<&str> = flag_keys.as_slice().iter().map(String::as_str).collect();
    let old = stored.and_then(|stored| Document::parse(&stored.body, ANSWER_DEPTH_MAX).ok());
    let definitions = stored.and_then(|stored| {
        let first = || stored.deployment.first_definitions().cloned();
        stored.definitions.clone().or_else(first)
    });
    let v1 = climb.route != Route::VardataV2;
    let mut host = Keeper {
        old: old.as_ref().map(Document::root),
        definitions: definitions.as_deref(),
        v1,
    };
    let evaluation = data.set.evaluate(Subject::User(user.root()), &wanted, &mut host);
    let mut body = Vec::new();
    if v1 {
        evaluation.write_v1(&mut body);
    } else {
        evaluation.write_v2(&mut body);
    }
    count(climb, &data, &evaluation, began);
    Some(Answer::local(Bytes::from(body), None, upstream))
}

/// Keeps the stored variants of flags that only the cloud evaluates faithfully.
struct Keeper<'k> {
    /// The stored answer.
    old: Option<Value<'k>>,
    /// What its flags meant when it was stored.
    definitions: Option<&'k Definitions>,
    v1: bool,
}

impl Host for Keeper<'_> {
    fn substitute(&mut self, flag: FlagText<'_>) -> Substitute<'_> {
        let (Some(old), Some(definitions)) = (self.old, self.definitions) else {
            return Substitute::Keep;
        };
        if definitions.get(flag.key) != Some(&flag.definition()) {
            return Substitute::Keep;
        }
        match old.get(flag.key) {
            Some(variant) => Substitute::Variant(variant.raw()),
            // In v1 a flag that is not there says something: the user has its default.
            None if self.v1 => Substitute::Absent,
            None => Substitute::Keep,
        }
    }
}

fn count(climb: &Climb, data: &FlagData, evaluation: &Evaluation<'_>, began: Instant) {
    let mut flags = EvaluatedFlags {
        unfaithful: u64::from(evaluation.unfaithful()),
        failed: data.set.problems().len() as u64,
        ..EvaluatedFlags::default()
    };
    for counted in evaluation.counted() {
        if counted.is_default {
            flags.default += 1;
        } else if counted.variant == "off" {
            flags.off += 1;
        } else {
            flags.variant += 1;
        }
    }
    let result = if evaluation.unfaithful() > 0 {
        metrics::Evaluation::Unsupported
    } else if flags.failed > 0 || evaluation.patterns_given_up() > 0 {
        metrics::Evaluation::Partial
    } else {
        metrics::Evaluation::Ok
    };
    climb.computed_by(Engine::Amplitude, result, began, flags);
}
