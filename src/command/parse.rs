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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn without_a_command_the_proxy_runs() {
        for line in [
            "",
            "run",
            "--region eu --config a --config=b --set x=1",
            "run --region=eu -c a -cb --set x=1",
        ] {
            let Ok(Command::Run {
                arguments,
                dry_run: false,
            }) = run(line)
            else {
                panic!("{line}")
            };
            if line.contains("region") {
                assert_eq!(
                    arguments.files,
                    [PathBuf::from("a"), PathBuf::from("b")],
                    "{line}"
                );
                let wanted = [("--region", "eu".to_owned()), ("--set", "x=1".to_owned())];
                assert_eq!(arguments.options, wanted, "{line}");
            }
        }
        assert!(matches!(run("--dry-run"), Ok(Command::Run { dry_run: true, .. })));
    }

    #[test]
    fn commands_have_their_options() {
        assert!(matches!(
            run("check --online --mode shared"),
            Ok(Command::Check { online: true, .. })
        ));
        assert!(matches!(
            run("print-config --origin"),
            Ok(Command::PrintConfig { origin: true, .. })
        ));
        for (line, chosen, kept) in [
            ("demo", Engine::Amplitude, false),
            ("demo --keep", Engine::Amplitude, true),
            ("demo --engine featbit", Engine::FeatBit, false),
            ("demo --keep --engine=amplitude", Engine::Amplitude, true),
        ] {
            let parsed = run(line);
            assert!(
                matches!(parsed, Ok(Command::Demo { engine, keep }) if engine == chosen && keep == kept),
                "{line}: {parsed:?}"
            );
        }
        assert!(matches!(run("version"), Ok(Command::Version)));
        assert!(matches!(run("schema"), Ok(Command::Schema)));
        assert!(matches!(run("sleep 5"), Ok(Command::Sleep(Duration { .. }))));
        assert!(matches!(run("--version"), Ok(Command::Version)));
        let Ok(Command::Probe { target, wait }) = run("probe live --wait 2s") else {
            panic!()
        };
        assert_eq!((target.as_str(), wait.as_secs()), ("live", 2));
        let Ok(Command::Probe { target, wait }) = run("probe") else {
            panic!()
        };
        assert_eq!((target.as_str(), wait), ("ready", Duration::ZERO));
    }

    #[test]
    fn evaluate_takes_a_user_or_lines() {
        let line = "evaluate --engine featbit --flags f.json --user {} --user-id u --device-id d --flag-keys a,b --flag-key c --v1 --explain";
        let Ok(Command::Evaluate(options)) = run(line) else {
            panic!()
        };
        let wanted = Options {
            engine: Some(Engine::FeatBit),
            flags: Some(PathBuf::from("f.json")),
            user: Some("{}".to_owned()),
            user_id: Some("u".to_owned()),
            device_id: Some("d".to_owned()),
            flag_keys: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
            v1: true,
            explain: true,
            jsonl: false,
        };
        assert_eq!(options, wanted);
        assert!(matches!(
            run("evaluate --jsonl"),
            Ok(Command::Evaluate(Options { jsonl: true, .. }))
        ));
    }

    #[test]
    fn help_is_there_for_everything() {
        for (line, wanted) in [
            ("--help", Topic::Flagside),
            ("-h", Topic::Flagside),
            ("help", Topic::Flagside),
            ("help help", Topic::Flagside),
            ("help run", Topic::Run),
            ("run --help", Topic::Run),
            ("--region us --help", Topic::Run),
            ("check -h", Topic::Check),
            ("print-config --help", Topic::PrintConfig),
            ("demo --help", Topic::Demo),
            ("evaluate --help", Topic::Evaluate),
            ("probe --help", Topic::Probe),
            ("version --help", Topic::Version),
            ("schema -h", Topic::Schema),
            ("sleep --help", Topic::Sleep),
        ] {
            let Ok(Command::Help(topic)) = run(line) else {
                panic!("{line}")
            };
            assert_eq!(topic, wanted, "{line}");
        }
        assert!(matches!(
            run("help settings"),
            Ok(Command::Settings { markdown: false })
        ));
        assert!(matches!(
            run("help metrics"),
            Ok(Command::Metrics { markdown: false })
        ));
        assert!(matches!(
            run("help settings --markdown"),
            Ok(Command::Settings { markdown: true })
        ));
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "one table")]
    fn what_is_wrong_is_said_in_one_sentence() {
        for (line, wanted) in [
            ("chek", "unknown command chek; did you mean check?"),
            (
                "xyzzy",
                "unknown command xyzzy; flagside help lists what there is",
            ),
            ("snapshot", "the command snapshot is not in this version"),
            ("--regoin us", "unknown option --regoin; did you mean --region?"),
            (
                "--zzz",
                "unknown option --zzz; flagside help run lists what there is",
            ),
            ("-x", "unknown option -x; flagside help run lists what there is"),
            ("--data-dir /x", "the option --data-dir is not in this version"),
            (
                "--featbit-upsteam x",
                "unknown option --featbit-upsteam; did you mean --featbit-upstream?",
            ),
            ("--region", "--region needs a value"),
            ("--dry-run=yes", "--dry-run takes no value"),
            (
                "--region us check",
                "the command check must come first: flagside check …",
            ),
            (
                "run flags.json",
                "unexpected argument flags.json; flagside help run lists what there is",
            ),
            (
                "check --dry-run",
                "unknown option --dry-run; flagside help check lists what there is",
            ),
            ("check --onlin", "unknown option --onlin; did you mean --online?"),
            ("demo --kepe", "unknown option --kepe; did you mean --keep?"),
            (
                "evaluate",
                "evaluate needs --flags FILE, or --jsonl with flags in every request",
            ),
            (
                "evaluate --jsonl --user-id x",
                "--jsonl reads users from standard input: it goes with neither a user nor --explain",
            ),
            (
                "evaluate --engine launchdarkly",
                "--engine is amplitude or featbit, not launchdarkly",
            ),
            (
                "probe --wait 5",
                "--wait: a duration without unit (got 5); expected a number with its unit, such as 250ms, 10s, 5m or 1h; did you mean 5s?",
            ),
            (
                "probe ready live",
                "unexpected argument live; flagside help probe lists what there is",
            ),
            ("sleep", "sleep needs a number of seconds: flagside sleep 5"),
            ("help chekc", "no help about chekc; did you mean check?"),
            (
                "help --markdown",
                "--markdown goes with help settings and help metrics",
            ),
            (
                "version --short",
                "unknown option --short; flagside help version lists what there is",
            ),
        ] {
            assert_eq!(
                run(line).map(|command| format!("{command:?}")),
                Err(wanted.to_owned()),
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in "((run|check|probe|help|evaluate|--region|--set|-c|--wait|=|[a-z-]{0,9}) ?){0,8}|\\PC{0,40}") {
            let _ = run(&line);
        }
    }
}
