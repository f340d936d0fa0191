//! Whose an environment is: as it says itself, else as its settings and its flags tell.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Backend;
use super::tree::{Node, Step, Value};

/// Settings of Amplitude environments alone, below `environments[]`.
const OF_AMPLITUDE: [&str; 9] = [
    "region",
    "deployment_keys",
    "deployment_keys_file",
    "urls.eval",
    "urls.flags",
    "urls.stream",
    "urls.cohort",
    "urls.management",
    "urls.analytics",
];

/// Settings of FeatBit environments alone.
const OF_FEATBIT: [&str; 6] = [
    "env_secrets",
    "env_secret",
    "env_secret_file",
    "urls.featbit",
    "urls.featbit_stream",
    "urls.featbit_event",
];

/// How much of a flags file is looked at.
const HEAD_BYTES: u64 = 64 << 10;

impl Backend {
    /// Whose flags a file holds, by how it begins: a list is what Amplitude's `/sdk/v2/flags` answers, an object with
    /// the members of a `data-sync` message is FeatBit's.
    ///
    /// `None` if it is neither, cannot be read, or is no regular file, of which reading would take something.
    #[must_use]
    pub fn of_flags_file(file: &Path) -> Option<Self> {
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut head = Vec::new();
        File::open(file)
            .ok()?
            .take(HEAD_BYTES)
            .read_to_end(&mut head)
            .ok()?;
        Self::of_flags(&head)
    }

    fn of_flags(head: &[u8]) -> Option<Self> {
        const MEMBERS: [&[u8]; 3] = [b"\"messageType\"", b"\"eventType\"", b"\"featureFlags\""];
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        match head.iter().find(|byte| !byte.is_ascii_whitespace())? {
            b'[' => Some(Self::Amplitude),
            b'{' => {
                let has = |member: &&[u8]| head.windows(member.len()).any(|part| part == *member);
                MEMBERS.iter().any(has).then_some(Self::Featbit)
            }
            _ => None,
        }
    }
}

/// The settings of `backend` alone, as paths below an environment.
pub(super) const fn settings_of(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Amplitude => &OF_AMPLITUDE,
        Backend::Featbit => &OF_FEATBIT,
    }
}

/// Whose the environment at `node` is, if anything tells: `backend`, else a setting that only one of them has
/// (FeatBit's first, for Amplitude's may come from a variable for any environment), else the flags file.
pub(super) fn told(node: &Node) -> Option<Backend> {
    let text = |key: &str| match node.child(key).map(|found| &found.value) {
        Some(Value::Text(text)) => Some(text.trim()),
        _ => None,
    };
    let named = text("backend").and_then(|word| {
        [Backend::Amplitude, Backend::Featbit]
            .into_iter()
            .find(|backend| backend.as_str().eq_ignore_ascii_case(word))
    });
    let has = |path: &&str| {
        path.split('.')
            .try_fold(node, |node, key| node.child(key))
            .is_some()
    };
    let by_settings = || {
        [Backend::Featbit, Backend::Amplitude]
            .into_iter()
            .find(|backend| settings_of(*backend).iter().any(has))
    };
    let by_flags = || Backend::of_flags_file(Path::new(text("bootstrap_file")?));
    named.or_else(by_settings).or_else(by_flags)
}

/// Whose each environment of the tree is, if anything tells.
pub(super) fn told_of_all(root: &Node) -> Vec<Option<Backend>> {
    match root.child("environments").map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().map(told).collect(),
        _ => Vec::new(),
    }
}

/// The path of a setting of the environment at `at`.
pub(super) fn setting_path(at: usize, key: &str) -> Vec<Step> {
    let keys = key.split('.').map(|key| Step::Key(key.to_owned()));
    [Step::Key("environments".to_owned()), Step::Index(at)]
        .into_iter()
        .chain(keys)
        .collect()
}

/// Where a setting belongs that names its backend, but not its environment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// The only environment of the backend.
    At(usize),
    /// There is none yet: behind the others.
    New(usize),
    /// There are so many that it could be any, and the first of them.
    Several(usize, usize),
}

impl Place {
    /// In a tree. An environment of which nothing tells whose it is is Amplitude's; with `takes_undecided`, FeatBit
    /// takes it if it is the only one.
    pub(super) fn of(root: &Node, backend: Backend, takes_undecided: bool) -> Self {
        let told = told_of_all(root);
        if takes_undecided && told == [None] {
            return Self::At(0);
        }
        let mut fitting = (0..told.len()).filter(|at| told[*at].unwrap_or(Backend::Amplitude) == backend);
        match (fitting.next(), fitting.count()) {
            (None, _) => Self::New(told.len()),
            (Some(at), 0) => Self::At(at),
            (Some(first), others) => Self::Several(others + 1, first),
        }
    }

    /// The environment's place, if there is one place.
    ///
    /// # Errors
    /// What is wrong with a setting for the backend's only environment, where there are several.
    pub(super) fn single(self, backend: Backend) -> Result<usize, String> {
        match self {
            Self::At(at) | Self::New(at) => Ok(at),
            Self::Several(count, _) => Err(format!(
                "means a single {} environment, and {count} are configured",
                backend.product()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::yaml;
    use super::*;

    const A: Option<Backend> = Some(Backend::Amplitude);
    const F: Option<Backend> = Some(Backend::Featbit);

    #[test]
    fn flags_files_are_told_by_how_they_begin() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("flags.json");
        let late = format!("{{{}\"featureFlags\":[]}}", " ".repeat(70_000));
        for (text, wanted) in [
            ("[]", A),
            ("\u{feff} \r\n\t[{\"key\": \"featureFlags\"}]", A),
            (r#"{"messageType":"data-sync","data":{}}"#, F),
            (r#" {"eventType":"full"}"#, F),
            (r#"{"segments":[],"featureFlags":[]}"#, F),
            (r#"{"flags":[]}"#, None),
            ("{}", None),
            ("", None),
            ("  ", None),
            ("flags", None),
            (&late, None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Backend::of_flags_file(&file), wanted, "{text:.60}");
        }
        for other in [dir.path(), Path::new("/dev/null"), Path::new("/nonexistent")] {
            assert_eq!(Backend::of_flags_file(other), None, "{other:?}");
        }
    }

    #[test]
    fn environments_are_told_by_what_they_say() {
        for (text, wanted) in [
            ("{}", None),
            (
                "{name: x, evaluation: local, urls: none, bootstrap_file: /nonexistent}",
                None,
            ),
            ("{backend: FeatBit}", F),
            ("{backend: featbit, region: eu}", F),
            ("{backend: amplitude, env_secret: x}", A),
            ("{backend: other, env_secrets: [x]}", F),
            ("{region: eu}", A),
            ("{deployment_keys_file: x}", A),
            ("{urls: {eval: http://x}}", A),
            ("{urls: {featbit: http://x}}", F),
            ("{urls: {featbit_event: http://x}, region: eu}", F),
            ("{env_secret_file: x}", F),
            ("{env_secret: null}", None),
        ] {
            let (node, faults) = yaml::read(&PathBuf::from("x"), text.as_bytes());
            assert_eq!((told(&node), faults.len()), (wanted, 0), "{text}");
        }
    }

    #[test]
    fn settings_without_environment_find_theirs() {
        let amplitude = "{region: eu}";
        let featbit = "{env_secret: x}";
        for (environments, of_amplitude, of_featbit, of_featbit_or_undecided) in [
            (vec![], Place::New(0), Place::New(0), Place::New(0)),
            (vec!["{}"], Place::At(0), Place::New(1), Place::At(0)),
            (vec![amplitude], Place::At(0), Place::New(1), Place::New(1)),
            (vec![featbit], Place::New(1), Place::At(0), Place::At(0)),
            (
                vec![featbit, "{}", amplitude, featbit],
                Place::Several(2, 1),
                Place::Several(2, 0),
                Place::Several(2, 0),
            ),
        ] {
            let text = format!("environments: [{}]", environments.join(", "));
            let (root, _) = yaml::read(&PathBuf::from("x"), text.as_bytes());
            let place = |backend, undecided| Place::of(&root, backend, undecided);
            assert_eq!(place(Backend::Amplitude, false), of_amplitude, "{text}");
            assert_eq!(place(Backend::Featbit, false), of_featbit, "{text}");
            assert_eq!(place(Backend::Featbit, true), of_featbit_or_undecided, "{text}");
        }
    }

    #[test]
    fn every_owned_setting_is_one() {
        for backend in [Backend::Amplitude, Backend::Featbit] {
            for path in settings_of(backend) {
                let path = format!("environments[].{path}");
                assert!(super::super::settings::setting(&path).is_some(), "{path}");
            }
        }
    }
}
