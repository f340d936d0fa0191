//! The command line: what each command prints and how it ends (design 3, OPS 11.1).

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::opinion::{self, Shape};
use crate::support::upstream::KEY;
use crate::support::{Ask, FakeUpstream, Sidecar, flags};

#[test]
fn version_names_the_program_and_its_version() {
    for arguments in [["version"], ["--version"]] {
        let ended = Sidecar::command(&arguments).run();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(
            ended.stdout.contains("flagside") && ended.stdout.contains(env!("CARGO_PKG_VERSION")),
            "{ended:?}"
        );
    }
}

#[test]
fn help_names_every_command() {
    let ended = Sidecar::command(&["--help"]).run();
    assert_eq!(ended.code, 0, "{ended:?}");
    for command in [
        "run",
        "demo",
        "evaluate",
        "check",
        "print-config",
        "probe",
        "version",
    ] {
        assert!(ended.stdout.contains(command), "{command} in {}", ended.stdout);
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [
        ["fly"].as_slice(),
        &["run", "--nonsense"],
        &["run", "--listen"],
        &["run", "--region", "mars"],
        &["run", "--set", "nonsense"],
        &["run", "--set", "cache.fresh=1s"],
    ] {
        let ended = Sidecar::command(arguments).run();
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert!(
            ended.stdout.is_empty() && !ended.stderr.is_empty(),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn all_faults_of_a_configuration_are_told_at_once() {
    let settings = Sidecar::command(&["check"])
        .config("cache:\n  fresh_for: soon\n  fresh: 1s\nlisten:\n  max_body: -1\n");
    let ended = settings.env("FLAGSIDE_SYNC__FLAGS_INTERVAL", "never").run();
    assert_eq!(ended.code, 2, "{ended:?}");
    let told = ended.stderr + &ended.stdout;
    for part in [
        "cache.fresh_for",
        "cache.fresh",
        "listen.max_body",
        "FLAGSIDE_SYNC__FLAGS_INTERVAL",
        "flagside.yaml:2",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn a_sound_configuration_passes_the_check() {
    let ended = Sidecar::command(&["check"])
        .config("cache:\n  fresh_for: 5s\n")
        .run();
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn the_effective_configuration_shows_no_secret() {
    let file = "environments:\n  - name: main\n    deployment_keys: [server-super-secret]\n";
    let ended = Sidecar::command(&["print-config"])
        .config(file)
        .env("FLAGSIDE_API_KEY", "secret-of-env")
        .run();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("fresh_for"), "{ended:?}");
    let told = ended.stdout + &ended.stderr;
    assert!(
        !told.contains("super-secret") && !told.contains("secret-of-env"),
        "{told}"
    );
}

#[test]
fn an_argument_comes_before_the_environment_and_that_before_a_file() {
    let fresh_for = |settings: crate::support::Builder| {
        let ended = settings.run();
        assert_eq!(ended.code, 0, "{ended:?}");
        let line = ended
            .stdout
            .lines()
            .find(|line| line.contains("fresh_for"))
            .unwrap_or_default()
            .to_owned();
        line.split(':')
            .nth(1)
            .unwrap_or_default()
            .trim()
            .split(' ')
            .next()
            .unwrap_or_default()
            .trim_matches(['"', ','])
            .to_owned()
    };
    let file = || Sidecar::command(&["print-config"]).config("cache:\n  fresh_for: 11s\n");
    assert_eq!(fresh_for(Sidecar::command(&["print-config"])), "1m");
    assert_eq!(fresh_for(file()), "11s");
    assert_eq!(fresh_for(file().env("FLAGSIDE_CACHE__FRESH_FOR", "12s")), "12s");
    assert_eq!(
        fresh_for(
            file()
                .env("FLAGSIDE_CACHE__FRESH_FOR", "12s")
                .set("cache.fresh_for", "13s")
        ),
        "13s"
    );
}

#[test]
fn a_port_in_use_is_an_error_of_its_own() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for arguments in [
        ["--listen", &address, "--admin-listen", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin-listen", &address],
    ] {
        let ended = Sidecar::command(&[&["run"], arguments.as_slice()].concat()).run();
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!((ended.stderr + &ended.stdout).contains(&address));
    }
}

#[test]
fn two_programs_never_share_a_port() {
    let cloud = FakeUpstream::start();
    let first = Sidecar::start(&cloud);
    let (data, admin) = (first.data().to_string(), "127.0.0.1:0".to_owned());
    let ended = Sidecar::command(&["run", "--listen", &data, "--admin-listen", &admin]).run();
    assert_eq!(
        ended.code, 3,
        "SO_REUSEPORT would let it steal connections: {ended:?}"
    );
}

#[test]
fn a_base_url_may_end_as_the_documents_print_it() {
    let cloud = FakeUpstream::start();
    for suffix in ["/", "/v1", "/v1/"] {
        let sidecar = Sidecar::alone()
            .arg("--upstream")
            .arg(&format!("{}{suffix}", cloud.url()))
            .start();
        assert_eq!(sidecar.ask(&Ask::about("u")).status, 200, "{suffix}");
    }
}

#[test]
fn a_probe_tells_by_its_exit_code() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let url = |path: &str| format!("http://{}{path}", sidecar.admin());
    assert_eq!(Sidecar::command(&["probe", &url("/healthz")]).run().code, 0);
    assert_eq!(
        Sidecar::command(&["probe", &url("/readyz"), "--wait", "10s"])
            .run()
            .code,
        0
    );
    assert_eq!(Sidecar::command(&["probe", &url("/nowhere")]).run().code, 1);
}

#[test]
fn evaluate_answers_a_line_for_a_line() {
    let flags = flags::flags(3);
    let user = json!({"user_id": "u", "device_id": "d", "country": "DE", "user_properties": {"plan": "pro"}});
    let lines = [
        json!({"flags": flags, "user": user}).to_string(),
        json!({"flags": flags, "user": user, "flagKeys": ["beta"]}).to_string(),
        "{nonsense".to_owned(),
        json!({"flags": [], "user": {}}).to_string(),
        json!({"flags": flags, "context": {"user": {"country": "FR"}}, "flagKeys": ["banner"]}).to_string(),
    ];
    let ended = Sidecar::command(&["evaluate", "--jsonl"]).run_with(&(lines.join("\n") + "\n"));
    assert_eq!(ended.code, 0, "{ended:?}");
    let replies: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(replies.len(), 5, "{ended:?}");
    let wanted = |keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        json!({"result": opinion::evaluate(&flags, &user, &keys)})
    };
    assert_eq!(replies[0], wanted(&[]));
    assert_eq!(replies[1], wanted(&["beta"]));
    assert!(replies[2]["error"].is_string() && replies[2].get("result").is_none());
    assert_eq!(replies[3], json!({"result": {}}));
    assert_eq!(replies[4]["result"]["banner"]["key"], "on");
}

#[test]
fn evaluate_takes_its_flags_from_a_file() {
    let flags = flags::flags(3);
    let user = json!({"user_id": "u", "user_properties": {"plan": "pro"}});
    let line = json!({"user": user}).to_string() + "\n";
    let ended = Sidecar::command(&["evaluate", "--jsonl"])
        .flags(&flags)
        .run_with(&line);
    assert_eq!(ended.code, 0, "{ended:?}");
    let reply: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(reply, json!({"result": opinion::evaluate(&flags, &user, &[])}));
}

#[test]
fn the_local_answer_of_the_proxy_is_that_of_evaluate() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    sidecar.ask(&Ask::about("somebody").key(KEY));
    sidecar.wait_for_syncs(1);
    cloud.go_down();
    let user = r#"{"user_id":"u","country":"FR"}"#;
    let served = sidecar.ask(&Ask::sdk_get(user)).json();
    assert_eq!(served, cloud.verdict(user, &[], Shape::V2));
    let line = format!("{{\"user\":{user}}}\n");
    let ended = Sidecar::command(&["evaluate", "--jsonl"])
        .flags(&flags::flags(1))
        .run_with(&line);
    let evaluated: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(evaluated["result"], served);
}

#[test]
fn the_demo_tells_its_story_and_ends() {
    let settings = Sidecar::command(&["demo"]);
    let ended = settings.run_within(Duration::from_secs(30));
    assert_eq!(ended.code, 0, "{ended:?}");
    for part in ["miss", "hit", "coalesced", "local"] {
        assert!(ended.stdout.contains(part), "{part} in {}", ended.stdout);
    }
}
