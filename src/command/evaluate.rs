//! `flagside evaluate`: evaluates a user offline against a file of flags, of Amplitude or FeatBit.
//!
//! Results are the engine's own: nothing is cached, substituted or sent anywhere.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::evaluate::amplitude::{Evaluation, FlagSet, FlagSetError, Subject};
use crate::evaluate::featbit::{DataSet, DataSyncError, RequestFault};
use crate::evaluate::json::{Document, JsonError, Kind, write_string};

mod explain;
mod featbit;
mod jsonl;
#[cfg(test)]
mod tests;

/// Arrays and objects inside each other in a user.
const USER_DEPTH_MAX: usize = 64;

/// What `flagside evaluate` was asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Whose flags they are; `None`: the file and the lines tell.
    pub engine: Option<Engine>,
    /// The file with the JSON array of flags that `/sdk/v2/flags` returns, or with a data-sync message.
    pub flags: Option<PathBuf>,
    /// The user: JSON text, `@file`, or `-` for standard input.
    pub user: Option<String>,
    /// Replaces the user's `user_id`, or `keyId`.
    pub user_id: Option<String>,
    /// Replaces the user's `device_id`.
    pub device_id: Option<String>,
    /// The flags to evaluate; all if empty.
    pub flag_keys: Vec<String>,
    /// Answer in the shape of version 1.
    pub v1: bool,
    /// Tell step by step how the answer came about, instead of the answer's JSON.
    pub explain: bool,
    /// Read one request per line from standard input and answer each with one line.
    pub jsonl: bool,
}

/// Whose flags are evaluated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Engine {
    /// Amplitude Experiment.
    Amplitude,
    /// FeatBit.
    FeatBit,
}

impl Engine {
    /// All engines.
    pub const ALL: [Self; 2] = [Self::Amplitude, Self::FeatBit];

    /// The word for the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amplitude => "amplitude",
            Self::FeatBit => "featbit",
        }
    }
}

/// Runs the command and returns its exit code: 0; 1 if reading or writing failed; 2 if what was given is
/// wrong.
pub fn run(
    options: &Options,
    stdin: impl BufRead,
    mut stdout: impl Write,
    mut stderr: impl Write,
) -> ExitCode {
    let done = if options.jsonl {
        jsonl::run(options, stdin, &mut stdout, &mut stderr)
    } else {
        evaluate_one(options, stdin, &mut stdout, &mut stderr)
    };
    let Err(error) = done.and_then(|()| stdout.flush().map_err(EvaluateError::Write)) else {
        return ExitCode::SUCCESS;
    };
    // Nobody is left to be told if this fails too.
    let _ = writeln!(stderr, "flagside evaluate: {error}");
    ExitCode::from(error.exit_code())
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum EvaluateError {
    #[error(
        "there are no flags; give --flags FILE with the JSON array that /sdk/v2/flags returns, or a data-sync message"
    )]
    NoFlags,
    #[error("there is no user; give --user JSON, --user @FILE, --user - or --user-id ID")]
    NoUser,
    #[error("--jsonl reads its users from standard input; leave out {0}")]
    NotWithJsonl(&'static str),
    #[error("--explain tells how variants came about and has no version 1 form; leave out --v1")]
    ExplainV1,
    #[error("the flags file {path} cannot be read: {cause}")]
    ReadFlags { path: PathBuf, cause: io::Error },
    #[error("the flags file {path} cannot be used: {cause}")]
    Flags { path: PathBuf, cause: FlagSetError },
    #[error("the flags file {path} cannot be used: {cause}")]
    DataSync { path: PathBuf, cause: DataSyncError },
    #[error("FeatBit has no {0}; leave it out")]
    NotWithFeatBit(&'static str),
    #[error("--user is a whole request; leave out --user-id and --flag-keys, or give the end user alone")]
    WholeRequest,
    #[error("the request is not valid: {0}")]
    Request(RequestFault),
    #[error("the user cannot be read from {place}: {cause}")]
    ReadUser { place: String, cause: io::Error },
    #[error("the user is no valid JSON: {0}; give an object such as {{\"user_id\":\"u1\"}}")]
    User(JsonError),
    #[error("the user is no JSON object; give one such as {{\"user_id\":\"u1\"}}")]
    UserNotAnObject,
    #[error("a request cannot be read from standard input: {0}")]
    ReadLine(io::Error),
    #[error("the answer cannot be written: {0}")]
    Write(io::Error),
}

impl EvaluateError {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::ReadFlags { .. } | Self::ReadUser { .. } | Self::ReadLine(_) | Self::Write(_) => 1,
            Self::NoFlags
            | Self::NoUser
            | Self::NotWithJsonl(_)
            | Self::ExplainV1
            | Self::Flags { .. }
            | Self::DataSync { .. }
            | Self::NotWithFeatBit(_)
            | Self::WholeRequest
            | Self::Request(_)
            | Self::User(_)
            | Self::UserNotAnObject => 2,
        }
    }
}

fn evaluate_one(
    options: &Options,
    stdin: impl BufRead,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Result<(), EvaluateError> {
    let path = options.flags.as_deref().ok_or(EvaluateError::NoFlags)?;
    let set = match read_flags(path, options, stderr)? {
        Flags::Amplitude(set) => set,
        Flags::FeatBit(set) => return featbit::evaluate_one(&set, options, stdin, stdout, stderr),
    };
    if options.explain && options.v1 {
        return Err(EvaluateError::ExplainV1);
    }
    let text = user_text(options, stdin)?;
    let document = Document::parse(text.as_bytes(), USER_DEPTH_MAX).map_err(EvaluateError::User)?;
    let subject = Subject::User(document.root());
    let wanted: Vec<&str> = options.flag_keys.iter().map(String::as_str).collect();
    let written = if options.explain {
        stdout.write_all(explain::explain(&set, subject, &wanted).as_bytes())
    } else {
        let answer = answer(&set.evaluate(subject, &wanted, &mut ()), options.v1);
        stdout.write_all(&pretty(&answer))
    };
    written.map_err(EvaluateError::Write)
}

/// The answer as one line of JSON.
fn answer(evaluation: &Evaluation<'_>, v1: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if v1 {
        evaluation.write_v1(&mut out);
    } else {
        evaluation.write_v2(&mut out);
    }
    out
}

/// The flags of a file, compiled for the engine that they are meant for.
enum Flags {
    Amplitude(FlagSet),
    FeatBit(DataSet),
}

/// Reads the flags of a file and tells of those that are not what their author meant.
fn read_flags(path: &Path, options: &Options, stderr: &mut impl Write) -> Result<Flags, EvaluateError> {
    let named = || path.to_owned();
    let json = std::fs::read(path).map_err(|cause| EvaluateError::ReadFlags { path: named(), cause })?;
    let is_featbit = match options.engine {
        None => featbit::is_data_sync(&json),
        Some(engine) => engine == Engine::FeatBit,
    };
    if is_featbit {
        return featbit::read(&json, path, options, stderr).map(Flags::FeatBit);
    }
    let set = FlagSet::compile(&json).map_err(|cause| EvaluateError::Flags { path: named(), cause })?;
    warn(&set, options, stderr);
    Ok(Flags::Amplitude(set))
}

/// Tells of flags that are not what their author meant, and of wanted ones that are not there.
fn warn(set: &FlagSet, options: &Options, stderr: &mut impl Write) {
    // A warning that cannot be written is no reason to fail.
    for problem in set.problems() {
        let _ = writeln!(stderr, "warning: flag {:?}: {}", problem.flag, problem.detail);
    }
    for key in &options.flag_keys {
        if set.flag(key).is_none() {
            let _ = writeln!(stderr, "warning: there is no flag {key:?}");
        }
    }
}

/// The JSON text of the user, with the identifiers of their own options put in.
fn user_text(options: &Options, stdin: impl BufRead) -> Result<String, EvaluateError> {
    with_identifiers(&read_user(options, stdin)?, options)
}

/// The JSON text of the user as it was given; without one, but with an identifier, an empty object.
fn read_user(options: &Options, mut stdin: impl BufRead) -> Result<String, EvaluateError> {
    let mut text = String::new();
    match options.user.as_deref() {
        Some("-") => {
            let failed = |cause| EvaluateError::ReadUser {
                place: "standard input".to_owned(),
                cause,
            };
            stdin.read_to_string(&mut text).map_err(failed)?;
        }
        Some(given) => match given.strip_prefix('@') {
            Some(path) => {
                let failed = |cause| EvaluateError::ReadUser {
                    place: path.to_owned(),
                    cause,
                };
                text = std::fs::read_to_string(path).map_err(failed)?;
            }
            None => given.clone_into(&mut text),
        },
        None if options.user_id.is_some() || options.device_id.is_some() => "{}".clone_into(&mut text),
        None => return Err(EvaluateError::NoUser),
    }
    Ok(text)
}

fn with_identifiers(text: &str, options: &Options) -> Result<String, EvaluateError> {
    let document = Document::parse(text.as_bytes(), USER_DEPTH_MAX).map_err(EvaluateError::User)?;
    if document.root().kind() != Kind::Object {
        return Err(EvaluateError::UserNotAnObject);
    }
    let given = [("user_id", &options.user_id), ("device_id", &options.device_id)];
    let mut out = vec![b'{'];
    let separate = |out: &mut Vec<u8>| {
        if out.len() > 1 {
            out.push(b',');
        }
    };
    for (name, id) in given {
        if let Some(id) = id {
            separate(&mut out);
            write_string(name, &mut out);
            out.push(b':');
            write_string(id, &mut out);
        }
    }
    for (name, value) in document.root().members() {
        if given
            .iter()
            .any(|(replaced, id)| *replaced == name && id.is_some())
        {
            continue;
        }
        separate(&mut out);
        write_string(name, &mut out);
        out.push(b':');
        value.write_compact(&mut out);
    }
    out.push(b'}');
    String::from_utf8(out).map_err(|_| EvaluateError::UserNotAnObject)
}

/// Compact JSON with line breaks and an indent of two spaces; empty arrays and objects stay together.
fn pretty(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let mut depth = 0;
    let mut in_string = false;
    let mut escaped = false;
    let new_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (at, &byte) in compact.iter().enumerate() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                if !matches!(compact.get(at + 1), Some(b'}' | b']')) {
                    new_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth -= 1;
                if !matches!(compact[at - 1], b'{' | b'[') {
                    new_line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out.push(b'\n');
    out
}
