//! `flagside evaluate` with FeatBit's engine: a data-sync file, end users and evaluate requests.

use std::io::{BufRead, Write};
use std::path::Path;

use super::{EvaluateError, Options, USER_DEPTH_MAX, pretty, read_user};
use crate::evaluate::featbit::{DataSet, DataSync, Request};
use crate::evaluate::json::{Document, Kind, Value, write_string};

mod explain;
#[cfg(test)]
mod tests;

/// Whether the JSON of a flags file can only be meant for this engine.
pub(super) fn is_data_sync(json: &[u8]) -> bool {
    let begins_object = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    begins_object
        && Document::parse(json, USER_DEPTH_MAX).is_ok_and(|document| {
            let root = document.root();
            ["messageType", "data", "featureFlags"]
                .iter()
                .any(|member| root.get(member).is_some())
        })
}

/// The flags of a file. Tells of those that are not what their author meant, and of wanted ones that are
/// not there.
pub(super) fn read(
    json: &[u8],
    path: &Path,
    options: &Options,
    stderr: &mut impl Write,
) -> Result<DataSet, EvaluateError> {
    let message = DataSync::parse(json).map_err(|cause| EvaluateError::DataSync {
        path: path.to_owned(),
        cause,
    })?;
    let set = set_of(&message, stderr);
    // A warning that cannot be written is no reason to fail.
    for problem in set.problems() {
        let _ = writeln!(stderr, "warning: flag {:?}: {}", problem.flag, problem.why);
    }
    for key in &options.flag_keys {
        if set.flag(key).is_none() {
            let _ = writeln!(stderr, "warning: there is no flag {key:?}");
        }
    }
    Ok(set)
}

fn set_of(message: &DataSync, stderr: &mut impl Write) -> DataSet {
    for rejected in message.rejected() {
        let _ = writeln!(
            stderr,
            "warning: {:?} is left out: {}",
            rejected.name, rejected.why
        );
    }
    DataSet::empty().apply(message).set
}

/// Evaluates the user of the options.
pub(super) fn evaluate_one(
    set: &DataSet,
    options: &Options,
    stdin: impl BufRead,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Result<(), EvaluateError> {
    let others = [("--device-id", options.device_id.is_some()), ("--v1", options.v1)];
    if let Some((name, _)) = others.into_iter().find(|(_, given)| *given) {
        return Err(EvaluateError::NotWithFeatBit(name));
    }
    let text = request_text(options, stdin)?;
    let request = Request::parse(&text).map_err(EvaluateError::Request)?;
    if options.explain {
        let story = explain::explain(set, &request);
        return stdout.write_all(story.as_bytes()).map_err(EvaluateError::Write);
    }
    let evaluation = set.evaluate(&request);
    for unevaluable in evaluation.unevaluable() {
        let key = unevaluable.flag().key();
        let _ = writeln!(
            stderr,
            "warning: flag {key:?} has no answer: {}",
            unevaluable.cause()
        );
    }
    let mut answer = Vec::new();
    evaluation.write_json(&mut answer);
    stdout.write_all(&pretty(&answer)).map_err(EvaluateError::Write)
}

/// The JSON of the request that the options ask for. `--user` may be an end user or a whole request.
fn request_text(options: &Options, stdin: impl BufRead) -> Result<Vec<u8>, EvaluateError> {
    let given = read_user(options, stdin)?;
    let document = Document::parse(given.as_bytes(), USER_DEPTH_MAX).map_err(EvaluateError::User)?;
    let root = document.root();
    if root.kind() != Kind::Object {
        return Err(EvaluateError::UserNotAnObject);
    }
    let is_request = root.members().any(|(name, _)| name.eq_ignore_ascii_case("user"));
    if is_request && options.user_id.is_none() && options.flag_keys.is_empty() {
        return Ok(given.into_bytes());
    }
    if is_request {
        return Err(EvaluateError::WholeRequest);
    }
    let mut out = b"{\"user\":{".to_vec();
    if let Some(id) = &options.user_id {
        out.extend_from_slice(b"\"keyId\":");
        write_string(id, &mut out);
        out.push(b',');
    }
    let replaced = |name: &str| options.user_id.is_some() && name.eq_ignore_ascii_case("keyId");
    for (name, value) in root.members_as_written().filter(|(name, _)| !replaced(name)) {
        write_string(name, &mut out);
        out.push(b':');
        value.write_compact(&mut out);
        out.push(b',');
    }
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(b"},\"filter\":{\"keys\":[");
    for (at, key) in options.flag_keys.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(key, &mut out);
    }
    out.extend_from_slice(b"]}}");
    Ok(out)
}

/// The flags of `--flags`, and those of the last line that brought its own.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) default: Option<DataSet>,
    last: Option<(Vec<u8>, DataSet)>,
}

impl Lines {
    /// Whether a line can only be meant for this engine.
    pub(super) fn is_meant(line: Value<'_>) -> bool {
        line.get("request").is_some() || line.get("data").is_some()
    }

    /// Appends the reply to a line, or says what is wrong with it.
    pub(super) fn reply(
        &mut self,
        line: Value<'_>,
        reply: &mut Vec<u8>,
        stderr: &mut impl Write,
    ) -> Result<(), String> {
        let set = self.of(line.get("data").filter(|data| !data.is_null()), stderr)?;
        let body = line.get("request").ok_or("the line has no `request`")?;
        // From its own text: how deep it is nested counts from its root.
        let request = match Request::parse(body.raw()) {
            Ok(request) => request,
            Err(fault) => {
                reply.extend_from_slice(b"{\"status\":400,\"message\":");
                write_string(&fault.to_string(), reply);
                reply.push(b'}');
                return Ok(());
            }
        };
        let evaluation = set.evaluate(&request);
        reply.extend_from_slice(b"{\"status\":200,\"results\":");
        evaluation.write_json(reply);
        for (at, unevaluable) in evaluation.unevaluable().iter().enumerate() {
            let before: &[u8] = if at == 0 { b",\"unevaluable\":[" } else { b"," };
            reply.extend_from_slice(before);
            write_string(unevaluable.flag().key(), reply);
        }
        let end: &[u8] = if evaluation.unevaluable().is_empty() {
            b"}"
        } else {
            b"]}"
        };
        reply.extend_from_slice(end);
        Ok(())
    }

    fn of(&mut self, given: Option<Value<'_>>, stderr: &mut impl Write) -> Result<&DataSet, String> {
        let Some(data) = given else {
            let missing = "the line has no `data`, and there is no --flags FILE";
            return self.default.as_ref().ok_or_else(|| missing.to_owned());
        };
        if self.last.as_ref().is_none_or(|(text, _)| text != data.raw()) {
            let message = DataSync::parse(data.raw()).map_err(|error| format!("`data`: {error}"))?;
            self.last = Some((data.raw().to_vec(), set_of(&message, stderr)));
        }
        self.last.as_ref().map(|(_, set)| set).ok_or_else(String::new)
    }
}
