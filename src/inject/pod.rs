//! Whether a pod gets the sidecar, and what that changes about it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::annotations::{self, INJECT, INJECTED, OVERRIDES, PREFIX, STATUS};
use super::edit::{Edit, Edits, Path, Unfit};
use super::skip::Skip;
use super::template::{CONTAINER, Template, Volumes};

/// Namespaces that are never touched.
pub const EXCLUDED: [&str; 2] = ["kube-system", "kube-node-lease"];

/// What is to become of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The verdict.
    pub verdict: Verdict,
    /// What whoever made the pod should know.
    pub warnings: Vec<String>,
}

/// Whether a pod gets the sidecar.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It does, by these edits of the whole that it stands in.
    Inject(Vec<Edit>),
    /// It does not, for this reason; the text says it to people.
    Skip(Skip, String),
}

/// A pod, or a pod template: a map with `metadata` and `spec`.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    /// What it stands in.
    pub root: &'a Value,
    /// Where.
    pub at: &'a Path,
    /// The namespace it will be in, if that is known.
    pub namespace: Option<&'a str>,
    /// Whether its end is waited for, as a Job's is.
    pub ends: bool,
}

impl Pod<'_> {
    fn find(&self, keys: &[&str]) -> Option<&Value> {
        self.at.keys(keys).find(self.root)
    }

    fn list(&self, keys: &[&str]) -> &[Value] {
        self.find(keys)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// Plain and init containers.
    fn containers(&self) -> impl Iterator<Item = &Value> {
        let init = self.list(&["spec", "initContainers"]);
        self.list(&["spec", "containers"]).iter().chain(init)
    }

    fn text(&self, keys: &[&str]) -> Option<&str> {
        self.find(keys).and_then(Value::as_str)
    }
}

/// What is to become of `pod`. `excluded` are namespaces that are left alone besides [`EXCLUDED`].
///
/// # Errors
///
/// When it does not have the shape of a pod.
pub fn plan(template: &Template, pod: &Pod<'_>, excluded: &[String]) -> Result<Plan, Unfit> {
    if !pod.find(&["spec", "containers"]).is_some_and(Value::is_array) {
        return Err(Unfit {
            at: pod.at.keys(&["spec", "containers"]).to_string(),
            wanted: "a list",
        });
    }
    let mut warnings = Vec::new();
    if let Some((skip, why)) = unwanted(pod, excluded) {
        return Ok(skipped(skip, why, warnings));
    }
    let template = match overridden(template, pod, &mut warnings) {
        Ok(template) => template,
        Err(why) => return Ok(skipped(Skip::BadAnnotation, why, warnings)),
    };
    if let Some((skip, why)) = obstacle(pod, &template) {
        return Ok(skipped(skip, why, warnings));
    }
    if pod.ends && !template.is_native() {
        warnings.push("a sidecar that is a plain container keeps a Job from ending: use the native one (Kubernetes 1.29)".to_owned());
    }
    Ok(Plan {
        verdict: Verdict::Inject(edits(pod, &template)?),
        warnings,
    })
}

fn skipped(skip: Skip, why: String, mut warnings: Vec<String>) -> Plan {
    if skip.is_surprising() {
        warnings.push(format!("no flagside sidecar: {why}"));
    }
    Plan {
        verdict: Verdict::Skip(skip, why),
        warnings,
    }
}

/// Reasons that do not depend on how the sidecar would look.
fn unwanted(pod: &Pod<'_>, excluded: &[String]) -> Option<(Skip, String)> {
    let namespace = pod.namespace.or_else(|| pod.text(&["metadata", "namespace"]));
    if let Some(name) = namespace.filter(|name| EXCLUDED.contains(name) || excluded.iter().any(|e| e == name))
    {
        return Some((
            Skip::ExcludedNamespace,
            format!("the namespace {name} is left alone"),
        ));
    }
    match wish(pod) {
        Some((_, Err(why))) => return Some((Skip::BadAnnotation, format!("{INJECT}: {why}"))),
        Some((place, Ok(false))) => return Some((Skip::Disabled, format!("its {place} {INJECT} says so"))),
        _ => {}
    }
    if pod.containers().any(|container| container["name"] == CONTAINER) {
        return Some((
            Skip::AlreadyInjected,
            format!("it has a container called {CONTAINER}"),
        ));
    }
    if pod.find(&["metadata", "annotations", STATUS]).is_some() {
        return Some((Skip::AlreadyInjected, format!("it has the annotation {STATUS}")));
    }
    let selector = |label: &str| pod.text(&["spec", "nodeSelector", label]);
    let systems = [
        pod.text(&["spec", "os", "name"]),
        selector("kubernetes.io/os"),
        selector("beta.kubernetes.io/os"),
    ];
    if systems.contains(&Some("windows")) {
        return Some((Skip::Windows, "it is for Windows nodes".to_owned()));
    }
    None
}

/// What the pod says about having the sidecar at all, and where: the annotation counts before the label.
fn wish(pod: &Pod<'_>) -> Option<(&'static str, Result<bool, String>)> {
    let places = [("annotation", "annotations"), ("label", "labels")];
    places.into_iter().find_map(|(place, map)| {
        let value = pod.find(&["metadata", map, INJECT])?;
        let read = match value {
            Value::String(text) => annotations::wish(text),
            Value::Bool(switch) => Ok(*switch),
            _ => Err("not a text".to_owned()),
        };
        Some((place, read))
    })
}

/// The template with what the pod's annotations change about it.
fn overridden(template: &Template, pod: &Pod<'_>, warnings: &mut Vec<String>) -> Result<Template, String> {
    let mut own = template.clone();
    // Sorted, so that of several wrong ones the same one is always named.
    let given: BTreeMap<&str, &Value> = pod
        .find(&["metadata", "annotations"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)))
        .collect();
    for (name, value) in given {
        if !OVERRIDES.contains(&name) {
            warnings.extend(annotations::unknown(name));
            continue;
        }
        if name == "image" && !template.allows_image_override() {
            return Err(format!("{PREFIX}image: pods may not name their own image here"));
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(format!("{PREFIX}{name}: not a text")),
        };
        own.set(name, text.trim())
            .map_err(|why| format!("{PREFIX}{name}: {why}"))?;
    }
    own.check().map_err(|why| format!("annotations: {why}"))?;
    Ok(own)
}

/// Reasons in the pod that the sidecar would not work, or would not be private.
fn obstacle(pod: &Pod<'_>, template: &Template) -> Option<(Skip, String)> {
    let asks = matches!(wish(pod), Some(("annotation", Ok(true))));
    if pod.find(&["spec", "hostNetwork"]).is_some_and(is_true) && !asks {
        let why =
            format!("it uses the node's network; the annotation {INJECT}: enabled adds it all the same");
        return Some((Skip::HostNetwork, why));
    }
    for container in pod.containers() {
        for port in container["ports"].as_array().into_iter().flatten() {
            let is_tcp = matches!(port["protocol"].as_str(), None | Some("TCP"));
            let number = number(&port["containerPort"]);
            if let Some(taken) = template
                .ports()
                .into_iter()
                .find(|own| is_tcp && number == Some(u64::from(*own)))
            {
                let name = container["name"].as_str().unwrap_or("without name");
                let why = format!(
                    "its container {name} has port {taken}; {PREFIX}port and {PREFIX}admin-port choose others"
                );
                return Some((Skip::PortConflict, why));
            }
        }
    }
    None
}

/// A number, also one that YAML took for a text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// `true`, and what older YAML means by it.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "y"),
        _ => false,
    }
}

fn edits(pod: &Pod<'_>, template: &Template) -> Result<Vec<Edit>, Unfit> {
    let volumes = Volumes::named(|name| pod.list(&["spec", "volumes"]).iter().any(|v| v["name"] == name));
    let has_group = pod
        .find(&["spec", "securityContext", "fsGroup"])
        .is_some_and(|group| !group.is_null());
    let (metadata, spec) = (pod.at.key("metadata"), pod.at.key("spec"));
    let mut edits = Edits::new(pod.root);
    if pod
        .find(&["metadata", "labels", INJECTED])
        .is_none_or(Value::is_null)
    {
        edits.insert(&metadata.key("labels"), INJECTED, json!("true"))?;
    }
    let status = json!({"version": env!("CARGO_PKG_VERSION"), "template": template.fingerprint()});
    edits.insert(&metadata.key("annotations"), STATUS, json!(status.to_string()))?;
    let list = if template.is_native() {
        "initContainers"
    } else {
        "containers"
    };
    edits.prepend(&spec.key(list), template.container(&volumes))?;
    for volume in template.volumes(&volumes, has_group) {
        edits.prepend(&spec.key("volumes"), volume)?;
    }
    for (at, container) in pod.list(&["spec", "containers"]).iter().enumerate() {
        let env = container["env"].as_array().map_or(&[][..], Vec::as_slice);
        for (name, value) in template.variables() {
            if !env.iter().any(|known| known["name"] == name) {
                let place = spec.key("containers").index(at).key("env");
                edits.prepend(&place, json!({"name": name, "value": value}))?;
            }
        }
    }
    Ok(edits.finish())
}

#[cfg(test)]
mod tests {
    use super::super::edit::apply;
    use super::*;

    fn plan_of(pod: &Value, template: &Template) -> Plan {
        let asked = Pod {
            root: pod,
            at: &Path::default(),
            namespace: None,
            ends: false,
        };
        plan(template, &asked, &["flagside-system".to_owned()]).unwrap()
    }

    fn skip(pod: &Value) -> Option<Skip> {
        match plan_of(pod, &Template::default()).verdict {
            Verdict::Skip(skip, _) => Some(skip),
            Verdict::Inject(_) => None,
        }
    }

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app", "image": "a"}]}})
    }

    fn with(path: &str, value: Value) -> Value {
        let mut pod = pod();
        let mut slot = &mut pod;
        for key in path.split('.') {
            slot = match key.parse::<usize>() {
                Ok(at) => &mut slot[at],
                Err(_) => &mut slot[key.replace('!', ".")],
            };
        }
        *slot = value;
        pod
    }

    #[test]
    fn reasons_to_leave_a_pod_alone() {
        let annotation =
            |name: &str, value: &str| with(&format!("metadata.annotations.flagside!io/{name}"), json!(value));
        for (pod, wanted) in [
            (pod(), None),
            (annotation("inject", "disabled"), Some(Skip::Disabled)),
            (
                with("metadata.labels.flagside!io/inject", json!("false")),
                Some(Skip::Disabled),
            ),
            (annotation("inject", "maybe"), Some(Skip::BadAnnotation)),
            (annotation("status", "{}"), Some(Skip::AlreadyInjected)),
            (
                with("spec.initContainers", json!([{"name": "flagside"}])),
                Some(Skip::AlreadyInjected),
            ),
            (
                with("spec.containers.0.name", json!("flagside")),
                Some(Skip::AlreadyInjected),
            ),
            (with("spec.hostNetwork", json!(true)), Some(Skip::HostNetwork)),
            (with("spec.hostNetwork", json!(false)), None),
            (
                with("spec.nodeSelector.kubernetes!io/os", json!("windows")),
                Some(Skip::Windows),
            ),
            (with("spec.nodeSelector.kubernetes!io/os", json!("linux")), None),
            (with("spec.os.name", json!("windows")), Some(Skip::Windows)),
            (
                with("spec.containers.0.ports", json!([{"containerPort": 3547}])),
                Some(Skip::PortConflict),
            ),
            (
                with(
                    "spec.initContainers",
                    json!([{"name": "i", "ports": [{"containerPort": 3546}]}]),
                ),
                Some(Skip::PortConflict),
            ),
            (
                with(
                    "spec.containers.0.ports",
                    json!([{"containerPort": 3547, "protocol": "UDP"}]),
                ),
                None,
            ),
            (
                with("spec.containers.0.ports", json!([{"containerPort": 8080}])),
                None,
            ),
            (
                with("metadata.namespace", json!("kube-system")),
                Some(Skip::ExcludedNamespace),
            ),
            (
                with("metadata.namespace", json!("flagside-system")),
                Some(Skip::ExcludedNamespace),
            ),
            (annotation("port", "80"), Some(Skip::BadAnnotation)),
            (annotation("memory-request", "1Gi"), Some(Skip::BadAnnotation)),
            (annotation("image", "evil"), Some(Skip::BadAnnotation)),
            (annotation("native", "perhaps"), Some(Skip::BadAnnotation)),
            (annotation("set-env", "A={x}"), Some(Skip::BadAnnotation)),
            (annotation("config", "Not a name"), Some(Skip::BadAnnotation)),
            (annotation("unheard-of", "x"), None),
        ] {
            assert_eq!(skip(&pod), wanted, "{pod}");
        }
    }

    #[test]
    fn annotations_open_what_is_closed() {
        let mut pod = with("spec.hostNetwork", json!(true));
        pod["metadata"]["annotations"]["flagside.io/inject"] = json!("enabled");
        assert_eq!(skip(&pod), None);
        let mut pod = with("spec.containers.0.ports", json!([{"containerPort": 3546}]));
        pod["metadata"]["annotations"]["flagside.io/port"] = json!("4546");
        assert_eq!(skip(&pod), None);
        let mut template = Template::default();
        template.set("allow-image-override", "true").unwrap();
        let pod = with("metadata.annotations.flagside!io/image", json!("r/own:1"));
        let Verdict::Inject(edits) = plan_of(&pod, &template).verdict else {
            panic!()
        };
        let mut changed = pod;
        apply(&edits, &mut changed);
        assert_eq!(changed["spec"]["initContainers"][0]["image"], "r/own:1");
    }

    #[test]
    fn the_pod_keeps_everything_and_gets_what_it_needs() {
        let mut template = Template::default();
        template.set("set-env", "URL,OWN").unwrap();
        let before = json!({
            "metadata": {"labels": {"app": "x"}},
            "spec": {
                "initContainers": [{"name": "migrate"}],
                "containers": [
                    {"name": "a", "env": [{"name": "OWN", "value": "kept"}]},
                    {"name": "b"},
                ],
                "volumes": [{"name": "flagside-keys"}],
                "securityContext": {"fsGroup": 1},
            },
        });
        let Verdict::Inject(edits) = plan_of(&before, &template).verdict else {
            panic!()
        };
        let mut after = before;
        apply(&edits, &mut after);
        assert_eq!(
            after["metadata"]["labels"],
            json!({"app": "x", "flagside.io/injected": "true"})
        );
        let spec = &after["spec"];
        assert_eq!(spec["initContainers"][0]["name"], "flagside");
        assert_eq!(spec["initContainers"][1]["name"], "migrate");
        let url = json!({"name": "URL", "value": "http://127.0.0.1:3546"});
        assert_eq!(
            spec["containers"][0]["env"],
            json!([url, {"name": "OWN", "value": "kept"}])
        );
        assert_eq!(spec["containers"][1]["env"][1]["name"], "OWN");
        let volumes: Vec<&str> = spec["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            volumes,
            [
                "flagside-config",
                "flagside-keys-2",
                "flagside-state",
                "flagside-keys"
            ]
        );
        assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 0o440);
        assert!(matches!(
            plan_of(&after, &template).verdict,
            Verdict::Skip(Skip::AlreadyInjected, _)
        ));
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for pod in [
            json!({}),
            json!({"spec": null}),
            json!({"spec": {"containers": {}}}),
            json!([1]),
        ] {
            let asked = Pod {
                root: &pod,
                at: &Path::default(),
                namespace: None,
                ends: false,
            };
            assert!(plan(&Template::default(), &asked, &[]).is_err(), "{pod}");
        }
        let pod = json!({"metadata": {"labels": "x"}, "spec": {"containers": []}});
        let asked = Pod {
            root: &pod,
            at: &Path::default(),
            namespace: None,
            ends: false,
        };
        let problem = plan(&Template::default(), &asked, &[]).unwrap_err();
        assert_eq!(problem.to_string(), "metadata.labels is not a map");
    }

    #[test]
    fn warnings_are_given_where_something_is_odd() {
        let pod = with("metadata.annotations.flagside!io/prot", json!("1"));
        assert_eq!(
            plan_of(&pod, &Template::default()).warnings,
            ["the annotation flagside.io/prot means nothing; did you mean flagside.io/port?"]
        );
        let mut template = Template::default();
        template.set("native", "false").unwrap();
        let pod = self::pod();
        let job = Pod {
            root: &pod,
            at: &Path::default(),
            namespace: None,
            ends: true,
        };
        assert_eq!(plan(&template, &job, &[]).unwrap().warnings.len(), 1);
    }
}
