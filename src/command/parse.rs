//! Arguments become a [`Command`], or one sentence about what is wrong with them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};

use super::evaluate::{Engine, Options};
use super::{inject, injector, sleep};
use crate::config::{Arguments, nearest, parse_duration};

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Command {
    Run { arguments: Arguments, dry_run: bool },
    Check { arguments: Arguments, online: bool },
    PrintConfig { arguments: Arguments, origin: bool },
    Demo { engine: Engine, keep: bool },
    Evaluate(Options),
    Inject(Box<inject::Options>),
    Injector(Box<injector::Options>),
    Schema,
    Probe { target: String, wait: Duration },
    Sleep(Duration),
    Version,
    Help(Topic),
    Settings { markdown: bool },
    Metrics { markdown: bool },
}

/// What a help text is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Topic {
    Flagside,
    Run,
    Demo,
    Evaluate,
    Inject,
    Injector,
    Check,
    PrintConfig,
    Schema,
    Probe,
    Sleep,
    Version,
    Help,
}

pub(super) const COMMANDS: [(&str, Topic); 12] = [
    ("run", Topic::Run),
    ("demo", Topic::Demo),
    ("evaluate", Topic::Evaluate),
    ("check", Topic::Check),
    ("inject", Topic::Inject),
    ("injector", Topic::Injector),
    ("print-config", Topic::PrintConfig),
    ("schema", Topic::Schema),
    ("probe", Topic::Probe),
    ("sleep", Topic::Sleep),
    ("version", Topic::Version),
    ("help", Topic::Help),
];

const LATER_COMMANDS: [&str; 2] = ["migrate", "snapshot"];
const LATER_OPTIONS: [&str; 1] = ["data-dir"];

/// Options with a value that `run`, `check` and `print-config` share, besides `--config`.
const CONFIGURATION: [&str; 10] = [
    "--listen",
    "--admin-listen",
    "--region",
    "--upstream",
    "--featbit-upstream",
    "--flags",
    "--mode",
    "--log-level",
    "--log-format",
    "--set",
];

pub(super) type Parsed<T> = Result<T, String>;

/// Reads the arguments, program name left out.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed<Command> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let first = arguments.first().map(|first| first.to_string_lossy());
    let (topic, named) = match first.as_deref() {
        None => (Topic::Run, 0),
        Some("-h" | "--help") => (Topic::Help, 1),
        Some("-V" | "--version") => (Topic::Version, 1),
        Some(option) if option.starts_with('-') => (Topic::Run, 0),
        Some(name) => match COMMANDS.iter().find(|(command, _)| *command == name) {
            Some((_, topic)) => (*topic, 1),
            None => return Err(unknown_command(name)),
        },
    };
    let mut parser = Parser::from_args(&arguments[named..]);
    match topic {
        Topic::Run | Topic::Check | Topic::PrintConfig => configured(topic, &mut parser),
        Topic::Demo => demo(&mut parser),
        Topic::Evaluate => evaluate(&mut parser),
        Topic::Inject => inject::parse(&mut parser),
        Topic::Injector => injector::parse(&mut parser),
        Topic::Probe => probe(&mut parser),
        Topic::Sleep => nap(&mut parser),
        Topic::Schema => bare("schema", Topic::Schema, Command::Schema, &mut parser),
        Topic::Version => bare("version", Topic::Version, Command::Version, &mut parser),
        Topic::Help | Topic::Flagside => help(&mut parser),
    }
}

fn unknown_command(name: &str) -> String {
    if LATER_COMMANDS.contains(&name) {
        return format!("the command {name} is not in this version");
    }
    let meant = nearest(name, COMMANDS.iter().map(|(command, _)| *command));
    ask(&format!("unknown command {name}"), meant, "flagside help")
}

fn ask(problem: &str, meant: Option<&str>, help: &str) -> String {
    match meant {
        Some(meant) => format!("{problem}; did you mean {meant}?"),
        None => format!("{problem}; {help} lists what there is"),
    }
}

/// One option or argument of a command.
pub(super) enum Item {
    Option(String),
    Value(String),
}

pub(super) fn next(parser: &mut Parser) -> Parsed<Option<Item>> {
    let item = match parser.next().map_err(|error| sentence(&error))? {
        None => return Ok(None),
        Some(Arg::Long(name)) => Item::Option(format!("--{name}")),
        Some(Arg::Short(letter)) => Item::Option(format!("-{letter}")),
        Some(Arg::Value(value)) => Item::Value(
            value
                .into_string()
                .map_err(|_| "an argument is not UTF-8 text".to_owned())?,
        ),
    };
    Ok(Some(item))
}

/// The path that follows an option.
pub(super) fn path(parser: &mut Parser, option: &str) -> Parsed<PathBuf> {
    let value = parser.value().map_err(|error| sentence(&error))?;
    match value.is_empty() {
        true => Err(format!("{option} needs a value")),
        false => Ok(PathBuf::from(value)),
    }
}

/// The value that follows an option.
pub(super) fn value(parser: &mut Parser, option: &str) -> Parsed<String> {
    let value = parser.value().map_err(|error| sentence(&error))?;
    value
        .into_string()
        .map_err(|_| format!("the value of {option} is not UTF-8 text"))
}

fn sentence(error: &lexopt::Error) -> String {
    match error {
        lexopt::Error::MissingValue { option: Some(option) } => format!("{option} needs a value"),
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        other => other.to_string(),
    }
}

/// Why an option or argument does not belong to a command.
pub(super) fn unexpected(item: &Item, command: &str, known: &[&str]) -> String {
    let help = format!("flagside help {command}");
    match item {
        Item::Option(name)
            if LATER_OPTIONS
                .iter()
                .any(|later| name.strip_prefix("--") == Some(later)) =>
        {
            format!("the option {name} is not in this version")
        }
        Item::Option(name) => {
            let meant = nearest(name, known.iter().copied());
            ask(&format!("unknown option {name}"), meant, &help)
        }
        Item::Value(text) if COMMANDS.iter().any(|(name, _)| name == text) => {
            format!("the command {text} must come first: flagside {text} …")
        }
        Item::Value(text) => ask(&format!("unexpected argument {text}"), None, &help),
    }
}

/// `run`, `check` and `print-config`: the configuration's options and one switch of their own.
fn configured(topic: Topic, parser: &mut Parser) -> Parsed<Command> {
    let (command, switch) = match topic {
        Topic::Check => ("check", "--online"),
        Topic::PrintConfig => ("print-config", "--origin"),
        _ => ("run", "--dry-run"),
    };
    let mut arguments = Arguments::default();
    let mut switched = false;
    while let Some(item) = next(parser)? {
        match &item {
            Item::Option(name) if name == "--help" || name == "-h" => return Ok(Command::Help(topic)),
            Item::Option(name) if name == "--config" || name == "-c" => {
                arguments
                    .files
                    .push(PathBuf::from(parser.value().map_err(|error| sentence(&error))?));
            }
            Item::Option(name) if name == switch => switched = true,
            Item::Option(name) => match CONFIGURATION.iter().find(|known| *known == name) {
                Some(known) => arguments.options.push((known, value(parser, known)?)),
                None => {
                    let known: Vec<&str> = CONFIGURATION
                        .iter()
                        .copied()
                        .chain(["--config", switch, "--help"])
                        .collect();
                    return Err(unexpected(&item, command, &known));
                }
            },
            Item::Value(_) => return Err(unexpected(&item, command, &[])),
        }
    }
    Ok(match topic {
        Topic::Check => Command::Check {
            arguments,
            online: switched,
        },
        Topic::PrintConfig => Command::PrintConfig {
            arguments,
            origin: switched,
        },
        _ => Command::Run {
            arguments,
            dry_run: switched,
        },
    })
}

fn demo(parser: &mut Parser) -> Parsed<Command> {
    let (mut chosen, mut keep) = (Engine::Amplitude, false);
    while let Some(item) = next(parser)? {
        match &item {
            Item::Option(name) if name == "--help" || name == "-h" => return Ok(Command::Help(Topic::Demo)),
            Item::Option(name) if name == "--engine" => chosen = engine(&value(parser, name)?)?,
            Item::Option(name) if name == "--keep" => keep = true,
            _ => return Err(unexpected(&item, "demo", &["--engine", "--keep", "--help"])),
        }
    }
    Ok(Command::Demo { engine: chosen, keep })
}

fn evaluate(parser: &mut Parser) -> Parsed<Command> {
    const KNOWN: [&str; 11] = [
        "--engine",
        "--flags",
        "--user",
        "--user-id",
        "--device-id",
        "--flag-key",
        "--flag-keys",
        "--v1",
        "--explain",
        "--jsonl",
        "--help",
    ];
    let mut options = Options::default();
    while let Some(item) = next(parser)? {
        let Item::Option(name) = &item else {
            return Err(unexpected(&item, "evaluate", &KNOWN));
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Command::Help(Topic::Evaluate)),
            "--flags" => {
                options.flags = Some(PathBuf::from(parser.value().map_err(|error| sentence(&error))?))
            }
            "--engine" => options.engine = Some(engine(&value(parser, name)?)?),
            "--user" => options.user = Some(value(parser, name)?),
            "--user-id" => options.user_id = Some(value(parser, name)?),
            "--device-id" => options.device_id = Some(value(parser, name)?),
            "--flag-key" => options.flag_keys.push(value(parser, name)?),
            "--flag-keys" => {
                let keys = value(parser, name)?;
                options.flag_keys.extend(
                    keys.split(',')
                        .map(str::trim)
                        .filter(|k| !k.is_empty())
                        .map(str::to_owned),
                );
            }
            "--v1" => options.v1 = true,
            "--explain" => options.explain = true,
            "--jsonl" => options.jsonl = true,
            _ => return Err(unexpected(&item, "evaluate", &KNOWN)),
        }
    }
    let names_user = options.user.is_some() || options.user_id.is_some() || options.device_id.is_some();
    if options.jsonl && (names_user || options.explain) {
        return Err(
            "--jsonl reads users from standard input: it goes with neither a user nor --explain".to_owned(),
        );
    }
    if !options.jsonl && options.flags.is_none() {
        return Err("evaluate needs --flags FILE, or --jsonl with flags in every request".to_owned());
    }
    Ok(Command::Evaluate(options))
}

fn engine(name: &str) -> Parsed<Engine> {
    let known = Engine::ALL.into_iter().find(|engine| engine.as_str() == name);
    known.ok_or_else(|| format!("--engine is amplitude or featbit, not {name}"))
}

fn probe(parser: &mut Parser) -> Parsed<Command> {
    let mut target = None;
    let mut wait = Duration::ZERO;
    while let Some(item) = next(parser)? {
        match &item {
            Item::Option(name) if name == "--help" || name == "-h" => return Ok(Command::Help(Topic::Probe)),
            Item::Option(name) if name == "--wait" => {
                wait = parse_duration(&value(parser, name)?).map_err(|fault| format!("--wait: {fault}"))?;
            }
            Item::Value(text) if target.is_none() => target = Some(text.clone()),
            _ => return Err(unexpected(&item, "probe", &["--wait", "--help"])),
        }
    }
    Ok(Command::Probe {
        target: target.unwrap_or_else(|| "ready".to_owned()),
        wait,
    })
}

fn nap(parser: &mut Parser) -> Parsed<Command> {
    let mut duration = None;
    while let Some(item) = next(parser)? {
        match &item {
            Item::Option(name) if name == "--help" || name == "-h" => return Ok(Command::Help(Topic::Sleep)),
            Item::Value(text) if duration.is_none() => duration = Some(sleep::duration(text)?),
            _ => return Err(unexpected(&item, "sleep", &["--help"])),
        }
    }
    let duration = duration.ok_or("sleep needs a number of seconds: flagside sleep 5")?;
    Ok(Command::Sleep(duration))
}

/// A command without arguments.
fn bare(name: &str, topic: Topic, command: Command, parser: &mut Parser) -> Parsed<Command> {
    match next(parser)? {
        None => Ok(command),
        Some(Item::Option(name)) if name == "--help" || name == "-h" => Ok(Command::Help(topic)),
        Some(item) => Err(unexpected(&item, name, &["--help"])),
    }
}

fn help(parser: &mut Parser) -> Parsed<Command> {
    let mut topic = None;
    let mut markdown = false;
    while let Some(item) = next(parser)? {
        match item {
            Item::Option(name) if name == "--markdown" => markdown = true,
            Item::Value(name) if topic.is_none() => topic = Some(name),
            Item::Option(name) if name == "--help" || name == "-h" => {}
            item => return Err(unexpected(&item, "help", &["--markdown"])),
        }
    }
    match topic.as_deref() {
        Some("settings") => Ok(Command::Settings { markdown }),
        Some("metrics") => Ok(Command::Metrics { markdown }),
        _ if markdown => Err("--markdown goes with help settings and help metrics".to_owned()),
        None => Ok(Command::Help(Topic::Flagside)),
        Some(name) => match COMMANDS.iter().find(|(command, _)| *command == name) {
            Some((_, Topic::Help)) => Ok(Command::Help(Topic::Flagside)),
            Some((_, topic)) => Ok(Command::Help(*topic)),
            None => {
                let topics = COMMANDS
                    .iter()
                    .map(|(command, _)| *command)
                    .chain(["settings", "metrics"]);
                Err(ask(
                    &format!("no help about {name}"),
                    nearest(name, topics),
                    "flagside help",
                ))
            }
        },
    }
}

#[cfg(test)]
mod tests;
