//! The merged tree becomes a [`Config`].

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use super::machine::Machine;
use super::reader::Reader;
use super::values::LOOPBACK;
use super::{
    Backend, BaseUrl, Bases, Cache, Config, Drain, Environment, Evaluation, Featbit, Keys, Level, Listen,
    Log, LogFormat, Mode, Readiness, Secret, Sync, Upstream, Urls, arguments, values,
};
use super::{fault::Problem, settings::Kind};

const DATA_PORT: u16 = 3546;
const ADMIN_PORT: u16 = 3547;
const MIB: u64 = 1 << 20;

/// Reads the whole configuration; what is wrong is in the reader's faults and replaced by defaults.
pub(super) fn config(reader: &mut Reader<'_>, machine: &Machine, files: &[PathBuf]) -> Config {
    let mode = match reader.word("mode") {
        "shared" => Mode::Shared,
        _ => Mode::Sidecar,
    };
    Config {
        mode,
        workers: workers(reader, mode, machine),
        listen: listen(reader, mode),
        environments: environments(reader),
        upstream: upstream(reader),
        answer_deadline: reader.duration("answer_deadline"),
        cache: cache(reader, mode, machine),
        keys: Keys {
            max_learnt: reader.count("keys.max_learnt"),
            negative_entries: reader.count("keys.negative_entries"),
            negative_ttl: reader.duration("keys.negative_ttl"),
        },
        sync: Sync {
            flags_interval: reader.duration("sync.flags_interval"),
            jitter: reader.share("sync.jitter"),
            featbit_poll_interval: reader.duration("sync.featbit_poll_interval"),
            featbit_resync_interval: reader.duration("sync.featbit_resync_interval"),
            streaming: reader.switch("sync.streaming"),
        },
        featbit: Featbit {
            strict: reader.switch("featbit.strict"),
        },
        readiness: Readiness {
            deadline: reader.duration("readiness.deadline"),
            strict: reader.switch("readiness.strict"),
        },
        drain: drain(reader, mode),
        log: log(reader, machine),
        memory_limit: machine.memory_limit,
        files: files.to_vec(),
    }
}

fn workers(reader: &mut Reader<'_>, mode: Mode, machine: &Machine) -> NonZeroUsize {
    let given = reader.count_if_given("workers").and_then(NonZeroUsize::new);
    given.unwrap_or_else(|| match mode {
        Mode::Sidecar => machine.cpus.min(NonZeroUsize::MIN.saturating_add(1)),
        Mode::Shared => machine.cpus,
    })
}

fn listen(reader: &mut Reader<'_>, mode: Mode) -> Listen {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let hosts: &[IpAddr] = match mode {
        Mode::Sidecar => &LOOPBACK,
        Mode::Shared => &everywhere,
    };
    let data = reader.addresses("listen.data", hosts);
    let admin = reader.addresses("listen.admin", &LOOPBACK[..1]);
    Listen {
        data: data.unwrap_or_else(|| hosts.iter().map(|host| (*host, DATA_PORT).into()).collect()),
        admin: admin.unwrap_or_else(|| vec![(LOOPBACK[0], ADMIN_PORT).into()]),
        max_connections: reader.count("listen.max_connections"),
        header_timeout: reader.duration("listen.header_timeout"),
        idle_timeout: reader.duration("listen.idle_timeout"),
        max_body: reader.size("listen.max_body"),
        max_headers: reader.size("listen.max_headers"),
        path_prefix: reader.prefix("listen.path_prefix"),
        cors_origins: reader.origins_list("listen.cors.origins"),
    }
}

fn environments(reader: &mut Reader<'_>) -> Vec<Environment> {
    let count = reader.items("environments").max(1);
    (0..count).map(|at| environment(reader, at, count)).collect()
}

fn environment(reader: &mut Reader<'_>, at: usize, count: usize) -> Environment {
    let path = |key: &str| format!("environments[{at}].{key}");
    let backend = Backend::Amplitude;
    reader.word(&path("backend"));
    let name_path = path("name");
    let name = reader.name(&name_path);
    if name.is_none() && count > 1 && reader.origin(&name_path) == super::Origin::Default {
        reader.fault(&name_path, "missing").expected =
            Some("a unique name for each of several environments".to_owned());
    }
    let keys = deployment_keys(reader, at);
    let learn_default = count == 1 || keys.is_empty();
    Environment {
        name: name.unwrap_or_else(|| {
            if count == 1 {
                "amplitude".to_owned()
            } else {
                format!("environment-{at}")
            }
        }),
        backend,
        urls: urls(reader, at).map(Bases::Amplitude),
        learn_keys: reader
            .switch_if_given(&path("learn_keys"))
            .unwrap_or(learn_default),
        evaluation: match reader.word(&path("evaluation")) {
            "local" => Evaluation::Local,
            "off" => Evaluation::Off,
            _ => Evaluation::Remote,
        },
        bootstrap_file: reader.file(&path("bootstrap_file")),
        keys,
    }
}

/// The keys that were listed, or those of the file; each once.
fn deployment_keys(reader: &mut Reader<'_>, at: usize) -> Vec<Secret> {
    let list_path = format!("environments[{at}].deployment_keys");
    let file_path = format!("environments[{at}].deployment_keys_file");
    let listed = reader.keys(&list_path);
    let file = reader.file(&file_path);
    if listed.is_some() && file.is_some() {
        reader.fault(&file_path, "given beside deployment_keys").expected = Some("one of the two".to_owned());
    }
    let from_file = file.and_then(|file| match fs::read_to_string(&file) {
        Ok(text) => Some((text, file)),
        Err(error) => {
            let fault = reader.fault(&file_path, format!("cannot be read: {error}"));
            fault.got = Some(file.display().to_string());
            None
        }
    });
    let keys = match (listed, from_file) {
        (Some(listed), _) => listed,
        (None, Some((text, _))) => {
            let parsed: Result<Vec<Secret>, Problem> = arguments::split_list(&text)
                .map(|key| values::key(Kind::Secrets, key))
                .collect();
            parsed.unwrap_or_else(|fault| {
                reader.fault(&file_path, fault.what);
                Vec::new()
            })
        }
        (None, None) => Vec::new(),
    };
    let mut unique: Vec<Secret> = Vec::with_capacity(keys.len());
    for key in keys {
        if unique.contains(&key) {
            reader.warn(&list_path, "the same deployment key twice");
        } else {
            unique.push(key);
        }
    }
    unique
}

/// The bases: as given, else the official ones of the region; none for `urls: none`.
fn urls(reader: &mut Reader<'_>, at: usize) -> Option<Urls> {
    let path = |key: &str| format!("environments[{at}].{key}");
    let is_eu = reader.word(&path("region")) == "eu";
    if reader.word_instead_of_map(&path("urls")).is_some() {
        return None;
    }
    let mut shared: Vec<Arc<BaseUrl>> = Vec::new();
    let mut base = |key: &str, official: &str| {
        let url = reader
            .url(&path(&format!("urls.{key}")))
            .unwrap_or_else(|| official_base(official));
        if let Some(same) = shared.iter().find(|known| ***known == url) {
            return same.clone();
        }
        let url = Arc::new(url);
        shared.push(url.clone());
        url
    };
    let region = |us, eu| if is_eu { eu } else { us };
    Some(Urls {
        eval: base(
            "eval",
            region("api.lab.amplitude.com", "api.lab.eu.amplitude.com"),
        ),
        flags: base(
            "flags",
            region("flag.lab.amplitude.com", "flag.lab.eu.amplitude.com"),
        ),
        stream: base(
            "stream",
            region("stream.lab.amplitude.com", "stream.lab.eu.amplitude.com"),
        ),
        cohort: base(
            "cohort",
            region("cohort-v2.lab.amplitude.com", "cohort-v2.lab.eu.amplitude.com"),
        ),
        management: base(
            "management",
            region("experiment.amplitude.com", "experiment.eu.amplitude.com"),
        ),
        analytics: base("analytics", region("api2.amplitude.com", "api.eu.amplitude.com")),
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

fn upstream(reader: &mut Reader<'_>) -> Upstream {
    Upstream {
        connect_timeout: reader.duration("upstream.connect_timeout"),
        request_timeout: reader.duration("upstream.request_timeout"),
        total_deadline: reader.duration("upstream.total_deadline"),
        retries: reader.count_u32("upstream.retries"),
        retry_budget: reader.share("upstream.retry_budget"),
        pool_max_idle: reader.count("upstream.pool_max_idle"),
        max_in_flight: reader.count("upstream.max_in_flight"),
        circuit_failures: reader.count_u32("upstream.circuit.failures"),
        circuit_open_for: reader.duration("upstream.circuit.open_for"),
        ca_file: reader.file("upstream.ca_file"),
        http2: reader.switch("upstream.http2"),
        dns_refresh: reader.duration("upstream.dns_refresh"),
        max_answer: reader.size("upstream.max_answer"),
        max_flags: reader.size("upstream.max_flags"),
    }
}

fn cache(reader: &mut Reader<'_>, mode: Mode, machine: &Machine) -> Cache {
    Cache {
        max_bytes: reader
            .size_if_given("cache.max_bytes")
            .unwrap_or_else(|| cache_budget(mode, machine.memory_limit)),
        max_entry: reader.size("cache.max_entry"),
        fresh_for: reader.duration("cache.fresh_for"),
        stale_while_revalidate: reader.duration("cache.stale_while_revalidate"),
        stale_error: reader.duration("cache.stale_error"),
        max_stale: reader.duration("cache.max_stale"),
        ignore_query: reader.parameters("cache.ignore_query"),
    }
}

/// Bytes of stored responses by mode and memory limit (OPS 2).
fn cache_budget(mode: Mode, memory_limit: Option<u64>) -> u64 {
    match (mode, memory_limit) {
        (Mode::Sidecar, None) => 64 * MIB,
        (Mode::Sidecar, Some(limit)) => (limit / 4).clamp(8 * MIB, 64 * MIB),
        (Mode::Shared, None) => 256 * MIB,
        (Mode::Shared, Some(limit)) => (limit / 2).max(32 * MIB),
    }
}

fn drain(reader: &mut Reader<'_>, mode: Mode) -> Drain {
    let default = match mode {
        Mode::Sidecar => std::time::Duration::ZERO,
        Mode::Shared => std::time::Duration::from_secs(5),
    };
    Drain {
        delay: reader.duration_if_given("drain.delay").unwrap_or(default),
        timeout: reader.duration("drain.timeout"),
    }
}

fn log(reader: &mut Reader<'_>, machine: &Machine) -> Log {
    Log {
        level: match reader.word("log.level") {
            "error" => Level::Error,
            "warn" => Level::Warn,
            "debug" => Level::Debug,
            "trace" => Level::Trace,
            _ => Level::Info,
        },
        format: match reader.word_if_given("log.format") {
            Some("text") => LogFormat::Text,
            None if machine.terminal => LogFormat::Text,
            _ => LogFormat::Json,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_budget_follows_mode_and_memory() {
        for (mode, limit_mib, wanted_mib) in [
            (Mode::Sidecar, None, 64),
            (Mode::Sidecar, Some(16), 8),
            (Mode::Sidecar, Some(128), 32),
            (Mode::Sidecar, Some(4096), 64),
            (Mode::Shared, None, 256),
            (Mode::Shared, Some(48), 32),
            (Mode::Shared, Some(4096), 2048),
        ] {
            let budget = cache_budget(mode, limit_mib.map(|m: u64| m * MIB));
            assert_eq!(budget, wanted_mib * MIB, "{mode:?} {limit_mib:?}");
        }
    }
}
