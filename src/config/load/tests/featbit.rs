//! FeatBit environments, of files, variables and options, alone and beside Amplitude's.

use super::*;

/// Of one environment, and of another.
const SECRET: &str = "gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w";
const OTHER: &str = "v3faJy3RCUO8d-EJiVdN6waRfGjfNan02Ms9c0LiTD6w";

const MESSAGE: &str = r#"{"messageType":"data-sync","data":{"eventType":"full","featureFlags":[]}}"#;

/// One line for each environment: name, what it may learn and evaluate, where it asks, from which keys and flags on.
fn told(config: &Config) -> Vec<String> {
    let line = |environment: &crate::config::Environment| {
        let urls = match &environment.urls {
            None => "none".to_owned(),
            Some(Bases::Amplitude(urls)) => format!("{}, {}", urls.eval, urls.analytics),
            Some(Bases::Featbit(urls)) => {
                assert_eq!(environment.backend, Backend::Featbit);
                format!("{}, {}, {}", urls.evaluate, urls.stream, urls.event)
            }
        };
        let learns = if environment.learn_keys { "learns" } else { "fixed" };
        let flags = if environment.bootstrap_file.is_some() {
            ", flags"
        } else {
            ""
        };
        let (name, backend, keys) = (&environment.name, environment.backend, environment.keys.len());
        format!(
            "{name} ({}) {learns} {urls}; {keys} keys{flags}",
            backend.as_str()
        )
    };
    config.environments.iter().map(line).collect()
}

const ALONE: &str = "featbit (featbit) learns http://fb:5100, http://fb:5100, http://fb:5100; 0 keys";

#[test]
fn the_option_makes_an_environment() {
    let upstream = ("--featbit-upstream", "http://fb:5100/");
    let amplitude = |urls: &str| format!("amplitude (amplitude) learns {urls}; 0 keys");
    let us = amplitude("https://api.lab.amplitude.com, https://api2.amplitude.com");
    let eu = amplitude("https://api.lab.eu.amplitude.com, https://api.eu.amplitude.com");
    let keyed = us.replace("0 keys", "1 keys");
    for (variables, options, wanted) in [
        (&[][..], &[upstream][..], &[ALONE][..]),
        (
            &[],
            &[
                ("--region", "eu"),
                ("--set", "environments[1].evaluation=local"),
                upstream,
            ],
            &[&eu, ALONE],
        ),
        (
            &[],
            &[upstream, ("--upstream", "http://a")],
            &[&amplitude("http://a, http://a"), ALONE],
        ),
        (&[("FLAGSIDE_REGION", "us")], &[upstream], &[&us, ALONE]),
        (
            &[("FLAGSIDE_DEPLOYMENT_KEYS", "k")],
            &[upstream],
            &[&keyed, ALONE],
        ),
        (
            &[("FLAGSIDE_ENVIRONMENTS__0__EVALUATION", "local")],
            &[upstream],
            &[ALONE],
        ),
        (
            &[("FLAGSIDE_ENVIRONMENTS__0__REGION", "us")],
            &[upstream],
            &[&us, ALONE],
        ),
        (
            &[("FLAGSIDE_ENVIRONMENTS__0__URLS__FEATBIT", "http://weak")],
            &[upstream],
            &[ALONE],
        ),
        (
            &[("FLAGSIDE_ENVIRONMENTS__0__URLS__FEATBIT", "http://fb:5100")],
            &[("--region", "us")],
            &[ALONE, &us],
        ),
        (
            &[],
            &[
                upstream,
                ("--set", "environments[0].urls.featbit_event=http://events/"),
            ],
            &["featbit (featbit) learns http://fb:5100, http://fb:5100, http://events; 0 keys"],
        ),
        (
            &[],
            &[("--featbit-upstream", "https://x/v1/")],
            &["featbit (featbit) learns https://x/v1, https://x/v1, https://x/v1; 0 keys"],
        ),
    ] {
        assert_eq!(
            told(&loaded(variables, options).config),
            wanted,
            "{variables:?} {options:?}"
        );
    }
}

#[test]
fn the_option_wins_over_the_only_environment_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.yaml");
    let options = [("--featbit-upstream", "http://fb:5100")];
    let text = "environments:\n- {name: a, region: us}\n- name: b\n  urls: {featbit: http://x, featbit_stream: ws://y}\n";
    fs::write(&file, text).unwrap();
    let config = load(&sources(&[&file], &[], &options)).unwrap().config;
    let wanted = "b (featbit) learns http://fb:5100, http://fb:5100, http://fb:5100; 0 keys";
    assert_eq!(told(&config)[1], wanted);

    let wrong = load(&sources(&[&file], &[], &[("--featbit-upstream", "ws://fb:5100")]));
    assert_eq!(
        messages(&wrong.unwrap_err().faults),
        [
            "--featbit-upstream: not a scheme flagside speaks (got ws://fb:5100); expected http:// or https://, a host, \
          and if need be a port and a path prefix; did you mean http://fb:5100?"
        ]
    );

    let text = "environments:\n- {name: a, urls: {featbit: http://x}}\n- {name: b, urls: {featbit: http://y}, learn_keys: false, env_secret: SECRET}\n";
    fs::write(&file, text.replace("SECRET", SECRET)).unwrap();
    let several = load(&sources(
        &[&file],
        &[("FLAGSIDE_FEATBIT_SECRET", OTHER)],
        &options,
    ));
    let what = "means a single FeatBit environment, and 2 are configured";
    assert_eq!(
        messages(&several.unwrap_err().faults),
        [
            format!("FLAGSIDE_FEATBIT_SECRET: {what}"),
            format!("--featbit-upstream: {what}")
        ]
    );
}

#[test]
fn a_flags_file_goes_to_the_environment_of_its_form() {
    let dir = tempfile::tempdir().unwrap();
    let (list, message) = (dir.path().join("list.json"), dir.path().join("message.json"));
    fs::write(&list, "[]").unwrap();
    fs::write(&message, MESSAGE).unwrap();
    let list = ("--flags", list.to_str().unwrap());
    let message = ("--flags", message.to_str().unwrap());
    let unknown = ("--flags", "/dev/null");
    let upstream = ("--featbit-upstream", "http://fb:5100");
    let featbit = "featbit (featbit) learns none; 0 keys, flags";
    let amplitude = "amplitude (amplitude) learns none; 0 keys, flags";
    let region =
        "amplitude (amplitude) learns https://api.lab.amplitude.com, https://api2.amplitude.com; 0 keys";
    let region_flags = format!("{region}, flags");
    let with_flags = format!("{ALONE}, flags");
    for (options, wanted) in [
        (&[message][..], &[featbit][..]),
        (&[list], &[amplitude]),
        (&[unknown], &[amplitude]),
        (&[message, list], &[featbit, amplitude]),
        (&[message, upstream], &[&with_flags]),
        (&[unknown, upstream], &[&with_flags]),
        (&[list, upstream], &[ALONE, amplitude]),
        (&[message, ("--region", "us")], &[region, featbit]),
        (&[list, ("--region", "us"), upstream], &[&region_flags, ALONE]),
        (
            &[unknown, ("--set", "environments[0].backend=featbit")],
            &[featbit],
        ),
    ] {
        assert_eq!(told(&loaded(&[], options).config), wanted, "{options:?}");
    }
}

#[test]
fn a_flags_file_must_be_of_the_environments_backend() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("flags.json");
    let path = file.to_str().unwrap();
    for (flags, environment, wanted) in [
        (
            MESSAGE,
            "region: us",
            "FeatBit's flags (a data-sync message) in an Amplitude environment (got FILE); expected flags as \
             /sdk/v2/flags answers them, or backend: featbit",
        ),
        (
            "[]",
            "backend: featbit",
            "Amplitude's flags (a list, as /sdk/v2/flags answers it) in a FeatBit environment (got FILE); expected a \
             data-sync message of FeatBit's, or backend: amplitude",
        ),
    ] {
        fs::write(&file, flags).unwrap();
        let text = format!("environments:\n- bootstrap_file: {path}\n  {environment}\n");
        let faults = load_text(&text).unwrap_err().faults;
        let wanted = format!("config.yaml:2:19 environments[0].bootstrap_file: {wanted}");
        assert_eq!(messages(&faults), [wanted.replace("FILE", path)]);
    }
    fs::write(&file, MESSAGE).unwrap();
    let config = load_text(&format!("environments: [{{urls: none, bootstrap_file: {path}}}]")).unwrap();
    assert_eq!(
        told(&config.config),
        ["featbit (featbit) learns none; 0 keys, flags"]
    );
}

#[test]
fn secrets_come_from_lists_files_and_variables() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secrets");
    fs::write(&file, format!("# ours\n{SECRET}\n\n{OTHER}\n")).unwrap();
    let path = file.to_str().unwrap();
    let both = format!("{SECRET},{OTHER}");
    for (name, value, wanted) in [
        ("FLAGSIDE_FEATBIT_SECRET", SECRET, &[SECRET][..]),
        ("FLAGSIDE_FEATBIT_SECRET", &both, &[SECRET, OTHER]),
        ("FLAGSIDE_FEATBIT_SECRET_FILE", path, &[SECRET, OTHER]),
        ("FLAGSIDE_ENVIRONMENTS__0__ENV_SECRET", SECRET, &[SECRET]),
        ("FLAGSIDE_ENVIRONMENTS__0__ENV_SECRETS", &both, &[SECRET, OTHER]),
        (
            "FLAGSIDE_ENVIRONMENTS__0__ENV_SECRET_FILE",
            path,
            &[SECRET, OTHER],
        ),
        (
            "FLAGSIDE_ENVIRONMENTS__0__ENV_SECRETS_FILE",
            path,
            &[SECRET, OTHER],
        ),
    ] {
        let loaded = loaded(&[(name, value)], &[("--featbit-upstream", "http://x")]);
        let keys = loaded.config.environments[0].keys.iter();
        let keys: Vec<_> = keys.map(|key| key.expose().to_owned()).collect();
        assert_eq!(keys, wanted, "{name}={value}");
        let printed = print(&loaded, true);
        assert!(
            !printed.contains(SECRET) && !format!("{loaded:?}").contains(SECRET),
            "{printed}"
        );
    }
    let config_file = dir.path().join("f.yaml");
    let text = format!("environments: [{{urls: {{featbit: \"http://x\"}}, env_secret_file: {path}}}]");
    fs::write(&config_file, text).unwrap();
    for (name, value) in [
        ("FLAGSIDE_FEATBIT_SECRET", OTHER),
        ("FLAGSIDE_ENVIRONMENTS__0__ENV_SECRET", OTHER),
    ] {
        let config = load(&sources(&[&config_file], &[(name, value)], &[]))
            .unwrap()
            .config;
        assert_eq!(
            config.environments[0].keys.len(),
            1,
            "{name} replaces a weaker file"
        );
    }
    let longer = [
        ("FLAGSIDE_FEATBIT_SECRET", OTHER),
        ("FLAGSIDE_ENVIRONMENTS__0__ENV_SECRETS", SECRET),
    ];
    let config = load(&sources(&[&config_file], &longer, &[])).unwrap().config;
    assert_eq!(
        config.environments[0].keys[0].expose(),
        SECRET,
        "the longer name wins"
    );
    fs::write(&file, format!("{SECRET}\nnonsense\n")).unwrap();
    let faults = load(&sources(&[&config_file], &[], &[])).unwrap_err().faults;
    let what = "environments[0].env_secret_file: not an environment secret: 8 characters instead of 44";
    assert!(messages(&faults)[0].contains(what), "{faults:?}");
}

#[test]
fn a_secret_without_environment_is_a_warning() {
    let loaded = loaded(&[("FLAGSIDE_FEATBIT_SECRET", SECRET)], &[]);
    let wanted = "FLAGSIDE_FEATBIT_SECRET: no FeatBit environment is configured, ignored; expected --featbit-upstream \
                  URL, or urls: {featbit: URL} in an environment";
    assert_eq!(messages(&loaded.warnings), [wanted]);
    assert_eq!(loaded.config.environments[0].backend, Backend::Amplitude);
    assert_eq!(
        refused(
            &[("FLAGSIDE_FEATBIT_SECRET", &SECRET[2..])],
            &[("--featbit-upstream", "http://x")]
        ),
        [
            "FLAGSIDE_FEATBIT_SECRET environments[0].env_secrets[0]: not an environment secret: 42 characters instead of \
          44; expected an environment secret, 44 characters as FeatBit shows it"
        ]
    );
}

#[test]
fn learning_counts_by_backend() {
    let text = "environments:\n- {name: a, region: eu}\n- {name: b, urls: {featbit: http://x}}\n";
    let loaded = load_text(text).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(loaded.config.environments.iter().all(|it| it.learn_keys));
    let text = format!(
        "environments:\n- {{name: a, urls: {{featbit: http://x}}, env_secret: {SECRET}}}\n- {{name: b, urls: \
         {{featbit: http://y}}}}\n- {{region: us, deployment_keys: [k]}}\n"
    );
    let config = load_text(&text).unwrap().config;
    let learn: Vec<bool> = config.environments.iter().map(|it| it.learn_keys).collect();
    assert_eq!(learn, [false, true, true]);
}

#[test]
fn doubtful_settings_of_featbit_are_warnings() {
    let twin = format!("AAAAAAAAAAAAAAAAAAAAAA{}", &SECRET[22..]);
    for (text, wanted) in [
        (
            "environments:\n- {name: a, urls: {featbit: http://x}}\n- {name: b, urls: {featbit: http://y}}\n"
                .to_owned(),
            "config.yaml:3:3 environments[1].learn_keys: more than one FeatBit environment learns secrets, so an \
             unknown secret is refused: nobody knows where it belongs; expected learn_keys: true in one environment \
             at most",
        ),
        (
            "environments:\n- {urls: {featbit: http://x}, learn_keys: false}\n".to_owned(),
            "config.yaml:2:43 environments[0].learn_keys: no key may use this environment; expected environment \
             secrets, or learn_keys: true",
        ),
        (
            format!("environments:\n- {{urls: {{featbit: http://x}}, env_secrets: [{SECRET}, {SECRET}]}}\n"),
            "config.yaml:2:44 environments[0].env_secrets: the same environment secret twice",
        ),
        (
            "environments:\n- {urls: {featbit: http://x/p/}}\n".to_owned(),
            "config.yaml:2:20 environments[0].urls.featbit: / at the end of the URL is dropped",
        ),
        (
            format!(
                "environments:\n- {{name: a, urls: {{featbit: http://x}}, env_secret: {SECRET}}}\n- {{name: b, urls: \
                 {{featbit: http://x}}, env_secret: {twin}}}\n"
            ),
            "config.yaml:3:52 environments[1].env_secret: a secret of the same FeatBit environment as one of \
             environments[0]; expected all secrets of a FeatBit environment in one place",
        ),
    ] {
        assert_eq!(warned(&text), [wanted], "{text}");
    }
}

#[cfg(unix)]
#[test]
fn files_with_secrets_are_for_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (secrets, file) = (dir.path().join("secrets"), dir.path().join("f.yaml"));
    fs::write(&secrets, SECRET).unwrap();
    for list in ["env_secret", "env_secrets"] {
        let text = format!("environments: [{{urls: {{featbit: \"http://x\"}}, {list}: {SECRET}}}]");
        fs::write(&file, text).unwrap();
        let by_variable = sources(
            &[],
            &[("FLAGSIDE_FEATBIT_SECRET_FILE", secrets.to_str().unwrap())],
            &[("--featbit-upstream", "http://x")],
        );
        let by_file = sources(&[&file], &[], &[]);
        for (mode, count) in [(0o644, 1), (0o600, 0)] {
            fs::set_permissions(&secrets, fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            for sources in [&by_variable, &by_file] {
                let warnings = messages(&load(sources).unwrap().warnings);
                assert_eq!(warnings.len(), count, "{mode:o} {warnings:?}");
            }
        }
    }
}
