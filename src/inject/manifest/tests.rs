//! Manifests as people write them, and random ones in every form.

use proptest::prelude::*;
use serde_json::json;

use super::super::edit::json_patch;
use super::super::emit;
use super::*;

fn template() -> Template {
    let mut template = Template::default();
    template.set("set-env", "AMPLITUDE_SERVER_URL").unwrap();
    template
}

fn values(text: &str) -> Vec<Value> {
    yaml::documents(text)
        .unwrap()
        .iter()
        .map(|document| document.value(&document.root).unwrap())
        .collect()
}

/// The lines that injection added, without those of the container; all others must be there as before.
fn added(before: &str, after: &str) -> String {
    let mut old = before.lines().peekable();
    let mut new = Vec::new();
    for line in after.lines() {
        if old.peek() == Some(&line) {
            old.next();
        } else {
            new.push(line);
        }
    }
    assert_eq!(old.next(), None, "a line is gone from\n{after}");
    new.join("\n")
}

/// Injects, checks that nothing else changed its place, and that the second time changes nothing.
fn injected(text: &str) -> String {
    let once = inject(text, &template()).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    assert!(once.reports.iter().any(|report| report.skip.is_none()), "{text}");
    let twice = inject(&once.text, &template()).unwrap();
    assert_eq!(twice.text, once.text);
    assert!(
        twice
            .reports
            .iter()
            .all(|report| matches!(report.skip, Some((Skip::AlreadyInjected, _))))
    );
    once.text
}

const DEPLOYMENT: &str = "\
# Owned by the web team.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web   # the name
  labels: &labels
    app: web
spec:
  replicas: 2
  selector:
    matchLabels: *labels
  template:
    metadata:
      labels: *labels
    spec:
      # Migrations come first.
      initContainers: []   # none yet
      containers:
        # The application.
        - name: app
          image: \"example/app:1\"
          args: [--port, '8080']   # flow
          command:
            - sh
            - -c
            - |
              echo hello
              exec app
        - image: example/other:1
          name: other
          env:
            # Its own setting stays.
            - name: AMPLITUDE_SERVER_URL
              value: https://example.com

      volumes: ~
---
# Only a comment.
---
apiVersion: v1
kind: ConfigMap
metadata: {name: untouched}
data:
  a: |+
    text

";

#[test]
fn a_deployment_keeps_its_comments_and_order() {
    let text = injected(DEPLOYMENT);
    let container: String = {
        let start = text.find("        - name: flagside\n").unwrap();
        let end = text.find("      containers:\n").unwrap();
        text[start..end].to_owned()
    };
    let status = text
        .lines()
        .find(|line| line.contains("flagside.io/status"))
        .unwrap();
    let rest = text
        .replace(&container, "<the sidecar>\n")
        .replace(status, "        <the status>");
    let container = container.replace(env!("CARGO_PKG_VERSION"), "<version>");
    insta::assert_snapshot!("deployment", rest);
    insta::assert_snapshot!("container", container);
    let spec = &values(&text)[0]["spec"];
    assert_eq!(spec["selector"]["matchLabels"], json!({"app": "web"}));
    let labels = json!({"app": "web", "flagside.io/injected": "true"});
    assert_eq!(spec["template"]["metadata"]["labels"], labels);
}

#[test]
fn unusual_forms_are_edited_in_place() {
    for text in [
        // Lists in the column of their key.
        "kind: Pod\napiVersion: v1\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    image: b\n  volumes:\n  - name: v\n    emptyDir: {}\n",
        // Flow style in flow style, no line end at the end.
        "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {}}, spec: {initContainers: [], containers: [{name: a, image: b, env: [{name: X, value: y}]}]}}",
        // Flow style in block style.
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}], volumes: []}\n",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations: {a: b}\nspec:\n  volumes: []\n  containers: [{name: a, image: b},\n    {name: c}]",
        // Nothing where something belongs.
        "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n  annotations:   # none\n  name: a\nspec:\n  volumes:\n  initContainers: null # none\n  containers:\n    - name: a\n      env:\n",
        // No metadata in the template.
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: a\nspec:\n  template:\n    spec:\n      containers:\n        - name: a",
        // Dashes on lines of their own, comments between.
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    # first\n    -\n      # named\n      name: a\n    - # second\n      name: b\n      env:\n      -   name: X\n          value: y\n",
        // The first entry behind the dash is no short one.
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - command:\n        - a\n      name: a\n    - args: [\n        b ]\n      name: c\n    - name: |-\n        d\n      image: e\n    - {name: f}\n",
        // Odd indentation.
        "apiVersion: v1\nkind: Pod\nspec:\n     containers:\n            -    name: a\n                 image: b\n",
        // Line ends of Windows.
        "apiVersion: v1\r\nkind: Pod\r\nmetadata:\r\n  name: a\r\nspec:\r\n  containers:\r\n    - name: a\r\n      image: b\r\n",
        // Quoted keys, tags, document marks, a byte order mark.
        "%YAML 1.2\n---\n\"apiVersion\": v1\n'kind': Pod\n\"spec\":\n  \"containers\":\n    - \"name\": !!str a\n...\n",
        "\u{feff}apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - name: a\n",
        // Letters of more than one byte before.
        "# grün 🟢\napiVersion: v1\nkind: Pod\nmetadata: {name: \"ü🟢\", labels: {}} # ö\nspec:\n  containers:\n    - name: \"é\"\n      env: [] # à\n",
        // A list of workloads, and one without kinds of its own.
        "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Pod\n    spec:\n      containers:\n        - name: a\n  - apiVersion: batch/v1\n    kind: CronJob\n    spec:\n      jobTemplate:\n        spec:\n          template:\n            spec:\n              containers: [{name: a}]\n",
        "apiVersion: v1\nkind: PodList\nitems:\n  - spec:\n      containers:\n        - name: a\n",
        // Pretty JSON, with tabs and with blanks, and empty things in it.
        "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Pod\",\n  \"metadata\": {\n    \"labels\": {}\n  },\n  \"spec\": {\n    \"containers\": [\n      {\n        \"name\": \"a\"\n      }\n    ]\n  }\n}\n",
        "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"spec\": {\n\t\t\"volumes\": [],\n\t\t\"containers\": [{\"name\": \"a\", \"env\": null}]\n\t}\n}",
        // Aliases and merge keys.
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - name: a\n      env: &env\n        - name: X\n          value: y\n    - name: b\n      env: *env\n",
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - &base\n      name: a\n      image: b\n    - <<: *base\n      name: b\n",
        "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: batch/v1\n    kind: Job\n    spec:\n      template: &t\n        spec:\n          containers:\n            - name: a\n  - apiVersion: batch/v1\n    kind: Job\n    spec:\n      template: *t\n",
    ] {
        let after = injected(text);
        let is_json = text.starts_with("{\n");
        if is_json {
            serde_json::from_str::<Value>(&after).unwrap_or_else(|error| panic!("{error}\n{after}"));
        }
        if text.contains("\r\n") {
            assert!(!after.replace("\r\n", "").contains('\n'), "{after:?}");
        }
        let is_kept = text
            .split_whitespace()
            .all(|word| after.contains(word) || word.contains(['[', ']', '{', '*', '~']) || word == "null");
        assert!(is_kept, "{after}");
    }
}

#[test]
fn block_style_only_gets_new_lines() {
    let before = "apiVersion: v1\nkind: Pod\nmetadata:\n  # about names\n  name: a\nspec:\n  # about containers\n  containers:\n  # about a\n  - name: a # short\n    image: b\n  # the end\n";
    let after = injected(before);
    let new = added(before, &after);
    assert!(
        new.starts_with("  labels:\n    flagside.io/injected: \"true\"\n  annotations:\n"),
        "{new}"
    );
    assert!(
        new.ends_with("    env:\n    - name: AMPLITUDE_SERVER_URL\n      value: http://127.0.0.1:3546"),
        "{new}"
    );
}

#[test]
fn what_cannot_be_edited_is_refused_with_its_line() {
    let shared = "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Pod\n    spec:\n      containers:\n        - name: a\n          env: &env\n            - {name: X, value: y}\n  - apiVersion: v1\n    kind: Service\n    spec: {x: *env}\n";
    let shared_below = "apiVersion: v1\nkind: List\nitems:\n  - {apiVersion: v1, kind: Pod, spec: {containers: [{name: a}]}, metadata: {labels: &l {a: b}}}\n  - {apiVersion: v1, kind: Service, spec: {selector: *l}}\n";
    for (text, wanted) in [
        (shared, "1: this cannot be edited without changing something else"),
        (
            shared_below,
            "1: this cannot be edited without changing something else",
        ),
        (
            "kind: Pod\napiVersion: v1\nspec: x\n",
            "1: Pod without name: spec.containers is not a list",
        ),
        (
            "a: b\n---\nkind: Pod\napiVersion: v1\nmetadata: {name: p, labels: []}\nspec:\n  containers: []\n",
            "3: Pod p: metadata.labels is not a map",
        ),
        (
            "kind: Pod\n\tapiVersion: v1\n",
            "2: not YAML: a tab in the indentation",
        ),
        ("a: {{ .Values.x }}\nb: [\n", "3: not YAML"),
    ] {
        let problem = inject(text, &template()).unwrap_err().to_string();
        assert!(problem.starts_with(wanted), "{problem}\n{text}");
    }
}

#[test]
fn everything_else_passes_as_it_is() {
    for text in [
        "",
        "# nothing\n",
        "---\n---\n",
        "apiVersion: v1\nkind: Service\nmetadata:\n   name: x\n",
        "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nspec: {tasks: []}\n",
        "just text\n",
        "- a\n- b\n",
        "kind: [Pod]\n",
        "kind: List\napiVersion: v1\n",
    ] {
        let done = inject(text, &template()).unwrap();
        assert_eq!((done.text.as_str(), done.reports.len()), (text, 0), "{text}");
    }
}

#[test]
fn reports_say_what_became_of_each() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: yes, containers: []}\n---\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: b, namespace: kube-system}\nspec: {template: {spec: {containers: []}}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: c-}\nspec: {containers: []}\n";
    let reports: Vec<String> = inject(text, &template())
        .unwrap()
        .reports
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        reports,
        [
            "1: Pod a: skipped: host_network: it uses the node's network; the annotation flagside.io/inject: enabled adds it all the same",
            "6: DaemonSet b: skipped: excluded_namespace: the namespace kube-system is left alone",
            "11: Pod c-: injected",
        ]
    );
}

/// A JSON Patch of `add`s, carried out as RFC 6902 says.
fn patched(mut value: Value, patch: &Value) -> Value {
    for operation in patch.as_array().unwrap() {
        let (parent, last) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
        let last = last.replace("~1", "/").replace("~0", "~");
        match value.pointer_mut(parent).unwrap() {
            Value::Array(items) => items.insert(last.parse().unwrap(), operation["value"].clone()),
            Value::Object(map) => {
                map.insert(last, operation["value"].clone());
            }
            other => panic!("{other}"),
        }
    }
    value
}

/// A value in one of the forms of YAML, chosen by the bits of `dice` as it goes.
fn written(value: &Value, indent: usize, dice: &mut u64, out: &mut String) {
    let roll = *dice % 8;
    *dice = dice.rotate_right(3) ^ 0x9E37_79B9;
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() && roll > 1 => {
            for (key, value) in map {
                if roll == 2 {
                    out.push_str(&format!("\n{pad}# about {key}"));
                }
                out.push_str(&format!("\n{pad}{key}:"));
                written(value, indent + 1 + (roll as usize % 3), dice, out);
            }
        }
        Value::Array(items) if !items.is_empty() && roll > 1 => {
            for item in items {
                out.push_str(&format!("\n{pad}-"));
                let mut inner = String::new();
                written(item, indent + 2, dice, &mut inner);
                // Sometimes on the line of its dash.
                let is_block = inner.starts_with('\n') && !inner.trim_start().starts_with('#');
                out.push_str(&if is_block && roll.is_multiple_of(2) {
                    format!(" {}", inner.trim_start())
                } else {
                    inner
                });
            }
        }
        Value::Null if roll > 3 => {}
        other if roll == 0 => out.push_str(&format!(" {}", emit::json_lines(other, &pad, "  "))),
        other => out.push_str(&format!(
            " {}{}",
            emit::json(other),
            if roll == 1 { " # so" } else { "" }
        )),
    }
}

fn random_pod() -> impl Strategy<Value = Value> {
    let env = prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!([{"name": "AMPLITUDE_SERVER_URL", "value": "own"}])),
        Just(json!([{"name": "X", "value": "a: b # c"}, {"name": "Y", "value": "|"}])),
    ];
    let container =
        ("[a-z]{1,5}", proptest::option::of(env), any::<bool>()).prop_map(|(name, env, first)| {
            let mut container = json!({});
            if first {
                container["image"] = json!("é:1");
            }
            container["name"] = json!(format!("c-{name}"));
            if let Some(env) = env {
                container["env"] = env;
            }
            container
        });
    let list = |item: Value| {
        prop_oneof![
            Just(None),
            Just(Some(Value::Null)),
            Just(Some(json!([]))),
            Just(Some(json!([item])))
        ]
    };
    let map = |item: Value| {
        prop_oneof![
            Just(None),
            Just(Some(Value::Null)),
            Just(Some(json!({}))),
            Just(Some(item))
        ]
    };
    (
        proptest::collection::vec(container, 0..3),
        list(json!({"name": "v", "emptyDir": {}})),
        list(json!({"name": "i", "command": ["a", "b"]})),
        map(json!({"app": "x"})),
        map(json!({"note": "line\nline"})),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(containers, volumes, init, labels, annotations, [has_metadata, volumes_first])| {
                let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
                if has_metadata {
                    pod["metadata"] = json!({"name": "p"});
                    for (key, value) in [("labels", labels), ("annotations", annotations)] {
                        if let Some(value) = value {
                            pod["metadata"][key] = value;
                        }
                    }
                }
                let mut parts = vec![
                    ("containers", Some(json!(containers))),
                    ("volumes", volumes),
                    ("initContainers", init),
                ];
                parts.rotate_left(usize::from(volumes_first));
                for (key, value) in parts {
                    if let Some(value) = value {
                        pod["spec"][key] = value;
                    }
                }
                pod
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn text_and_patch_come_to_the_same(pod in random_pod(), mut dice: u64, native: bool, windows: bool) {
        let mut template = template();
        template.set("native", if native { "true" } else { "false" }).unwrap();
        let mut text = String::new();
        written(&pod, 0, &mut dice, &mut text);
        let mut text = format!("{}\n", text.trim_start());
        if windows {
            text = text.replace('\n', "\r\n");
        }
        prop_assert_eq!(values(&text), vec![pod.clone()], "{}", text);
        let done = inject(&text, &template).map_err(|problem| TestCaseError::fail(format!("{problem}\n{text}")))?;
        let asked = Pod { root: &pod, at: &Path::default(), namespace: None, ends: false };
        let Verdict::Inject(edits) = plan(&template, &asked, &[]).unwrap().verdict else {
            return Err(TestCaseError::fail("skipped"));
        };
        let after = patched(pod, &json_patch(&edits));
        prop_assert_eq!(values(&done.text), vec![after], "{}", done.text);
        prop_assert_eq!(&inject(&done.text, &template).unwrap().text, &done.text);
    }

    #[test]
    fn any_text_is_edited_or_refused(text in "(apiVersion: v1\\n|kind: Pod\\n|spec: |  containers: |  - name: a\\n|\\n|[-:\\[\\]{}&*!|>'\"%@#?, ~a0\\t\\r]{1,3}){0,12}") {
        let _ = inject(&text, &template());
    }

    #[test]
    fn a_damaged_manifest_is_edited_or_refused(at in any::<[prop::sample::Index; 3]>(), new in "[-:\\[\\]{}&*!|>'\"#?, \\n\\t\\ra]{0,3}", cut in 0_usize..4) {
        let mut text: Vec<char> = DEPLOYMENT.chars().collect();
        for (place, index) in at.iter().enumerate() {
            let start = index.index(text.len());
            let end = (start + if place == 0 { cut } else { 1 }).min(text.len());
            text.splice(start..end, new.chars());
        }
        let text: String = text.into_iter().collect();
        if let Ok(done) = inject(&text, &template()) {
            let again = inject(&done.text, &template()).map_err(|problem| TestCaseError::fail(format!("{problem}\n{}", done.text)))?;
            prop_assert_eq!(again.text, done.text);
        }
    }
}
