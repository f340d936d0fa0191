//! The configuration: command line, environment and files become one [`Config`].
//!
//! A `Config` that exists is valid: everything below reads it and checks nothing again. Only start-up
//! reads the environment. Durations are [`Duration`]s, sizes are bytes, secrets print as `***`.

mod arguments;
mod backend;
mod build;
mod environment;
mod expand;
mod fault;
mod load;
mod machine;
mod print;
mod quantity;
mod reader;
mod reference;
mod rules;
mod schema;
pub mod settings;
mod suggest;
mod tree;
mod url;
mod values;
mod variables;
mod yaml;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use arguments::Arguments;
pub use fault::{Fault, Origin, Problem};
pub use load::{DEFAULT_FILE, Loaded, Rejected, Sources, load, load_text};
pub use machine::Machine;
pub use print::print;
pub use quantity::{format_duration, format_size, parse_duration, parse_size};
pub use reference::{reference_markdown, reference_text};
pub use schema::schema_text;
pub(crate) use suggest::nearest;
pub use url::{BaseUrl, UrlForm};

/// Everything flagside was told, complete and valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who the proxy serves: the containers of one pod, or many pods.
    pub mode: Mode,
    /// Data worker threads.
    pub workers: NonZeroUsize,
    /// Listeners and what they accept.
    pub listen: Listen,
    /// The environments, in the order of the configuration; never empty.
    pub environments: Vec<Environment>,
    /// How upstreams are called.
    pub upstream: Upstream,
    /// How long a request waits for upstream before a stand-in is used, if there is one.
    pub answer_deadline: Duration,
    /// Freshness and size of stored responses.
    pub cache: Cache,
    /// Bounds of what is learnt about deployment keys.
    pub keys: Keys,
    /// How flags are kept up to date.
    pub sync: Sync,
    /// What holds for FeatBit environments alone.
    pub featbit: Featbit,
    /// When the proxy calls itself ready.
    pub readiness: Readiness,
    /// How it stops.
    pub drain: Drain,
    /// Log lines.
    pub log: Log,
    /// Bytes this process may use, from the cgroup; none = no limit known.
    pub memory_limit: Option<u64>,
    /// Files the configuration came from, first read first.
    pub files: Vec<PathBuf>,
}

/// Who the proxy serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The containers of its own pod, over loopback.
    Sidecar,
    /// Many pods, behind a Service.
    Shared,
}

impl Mode {
    /// As it is written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Shared => "shared",
        }
    }
}

/// Listeners and the limits of what they accept.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Data addresses; the first one is required, a failure to bind `[::1]` beside `127.0.0.1` is a warning.
    pub data: Vec<SocketAddr>,
    /// Admin addresses, by the same rule.
    pub admin: Vec<SocketAddr>,
    /// Open data connections over all workers (1 to 1,000,000).
    pub max_connections: usize,
    /// From the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// Silence on a connection between requests.
    pub idle_timeout: Duration,
    /// Bytes of a request body; more is 413.
    pub max_body: usize,
    /// Bytes of a request head; more is 431.
    pub max_headers: usize,
    /// A path prefix that is stripped when a request has it, without trailing slash; empty = none.
    pub path_prefix: String,
    /// Browser origins that may call; empty = any (`*`).
    pub cors_origins: Vec<String>,
}

/// One flag environment: a backend, its URLs and its keys.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Unique name, `[a-z0-9][a-z0-9_-]{0,62}`: a metric label and a log field.
    pub name: String,
    /// Whose protocol it speaks.
    pub backend: Backend,
    /// Where its requests go, of the kind of `backend`. `None`: no upstream at all, answers come from
    /// `bootstrap_file`.
    pub urls: Option<Bases>,
    /// Deployment keys or FeatBit environment secrets known from the configuration, each once.
    pub keys: Vec<Secret>,
    /// Whether an unknown key may be tried on this environment.
    pub learn_keys: bool,
    /// When answers are computed here.
    pub evaluation: Evaluation,
    /// Flags to start from: JSON as `/sdk/v2/flags` answers it, or a FeatBit `data-sync` message.
    pub bootstrap_file: Option<PathBuf>,
}

/// Whose protocol an environment speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Backend {
    /// Amplitude Experiment.
    Amplitude,
    /// FeatBit.
    Featbit,
}

impl Backend {
    /// As it is written in the configuration, in metrics and in `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amplitude => "amplitude",
            Self::Featbit => "featbit",
        }
    }

    /// The product's name, for people.
    #[must_use]
    pub const fn product(self) -> &'static str {
        match self {
            Self::Amplitude => "Amplitude",
            Self::Featbit => "FeatBit",
        }
    }
}

/// Where the requests of an environment go, by its backend.
#[derive(Clone, Debug)]
pub enum Bases {
    /// Of an Amplitude environment.
    Amplitude(Urls),
    /// Of a FeatBit environment.
    Featbit(FeatbitUrls),
}

impl Bases {
    /// The bases of an Amplitude environment.
    #[must_use]
    pub const fn amplitude(&self) -> Option<&Urls> {
        match self {
            Self::Amplitude(urls) => Some(urls),
            Self::Featbit(_) => None,
        }
    }

    /// The bases of a FeatBit environment.
    #[must_use]
    pub const fn featbit(&self) -> Option<&FeatbitUrls> {
        match self {
            Self::Amplitude(_) => None,
            Self::Featbit(urls) => Some(urls),
        }
    }
}

/// The bases of one Amplitude environment (API 8.1).
#[derive(Clone, Debug)]
pub struct Urls {
    /// vardata, `/v1/*`, `/web/*`.
    pub eval: Arc<BaseUrl>,
    /// `/sdk/v2/flags`.
    pub flags: Arc<BaseUrl>,
    /// `/sdk/stream/*`.
    pub stream: Arc<BaseUrl>,
    /// `/sdk/v1/cohort/*`.
    pub cohort: Arc<BaseUrl>,
    /// `/api/1/deployments`.
    pub management: Arc<BaseUrl>,
    /// Assignment events.
    pub analytics: Arc<BaseUrl>,
}

/// The bases of one FeatBit environment (FB 1). Bases that are equal are one allocation.
#[derive(Clone, Debug)]
pub struct FeatbitUrls {
    /// Requests: the evaluate endpoint, `latest-all`, health, and what else is below `/api/public/`.
    pub evaluate: Arc<BaseUrl>,
    /// Websockets, `/streaming`; `tls` says `wss`.
    pub stream: Arc<BaseUrl>,
    /// Events, `/api/public/insight/track`.
    pub event: Arc<BaseUrl>,
}

/// When answers of an environment are computed here (design 5).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Evaluation {
    /// Upstream first; here when it fails or is late.
    #[default]
    Remote,
    /// Here first, always; no upstream call on the request path.
    Local,
    /// Never here.
    Off,
}

/// How upstreams are called.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// TCP and TLS handshake.
    pub connect_timeout: Duration,
    /// From the request sent to the first byte of the response.
    pub request_timeout: Duration,
    /// The whole exchange, retries included.
    pub total_deadline: Duration,
    /// Attempts after the first one.
    pub retries: u32,
    /// Retries as a share of requests, over a sliding window; 0.1 = one in ten.
    pub retry_budget: f64,
    /// Idle connections kept per host and worker.
    pub pool_max_idle: usize,
    /// Requests under way at once per environment.
    pub max_in_flight: usize,
    /// Consecutive failures that open the breaker.
    pub circuit_failures: u32,
    /// How long an open breaker stays open before one probe is let through.
    pub circuit_open_for: Duration,
    /// PEM file of further trusted roots.
    pub ca_file: Option<PathBuf>,
    /// Whether HTTP/2 may be negotiated over TLS.
    pub http2: bool,
    /// How long a resolved address is used before it is looked up again, in the background.
    pub dns_refresh: Duration,
    /// Bytes of an answer.
    pub max_answer: usize,
    /// Bytes of a flag set.
    pub max_flags: usize,
}

/// Freshness and size of stored responses.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Bytes of all stored responses together, keys and overhead included.
    pub max_bytes: u64,
    /// Bytes of one stored response.
    pub max_entry: usize,
    /// Freshness lifetime (RFC 9111).
    pub fresh_for: Duration,
    /// After freshness ended: answered at once, refreshed in the background (RFC 5861).
    pub stale_while_revalidate: Duration,
    /// After freshness ended: used when upstream fails, flag revision unchanged.
    pub stale_error: Duration,
    /// After freshness ended: the last resort, whatever the flag revision.
    pub max_stale: Duration,
    /// Query parameters that are neither keyed nor forwarded.
    pub ignore_query: Vec<String>,
}

/// Bounds of what is learnt about deployment keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Keys learnt from traffic.
    pub max_learnt: usize,
    /// Rejected keys remembered.
    pub negative_entries: usize,
    /// How long a rejection is remembered.
    pub negative_ttl: Duration,
}

/// How flags are kept up to date.
#[derive(Clone, Debug)]
pub struct Sync {
    /// Between two polls of one deployment.
    pub flags_interval: Duration,
    /// Share of the interval by which a poll may come earlier or later (0 to 0.5).
    pub jitter: f64,
    /// Between two polls of a FeatBit environment that is not streamed.
    pub featbit_poll_interval: Duration,
    /// Between two syncs of everything a FeatBit environment has: deletions are never announced.
    pub featbit_resync_interval: Duration,
    /// Whether FeatBit's data is streamed; else it is polled alone.
    pub streaming: bool,
}

/// What holds for FeatBit environments alone.
#[derive(Clone, Debug)]
pub struct Featbit {
    /// Whether one selected flag that cannot be evaluated makes a local answer a 500, as FeatBit's server does;
    /// else it is left out.
    pub strict: bool,
}

/// When the proxy calls itself ready.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// After this long it is ready whatever the upstreams do.
    pub deadline: Duration,
    /// Ignore `deadline`.
    pub strict: bool,
}

/// How the proxy stops.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Unready, but still accepting.
    pub delay: Duration,
    /// For requests in flight.
    pub timeout: Duration,
}

/// Log lines.
#[derive(Clone, Debug)]
pub struct Log {
    /// Least level that is written.
    pub level: Level,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Log level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// Somebody must act.
    Error,
    /// Degraded but served.
    Warn,
    /// Rare events.
    Info,
    /// For the developer of an application.
    Debug,
    /// For the developer of flagside.
    Trace,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// A key or password. Prints as `***`; compare only through [`Secret::expose`].
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes `text` as a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The secret itself; for headers to upstream and for comparison, never for output.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
