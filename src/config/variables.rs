//! `FLAGSIDE_*` environment variables become a tree.
//!
//! A variable's name is its setting's path in capitals, `__` between the levels and indices as numbers:
//! `FLAGSIDE_ENVIRONMENTS__0__URLS__EVAL`. With `_FILE` at the end it names a file that holds the value.
//! An empty variable counts as not set.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::fault::{Fault, Origin};
use super::settings::{self, Kind, SETTINGS};
use super::suggest::nearest;
use super::tree::{self, Node, Step};
use super::{Backend, arguments, yaml};

const PREFIX: &str = "FLAGSIDE_";

/// Short names for the settings of a backend's single environment.
const SHORT: [(&str, Backend, &str); 5] = [
    ("REGION", Backend::Amplitude, "region"),
    ("DEPLOYMENT_KEYS", Backend::Amplitude, "deployment_keys"),
    ("DEPLOYMENT_KEYS_FILE", Backend::Amplitude, "deployment_keys_file"),
    ("FEATBIT_SECRET", Backend::Featbit, "env_secrets"),
    ("FEATBIT_SECRET_FILE", Backend::Featbit, "env_secret_file"),
];

/// Names that later versions give a meaning to.
const LATER: [&str; 3] = ["API_KEY", "SECRET_KEY", "MANAGEMENT_KEY"];

/// A setting of a backend's single environment, whichever that is.
#[derive(Debug)]
pub(super) struct Short {
    pub(super) backend: Backend,
    pub(super) key: &'static str,
    pub(super) node: Node,
}

/// What the variables said.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// Settings, by path, ready to be placed in this order.
    pub(super) settings: Vec<(Vec<Step>, Node)>,
    /// Settings of a single environment.
    pub(super) short: Vec<Short>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    /// Files that hold secrets.
    pub(super) secret_files: Vec<(Origin, std::path::PathBuf)>,
}

/// The value of the variable `name`, if it is set to text.
pub(super) fn lookup(variables: &[(OsString, OsString)], name: &str) -> Option<String> {
    variables
        .iter()
        .find(|(n, _)| n == name)
        .and_then(|(_, value)| value.to_str())
        .map(str::to_owned)
}

/// Reads all `FLAGSIDE_*` variables.
pub(super) fn read(variables: &[(OsString, OsString)]) -> Variables {
    let mut read = Variables::default();
    let mut names: Vec<&(OsString, OsString)> = variables.iter().collect();
    names.sort();
    for (name, value) in names {
        let Some(name) = name.to_str().filter(|n| n.starts_with(PREFIX)) else {
            continue;
        };
        let origin = Origin::Variable(name.into());
        let Some(value) = value.to_str() else {
            read.faults.push(Fault::new(&origin, "", "not UTF-8 text"));
            continue;
        };
        let short = &name[PREFIX.len()..];
        if value.is_empty() || short == "CONFIG" || is_service_link(short, value) {
            continue;
        }
        read.variable(short, value, &origin);
    }
    read.settings.sort_by(|a, b| a.0.cmp(&b.0));
    for pair in read.settings.windows(2) {
        if pair[0].0 == pair[1].0 {
            let fault = Fault::new(
                &pair[1].1.origin,
                &tree::Path(&pair[1].0).to_string(),
                "given twice",
            )
            .expected(format!(
                "either {} or {}, not both",
                pair[0].1.origin, pair[1].1.origin
            ));
            read.faults.push(fault);
        }
    }
    read
}

impl Variables {
    fn variable(&mut self, name: &str, value: &str, origin: &Origin) {
        if let Some((_, backend, key)) = SHORT.into_iter().find(|(short, ..)| *short == name) {
            let path = format!("environments[].{key}");
            let kind = settings::setting(&path).map_or(Kind::File, |s| s.kind);
            match arguments::value(kind, value, origin) {
                Ok(node) => self.short.push(Short { backend, key, node }),
                Err(problem) => self.faults.push(problem.at(origin, "")),
            }
            return;
        }
        if LATER
            .iter()
            .any(|later| name == *later || name.strip_suffix("_FILE") == Some(later))
        {
            self.warnings
                .push(Fault::new(origin, "", "not used by this version, ignored"));
            return;
        }
        let path = path_of(name);
        let pattern = tree::pattern(&path);
        if let Some(setting) = settings::setting(&pattern) {
            self.setting(path, setting.kind, value, origin);
        } else if pattern == "environments" {
            let (node, faults) = yaml::read_value(value, origin);
            self.faults.extend(faults);
            self.settings.push((path, node));
        } else if let Some(setting) = name
            .strip_suffix("_FILE")
            .and_then(|name| setting_of(&path_of(name)))
        {
            let path = path_of(name.strip_suffix("_FILE").unwrap_or(name));
            self.read_file(&path, setting, Path::new(value), origin);
        } else {
            self.unknown(name, origin);
        }
    }

    fn setting(&mut self, path: Vec<Step>, kind: Kind, value: &str, origin: &Origin) {
        match arguments::value(kind, value, origin) {
            Ok(node) => self.settings.push((path, node)),
            Err(problem) => self
                .faults
                .push(problem.at(origin, tree::Path(&path).to_string())),
        }
    }

    fn read_file(&mut self, path: &[Step], kind: Kind, file: &Path, origin: &Origin) {
        if kind.is_secret() {
            self.secret_files.push((origin.clone(), file.to_owned()));
        }
        match fs::read_to_string(file) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                self.setting(path.to_vec(), kind, text, origin);
            }
            Err(error) => {
                let what = format!("its file cannot be read: {error}");
                let path = tree::Path(path).to_string();
                self.faults
                    .push(Fault::new(origin, &path, what).got(&file.to_string_lossy()));
            }
        }
    }

    fn unknown(&mut self, name: &str, origin: &Origin) {
        let pattern = tree::pattern(&path_of(name));
        let names: Vec<String> = SETTINGS
            .iter()
            .map(|s| {
                s.path
                    .replace("[]", "__0")
                    .replace('.', "__")
                    .to_ascii_uppercase()
            })
            .collect();
        let candidates = names
            .iter()
            .map(String::as_str)
            .chain(SHORT.iter().map(|s| s.0))
            .chain(["CONFIG"]);
        let meant = nearest(name, candidates).map(|near| format!("{PREFIX}{near}"));
        let fault = Fault::new(origin, "", "unknown variable, ignored").meant(meant);
        let is_section = !settings::children(&pattern).is_empty();
        self.warnings.push(if is_section {
            fault.expected("the name of one setting")
        } else {
            fault
        });
    }
}

fn setting_of(path: &[Step]) -> Option<Kind> {
    settings::setting(&tree::pattern(path)).map(|s| s.kind)
}

fn path_of(name: &str) -> Vec<Step> {
    name.split("__")
        .map(|part| match part.parse::<usize>() {
            Ok(index) => Step::Index(index),
            Err(_) => Step::Key(part.to_ascii_lowercase()),
        })
        .collect()
}

/// Whether Kubernetes or Docker set the variable because a service is called `flagside` or `flagside-…`:
/// `…PORT=tcp://10.0.0.1:3546`, `…PORT_3546_TCP_ADDR`, `…SERVICE_HOST`, `…SERVICE_PORT_HTTP`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_link = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let after = |marker: &str| {
        let at = name
            .find(marker)
            .filter(|at| *at == 0 || name[..*at].ends_with('_'))?;
        Some(&name[at + marker.len()..])
    };
    let is_port_part = after("PORT_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let is_service = after("SERVICE_HOST").is_some_and(str::is_empty)
        || after("SERVICE_PORT").is_some_and(|r| r.is_empty() || r.starts_with('_'));
    (is_link && name.ends_with("PORT")) || is_port_part || is_service
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(variables: &[(&str, &str)]) -> Variables {
        let variables: Vec<_> = variables
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)))
            .collect();
        read(&variables)
    }

    #[test]
    fn names_become_paths() {
        let read = run(&[
            ("FLAGSIDE_ENVIRONMENTS__1__NAME", "b"),
            ("FLAGSIDE_ENVIRONMENTS__0__URLS__EVAL", "http://x"),
            ("FLAGSIDE_CACHE__FRESH_FOR", "1s"),
            ("FLAGSIDE_UPSTREAM__CA_FILE", "/ca.pem"),
            ("OTHER", "x"),
        ]);
        let paths: Vec<_> = read
            .settings
            .iter()
            .map(|(path, _)| tree::Path(path).to_string())
            .collect();
        assert_eq!(
            paths,
            [
                "cache.fresh_for",
                "environments[0].urls.eval",
                "environments[1].name",
                "upstream.ca_file"
            ]
        );
        assert!(read.faults.is_empty() && read.warnings.is_empty(), "{read:?}");
    }

    #[test]
    fn unknown_names_are_warnings_with_a_suggestion() {
        for (name, wanted) in [
            (
                "FLAGSIDE_LOG_LEVEL",
                "unknown variable, ignored; did you mean FLAGSIDE_LOG__LEVEL?",
            ),
            (
                "FLAGSIDE_CACHE__FRESHFOR",
                "unknown variable, ignored; did you mean FLAGSIDE_CACHE__FRESH_FOR?",
            ),
            (
                "FLAGSIDE_REGOIN",
                "unknown variable, ignored; did you mean FLAGSIDE_REGION?",
            ),
            (
                "FLAGSIDE_UPSTREAM",
                "unknown variable, ignored; expected the name of one setting",
            ),
            ("FLAGSIDE_XYZZY", "unknown variable, ignored"),
            ("FLAGSIDE_API_KEY", "not used by this version, ignored"),
            ("FLAGSIDE_SECRET_KEY_FILE", "not used by this version, ignored"),
        ] {
            let read = run(&[(name, "1")]);
            let warnings: Vec<_> = read.warnings.iter().map(ToString::to_string).collect();
            assert_eq!(warnings, [format!("{name}: {wanted}")]);
            assert!(read.faults.is_empty() && read.settings.is_empty());
        }
    }

    #[test]
    fn service_links_and_empty_values_are_ignored() {
        for (name, value) in [
            ("FLAGSIDE_PORT", "tcp://10.0.0.1:3546"),
            ("FLAGSIDE_PORT_3546_TCP", "tcp://10.0.0.1:3546"),
            ("FLAGSIDE_PORT_3546_TCP_ADDR", "10.0.0.1"),
            ("FLAGSIDE_PORT_3546_TCP_PROTO", "tcp"),
            ("FLAGSIDE_SERVICE_HOST", "10.0.0.1"),
            ("FLAGSIDE_SERVICE_PORT", "3546"),
            ("FLAGSIDE_SERVICE_PORT_HTTP", "3546"),
            ("FLAGSIDE_ADMIN_PORT", "tcp://10.0.0.1:3547"),
            ("FLAGSIDE_ADMIN_SERVICE_HOST", "10.0.0.1"),
            ("FLAGSIDE_MODE", ""),
        ] {
            let read = run(&[(name, value)]);
            let quiet = read.faults.is_empty() && read.warnings.is_empty() && read.settings.is_empty();
            assert!(quiet, "{name}: {read:?}");
        }
        assert_eq!(run(&[("FLAGSIDE_PORT", "3546")]).warnings.len(), 1);
    }

    #[test]
    fn a_file_may_hold_the_value() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("level");
        fs::write(&file, "debug\n").unwrap();
        let read = run(&[("FLAGSIDE_LOG__LEVEL_FILE", file.to_str().unwrap())]);
        assert!(
            matches!(&read.settings[0].1.value, tree::Value::Text(text) if text == "debug"),
            "{read:?}"
        );
        let both = run(&[
            ("FLAGSIDE_LOG__LEVEL_FILE", file.to_str().unwrap()),
            ("FLAGSIDE_LOG__LEVEL", "info"),
        ]);
        assert_eq!(
            both.faults[0].to_string(),
            "FLAGSIDE_LOG__LEVEL_FILE log.level: given twice; expected either FLAGSIDE_LOG__LEVEL or \
             FLAGSIDE_LOG__LEVEL_FILE, not both"
        );
        let missing = run(&[("FLAGSIDE_LOG__LEVEL_FILE", "/nonexistent/level")]);
        assert_eq!(
            missing.faults[0].to_string(),
            "FLAGSIDE_LOG__LEVEL_FILE log.level: its file cannot be read: No such file or directory (os error 2) \
             (got /nonexistent/level)"
        );
    }

    proptest! {
        #[test]
        fn any_variable_is_read_or_refused(name in "[A-Z0-9_]{0,30}", value in "\\PC{0,30}") {
            let _ = run(&[(&format!("FLAGSIDE_{name}"), &value)]);
            let _ = run(&[("FLAGSIDE_ENVIRONMENTS", &value)]);
        }
    }
}
