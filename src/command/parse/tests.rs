//! Command lines, and what they become.

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
    assert!(matches!(run("sleep 5"), Ok(Command::Sleep(time)) if time.as_secs() == 5));
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
