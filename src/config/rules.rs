//! What must hold between settings. Each rule reads the finished [`Config`] and asks the reader where the
//! values came from.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::fault::Origin;
use super::quantity::{format_duration, format_size};
use super::reader::Reader;
use super::{Backend, BaseUrl, Bases, Config, Environment, Evaluation, Mode, Secret, environment};
use crate::evaluate::featbit::EnvironmentId;
use crate::evaluate::featbit::secret::environment_of;

pub(super) const ENVIRONMENTS_MAX: usize = 64;
/// Kubernetes' default `terminationGracePeriodSeconds`.
const GRACE: Duration = Duration::from_secs(30);

/// Checks all rules.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>) {
    addresses(config, reader);
    environments(config, reader);
    for (at, environment) in config.environments.iter().enumerate() {
        answers(environment, at, reader);
        regions(environment, at, reader);
        flags_form(environment, at, reader);
    }
    learning(config, reader);
    secrets(config, reader);
    clocks(config, reader);
    memory(config, reader);
    files(config, reader);
}

fn addresses(config: &Config, reader: &mut Reader<'_>) {
    let data_on = |admin: &&SocketAddr| config.listen.data.iter().any(|data| overlap(*data, **admin));
    if let Some(both) = config.listen.admin.iter().find(data_on) {
        let path = if reader.origin("listen.admin") == Origin::Default {
            "listen.data"
        } else {
            "listen.admin"
        };
        let fault = reader.fault(path, "data and admin listen on the same port");
        fault.got = Some(both.to_string());
        fault.expected = Some("two ports".to_owned());
    }
    let reachable = config.listen.data.iter().find(|a| !a.ip().is_loopback());
    if let Some(address) = reachable.filter(|_| config.mode == Mode::Sidecar) {
        let warning = reader.warn("listen.data", "a sidecar that other machines can reach");
        warning.got = Some(address.to_string());
        warning.expected = Some("a loopback address, or mode: shared".to_owned());
    }
}

/// Whether binding one address takes the other one: the same port, and the same host or all hosts.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_all = |x: SocketAddr, y: SocketAddr| x.ip().is_unspecified() && (x.is_ipv6() || y.is_ipv4());
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || takes_all(a, b) || takes_all(b, a))
}

fn environments(config: &Config, reader: &mut Reader<'_>) {
    let all = &config.environments;
    if all.len() > ENVIRONMENTS_MAX {
        let fault = reader.fault("environments", "too many environments");
        fault.got = Some(all.len().to_string());
        fault.expected = Some(format!("at most {ENVIRONMENTS_MAX}"));
    }
    for (at, environment) in all.iter().enumerate() {
        if let Some(first) = all[..at].iter().position(|e| e.name == environment.name) {
            let what = format!("the name of environments[{first}] again");
            reader.fault(&format!("environments[{at}].name"), what).got = Some(environment.name.clone());
        }
        let shares = |other: &Environment| other.keys.iter().any(|k| environment.keys.contains(k));
        if let Some(first) = all[..at].iter().position(shares) {
            let path = keys_path(environment.backend, at, reader);
            let noun = key_noun(environment.backend);
            let what = format!("{noun} that environments[{first}] has too");
            reader.fault(&path, what).expected = Some("each key in one environment".to_owned());
        }
    }
}

/// What one key of a backend is.
const fn key_noun(backend: Backend) -> &'static str {
    match backend {
        Backend::Amplitude => "a deployment key",
        Backend::Featbit => "an environment secret",
    }
}

/// The setting that gave an environment its keys.
fn keys_path(backend: Backend, at: usize, reader: &Reader<'_>) -> String {
    let mut paths = environment::key_settings(backend).map(|key| format!("environments[{at}].{key}"));
    let given = paths.find(|path| reader.is_given(path));
    given.unwrap_or_else(|| format!("environments[{at}]"))
}

/// An unknown key is tried only where it can belong to one environment of the backend alone.
fn learning(config: &Config, reader: &mut Reader<'_>) {
    for backend in [Backend::Amplitude, Backend::Featbit] {
        let learns = |(_, it): &(usize, &Environment)| it.backend == backend && it.learn_keys;
        let Some((second, _)) = config.environments.iter().enumerate().filter(learns).nth(1) else {
            continue;
        };
        let what = match backend {
            Backend::Amplitude => {
                "more than one environment learns keys, so an unknown key is refused: nobody knows where it belongs"
            }
            Backend::Featbit => {
                "more than one FeatBit environment learns secrets, so an unknown secret is refused: nobody knows where it belongs"
            }
        };
        let warning = reader.warn(&format!("environments[{second}].learn_keys"), what);
        warning.expected = Some("learn_keys: true in one environment at most".to_owned());
    }
}

/// Secrets of one FeatBit environment are of one upstream: elsewhere they mean nothing, or something else. Nothing
/// is said of the environment's id, for it is half of its secrets, and the half that counts.
fn secrets(config: &Config, reader: &mut Reader<'_>) {
    let ids = |environment: &Environment| -> Vec<EnvironmentId> {
        let secrets = environment.keys.iter().map(Secret::expose);
        match environment.backend {
            Backend::Amplitude => Vec::new(),
            Backend::Featbit => secrets.filter_map(environment_of).collect(),
        }
    };
    let all: Vec<_> = config.environments.iter().map(ids).collect();
    for (at, own) in all.iter().enumerate() {
        let shares = |other: &Vec<EnvironmentId>| own.iter().any(|id| other.contains(id));
        let Some(first) = all[..at].iter().position(shares) else {
            continue;
        };
        let path = keys_path(Backend::Featbit, at, reader);
        let base = |at: usize| config.environments[at].urls.as_ref()?.featbit();
        let same = base(at).map(|urls| &urls.evaluate) == base(first).map(|urls| &urls.evaluate);
        let what = format!("a secret of the same FeatBit environment as one of environments[{first}]");
        if same {
            reader.warn(&path, what)
        } else {
            reader.fault(&path, format!("{what}, with another upstream"))
        }
        .expected = Some("all secrets of a FeatBit environment in one place".to_owned());
    }
}

/// A flags file of the other backend.
fn flags_form(environment: &Environment, at: usize, reader: &mut Reader<'_>) {
    let form = environment
        .bootstrap_file
        .as_deref()
        .and_then(Backend::of_flags_file);
    let what = match (environment.backend, form) {
        (Backend::Amplitude, Some(Backend::Featbit)) => {
            "FeatBit's flags (a data-sync message) in an Amplitude environment"
        }
        (Backend::Featbit, Some(Backend::Amplitude)) => {
            "Amplitude's flags (a list, as /sdk/v2/flags answers it) in a FeatBit environment"
        }
        _ => return,
    };
    let path = format!("environments[{at}].bootstrap_file");
    let expected = match environment.backend {
        Backend::Amplitude => "flags as /sdk/v2/flags answers them, or backend: featbit",
        Backend::Featbit => "a data-sync message of FeatBit's, or backend: amplitude",
    };
    let fault = reader.fault(&path, what);
    fault.got = environment
        .bootstrap_file
        .as_ref()
        .map(|file| file.display().to_string());
    fault.expected = Some(expected.to_owned());
}

/// Whether the environment can answer anything at all.
fn answers(environment: &Environment, at: usize, reader: &mut Reader<'_>) {
    let path = |key: &str| format!("environments[{at}].{key}");
    let urls = path("urls");
    // What is wrong with its URLs has been told already.
    if environment.urls.is_none() && !reader.is_faulty(&urls) {
        if environment.bootstrap_file.is_none() {
            let (what, remedy) = if reader.is_text(&urls) {
                (
                    "no upstream and no flags: nothing could answer",
                    "a bootstrap_file beside urls: none",
                )
            } else {
                (
                    "a FeatBit environment without upstream and without flags: nothing could answer",
                    "urls: {featbit: http://HOST:5100}, --featbit-upstream URL, or a bootstrap_file",
                )
            };
            reader.fault(&urls, what).expected = Some(remedy.to_owned());
        } else if environment.evaluation == Evaluation::Off {
            reader
                .fault(&path("evaluation"), "off without upstream: nothing could answer")
                .expected = Some("remote or local beside urls: none".to_owned());
        }
    }
    let takes_no_key =
        !environment.learn_keys && environment.keys.is_empty() && environment.bootstrap_file.is_none();
    if takes_no_key {
        reader
            .warn(&path("learn_keys"), "no key may use this environment")
            .expected = Some(match environment.backend {
            Backend::Amplitude => "deployment keys, or learn_keys: true".to_owned(),
            Backend::Featbit => "environment secrets, or learn_keys: true".to_owned(),
        });
    }
}

/// A region beside URLs of the other one: its keys would be sent where they mean nothing.
fn regions(environment: &Environment, at: usize, reader: &mut Reader<'_>) {
    let region_path = format!("environments[{at}].region");
    let urls = environment.urls.as_ref().and_then(Bases::amplitude);
    let (Some(urls), true) = (urls, reader.origin(&region_path) != Origin::Default) else {
        return;
    };
    let is_eu = reader.word(&region_path) == "eu";
    for (key, url) in [
        ("eval", &urls.eval),
        ("flags", &urls.flags),
        ("stream", &urls.stream),
        ("cohort", &urls.cohort),
        ("management", &urls.management),
        ("analytics", &urls.analytics),
    ] {
        if official_region(url).is_some_and(|url_is_eu| url_is_eu != is_eu) {
            let (region, other) = if is_eu { ("eu", "US") } else { ("us", "EU") };
            let what = format!("a host of the {other} region beside region: {region}");
            reader.warn(&format!("environments[{at}].urls.{key}"), what).got = Some(url.host.clone());
        }
    }
}

/// For Amplitude's own hosts: whether they are in the EU.
pub(super) fn official_region(url: &BaseUrl) -> Option<bool> {
    let name = url.host.strip_suffix(".amplitude.com")?;
    Some(name == "eu" || name.ends_with(".eu"))
}

fn clocks(config: &Config, reader: &mut Reader<'_>) {
    let total = config.upstream.total_deadline;
    for (path, duration) in [
        ("answer_deadline", config.answer_deadline),
        ("upstream.connect_timeout", config.upstream.connect_timeout),
        ("upstream.request_timeout", config.upstream.request_timeout),
    ] {
        if duration > total && reader.origin(path) != Origin::Default {
            let warning = reader.warn(path, "longer than upstream.total_deadline, so without effect");
            warning.got = Some(format_duration(duration));
            warning.expected = Some(format!("at most {}", format_duration(total)));
        }
    }
    for (path, duration) in [
        (
            "cache.stale_while_revalidate",
            config.cache.stale_while_revalidate,
        ),
        ("cache.stale_error", config.cache.stale_error),
    ] {
        if duration > config.cache.max_stale && reader.origin(path) != Origin::Default {
            let warning = reader.warn(path, "longer than cache.max_stale");
            warning.got = Some(format_duration(duration));
            warning.expected = Some(format!("at most {}", format_duration(config.cache.max_stale)));
        }
    }
    let sum = config.drain.delay + config.drain.timeout;
    if sum > GRACE {
        let path = if reader.origin("drain.timeout") == Origin::Default {
            "drain.delay"
        } else {
            "drain.timeout"
        };
        let warning = reader.warn(
            path,
            "drain.delay and drain.timeout together exceed Kubernetes' default grace period",
        );
        warning.got = Some(format_duration(sum));
        warning.expected = Some("at most 30s, or a larger terminationGracePeriodSeconds".to_owned());
    }
}

fn memory(config: &Config, reader: &mut Reader<'_>) {
    let budget = config.cache.max_bytes;
    if let Some(limit) = config.memory_limit.filter(|limit| budget > *limit) {
        let fault = reader.fault("cache.max_bytes", "more than this process may use");
        fault.got = Some(format_size(budget));
        fault.expected = Some(format!("well below the memory limit of {}", format_size(limit)));
    }
    let entry = config.cache.max_entry as u64;
    if entry > budget {
        let fault = reader.fault("cache.max_entry", "more than cache.max_bytes");
        fault.got = Some(format_size(entry));
        fault.expected = Some(format!("at most {}", format_size(budget)));
    }
}

fn files(config: &Config, reader: &mut Reader<'_>) {
    for (at, environment) in config.environments.iter().enumerate() {
        if let Some(file) = &environment.bootstrap_file {
            readable(file, &format!("environments[{at}].bootstrap_file"), reader);
        }
    }
    if let Some(file) = &config.upstream.ca_file {
        readable(file, "upstream.ca_file", reader);
    }
}

/// Opens regular files alone: opening a pipe may wait for ever, or take what the reader needs.
fn readable(file: &Path, path: &str, reader: &mut Reader<'_>) {
    let opened = fs::metadata(file).and_then(|metadata| {
        if metadata.is_file() {
            File::open(file)?;
        }
        Ok(metadata)
    });
    let problem = match opened {
        Ok(metadata) if metadata.is_dir() => "is a directory".to_owned(),
        Ok(_) => return,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "no such file".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    reader.fault(path, problem).got = Some(file.display().to_string());
}

/// Whether others than owner and group may read `file`.
#[cfg(unix)]
pub(super) fn is_open_to_others(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Other systems have no such bit.
#[cfg(not(unix))]
pub(super) fn is_open_to_others(_file: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_overlap_by_port_and_host() {
        for (a, b, wanted) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "[::]:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("10.0.0.1:1", "127.0.0.1:1", false),
        ] {
            assert_eq!(overlap(a.parse().unwrap(), b.parse().unwrap()), wanted, "{a} {b}");
        }
    }
}
