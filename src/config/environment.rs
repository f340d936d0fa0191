//! One environment of the tree becomes an [`Environment`]: a backend, its bases and its keys.

use std::fs;
use std::sync::Arc;

use super::fault::{Origin, Problem};
use super::reader::Reader;
use super::settings::Kind;
use super::{Backend, BaseUrl, Bases, Environment, Evaluation, FeatbitUrls, Secret, Urls};
use super::{arguments, backend, values};

/// All environments; where none is given, Amplitude's standard region.
pub(super) fn environments(reader: &mut Reader<'_>) -> Vec<Environment> {
    let mut backends = backend::told_of_all(reader.root());
    if backends.is_empty() {
        backends.push(None);
    }
    let backends: Vec<Backend> = backends
        .into_iter()
        .map(|told| told.unwrap_or(Backend::Amplitude))
        .collect();
    let alone = |backend: Backend| backends.iter().filter(|other| **other == backend).count() == 1;
    backends
        .iter()
        .enumerate()
        .map(|(at, backend)| environment(reader, at, *backend, alone(*backend)))
        .collect()
}

/// `is_alone`: it is the only one of its backend.
fn environment(reader: &mut Reader<'_>, at: usize, backend: Backend, is_alone: bool) -> Environment {
    let path = |key: &str| format!("environments[{at}].{key}");
    reader.word_if_given(&path("backend"));
    let name_path = path("name");
    let name = reader.name(&name_path);
    if name.is_none() && !is_alone && reader.origin(&name_path) == Origin::Default {
        reader.fault(&name_path, "missing").expected =
            Some("a unique name for each of several environments".to_owned());
    }
    foreign(reader, at, backend);
    let (keys, urls) = match backend {
        Backend::Amplitude => (
            keys(reader, at, &DEPLOYMENT_KEYS),
            amplitude_urls(reader, at).map(Bases::Amplitude),
        ),
        Backend::Featbit => (
            keys(reader, at, &ENV_SECRETS),
            featbit_urls(reader, at).map(Bases::Featbit),
        ),
    };
    Environment {
        name: name.unwrap_or_else(|| {
            if is_alone {
                backend.as_str().to_owned()
            } else {
                format!("environment-{at}")
            }
        }),
        backend,
        urls,
        learn_keys: reader
            .switch_if_given(&path("learn_keys"))
            .unwrap_or(is_alone || keys.is_empty()),
        evaluation: match reader.word(&path("evaluation")) {
            "local" => Evaluation::Local,
            "off" => Evaluation::Off,
            _ => Evaluation::Remote,
        },
        bootstrap_file: reader.file(&path("bootstrap_file")),
        keys,
    }
}

/// Refuses settings that only environments of the other backend have.
fn foreign(reader: &mut Reader<'_>, at: usize, backend: Backend) {
    let other = match backend {
        Backend::Amplitude => Backend::Featbit,
        Backend::Featbit => Backend::Amplitude,
    };
    for setting in backend::settings_of(other) {
        let path = format!("environments[{at}].{setting}");
        if reader.is_given(&path) {
            let (one, other_one) = (backend.product(), other.product());
            let what = format!("a setting of {other_one} environments in one of {one}'s");
            let remedy = format!("an environment of its own with backend: {}", other.as_str());
            reader.fault(&path, what).expected = Some(remedy);
        }
    }
}

/// How an environment is given its keys.
struct KeySettings {
    /// Settings that list them; one of these at most.
    lists: &'static [&'static str],
    /// The setting that names a file of them.
    file: &'static str,
    kind: Kind,
    /// What one of them is.
    one: &'static str,
}

const DEPLOYMENT_KEYS: KeySettings = KeySettings {
    lists: &["deployment_keys"],
    file: "deployment_keys_file",
    kind: Kind::Secrets,
    one: "deployment key",
};

const ENV_SECRETS: KeySettings = KeySettings {
    lists: &["env_secrets", "env_secret"],
    file: "env_secret_file",
    kind: Kind::EnvSecrets,
    one: "environment secret",
};

/// The setting that names a file of keys, by backend.
pub(super) const fn key_file_setting(backend: Backend) -> &'static str {
    match backend {
        Backend::Amplitude => DEPLOYMENT_KEYS.file,
        Backend::Featbit => ENV_SECRETS.file,
    }
}

/// All settings that give an environment of `backend` its keys.
pub(super) fn key_settings(backend: Backend) -> impl Iterator<Item = &'static str> {
    let settings = match backend {
        Backend::Amplitude => &DEPLOYMENT_KEYS,
        Backend::Featbit => &ENV_SECRETS,
    };
    settings.lists.iter().copied().chain([settings.file])
}

/// The keys that were listed, or those of the file; each once.
fn keys(reader: &mut Reader<'_>, at: usize, settings: &KeySettings) -> Vec<Secret> {
    let path = |key: &str| format!("environments[{at}].{key}");
    let mut listed: Option<(Vec<Secret>, &str)> = None;
    for list in settings.lists {
        let Some(keys) = reader.keys(&path(list)) else {
            continue;
        };
        match listed {
            None => listed = Some((keys, list)),
            Some((_, first)) => beside(reader, &path(list), first),
        }
    }
    let file_path = path(settings.file);
    let file = reader.file(&file_path);
    if let (Some((_, list)), true) = (&listed, file.is_some()) {
        beside(reader, &file_path, list);
    }
    let from_file = file.and_then(|file| match fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) => {
            let fault = reader.fault(&file_path, format!("cannot be read: {error}"));
            fault.got = Some(file.display().to_string());
            None
        }
    });
    let (keys, list) = match (listed, from_file) {
        (Some((keys, list)), _) => (keys, list),
        (None, Some(text)) => (file_keys(reader, &text, &file_path, settings.kind), settings.file),
        (None, None) => return Vec::new(),
    };
    let mut unique: Vec<Secret> = Vec::with_capacity(keys.len());
    for key in keys {
        if unique.contains(&key) {
            reader.warn(&path(list), format!("the same {} twice", settings.one));
        } else {
            unique.push(key);
        }
    }
    unique
}

fn beside(reader: &mut Reader<'_>, path: &str, other: &str) {
    reader.fault(path, format!("given beside {other}")).expected = Some("one of the two".to_owned());
}

/// The keys in the text of a file; none if one of them is wrong.
fn file_keys(reader: &mut Reader<'_>, text: &str, path: &str, kind: Kind) -> Vec<Secret> {
    let parsed: Result<Vec<Secret>, Problem> = arguments::split_list(text)
        .map(|key| values::key(kind, key))
        .collect();
    parsed.unwrap_or_else(|problem| {
        reader.fault(path, problem.what).expected = problem.expected;
        Vec::new()
    })
}

/// Parses bases so that equal ones are one allocation.
#[derive(Default)]
struct Shared(Vec<Arc<BaseUrl>>);

impl Shared {
    fn one(&mut self, url: BaseUrl) -> Arc<BaseUrl> {
        if let Some(same) = self.0.iter().find(|known| ***known == url) {
            return Arc::clone(same);
        }
        let url = Arc::new(url);
        self.0.push(Arc::clone(&url));
        url
    }
}

/// The bases: as given, else the official ones of the region; none for `urls: none`.
fn amplitude_urls(reader: &mut Reader<'_>, at: usize) -> Option<Urls> {
    let path = |key: &str| format!("environments[{at}].{key}");
    let is_eu = reader.word(&path("region")) == "eu";
    if reader.word_instead_of_map(&path("urls")).is_some() {
        return None;
    }
    let mut shared = Shared::default();
    let mut base = |key: &str, us: &str, eu: &str| {
        let given = reader.url(&path(&format!("urls.{key}")));
        shared.one(given.unwrap_or_else(|| official_base(if is_eu { eu } else { us })))
    };
    Some(Urls {
        eval: base("eval", "api.lab.amplitude.com", "api.lab.eu.amplitude.com"),
        flags: base("flags", "flag.lab.amplitude.com", "flag.lab.eu.amplitude.com"),
        stream: base(
            "stream",
            "stream.lab.amplitude.com",
            "stream.lab.eu.amplitude.com",
        ),
        cohort: base(
            "cohort",
            "cohort-v2.lab.amplitude.com",
            "cohort-v2.lab.eu.amplitude.com",
        ),
        management: base(
            "management",
            "experiment.amplitude.com",
            "experiment.eu.amplitude.com",
        ),
        analytics: base("analytics", "api2.amplitude.com", "api.eu.amplitude.com"),
    })
}

fn official_base(host: &str) -> BaseUrl {
    BaseUrl {
        tls: true,
        host: host.to_owned(),
        port: 443,
        path: String::new(),
    }
}

/// The bases as given, those of streams and events as that of requests; none for `urls: none` or without any.
fn featbit_urls(reader: &mut Reader<'_>, at: usize) -> Option<FeatbitUrls> {
    let urls = format!("environments[{at}].urls");
    if reader.word_instead_of_map(&urls).is_some() {
        return None;
    }
    let path = |key: &str| format!("{urls}.{key}");
    let evaluate = reader.url(&path("featbit"));
    let stream = reader.url(&path("featbit_stream"));
    let event = reader.url(&path("featbit_event"));
    if (stream.is_some() || event.is_some()) && !reader.is_given(&path("featbit")) {
        let what = "missing: streams and events alone answer no question";
        reader.fault(&path("featbit"), what).expected =
            Some("the URL of FeatBit's evaluation server, such as http://featbit:5100".to_owned());
    }
    let mut shared = Shared::default();
    let evaluate = shared.one(evaluate?);
    let mut base = |url: Option<BaseUrl>| url.map_or_else(|| Arc::clone(&evaluate), |url| shared.one(url));
    Some(FeatbitUrls {
        stream: base(stream),
        event: base(event),
        evaluate: Arc::clone(&evaluate),
    })
}
