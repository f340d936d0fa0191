use std::fs;

use super::*;
use crate::config::settings::SETTINGS;
use crate::config::{Fault, load_text, tree};

fn messages(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

/// Every setting with a value other than its default; those in braces are files.
const EVERYTHING: &str = r#"
mode: shared
workers: 3
answer_deadline: 250ms
listen:
  data: ["[::1]:9000", "127.0.0.1:9001"]
  admin: 127.0.0.1:9002
  max_connections: 11
  header_timeout: 4s
  idle_timeout: 2m
  max_body: 2MB
  max_headers: 16KiB
  path_prefix: /a/b
  cors: {origins: [https://app.example.com, "http://localhost:8080"]}
environments:
  - name: first
    backend: amplitude
    region: eu
    deployment_keys_file: {keys}
    learn_keys: true
    evaluation: local
    bootstrap_file: {flags}
    urls: {eval: "http://e/p", flags: "http://f", stream: "http://s:1", cohort: "http://c", management: "http://m", analytics: "http://[::1]:2"}
  - {name: second, urls: none, evaluation: remote, bootstrap_file: {flags}, learn_keys: false}
  - {name: third, region: eu, learn_keys: false, evaluation: off}
  - name: fourth
    backend: featbit
    env_secret_file: {secrets}
    urls: {featbit: "http://featbit:5100/v1", featbit_stream: "wss://stream.example/p", featbit_event: "http://events"}
  - {name: fifth, learn_keys: false, urls: {featbit: "http://featbit:5100"}}
  - {name: sixth, backend: featbit, learn_keys: false, bootstrap_file: {message}}
upstream:
  connect_timeout: 900ms
  request_timeout: 3s
  total_deadline: 7s
  retries: 0
  retry_budget: 0.25
  pool_max_idle: 5
  max_in_flight: 6
  circuit: {failures: 7, open_for: 1500ms}
  ca_file: {flags}
  http2: false
  dns_refresh: 90s
  max_answer: 3MiB
  max_flags: 5MB
cache:
  max_bytes: 33MiB
  max_entry: 77777
  fresh_for: 61s
  stale_while_revalidate: 3d
  stale_error: 25h
  max_stale: 8d
  ignore_query: ["cb", "it's \"odd\" ${x}"]
keys: {max_learnt: 12, negative_entries: 13, negative_ttl: 11s}
sync: {flags_interval: 31s, jitter: 0.2, featbit_poll_interval: 32s, featbit_resync_interval: 33m, streaming: false}
featbit: {strict: true}
readiness: {deadline: 12s, strict: true}
drain: {delay: 1s, timeout: 24s}
log: {level: trace, format: text}
"#;

fn everything(dir: &Path) -> String {
    let (keys, flags) = (dir.join("keys"), dir.join("flags \"of\" é.json"));
    let (secrets, message) = (dir.join("secrets"), dir.join("message.json"));
    fs::write(&keys, "k1\nk2\n").unwrap();
    fs::write(&secrets, "# main\ngpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w\n").unwrap();
    fs::write(&flags, "[]").unwrap();
    fs::write(&message, r#"{"eventType":"full","featureFlags":[]}"#).unwrap();
    let flags = format!("\"{}\"", flags.to_str().unwrap().replace('"', "\\\""));
    EVERYTHING
        .replace("{keys}", keys.to_str().unwrap())
        .replace("{secrets}", secrets.to_str().unwrap())
        .replace("{message}", message.to_str().unwrap())
        .replace("{flags}", &flags)
        .replace("${x}", "$${x}")
}

#[test]
fn printing_everything_and_reading_it_gives_the_same_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let given = load_text(&everything(dir.path())).unwrap();
    for setting in SETTINGS.iter().filter(|s| !s.kind.is_secret()) {
        let is_given = given.origins.iter().any(|(path, origin)| {
            *origin != Origin::Default && tree::pattern(&tree::steps(path).unwrap()) == setting.path
        });
        assert!(is_given, "{} is missing in the example", setting.path);
    }
    let defaults = load_text("").unwrap();
    for loaded in [&given, &defaults] {
        for origins in [false, true] {
            let text = print(loaded, origins);
            let again = load_text(&text)
                .unwrap_or_else(|rejected| panic!("{:?}\n{text}", messages(&rejected.faults)));
            assert_eq!(
                format!("{:?}", again.config),
                format!("{:?}", loaded.config),
                "{text}"
            );
            assert_eq!(print(&again, false), print(loaded, false));
        }
    }
}

#[test]
fn printing_says_where_values_come_from_and_no_secret() {
    let given = "environments: [{deployment_keys: [server-topsecret1]}]\ncache: {fresh_for: 9s}\n";
    let text = print(&load_text(given).unwrap(), true);
    assert!(!text.contains("topsecret"), "{text}");
    let line = |start: &str| {
        let line = text.lines().find(|l| l.trim_start().starts_with(start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("fresh_for"), "fresh_for: 9s # from config.yaml:2:20");
    assert_eq!(line("mode"), "mode: sidecar # from default");
    assert_eq!(
        line("# deployment_keys"),
        "# deployment_keys: never shown # from config.yaml:1:34"
    );
    let again = load_text(&text).unwrap();
    assert_eq!(print(&again, false), print(&load_text(given).unwrap(), false));
    for (setting, list) in [("env_secret", ""), ("env_secrets", "[]")] {
        let (open, close) = list.split_at(list.len() / 2);
        let given = format!(
            "environments: [{{urls: {{featbit: \"http://x\"}}, {setting}: {open}gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w{close}}}]"
        );
        let text = print(&load_text(&given).unwrap(), true);
        assert!(!text.contains("gpnOV3wI3k"), "{text}");
        let comment = format!("    # {setting}: never shown");
        assert!(
            text.contains(&comment) && text.contains("    backend: featbit"),
            "{text}"
        );
    }
}
