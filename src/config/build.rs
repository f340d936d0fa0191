//! The merged tree becomes a [`Config`].

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::machine::Machine;
use super::reader::Reader;
use super::values::LOOPBACK;
use super::{
    Cache, Config, Drain, Featbit, Keys, Level, Listen, Log, LogFormat, Mode, Readiness, Sync, Upstream,
    environment,
};

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
        environments: environment::environments(reader),
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
