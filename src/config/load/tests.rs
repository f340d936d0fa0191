use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::config::{Backend, Bases, Evaluation, LogFormat, Mode, print};

/// Sources with the given variables and arguments, and nothing else.
fn sources(files: &[&Path], variables: &[(&str, &str)], options: &[(&'static str, &str)]) -> Sources {
    let options = options
        .iter()
        .map(|(option, value)| (*option, (*value).to_owned()))
        .collect();
    Sources {
        arguments: Arguments {
            files: files.iter().map(|f| f.to_path_buf()).collect(),
            options,
        },
        variables: variables
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)))
            .collect(),
        default_file: PathBuf::from("/nonexistent/flagside.yaml"),
        machine: Machine {
            cpus: NonZeroUsize::new(8).unwrap(),
            memory_limit: None,
            terminal: false,
        },
    }
}

fn loaded(variables: &[(&str, &str)], options: &[(&'static str, &str)]) -> Loaded {
    load(&sources(&[], variables, options)).unwrap()
}

fn messages(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

/// The faults of variables and options.
fn refused(variables: &[(&str, &str)], options: &[(&'static str, &str)]) -> Vec<String> {
    messages(&load(&sources(&[], variables, options)).unwrap_err().faults)
}

/// What is doubtful about a text that is valid.
fn warned(text: &str) -> Vec<String> {
    messages(&load_text(text).unwrap().warnings)
}

/// Host of each base, without the ends that all have in common.
fn hosts(config: &Config) -> Vec<String> {
    let urls = config.environments[0]
        .urls
        .as_ref()
        .and_then(Bases::amplitude)
        .unwrap();
    [
        &urls.eval,
        &urls.flags,
        &urls.stream,
        &urls.cohort,
        &urls.management,
        &urls.analytics,
    ]
    .map(ToString::to_string)
    .to_vec()
}

/// Cases of `faults.txt`: `=== name`, the text, `--->`, the messages.
#[test]
fn every_fault_is_named_with_place_and_remedy() {
    let cases = include_str!("faults.txt");
    let (mut actual, mut count) = (String::new(), 0);
    for case in cases.split("=== ").skip(1) {
        let (head, _) = case.split_once("--->\n").unwrap();
        let (_, text) = head.split_once('\n').unwrap();
        let faults = load_text(text)
            .map(|loaded| panic!("accepted: {text} {loaded:?}"))
            .unwrap_err()
            .faults;
        let _ = writeln!(actual, "=== {head}--->\n{}", messages(&faults).join("\n"));
        count += 1;
    }
    assert_eq!(actual, cases);
    assert!(count >= 95, "{count}");
}

#[test]
fn without_any_configuration_it_is_a_learning_sidecar() {
    let config = loaded(&[], &[]).config;
    assert_eq!(config.mode, Mode::Sidecar);
    assert_eq!(config.workers.get(), 2);
    assert_eq!(
        format!("{:?}", config.listen.data),
        "[127.0.0.1:3546, [::1]:3546]"
    );
    assert_eq!(format!("{:?}", config.listen.admin), "[127.0.0.1:3547]");
    assert_eq!(config.cache.max_bytes, 64 << 20);
    assert_eq!(config.answer_deadline.as_millis(), 400);
    assert_eq!(config.log.format, LogFormat::Json);
    let [environment] = &config.environments[..] else {
        panic!("{config:?}")
    };
    assert_eq!(
        (environment.name.as_str(), environment.learn_keys),
        ("amplitude", true)
    );
    assert_eq!(environment.evaluation, Evaluation::Remote);
    assert!(environment.keys.is_empty() && environment.bootstrap_file.is_none());
    assert_eq!(
        hosts(&config),
        [
            "https://api.lab.amplitude.com",
            "https://flag.lab.amplitude.com",
            "https://stream.lab.amplitude.com",
            "https://cohort-v2.lab.amplitude.com",
            "https://experiment.amplitude.com",
            "https://api2.amplitude.com"
        ]
    );
}

#[test]
fn the_mode_decides_defaults() {
    let config = loaded(&[("FLAGSIDE_MODE", "shared")], &[]).config;
    assert_eq!((config.workers.get(), config.cache.max_bytes), (8, 256 << 20));
    assert_eq!(format!("{:?}", config.listen.data), "[0.0.0.0:3546]");
    assert_eq!(config.drain.delay.as_secs(), 5);
    let mut on_terminal = sources(&[], &[], &[]);
    on_terminal.machine.terminal = true;
    assert_eq!(load(&on_terminal).unwrap().config.log.format, LogFormat::Text);
}

#[test]
fn the_stronger_source_wins() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.yaml"), dir.path().join("b.json"));
    fs::write(
        &first,
        "cache: {fresh_for: 1s, stale_error: 1h}\nlisten: {data: [127.0.0.1:1, 127.0.0.1:2]}\n",
    )
    .unwrap();
    fs::write(
        &second,
        r#"{"cache": {"fresh_for": "2s"}, "listen": {"data": ["127.0.0.1:3"], "admin": null}}"#,
    )
    .unwrap();
    let both = [first.as_path(), second.as_path()];
    let variable = [("FLAGSIDE_CACHE__FRESH_FOR", "3s")];
    let set = [("--set", "cache.fresh_for=4s")];
    let last_set = [("--set", "cache.fresh_for=4s"), ("--set", "cache.fresh_for=5s")];
    for (files, variables, options, wanted) in [
        (&both[..0], &variable[..0], &set[..0], 60),
        (&both[..1], &variable[..0], &set[..0], 1),
        (&both[..], &variable[..0], &set[..0], 2),
        (&both[..], &variable[..], &set[..0], 3),
        (&both[..], &variable[..], &set[..], 4),
        (&both[..], &variable[..], &last_set[..], 5),
        (&both[..0], &variable[..], &set[..0], 3),
    ] {
        let config = load(&sources(files, variables, options)).unwrap().config;
        assert_eq!(
            config.cache.fresh_for.as_secs(),
            wanted,
            "{files:?} {variables:?} {options:?}"
        );
    }
    let config = load(&sources(&both, &[], &[])).unwrap().config;
    assert_eq!(config.cache.stale_error.as_secs(), 3600, "maps merge");
    assert_eq!(
        format!("{:?}", config.listen.data),
        "[127.0.0.1:3]",
        "lists replace"
    );
    assert_eq!(config.files, both);
}

#[test]
fn files_come_from_options_else_the_variable_else_the_default_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, level: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("log: {{level: {level}}}")).unwrap();
        path
    };
    let (option, variable, default) = (file("o", "error"), file("v", "warn"), file("d", "debug"));
    let named = [("FLAGSIDE_CONFIG", variable.to_str().unwrap())];
    for (files, variables, wanted) in [
        (&[option.as_path()][..], &named[..], &option),
        (&[], &named[..], &variable),
        (&[], &[], &default),
    ] {
        let sources = Sources {
            default_file: default.clone(),
            ..sources(files, variables, &[])
        };
        assert_eq!(load(&sources).unwrap().config.files, std::slice::from_ref(wanted));
    }
    let missing = load(&sources(&[Path::new("/nonexistent/x.yaml")], &[], &[]))
        .unwrap_err()
        .faults;
    let wanted = "/nonexistent/x.yaml: cannot be read: No such file or directory (os error 2)";
    assert_eq!(messages(&missing), [wanted]);
}

#[test]
fn options_stand_for_settings() {
    let config = loaded(
        &[],
        &[
            ("--mode", "shared"),
            ("--listen", "10.0.0.1:1"),
            ("--listen", ":2"),
            ("--admin-listen", "3"),
            ("--region", "EU"),
            ("--log-level", "debug"),
            ("--log-format", "text"),
        ],
    )
    .config;
    assert_eq!(format!("{:?}", config.listen.data), "[10.0.0.1:1, 0.0.0.0:2]");
    assert_eq!(format!("{:?}", config.listen.admin), "[127.0.0.1:3]");
    assert_eq!(hosts(&config)[1], "https://flag.lab.eu.amplitude.com");
    assert_eq!(hosts(&config)[5], "https://api.eu.amplitude.com");
    assert_eq!(
        (config.log.level, config.log.format),
        (crate::config::Level::Debug, LogFormat::Text)
    );
    let free = loaded(&[], &[("--listen", "0"), ("--admin-listen", "0")])
        .config
        .listen;
    assert_eq!(
        format!("{:?} {:?}", free.data, free.admin),
        "[127.0.0.1:0] [127.0.0.1:0]"
    );
    let both = loaded(&[], &[("--listen", "127.0.0.1:0,[::1]:0")]).config.listen;
    assert_eq!(format!("{:?}", both.data), "[127.0.0.1:0, [::1]:0]");
}

#[test]
fn upstream_and_region_win_over_weaker_urls() {
    let url = [("FLAGSIDE_ENVIRONMENTS__0__URLS__EVAL", "http://weak:1")];
    let config = loaded(&url, &[]).config;
    assert_eq!(
        hosts(&config)[..2],
        ["http://weak:1", "https://flag.lab.amplitude.com"]
    );
    let config = loaded(&url, &[("--region", "eu")]).config;
    assert_eq!(hosts(&config)[0], "https://api.lab.eu.amplitude.com");
    let strong = loaded(&url, &[("--upstream", "http://strong:2/x/v1/")]);
    assert_eq!(hosts(&strong.config), ["http://strong:2/x"; 6]);
    let warnings = messages(&strong.warnings);
    assert_eq!(
        warnings,
        ["--upstream: /v1 at the end of the URL is dropped: flagside adds the version itself"]
    );
    let one = loaded(
        &[],
        &[
            ("--upstream", "http://a"),
            ("--set", "environments[0].urls.flags=http://b"),
        ],
    )
    .config;
    assert_eq!(hosts(&one)[..3], ["http://a", "http://b", "http://a"]);
}

#[test]
fn a_flags_file_alone_means_no_upstream() {
    let flags = ("--flags", "/dev/null");
    let keys = ("FLAGSIDE_DEPLOYMENT_KEYS", "k1,k2");
    for (variables, options, has_urls) in [
        (&[][..], &[flags][..], false),
        (&[keys][..], &[flags][..], false),
        (&[("FLAGSIDE_CACHE__FRESH_FOR", "1s")][..], &[flags][..], false),
        (&[][..], &[flags, ("--region", "us")][..], true),
        (&[][..], &[flags, ("--upstream", "http://x")][..], true),
        (
            &[][..],
            &[flags, ("--set", "environments[0].region=us")][..],
            true,
        ),
        (&[("FLAGSIDE_REGION", "eu")][..], &[flags][..], true),
        (
            &[("FLAGSIDE_ENVIRONMENTS__0__URLS__EVAL", "http://x")][..],
            &[flags][..],
            true,
        ),
    ] {
        let config = loaded(variables, options).config;
        assert_eq!(
            config.environments[0].urls.is_some(),
            has_urls,
            "{variables:?} {options:?}"
        );
        assert_eq!(
            config.environments[0].bootstrap_file.as_deref(),
            Some(Path::new("/dev/null"))
        );
    }
}

#[test]
fn keys_come_from_lists_files_and_variables() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    fs::write(&file, "# ours\nserver-a\nclient-b, client-c\n\n").unwrap();
    let path = file.to_str().unwrap();
    for (name, value, wanted) in [
        ("FLAGSIDE_DEPLOYMENT_KEYS", "server-a", &["server-a"][..]),
        ("FLAGSIDE_DEPLOYMENT_KEYS", r#"["x", "y"]"#, &["x", "y"]),
        (
            "FLAGSIDE_DEPLOYMENT_KEYS_FILE",
            path,
            &["server-a", "client-b", "client-c"],
        ),
        (
            "FLAGSIDE_ENVIRONMENTS__0__DEPLOYMENT_KEYS_FILE",
            path,
            &["server-a", "client-b", "client-c"],
        ),
        ("FLAGSIDE_ENVIRONMENTS", r#"[{"deployment_keys": ["x"]}]"#, &["x"]),
    ] {
        let config = loaded(&[(name, value)], &[]).config;
        let keys: Vec<_> = config.environments[0]
            .keys
            .iter()
            .map(|k| k.expose().to_owned())
            .collect();
        assert_eq!(keys, wanted, "{name}={value}");
        assert!(config.environments[0].learn_keys, "the only environment learns");
    }
    let config_file = dir.path().join("f.yaml");
    fs::write(
        &config_file,
        format!("environments: [{{deployment_keys_file: {path}}}]"),
    )
    .unwrap();
    let stronger = [("FLAGSIDE_DEPLOYMENT_KEYS", "k")];
    let config = load(&sources(&[&config_file], &stronger, &[])).unwrap().config;
    assert_eq!(
        config.environments[0].keys.len(),
        1,
        "a stronger list replaces a weaker file"
    );
}

#[test]
fn the_default_of_learning_follows_the_environments() {
    let text = "environments:\n- {name: a, deployment_keys: [k1]}\n- {name: b}\n- {name: c, deployment_keys: [k2], learn_keys: false}\n";
    let config = load_text(text).unwrap().config;
    let learn: Vec<bool> = config.environments.iter().map(|e| e.learn_keys).collect();
    assert_eq!(learn, [false, true, false]);
}

#[test]
fn faults_of_variables_and_options_name_them() {
    for (variables, options, wanted) in [
        (
            &[("FLAGSIDE_WORKERS", "x")][..],
            &[][..],
            "FLAGSIDE_WORKERS workers: not a whole number (got x); expected a whole number from 1 to 256",
        ),
        (
            &[],
            &[("--log-level", "warning")],
            "--log-level log.level: unknown word (got warning); expected error, warn, info, debug or trace; did you mean warn?",
        ),
        (
            &[],
            &[("--set", "upstream.retires=2")],
            "--set upstream.retires: unknown setting; did you mean upstream.retries?",
        ),
        (
            &[],
            &[("--set", "log.level")],
            "--set: no = in it (got log.level); expected PATH=VALUE",
        ),
        (
            &[],
            &[("--set", "a..b=1")],
            "--set: not a path (got a..b); expected a path such as log.level",
        ),
        (
            &[],
            &[("--set", "log=info")],
            "--set log: a section; expected one of its settings: level or format",
        ),
        (
            &[],
            &[("--set", "environments[1].name=x")],
            "--set environments[1]: an item of a list that has fewer items before it",
        ),
        (
            &[(
                "FLAGSIDE_ENVIRONMENTS",
                "[{\"name\": \"a\"}, {\"name\": \"b\", \"deployment_keys\": [\"k\"]}]",
            )],
            &[("--region", "eu")],
            "--region: means a single Amplitude environment, and 2 are configured",
        ),
        (
            &[("FLAGSIDE_DEPLOYMENT_KEYS", "[\"server-0123456789ab\"")],
            &[],
            "FLAGSIDE_DEPLOYMENT_KEYS: not a JSON list; expected a list of deployment keys",
        ),
        (
            &[("FLAGSIDE_DEPLOYMENT_KEYS_FILE", "/nonexistent/keys")],
            &[],
            "FLAGSIDE_DEPLOYMENT_KEYS_FILE environments[0].deployment_keys_file: cannot be read: No such file or \
             directory (os error 2) (got /nonexistent/keys)",
        ),
    ] {
        assert_eq!(refused(variables, options), [wanted], "{variables:?} {options:?}");
    }
}

#[test]
fn doubtful_settings_are_warnings() {
    for (text, wanted) in [
        (
            "environments:\n- region: eu\n  urls: {eval: https://api.lab.amplitude.com}\n",
            "config.yaml:3:16 environments[0].urls.eval: a host of the US region beside region: eu (got api.lab.amplitude.com)",
        ),
        (
            "environments:\n- region: us\n  urls: {flags: https://flag.lab.eu.amplitude.com}\n",
            "config.yaml:3:17 environments[0].urls.flags: a host of the EU region beside region: us (got flag.lab.eu.amplitude.com)",
        ),
        (
            "listen: {data: 0.0.0.0:1}\n",
            "config.yaml:1:16 listen.data: a sidecar that other machines can reach (got 0.0.0.0:1); expected a loopback address, or mode: shared",
        ),
        (
            "drain: {delay: 20s}\n",
            "config.yaml:1:16 drain.delay: drain.delay and drain.timeout together exceed Kubernetes' default grace period (got 45s); expected at most 30s, or a larger terminationGracePeriodSeconds",
        ),
        (
            "upstream: {total_deadline: 3s, request_timeout: 5s}\n",
            "config.yaml:1:49 upstream.request_timeout: longer than upstream.total_deadline, so without effect (got 5s); expected at most 3s",
        ),
        (
            "cache: {stale_error: 8d}\n",
            "config.yaml:1:22 cache.stale_error: longer than cache.max_stale (got 8d); expected at most 7d",
        ),
        (
            "environments: [{learn_keys: false}]\n",
            "config.yaml:1:29 environments[0].learn_keys: no key may use this environment; expected deployment keys, or learn_keys: true",
        ),
        (
            "environments: [{deployment_keys: [k, k]}]\n",
            "config.yaml:1:34 environments[0].deployment_keys: the same deployment key twice",
        ),
        (
            "environments: [{name: a}, {name: b}]\n",
            "config.yaml:1:27 environments[1].learn_keys: more than one environment learns keys, so an unknown key is refused: nobody knows where it belongs; expected learn_keys: true in one environment at most",
        ),
        (
            "environments: [{urls: {eval: http://x/p/}}]\n",
            "config.yaml:1:30 environments[0].urls.eval: / at the end of the URL is dropped",
        ),
    ] {
        assert_eq!(warned(text), [wanted], "{text}");
    }
    let set = loaded(&[], &[("--set", "environments[0].deployment_keys=k")]).warnings;
    let wanted = "--set environments[0].deployment_keys: looks like a secret, which every process on this machine can read here; expected secrets in a file or a variable";
    assert_eq!(messages(&set), [wanted]);
    let dir = tempfile::Builder::new()
        .prefix("0123456789abcdef0123456789abcdef")
        .tempdir()
        .unwrap();
    let file = dir.path().join("flags.json");
    fs::write(&file, "[]").unwrap();
    let path = format!("environments[0].bootstrap_file={}", file.display());
    assert!(
        loaded(&[], &[("--set", &path)]).warnings.is_empty(),
        "a hash in a path is no secret"
    );
}

#[test]
fn at_most_64_environments() {
    let text = |count: usize| {
        let items: Vec<String> = (0..count)
            .map(|n| format!("{{name: e{n}, deployment_keys: [k{n}]}}"))
            .collect();
        format!("environments: [{}]", items.join(", "))
    };
    assert_eq!(load_text(&text(64)).unwrap().config.environments.len(), 64);
    let faults = load_text(&text(65)).unwrap_err().faults;
    let wanted = "config.yaml:1:15 environments: too many environments (got 65); expected at most 64";
    assert_eq!(messages(&faults), [wanted]);
}

#[test]
fn the_cache_stays_below_the_memory_limit() {
    let mut sources = sources(&[], &[("FLAGSIDE_CACHE__MAX_BYTES", "256MiB")], &[]);
    sources.machine.memory_limit = Some(128 << 20);
    let faults = load(&sources).unwrap_err().faults;
    let wanted = "FLAGSIDE_CACHE__MAX_BYTES cache.max_bytes: more than this process may use (got 256MiB); expected well below the memory limit of 128MiB";
    assert_eq!(messages(&faults), [wanted]);
    sources.variables.clear();
    assert_eq!(load(&sources).unwrap().config.cache.max_bytes, 32 << 20);
}

#[cfg(unix)]
#[test]
fn files_with_keys_are_for_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let file = dir.path().join("f.yaml");
    fs::write(&keys, "k1").unwrap();
    fs::write(&file, "environments: [{deployment_keys: [k1]}]").unwrap();
    let by_variable = sources(
        &[],
        &[("FLAGSIDE_DEPLOYMENT_KEYS_FILE", keys.to_str().unwrap())],
        &[],
    );
    let by_file = sources(&[&file], &[], &[]);
    for (mode, count) in [(0o644, 1), (0o640, 0), (0o600, 0)] {
        fs::set_permissions(&keys, fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        for sources in [&by_variable, &by_file] {
            let warnings = messages(&load(sources).unwrap().warnings);
            assert_eq!(warnings.len(), count, "{mode:o} {warnings:?}");
            assert!(
                warnings
                    .iter()
                    .all(|w| w.contains("every user of this machine can read")),
                "{warnings:?}"
            );
        }
    }
}

#[test]
fn variables_expand_in_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.yaml");
    fs::write(&file, "log: {level: \"${LEVEL:-debug}\"}\nworkers: ${WORKERS}\n").unwrap();
    let config = load(&sources(&[&file], &[("WORKERS", "3")], &[])).unwrap().config;
    assert_eq!(
        (config.workers.get(), config.log.level),
        (3, crate::config::Level::Debug)
    );
    let faults = load(&sources(&[], &[("FLAGSIDE_LOG__LEVEL", "${LEVEL}")], &[]))
        .unwrap_err()
        .faults;
    assert!(
        messages(&faults)[0].contains("unknown word (got ${LEVEL})"),
        "{faults:?}"
    );
}

mod featbit;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_loaded_or_refused(text in "(mode|listen|environments|urls|cache|- |  |\n|: |\\[|\\]|\\{|\\}|,|1s|\\$\\{A|none|\"|&a |\\*a |<<){0,40}|\\PC{0,60}") {
        if let Ok(loaded) = load_text(&text) {
            prop_assert!(load_text(&print(&loaded, true)).is_ok());
        }
    }

    #[test]
    fn any_option_is_loaded_or_refused(value in "[a-z\\[\\]0-9.=:/@]{0,30}|\\PC{0,30}") {
        for option in ["--mode", "--listen", "--admin-listen", "--region", "--upstream", "--featbit-upstream", "--flags", "--log-level", "--set"] {
            let _ = load(&sources(&[], &[], &[(option, &value)]));
        }
    }
}
