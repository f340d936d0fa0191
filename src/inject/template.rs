//! The sidecar: what it is told, and the container and volumes that come of it (OPS 4.1, 4.2).

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::annotations::{self as read, Quantity, SetEnv};
use crate::config::nearest;

/// Name of the container.
pub const CONTAINER: &str = "flagside";
/// The user that the image runs as.
const USER: u32 = 65_532;

/// How sidecars look unless a pod says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    image: String,
    image_pull_policy: Option<String>,
    config: String,
    secret: String,
    log_level: Option<&'static str>,
    cpu_request: Quantity,
    memory_request: Quantity,
    memory_limit: Quantity,
    port: u16,
    admin_port: u16,
    set_env: Vec<SetEnv>,
    native: bool,
    /// JSON Merge Patch (RFC 7386) over the container.
    container: Option<Value>,
    allow_image_override: bool,
}

/// The names that [`Template::set`] knows.
pub const NAMES: [&str; 13] = [
    "image",
    "image-pull-policy",
    "config",
    "secret",
    "log-level",
    "cpu-request",
    "memory-request",
    "memory-limit",
    "port",
    "admin-port",
    "set-env",
    "native",
    "allow-image-override",
];

impl Default for Template {
    fn default() -> Self {
        let quantity = |text: &str, thousandths| Quantity::known(text, thousandths);
        Self {
            image: concat!("flagside:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            config: "flagside-sidecar".to_owned(),
            secret: "flagside-sidecar".to_owned(),
            log_level: None,
            cpu_request: quantity("10m", 10),
            memory_request: quantity("32Mi", 1_000 << 25),
            memory_limit: quantity("128Mi", 1_000 << 27),
            port: 3546,
            admin_port: 3547,
            set_env: Vec::new(),
            native: true,
            container: None,
            allow_image_override: false,
        }
    }
}

impl Template {
    /// Changes one thing by name. `set-env` takes a list with commas and adds to what was set before.
    ///
    /// # Errors
    ///
    /// A sentence about what is wrong with `text`.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match name {
            "image" => self.image = read::image(text)?,
            "image-pull-policy" => match text {
                "Always" | "IfNotPresent" | "Never" => self.image_pull_policy = Some(text.to_owned()),
                other => return Err(format!("not one of Always, IfNotPresent, Never (got {other})")),
            },
            "config" => self.config = read::object_name(text)?,
            "secret" => self.secret = read::object_name(text)?,
            "log-level" => self.log_level = Some(read::level(text)?),
            "cpu-request" => self.cpu_request = Quantity::parse(text)?,
            "memory-request" => self.memory_request = Quantity::parse(text)?,
            "memory-limit" => self.memory_limit = Quantity::parse(text)?,
            "port" => self.port = read::port(text)?,
            "admin-port" => self.admin_port = read::port(text)?,
            "set-env" => {
                for part in text.split(',').filter(|part| !part.trim().is_empty()) {
                    let set = SetEnv::parse(part)?;
                    self.set_env.retain(|known| known.name != set.name);
                    self.set_env.push(set);
                }
            }
            "native" => self.native = read::switch(text)?,
            "allow-image-override" => self.allow_image_override = read::switch(text)?,
            other => {
                let meant = nearest(other, NAMES).map(|meant| format!("; did you mean {meant}?"));
                return Err(format!("{other} means nothing{}", meant.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Lays a JSON Merge Patch (RFC 7386) over the container, after everything else.
    ///
    /// # Errors
    ///
    /// When it is no map, or would give the container another name.
    pub fn set_container(&mut self, patch: Value) -> Result<(), String> {
        match patch.as_object() {
            Some(map) if !map.contains_key("name") => self.container = Some(patch),
            Some(_) => return Err(format!("the container is always called {CONTAINER}")),
            None => return Err("container is not a map".to_owned()),
        }
        Ok(())
    }

    /// What must hold between the parts.
    ///
    /// # Errors
    ///
    /// A sentence about what does not fit together.
    pub fn check(&self) -> Result<(), String> {
        if self.port == self.admin_port {
            return Err(format!("port and admin-port are the same (got {})", self.port));
        }
        if self.memory_request > self.memory_limit {
            let (request, limit) = (self.memory_request.as_str(), self.memory_limit.as_str());
            return Err(format!(
                "memory-request {request} is more than memory-limit {limit}"
            ));
        }
        Ok(())
    }

    /// Whether a pod may name its own image.
    #[must_use]
    pub const fn allows_image_override(&self) -> bool {
        self.allow_image_override
    }

    /// Whether the sidecar is an init container that is always restarted (Kubernetes 1.29), else a plain one.
    #[must_use]
    pub const fn is_native(&self) -> bool {
        self.native
    }

    /// The ports that the sidecar listens on: data and admin.
    #[must_use]
    pub const fn ports(&self) -> [u16; 2] {
        [self.port, self.admin_port]
    }

    /// Variables for the application's containers.
    pub fn variables(&self) -> impl Iterator<Item = (&str, String)> {
        self.set_env
            .iter()
            .map(|set| (set.name.as_str(), set.value(self.port, self.admin_port)))
    }

    /// First 8 hex digits of the SHA-256 of everything in the template: which one a pod was made from.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(format!("{self:?}"));
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The container; `volumes` are the names that its volumes have in this pod.
    #[must_use]
    pub fn container(&self, volumes: &Volumes) -> Value {
        let mut container = json!({"name": CONTAINER, "image": self.image});
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if self.native {
            container["restartPolicy"] = json!("Always");
        }
        container["env"] = self.env();
        container["ports"] = json!([{"name": "flagside-admin", "containerPort": self.admin_port}]);
        let get = |path: &str| json!({"path": path, "port": "flagside-admin"});
        container["startupProbe"] = json!({"httpGet": get("/readyz"), "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 30});
        container["livenessProbe"] = json!({"httpGet": get("/healthz"), "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3});
        if !self.native {
            container["lifecycle"] = json!({
                "postStart": {"exec": {"command": ["/flagside", "probe", "ready", "--wait", "30s"]}},
                "preStop": {"exec": {"command": ["/flagside", "sleep", "5"]}},
            });
        }
        container["resources"] = json!({
            "requests": {"cpu": self.cpu_request.as_str(), "memory": self.memory_request.as_str()},
            "limits": {"memory": self.memory_limit.as_str()},
        });
        container["securityContext"] = json!({
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
        container["volumeMounts"] = json!([
            {"name": volumes.config, "mountPath": "/etc/flagside", "readOnly": true},
            {"name": volumes.keys, "mountPath": "/run/secrets/flagside", "readOnly": true},
            {"name": volumes.state, "mountPath": "/var/lib/flagside"},
        ]);
        if let Some(patch) = &self.container {
            merge(&mut container, patch);
        }
        container
    }

    fn env(&self) -> Value {
        let field =
            |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let mut env = vec![
            json!({"name": "FLAGSIDE_MODE", "value": "sidecar"}),
            json!({"name": "FLAGSIDE_LISTEN__DATA", "value": self.port.to_string()}),
            // The kubelet and Prometheus ask from outside of the pod.
            json!({"name": "FLAGSIDE_LISTEN__ADMIN", "value": format!("0.0.0.0:{}", self.admin_port)}),
        ];
        if let Some(level) = self.log_level {
            env.push(json!({"name": "FLAGSIDE_LOG__LEVEL", "value": level}));
        }
        env.push(field("POD_NAME", "metadata.name"));
        env.push(field("POD_NAMESPACE", "metadata.namespace"));
        env.push(field("NODE_NAME", "spec.nodeName"));
        Value::Array(env)
    }

    /// The volumes. Where the pod has no group for its files (`has_group` false), keys must be readable by every
    /// user, or flagside's could not read them; only flagside's container mounts them.
    #[must_use]
    pub fn volumes(&self, volumes: &Volumes, has_group: bool) -> [Value; 3] {
        let mode = if has_group { 0o440 } else { 0o444 };
        [
            json!({"name": volumes.config, "configMap": {"name": self.config, "optional": true}}),
            json!({
                "name": volumes.keys,
                "secret": {"secretName": self.secret, "defaultMode": mode, "optional": true},
            }),
            json!({"name": volumes.state, "emptyDir": {"sizeLimit": "64Mi"}}),
        ]
    }
}

/// Names of the sidecar's volumes, which no other volume of the pod has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Volumes {
    config: String,
    keys: String,
    state: String,
}

impl Volumes {
    /// Names that `is_taken` does not know.
    #[must_use]
    pub fn named(is_taken: impl Fn(&str) -> bool) -> Self {
        let free = |name: &str| {
            let numbered = (2..).map(|n| format!("{name}-{n}"));
            let mut names = [name.to_owned()].into_iter().chain(numbered);
            names.find(|name| !is_taken(name)).unwrap_or_default()
        };
        Self {
            config: free("flagside-config"),
            keys: free("flagside-keys"),
            state: free("flagside-state"),
        }
    }
}

/// JSON Merge Patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.shift_remove(key);
            } else {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Volumes {
        Volumes::named(|_| false)
    }

    #[test]
    fn the_native_sidecar_starts_first_and_the_legacy_one_waits() {
        let mut template = Template::default();
        let native = template.container(&names());
        assert_eq!(native["restartPolicy"], "Always");
        assert_eq!(native.get("lifecycle"), None);
        assert_eq!(native.get("readinessProbe"), None);
        assert_eq!(native["resources"]["limits"].get("cpu"), None);
        template.set("native", "false").unwrap();
        let legacy = template.container(&names());
        assert_eq!(legacy.get("restartPolicy"), None);
        let hook = &legacy["lifecycle"]["postStart"]["exec"]["command"];
        assert_eq!(hook[1], "probe");
        assert_eq!(legacy["lifecycle"]["preStop"]["exec"]["command"][1], "sleep");
    }

    #[test]
    fn names_change_what_they_say() {
        let mut template = Template::default();
        for (name, text) in [
            ("image", "r.example/f@sha256:ab"),
            ("image-pull-policy", "Always"),
            ("config", "c"),
            ("secret", "s"),
            ("log-level", "debug"),
            ("cpu-request", "20m"),
            ("memory-request", "64Mi"),
            ("memory-limit", "256Mi"),
            ("port", "4000"),
            ("admin-port", "4001"),
            ("set-env", "A, B=x:{port}"),
            ("native", "true"),
            ("allow-image-override", "true"),
        ] {
            assert!(NAMES.contains(&name));
            template.set(name, text).unwrap();
            assert!(template.set(name, "no such {thing}").is_err(), "{name}");
        }
        template.check().unwrap();
        let text = template.container(&names()).to_string();
        for wanted in [
            "r.example/f@sha256:ab",
            r#""Always""#,
            "debug",
            "20m",
            "64Mi",
            "256Mi",
            "0.0.0.0:4001",
            r#""4000""#,
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let variables: Vec<_> = template
            .variables()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(variables, ["A=http://127.0.0.1:4000", "B=x:4000"]);
        let [config, keys, _] = template.volumes(&names(), true);
        assert_eq!(
            (&config["configMap"]["name"], &keys["secret"]["secretName"]),
            (&json!("c"), &json!("s"))
        );
        assert_eq!(
            (&config["configMap"]["optional"], &keys["secret"]["optional"]),
            (&json!(true), &json!(true))
        );
        assert_ne!(template.fingerprint(), Template::default().fingerprint());
        assert_eq!(template.fingerprint().len(), 8);
    }

    #[test]
    fn parts_must_fit_together() {
        let mut template = Template::default();
        template.set("port", "3547").unwrap();
        assert!(template.check().is_err());
        template.set("port", "3546").unwrap();
        template.set("memory-request", "1Gi").unwrap();
        assert_eq!(
            template.check().unwrap_err(),
            "memory-request 1Gi is more than memory-limit 128Mi"
        );
    }

    #[test]
    fn a_merge_patch_has_the_last_word() {
        let mut template = Template::default();
        let patch = json!({"securityContext": {"runAsUser": null, "runAsGroup": null}, "resources": {"limits": {"cpu": "1"}}});
        template.set_container(patch).unwrap();
        let container = template.container(&names());
        assert_eq!(container["securityContext"].get("runAsUser"), None);
        assert_eq!(container["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            container["resources"]["limits"],
            json!({"memory": "128Mi", "cpu": "1"})
        );
        assert!(template.set_container(json!({"name": "x"})).is_err());
        assert!(template.set_container(json!(1)).is_err());
    }

    #[test]
    fn volumes_get_free_names_and_readable_keys() {
        let names = Volumes::named(|name| name == "flagside-keys" || name == "flagside-keys-2");
        assert_eq!(names.keys, "flagside-keys-3");
        assert_eq!(names.config, "flagside-config");
        let template = Template::default();
        assert_eq!(template.volumes(&names, true)[1]["secret"]["defaultMode"], 288);
        assert_eq!(template.volumes(&names, false)[1]["secret"]["defaultMode"], 292);
    }
}
