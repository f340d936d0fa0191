//! `--jsonl`: one request per line, one answer per line, for programs.

use std::io::{BufRead, Write};

use super::{Engine, EvaluateError, Options, answer, featbit, read_flags};
use crate::evaluate::amplitude::{FlagSet, Subject};
use crate::evaluate::json::{Document, Kind, Value, write_string};

/// Longest request, in bytes.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Arrays and objects inside each other in a request, which holds flags and a user.
const REQUEST_DEPTH_MAX: usize = 256;

pub(super) fn run(
    options: &Options,
    mut stdin: impl BufRead,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Result<(), EvaluateError> {
    let others = [
        ("--user", options.user.is_some()),
        ("--user-id", options.user_id.is_some()),
        ("--device-id", options.device_id.is_some()),
        ("--explain", options.explain),
    ];
    if let Some((name, _)) = others.into_iter().find(|(_, given)| *given) {
        return Err(EvaluateError::NotWithJsonl(name));
    }
    let mut engines = Engines::new(options, stderr)?;
    let mut line = Vec::new();
    let mut reply = Vec::new();
    while let Some(length) = read_line(&mut stdin, &mut line).map_err(EvaluateError::ReadLine)? {
        reply.clear();
        let replied = match length {
            Length::Whole => engines.reply(&line, options, &mut reply, stderr),
            Length::TooLong => Err(format!("a line is longer than {LINE_BYTES_MAX} bytes")),
        };
        if let Err(error) = replied {
            reply.clear();
            reply.extend_from_slice(b"{\"error\":");
            write_string(&error, &mut reply);
            reply.push(b'}');
        }
        reply.push(b'\n');
        stdout
            .write_all(&reply)
            .and_then(|()| stdout.flush())
            .map_err(EvaluateError::Write)?;
    }
    Ok(())
}

enum Length {
    Whole,
    /// The line was skipped.
    TooLong,
}

/// Reads the next line without its end; `None` at the end of the input.
fn read_line(stdin: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Option<Length>> {
    line.clear();
    let mut too_long = false;
    let mut begun = false;
    loop {
        let buffer = match stdin.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() && !begun {
            return Ok(None);
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        too_long |= line.len() + part.len() > LINE_BYTES_MAX;
        if !too_long {
            line.extend_from_slice(part);
        }
        begun = true;
        let is_last = end.is_some() || buffer.is_empty();
        let used = part.len() + usize::from(end.is_some());
        stdin.consume(used);
        if is_last {
            return Ok(Some(if too_long { Length::TooLong } else { Length::Whole }));
        }
    }
}

/// What answers lines.
struct Engines {
    /// `None`: each line tells.
    engine: Option<Engine>,
    amplitude: Flags,
    featbit: featbit::Lines,
}

impl Engines {
    fn new(options: &Options, stderr: &mut impl Write) -> Result<Self, EvaluateError> {
        let mut engines = Self {
            engine: options.engine,
            amplitude: Flags::default(),
            featbit: featbit::Lines::default(),
        };
        if let Some(path) = &options.flags {
            engines.engine = Some(match read_flags(path, options, stderr)? {
                super::Flags::Amplitude(set) => {
                    engines.amplitude.default = Some(set);
                    Engine::Amplitude
                }
                super::Flags::FeatBit(set) => {
                    engines.featbit.default = Some(set);
                    Engine::FeatBit
                }
            });
        }
        Ok(engines)
    }

    /// Appends the reply to a line, or says what is wrong with it.
    fn reply(
        &mut self,
        line: &[u8],
        options: &Options,
        reply: &mut Vec<u8>,
        stderr: &mut impl Write,
    ) -> Result<(), String> {
        let document = Document::parse(line, REQUEST_DEPTH_MAX)
            .map_err(|error| format!("the request is no valid JSON: {error}"))?;
        let request = document.root();
        if request.kind() != Kind::Object {
            return Err("the request is no JSON object".to_owned());
        }
        let is_featbit = match self.engine {
            None => featbit::Lines::is_meant(request),
            Some(engine) => engine == Engine::FeatBit,
        };
        if is_featbit {
            return self.featbit.reply(request, reply, stderr);
        }
        let result = self.amplitude.answer(request, options)?;
        reply.extend_from_slice(b"{\"result\":");
        reply.extend_from_slice(&result);
        reply.push(b'}');
        Ok(())
    }
}

/// The flags of `--flags`, and those of the last request that brought its own.
#[derive(Default)]
struct Flags {
    default: Option<FlagSet>,
    last: Option<FlagSet>,
}

impl Flags {
    /// The JSON of the answer, or what is wrong with the request.
    fn answer(&mut self, request: Value<'_>, options: &Options) -> Result<Vec<u8>, String> {
        let subject = subject(request)?;
        let given = match request.get("flagKeys").filter(|keys| !keys.is_null()) {
            Some(keys) => Some(texts(keys).ok_or("`flagKeys` is no array of texts")?),
            None => None,
        };
        let wanted = given.unwrap_or_else(|| options.flag_keys.iter().map(String::as_str).collect());
        let set = self.of(request.get("flags").filter(|flags| !flags.is_null()))?;
        Ok(answer(&set.evaluate(subject, &wanted, &mut ()), options.v1))
    }

    fn of(&mut self, given: Option<Value<'_>>) -> Result<&FlagSet, String> {
        let Some(flags) = given else {
            let missing = "the request has no `flags`, and there is no --flags FILE";
            return self.default.as_ref().ok_or_else(|| missing.to_owned());
        };
        if self
            .last
            .as_ref()
            .is_none_or(|last| last.text().as_bytes() != flags.raw())
        {
            self.last = Some(FlagSet::compile(flags.raw()).map_err(|error| error.to_string())?);
        }
        self.last.as_ref().ok_or_else(String::new)
    }
}

fn subject(request: Value<'_>) -> Result<Subject<'_>, String> {
    let readable = |value: &Value<'_>| matches!(value.kind(), Kind::Object | Kind::Null);
    match (request.get("user"), request.get("context")) {
        (Some(user), None) if readable(&user) => Ok(Subject::User(user)),
        (None, Some(context)) if readable(&context) => Ok(Subject::Context(context)),
        (Some(_), None) => Err("`user` is no object".to_owned()),
        (None, Some(_)) => Err("`context` is no object".to_owned()),
        (None, None) => Err("the request has neither `user` nor `context`".to_owned()),
        (Some(_), Some(_)) => Err("the request has both `user` and `context`; leave out one".to_owned()),
    }
}

fn texts(value: Value<'_>) -> Option<Vec<&str>> {
    (value.kind() == Kind::Array).then(|| value.elements().map(Value::as_str).collect())?
}
