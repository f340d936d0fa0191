use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::command::evaluate::{Engine, Options, run};

const DATA: &str = r#"{"messageType":"data-sync","data":{"eventType":"full","featureFlags":[
  {"id":"1","key":"color","variations":[{"id":"r","value":"red"},{"id":"b","value":"blue"}],"isEnabled":true,
   "updatedAt":"2024-01-01T00:00:00Z","targetUsers":[{"keyIds":["boss"],"variationId":"r"}],
   "rules":[{"name":"staff","variations":[{"id":"r","rollout":[0,1]}],"conditions":[
     {"property":"User is in segment","value":"[\"s\"]"},{"property":"plan","op":"IsOneOf","value":"[\"pro\"]"}]}],
   "fallthrough":{"includedInExpt":true,"variations":[{"id":"r","rollout":[0,0.2],"exptRollout":0.2},{"id":"b","rollout":[0.2,1],"exptRollout":0.4}]}},
  {"id":"2","key":"broken","isEnabled":true,"updatedAt":"2024-01-02T00:00:00Z",
   "rules":[{"conditions":[{"property":"plan","op":"MatchRegex","value":"("}]}],"fallthrough":{}},
  {"key":"no-id"}],
 "segments":[{"id":"s","name":"Staff","excluded":["out"],"rules":[{"conditions":[{"property":"email","op":"EndsWith","value":"@x.org"}]}]}]}}"#;

struct Ran {
    code: ExitCode,
    stdout: String,
    stderr: String,
}

fn ran(options: &Options, stdin: &str) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let code = run(options, stdin.as_bytes(), &mut stdout, &mut stderr);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn file(text: &str) -> (tempfile::NamedTempFile, Option<PathBuf>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_owned();
    (file, Some(path))
}

#[test]
fn a_data_sync_file_picks_the_engine() {
    let (_kept, flags) = file(DATA);
    let keys = vec!["color".to_owned(), "nope".to_owned()];
    for user in [r#"{"keyId":"boss"}"#, r#"{"KEYID":"other"}"#] {
        let options = Options {
            flags: flags.clone(),
            user: Some(user.to_owned()),
            user_id: Some("boss".to_owned()),
            flag_keys: keys.clone(),
            ..Options::default()
        };
        let ran = ran(&options, "");
        let wanted = r#"[
  {
    "key": "color",
    "variation": {
      "id": "r",
      "type": "string",
      "value": "red",
      "matchReason": "targeted",
      "sendToExperiment": false
    }
  }
]
"#;
        assert_eq!((ran.code, ran.stdout.as_str()), (ExitCode::SUCCESS, wanted));
        assert!(
            ran.stderr.contains("\"no-id\" is left out: it has no `id`"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("there is no flag \"nope\""), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("flag \"broken\": the pattern"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_whole_request_is_a_user_too() {
    let (_kept, flags) = file(DATA);
    let options = Options {
        flags,
        user: Some("-".to_owned()),
        ..Options::default()
    };
    let request = r#"{"user":{"keyId":"x"},"filter":{"keys":["broken"]}}"#;
    let ran_whole = ran(&options, request);
    assert_eq!(ran_whole.stdout, "[]\n");
    assert!(
        ran_whole.stderr.contains("flag \"broken\" has no answer"),
        "{}",
        ran_whole.stderr
    );
    let both = Options {
        flag_keys: vec!["color".to_owned()],
        ..options
    };
    let refused = ran(&both, request);
    assert_eq!(refused.code, ExitCode::from(2));
    assert!(
        refused.stderr.contains("leave out --user-id and --flag-keys"),
        "{}",
        refused.stderr
    );
}

#[test]
fn faults_are_named_with_their_remedy() {
    let (_kept, flags) = file(DATA);
    let (_other, object) = file("{}");
    let of = |flags: &Option<PathBuf>, user: &str| Options {
        engine: Some(Engine::FeatBit),
        flags: flags.clone(),
        user: Some(user.to_owned()),
        ..Options::default()
    };
    for (options, part) in [
        (of(&object, "{}"), "it has no `featureFlags`"),
        (of(&flags, "{}"), "A valid user is required."),
        (of(&flags, "[]"), "the user is no JSON object"),
        (of(&flags, "{"), "unexpected end at byte 1"),
        (
            Options {
                v1: true,
                ..of(&flags, "{}")
            },
            "FeatBit has no --v1",
        ),
    ] {
        let ran = ran(&options, "");
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (ExitCode::from(2), ""),
            "{options:?}"
        );
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
}

#[test]
fn every_line_gets_one_line() {
    let data = DATA.replace('\n', "");
    let lines = [
        format!(r#"{{"data":{data},"request":{{"user":{{"keyId":"u"}},"filter":{{"keys":["broken"]}}}}}}"#),
        format!(r#"{{"request":{{"user":{{"keyId":"boss"}},"filter":{{"keys":["color"]}}}},"data":{data}}}"#),
        format!(r#"{{"data":{data},"request":{{"user":{{"keyId":" "}}}}}}"#),
        format!(
            r#"{{"data":{data},"request":{{"user":{{"keyId":"u"}},"filter":{{"tagFilterMode":"AND"}}}}}}"#
        ),
        format!(r#"{{"data":{data},"request":{{"user":{{"keyId":5}}}}}}"#),
        format!(r#"{{"data":{data}}}"#),
        r#"{"request":{"user":{"keyId":"u"}}}"#.to_owned(),
        r#"{"data":{"featureFlags":[]},"request":{"user":{"keyId":"u"}}}"#.to_owned(),
        r#"{"flags":[],"user":{}}"#.to_owned(),
        r#"{"data":[],"request":{}}"#.to_owned(),
    ];
    let options = Options {
        jsonl: true,
        ..Options::default()
    };
    let ran = ran(&options, &lines.join("\n"));
    let got: Vec<&str> = ran.stdout.lines().collect();
    let wanted = [
        r#"{"status":200,"results":[],"unevaluable":["broken"]}"#,
        r#"{"status":200,"results":[{"key":"color","variation":{"id":"r","type":"string","value":"red","matchReason":"targeted","sendToExperiment":false}}]}"#,
        r#"{"status":400,"message":"A valid user is required."}"#,
        r#"{"status":400,"message":"Invalid tag filter mode: AND. Valid values are 'and' or 'or'."}"#,
        r#"{"status":400,"message":"the body is not of the form of an evaluate request"}"#,
        r#"{"error":"the line has no `request`"}"#,
        r#"{"error":"the line has no `data`, and there is no --flags FILE"}"#,
        r#"{"status":200,"results":[]}"#,
        r#"{"result":{}}"#,
        r#"{"error":"`data`: it is no data-sync message: it is no object"}"#,
    ];
    assert_eq!(got, wanted);
}

#[test]
fn explanations_show_values_positions_and_bounds() {
    let (_kept, flags) = file(DATA);
    let options = Options {
        flags,
        user: Some(r#"{"keyId":"u","customizedProperties":[{"name":"email","value":"a@x.org"},{"name":"plan","value":"free"}]}"#.to_owned()),
        explain: true,
        ..Options::default()
    };
    let wanted = r#"color = "blue"   ("default", variation "b")
  rule 1 "staff" does not match
    yes  User is in segment ["s"]
      segment s "Staff"
        rule 1
          yes  email EndsWith "@x.org": found "a@x.org"
        yes   rule 1 matches
    no   plan IsOneOf ["pro"]: found "free"
  fallthrough
    md5 of "coloru" falls at 0.6404948686249554
    no   [0, 0.2] "red"
    yes  [0.2, 1] "blue"
    sendToExperiment false: md5 with `expt` before falls at 0.9257261203601956, up to 0.5 counts

broken has no answer: the pattern of a condition is invalid: not enough )'s
  rule 1 cannot be decided
    ?    plan MatchRegex "(": found "free"

"#;
    assert_eq!(ran(&options, "").stdout, wanted);
}
