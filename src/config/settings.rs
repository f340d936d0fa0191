//! Every setting, once: name, kind, range, default and what it does.
//!
//! Parsing, validation, `flagside help settings` and `docs/configuration.md` all come from this table.

use std::fmt;
use std::time::Duration;

use super::quantity::{format_duration, format_size};
use super::url::UrlForm;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its path in the file, items of a list as `[]`: `environments[].urls.eval`.
    pub path: &'static str,
    /// What it holds, and within which bounds.
    pub kind: Kind,
    /// What holds if nobody says anything.
    pub default: Preset,
    /// What it does: one sentence or two, for the reference.
    pub doc: &'static str,
}

/// What a setting holds. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number with `ms`, `s`, `m`, `h` or `d`.
    Duration(Duration, Duration),
    /// Bytes, as `64MiB` or `64MB`.
    Size(u64, u64),
    /// A whole number.
    Count(u64, u64),
    /// A decimal number.
    Share(f64, f64),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An environment's name.
    Name,
    /// A path prefix of requests.
    Prefix,
    /// The path of a file.
    File,
    /// A base URL.
    Url(UrlForm),
    /// Addresses to listen on.
    Addresses,
    /// Browser origins.
    Origins,
    /// Names of query parameters.
    Parameters,
    /// Deployment keys.
    Secrets,
    /// FeatBit environment secrets.
    EnvSecrets,
}

/// What holds if nobody says anything.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// This text, read as if it had been given.
    Text(&'static str),
    /// Worked out at start; the text says how.
    Computed(&'static str),
    /// Nothing: the feature is off or the list is empty.
    Unset,
}

impl Kind {
    /// Whether its values are secrets, which nothing may print.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Secrets | Self::EnvSecrets)
    }

    /// What one item of a list would be; for other kinds, what the value would be.
    pub(super) fn item(self) -> String {
        match self {
            Self::Addresses => "ADDRESS:PORT, :PORT or PORT".to_owned(),
            Self::Origins => "an origin such as https://app.example.com".to_owned(),
            Self::Parameters => "the name of a query parameter".to_owned(),
            Self::Secrets => "a deployment key".to_owned(),
            Self::EnvSecrets => "an environment secret, 44 characters as FeatBit shows it".to_owned(),
            other => other.to_string(),
        }
    }

    /// Whether it takes a list.
    #[must_use]
    pub const fn is_list(self) -> bool {
        matches!(
            self,
            Self::Addresses | Self::Origins | Self::Parameters | Self::Secrets | Self::EnvSecrets
        )
    }
}

/// What would be right, for `expected …` and for the reference.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(min, max) => {
                write!(
                    f,
                    "a duration from {} to {}",
                    format_duration(*min),
                    format_duration(*max)
                )
            }
            Self::Size(min, max) => write!(f, "a size from {} to {}", format_size(*min), format_size(*max)),
            Self::Count(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Share(min, max) => write!(f, "a number from {min} to {max}"),
            Self::Switch => f.write_str("true or false"),
            Self::Word(words) => f.write_str(&one_of(words)),
            Self::Name => f.write_str("1 to 63 of a-z, 0-9, _ and -, not _ or - first"),
            Self::Prefix => f.write_str("a path such as /flags, without slash at the end"),
            Self::File => f.write_str("the path of a file"),
            Self::Url(UrlForm::FeatbitStream) => {
                f.write_str("a URL such as https://host:port/prefix or wss://host:port/prefix")
            }
            Self::Url(_) => f.write_str("a URL such as https://host:port/prefix"),
            Self::Addresses => f.write_str("a list of ADDRESS:PORT, :PORT or PORT"),
            Self::Origins => f.write_str("a list of origins such as https://app.example.com"),
            Self::Parameters => f.write_str("a list of query parameter names"),
            Self::Secrets => f.write_str("a list of deployment keys"),
            Self::EnvSecrets => f.write_str("a list of environment secrets"),
        }
    }
}

/// `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [before @ .., last] => format!("{} or {last}", before.join(", ")),
    }
}

/// The setting named by `path`, indices written as `[]`.
#[must_use]
pub fn setting(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.path == path)
}

/// The names directly below `section` (empty: the top), in the table's order, without repetition.
pub(super) fn children(section: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for setting in SETTINGS {
        let below = match section {
            "" => Some(setting.path),
            _ => setting
                .path
                .strip_prefix(section)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        let Some(name) = below.and_then(|rest| rest.split(['.', '[']).next()) else {
            continue;
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const REGIONS: &[&str] = &["us", "eu"];

const fn row(path: &'static str, kind: Kind, default: Preset, doc: &'static str) -> Setting {
    Setting {
        path,
        kind,
        default,
        doc,
    }
}

use Kind::{
    Addresses, Count, Duration as Time, EnvSecrets, File, Name, Origins, Parameters, Prefix, Secrets, Share,
    Size, Switch, Url, Word,
};
use Preset::{Computed, Text, Unset};

/// All settings, in the order of the reference.
#[rustfmt::skip] // One setting, one entry: the table is read by column.
pub const SETTINGS: &[Setting] = &[
    row("mode", Word(&["sidecar", "shared"]), Text("sidecar"),
        "Who is served: the containers of one pod over loopback, or many pods behind a Service. Decides the defaults of addresses, workers, cache and drain."),
    row("workers", Count(1, 256), Computed("min(2, CPUs) for sidecar, CPUs for shared"),
        "Data worker threads. CPUs are counted within the cgroup's quota."),
    row("answer_deadline", Time(ms(10), secs(60)), Text("400ms"),
        "How long a request waits for upstream before a stand-in answers, if there is one."),

    row("listen.data", Addresses, Computed("127.0.0.1:3546 and [::1]:3546 for sidecar, 0.0.0.0:3546 for shared"),
        "Where applications ask. PORT alone is the mode's default address with that port; port 0 picks a free one."),
    row("listen.admin", Addresses, Computed("127.0.0.1:3547"),
        "Where probes, metrics and status are served. Kubernetes needs 0.0.0.0:3547."),
    row("listen.max_connections", Count(1, 1_000_000), Text("10000"),
        "Open data connections, all workers together."),
    row("listen.header_timeout", Time(ms(100), secs(300)), Text("5s"),
        "From the first byte of a request's head to its last."),
    row("listen.idle_timeout", Time(secs(1), hours(1)), Text("75s"),
        "How long a connection may be silent between requests."),
    row("listen.max_body", Size(KIB, 64 * MIB), Text("1MiB"),
        "Largest request body; a larger one is answered 413."),
    row("listen.max_headers", Size(8 * KIB, MIB), Text("64KiB"),
        "Largest request head; a larger one is answered 431."),
    row("listen.path_prefix", Prefix, Unset,
        "A path prefix that is stripped from requests that have it."),
    row("listen.cors.origins", Origins, Unset,
        "Browser origins that may call. Empty or *: any."),

    row("environments[].name", Name, Computed("the backend's name, if it is the backend's only environment"),
        "Unique name: a metric label and a log field."),
    row("environments[].backend", Word(&["amplitude", "featbit"]), Computed("featbit if a setting or the flags of the environment are FeatBit's, else amplitude"),
        "Whose protocol the environment speaks."),
    row("environments[].region", Word(REGIONS), Text("us"),
        "Amplitude's data centre: which official hosts are used where urls says nothing else."),
    row("environments[].deployment_keys", Secrets, Unset,
        "Deployment keys known from the start: their flags are loaded before the first request. Better kept in deployment_keys_file."),
    row("environments[].deployment_keys_file", File, Unset,
        "A file with deployment keys, one a line; lines that begin with # are skipped."),
    row("environments[].env_secrets", EnvSecrets, Unset,
        "FeatBit environment secrets known from the start: their data is loaded before the first request. Better kept in env_secret_file."),
    row("environments[].env_secret", EnvSecrets, Unset,
        "The same as env_secrets, where there is only one."),
    row("environments[].env_secret_file", File, Unset,
        "A file with environment secrets, one a line; lines that begin with # are skipped."),
    row("environments[].learn_keys", Switch, Computed("true if it is the backend's only environment or lists no key"),
        "Whether a key that no environment lists may be tried on this one. Upstream's 200 proves it."),
    row("environments[].evaluation", Word(&["remote", "local", "off"]), Text("remote"),
        "When answers are computed here: remote = when upstream fails or is late, local = always, off = never."),
    row("environments[].bootstrap_file", File, Unset,
        "Flags to start from: JSON as /sdk/v2/flags answers it, for FeatBit a data-sync message."),
    row("environments[].urls", Word(&["none"]), Unset,
        "none: there is no upstream, answers come from bootstrap_file alone. Otherwise the bases below."),
    row("environments[].urls.eval", Url(UrlForm::Amplitude), Computed("by region"),
        "Base of vardata and of everything else below /v1/ and /web/."),
    row("environments[].urls.flags", Url(UrlForm::Amplitude), Computed("by region"),
        "Base of /sdk/v2/flags."),
    row("environments[].urls.stream", Url(UrlForm::Amplitude), Computed("by region"),
        "Base of /sdk/stream/."),
    row("environments[].urls.cohort", Url(UrlForm::Amplitude), Computed("by region"),
        "Base of cohort downloads."),
    row("environments[].urls.management", Url(UrlForm::Amplitude), Computed("by region"),
        "Base of the management API."),
    row("environments[].urls.analytics", Url(UrlForm::Amplitude), Computed("by region"),
        "Base of assignment events."),
    row("environments[].urls.featbit", Url(UrlForm::Featbit), Unset,
        "Base of FeatBit's evaluation server, such as http://featbit:5100."),
    row("environments[].urls.featbit_stream", Url(UrlForm::FeatbitStream), Computed("urls.featbit"),
        "Base of FeatBit's /streaming; ws:// and wss:// mean the same as http:// and https://."),
    row("environments[].urls.featbit_event", Url(UrlForm::Featbit), Computed("urls.featbit"),
        "Base of FeatBit's /api/public/insight/track."),

    row("upstream.connect_timeout", Time(ms(10), secs(60)), Text("1s"),
        "For the TCP and TLS handshakes."),
    row("upstream.request_timeout", Time(ms(10), secs(300)), Text("5s"),
        "From the request sent to the first byte of the response."),
    row("upstream.total_deadline", Time(ms(10), secs(600)), Text("8s"),
        "For the whole exchange, retries included; a request without stand-in waits no longer."),
    row("upstream.retries", Count(0, 10), Text("1"),
        "Attempts after the first one."),
    row("upstream.retry_budget", Share(0.0, 1.0), Text("0.1"),
        "Retries as a share of all requests: 0.1 is one in ten."),
    row("upstream.pool_max_idle", Count(0, 10_000), Text("32"),
        "Idle connections kept per host and worker."),
    row("upstream.max_in_flight", Count(1, 100_000), Text("256"),
        "Requests under way at once per environment; beyond, stand-ins answer."),
    row("upstream.circuit.failures", Count(1, 1_000), Text("5"),
        "Consecutive failures that open the circuit breaker."),
    row("upstream.circuit.open_for", Time(ms(100), secs(600)), Text("5s"),
        "How long an open breaker stays open before one probe is let through."),
    row("upstream.ca_file", File, Unset,
        "PEM file of roots that are trusted besides the compiled-in ones."),
    row("upstream.http2", Switch, Text("true"),
        "Whether HTTP/2 may be negotiated over TLS."),
    row("upstream.dns_refresh", Time(secs(1), hours(1)), Text("30s"),
        "How long a resolved address is used before it is looked up again, in the background."),
    row("upstream.max_answer", Size(KIB, GIB), Text("8MiB"),
        "Largest answer that is accepted."),
    row("upstream.max_flags", Size(KIB, GIB), Text("64MiB"),
        "Largest flag set that is accepted."),

    row("cache.max_bytes", Size(MIB, 1024 * GIB), Computed("sidecar: a quarter of the memory limit, 8MiB to 64MiB; shared: half of it, at least 32MiB (256MiB without limit)"),
        "All stored responses together, keys and overhead included."),
    row("cache.max_entry", Size(KIB, GIB), Text("1MiB"),
        "Largest response that is stored."),
    row("cache.fresh_for", Time(ms(1), hours(24)), Text("60s"),
        "How long a stored response is fresh: answered at once, without asking upstream."),
    row("cache.stale_while_revalidate", Time(ms(0), hours(24 * 30)), Text("10m"),
        "After that, how long it is still answered at once while it is refreshed in the background."),
    row("cache.stale_error", Time(ms(0), hours(24 * 30)), Text("24h"),
        "After freshness ended, how long it may stand in when upstream fails and the flags have not changed."),
    row("cache.max_stale", Time(ms(0), hours(24 * 365)), Text("7d"),
        "After freshness ended, how long it is the last resort, whatever the flags."),
    row("cache.ignore_query", Parameters, Unset,
        "Query parameters that change no answer: they are neither part of the key nor forwarded."),

    row("keys.max_learnt", Count(0, 1_000_000), Text("1024"),
        "Deployment keys that may be learnt from traffic; those beyond are forwarded uncached."),
    row("keys.negative_entries", Count(0, 1_000_000), Text("4096"),
        "Rejected keys that are remembered."),
    row("keys.negative_ttl", Time(ms(0), hours(1)), Text("10s"),
        "How long a rejected key is answered 401 without asking upstream."),

    row("sync.flags_interval", Time(secs(1), hours(24)), Text("30s"),
        "Between two polls of one deployment's flags."),
    row("sync.jitter", Share(0.0, 0.5), Text("0.1"),
        "Share of the interval by which a poll may come earlier or later."),
    row("sync.featbit_poll_interval", Time(secs(1), hours(24)), Text("30s"),
        "Between two polls of a FeatBit environment while it is not streamed."),
    row("sync.featbit_resync_interval", Time(secs(1), hours(24)), Text("10m"),
        "Between two syncs of everything a FeatBit environment has: FeatBit never announces deletions."),
    row("sync.streaming", Switch, Text("true"),
        "Whether FeatBit's data is streamed as it changes. false: it is polled alone."),

    row("featbit.strict", Switch, Text("false"),
        "Whether one flag that cannot be evaluated makes a whole local answer a 500, as FeatBit's server does. false: that flag is left out."),

    row("readiness.deadline", Time(ms(0), hours(1)), Text("10s"),
        "After this long the proxy is ready whatever the upstreams do."),
    row("readiness.strict", Switch, Text("false"),
        "Ignore the deadline: ready only with flags."),

    row("drain.delay", Time(ms(0), secs(600)), Computed("0s for sidecar, 5s for shared"),
        "After SIGTERM: unready, but still accepting."),
    row("drain.timeout", Time(ms(0), hours(1)), Text("25s"),
        "Then: how long requests in flight may take."),

    row("log.level", Word(&["error", "warn", "info", "debug", "trace"]), Text("info"),
        "Least level that is written."),
    row("log.format", Word(&["json", "text"]), Computed("text on a terminal, else json"),
        "Shape of a log line."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_named_once_and_described() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            assert!(
                SETTINGS[..at].iter().all(|s| s.path != setting.path),
                "{} twice",
                setting.path
            );
            assert!(
                setting.doc.len() > 15 && setting.doc.ends_with('.'),
                "{}",
                setting.path
            );
        }
        assert!(setting("cache.fresh_for").is_some());
        assert!(setting("cache.fresh").is_none());
    }

    #[test]
    fn sections_know_their_children() {
        assert_eq!(
            children(""),
            [
                "mode",
                "workers",
                "answer_deadline",
                "listen",
                "environments",
                "upstream",
                "cache",
                "keys",
                "sync",
                "featbit",
                "readiness",
                "drain",
                "log"
            ]
        );
        assert_eq!(children("upstream.circuit"), ["failures", "open_for"]);
        assert_eq!(children("environments[].urls").len(), 9);
        assert_eq!(children("mode"), Vec::<&str>::new());
        assert_eq!(children("up"), Vec::<&str>::new());
    }

    #[test]
    fn kinds_say_what_they_expect() {
        for (path, wanted) in [
            ("answer_deadline", "a duration from 10ms to 1m"),
            ("listen.max_body", "a size from 1KiB to 64MiB"),
            ("workers", "a whole number from 1 to 256"),
            ("sync.jitter", "a number from 0 to 0.5"),
            ("log.level", "error, warn, info, debug or trace"),
            ("environments[].backend", "amplitude or featbit"),
        ] {
            assert_eq!(setting(path).unwrap().kind.to_string(), wanted);
        }
    }
}
