use std::io::Write as _;

use super::*;

const FLAGS: &str = r#"[
  {"key":"parent","segments":[{"variant":"on"}],"variants":{"on":{"key":"on","value":"on"}}},
  {"key":"exp","dependencies":["parent"],"metadata":{"experimentKey":"e1"},"variants":{"a":{"key":"a","payload":{"x":[1,{}]}},"off":{"key":"off","metadata":{"default":true}}},
   "segments":[
    {"metadata":{"segmentName":"staff"},"variant":"a","conditions":[[{"selector":["context","user","user_id"],"op":"is","values":["boss"]}],[{"selector":["result","parent","key"],"op":"is not","values":["on"]}]]},
    {"metadata":{"segmentName":"half"},"variant":"off","bucket":{"selector":["context","user","user_id"],"salt":"s","allocations":[{"range":[0,100],"distributions":[{"variant":"a","range":[0,21474836]},{"variant":"off","range":[21474836,42949673]}]}]}}]},
  {"key":"bad"}
]"#;

struct Run {
    code: ExitCode,
    stdout: String,
    stderr: String,
}

fn flags_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn run_with(options: &Options, stdin: &[u8]) -> Run {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let code = run(options, stdin, &mut stdout, &mut stderr);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run {
        code,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn user(json: &str) -> Option<String> {
    Some(json.to_owned())
}

#[test]
fn the_answer_is_printed_with_indents() {
    let file = flags_file(FLAGS);
    let options = Options {
        flags: Some(file.path().into()),
        user_id: user("boss"),
        ..Options::default()
    };
    let ran = run_with(&options, b"");
    let wanted = r#"{
  "parent": {
    "key": "on",
    "value": "on"
  },
  "exp": {
    "key": "a",
    "payload": {
      "x": [
        1,
        {}
      ]
    },
    "metadata": {
      "experimentKey": "e1",
      "segmentName": "staff"
    }
  }
}
"#;
    assert_eq!((ran.code, ran.stdout.as_str()), (ExitCode::SUCCESS, wanted));
    assert_eq!(
        ran.stderr,
        "warning: flag \"bad\": variants is missing; the flag is not evaluated\n"
    );
}

#[test]
fn users_come_from_text_file_and_standard_input() {
    let file = flags_file(FLAGS);
    let user_file = flags_file(r#"{"user_id":"boss"}"#);
    let at_file = format!("@{}", user_file.path().display());
    for (given, user_id, stdin, wanted) in [
        (r#"{"user_id":"boss"}"#, None, &b""[..], "staff"),
        (at_file.as_str(), None, b"", "staff"),
        ("-", None, b"{\"user_id\":\"boss\"}\n", "staff"),
        (r#"{"user_id":"x","a":1}"#, user("boss"), b"", "staff"),
        (r#"{"user_id":"boss"}"#, user("other-3"), b"", "half"),
    ] {
        let options = Options {
            flags: Some(file.path().into()),
            user: user(given),
            user_id,
            flag_keys: vec!["exp".to_owned()],
            ..Options::default()
        };
        let ran = run_with(&options, stdin);
        assert_eq!(ran.code, ExitCode::SUCCESS, "{}", ran.stderr);
        assert!(ran.stdout.contains(wanted), "{given}: {}", ran.stdout);
    }
}

/// Whether the options fail with this exit code and a message that holds `part`.
fn fails(options: &Options, code: u8, part: &str) {
    let ran = run_with(options, b"");
    assert_eq!(ran.code, ExitCode::from(code), "{options:?}");
    assert!(
        ran.stderr.contains(part) && ran.stdout.is_empty(),
        "{options:?}: {}",
        ran.stderr
    );
}

#[test]
fn faults_of_files_and_users_are_named_with_their_remedy() {
    let file = flags_file(FLAGS);
    let object = flags_file("{}");
    let of = |path: &Path, user: &str| Options {
        flags: Some(path.into()),
        user: Some(user.to_owned()),
        ..Options::default()
    };
    fails(
        &of(Path::new("/nonexistent"), "{}"),
        1,
        "/nonexistent cannot be read",
    );
    fails(
        &of(object.path(), "{}"),
        2,
        "must be a JSON array as /sdk/v2/flags returns it, not an object",
    );
    fails(&of(file.path(), "{"), 2, "unexpected end at byte 1");
    fails(&of(file.path(), "[]"), 2, "no JSON object");
    fails(&of(file.path(), "@/nonexistent"), 1, "/nonexistent");
}

#[test]
fn faults_of_options_are_named_with_their_remedy() {
    let file = flags_file(FLAGS);
    let flags = Some(file.path().to_owned());
    let user_id = user("u");
    fails(
        &Options {
            user_id: user_id.clone(),
            ..Options::default()
        },
        2,
        "give --flags FILE",
    );
    fails(
        &Options {
            flags: flags.clone(),
            ..Options::default()
        },
        2,
        "give --user JSON",
    );
    fails(
        &Options {
            jsonl: true,
            user_id: user_id.clone(),
            ..Options::default()
        },
        2,
        "leave out --user-id",
    );
    fails(
        &Options {
            flags,
            user_id,
            v1: true,
            explain: true,
            ..Options::default()
        },
        2,
        "leave out --v1",
    );
}

#[test]
fn every_line_gets_one_line() {
    let line = |flags: &str, rest: &str| format!("{{\"flags\":{flags},{rest}}}\n");
    let one = r#"[{"key":"f","variants":{"on":{"value":1.50}},"segments":[{"variant":"on"}]}]"#;
    let by_user = r#"[{"key":"f","variants":{"on":{}},"segments":[{"variant":"on","conditions":[[{"selector":["context","user","user_id"],"op":"is","values":["u"]}]]}]}]"#;
    let requests = [
        line(one, "\"user\":{}"),
        line(one, "\"context\":{},\"flagKeys\":[\"nope\"]"),
        line(by_user, "\"user\":{\"user_id\":\"u\"},\"flagKeys\":null"),
        line(by_user, "\"context\":{\"user\":{\"user_id\":\"x\"}}"),
        line("{}", "\"user\":{}"),
        line("[]", "\"user\":[]"),
        line("[]", "\"flagKeys\":[]"),
        "\n".to_owned(),
        "{\"user\":{}}\n".to_owned(),
        "[1]\n".to_owned(),
        line("[]", "\"user\":{}"),
    ]
    .concat();
    let mut stdin = requests.into_bytes();
    stdin.extend_from_slice(b"\"\xff\"\n{\"flags\":[],\"user\":{}}");
    let ran = run_with(
        &Options {
            jsonl: true,
            ..Options::default()
        },
        &stdin,
    );
    let got: Vec<&str> = ran.stdout.lines().collect();
    let wanted = [
        "{\"result\":{\"f\":{\"key\":\"on\",\"value\":1.50}}}",
        "{\"result\":{}}",
        "{\"result\":{\"f\":{\"key\":\"on\"}}}",
        "{\"result\":{}}",
        "{\"error\":\"the flags must be a JSON array as /sdk/v2/flags returns it, not an object\"}",
        "{\"error\":\"`user` is no object\"}",
        "{\"error\":\"the request has neither `user` nor `context`\"}",
        "{\"error\":\"the request is no valid JSON: unexpected end at byte 0\"}",
        "{\"error\":\"the request has no `flags`, and there is no --flags FILE\"}",
        "{\"error\":\"the request is no JSON object\"}",
        "{\"result\":{}}",
        "{\"error\":\"the request is no valid JSON: invalid UTF-8 at byte 1\"}",
        "{\"result\":{}}",
    ];
    assert_eq!(got, wanted);
    assert_eq!(ran.code, ExitCode::SUCCESS);
}

#[test]
fn a_file_serves_lines_without_flags() {
    let file = flags_file(FLAGS);
    let options = Options {
        flags: Some(file.path().into()),
        jsonl: true,
        v1: true,
        ..Options::default()
    };
    let ran = run_with(
        &options,
        b"{\"user\":{\"user_id\":\"boss\"}}\n{\"flags\":[],\"user\":{}}\n",
    );
    let first = r#"{"result":{"parent":{"key":"on","value":"on"},"exp":{"key":"a","payload":{"x":[1,{}]},"expKey":"e1","metadata":{"experimentKey":"e1","segmentName":"staff"}}}}"#;
    assert_eq!(ran.stdout, format!("{first}\n{{\"result\":{{}}}}\n"));
}

#[test]
fn explanations_show_values_hash_and_bounds() {
    let file = flags_file(FLAGS);
    let options = Options {
        flags: Some(file.path().into()),
        user_id: user("other-3"),
        explain: true,
        ..Options::default()
    };
    let wanted = r#"parent = on   (segment 1)
  segment 1 matches everybody, gives "on"

exp = a   (segment 2 "half")
  segment 1 "staff" does not match
    no       context.user.user_id is ["boss"]: found "other-3"
    no   or  result.parent.key is not ["on"]: found "on"
  segment 2 "half" matches everybody
    bucket by context.user.user_id: murmur3 of "s/other-3" is 909056264
      hash mod 100 = 64 (allocation), hash div 100 = 9090562 (distribution)
      yes  allocation [0, 100)
        yes  "a" [0, 21474836)

"#;
    assert_eq!(run_with(&options, b"").stdout, wanted);
}
