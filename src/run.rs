//! The wiring: configuration, parts, listeners, drain. The only file that knows every part.

mod featbit;
mod observer;
mod subject;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::Proxy;
use crate::api::answer::Cors;
use crate::api::featbit::Featbit;
use crate::cache::{Cache, Lifetimes, memo_bytes};
use crate::config::{Backend, Bases, Config, Fault};
use crate::evaluate::featbit::DataSet;
use crate::key::{DeploymentKey, Keyer, Routing};
use crate::metrics::{LogMetrics, Metrics, Setup};
use crate::server::listen::BindError;
use crate::server::worker::{self, Ended};
use crate::server::{Connections, admin, listen};
use crate::store::featbit::Held;
use crate::store::{Deployment, Deployments, FlagData};
use crate::sync::featbit::UpstreamLink;
use crate::sync::{self, Environment, FlagSync};
use crate::task::{Stopper, Tasks};
use crate::telemetry;
use crate::trace::{self, Exporter, Tracer};
use crate::track::{Insights, Pace, deliver};
use crate::upstream::{Client, Dialer, Shared, UpstreamSetupError};

use observer::{Names, UpstreamObserver};
use subject::ProxySubject;

/// How long background tasks may take to end.
const BACKGROUND_GRACE: Duration = Duration::from_secs(4);

/// Exit codes (OPS 11.1).
const EXIT_ADDRESS_IN_USE: u8 = 3;
const EXIT_CONFIGURATION: u8 = 2;
const EXIT_DRAIN_TIMEOUT: u8 = 124;
const EXIT_SECOND_SIGNAL: u8 = 130;

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error("{0}; free it, or choose another with --listen")]
    Listen(#[from] BindError),
    /// The admin address cannot be had.
    #[error(
        "the admin listener cannot be started: {0}; free the address, or choose another with --admin-listen"
    )]
    Admin(#[source] io::Error),
    /// The upstream side refuses its settings.
    #[error("{0}")]
    Upstream(#[from] UpstreamSetupError),
    /// A flags file cannot be used.
    #[error("flags file {path}: {what}")]
    Flags {
        /// The file.
        path: String,
        /// What is wrong with it, and what to write instead.
        what: String,
    },
    /// The system refused a thread or random numbers.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Listen(error) if error.is_in_use() => EXIT_ADDRESS_IN_USE,
            Self::Admin(error) if error.kind() == io::ErrorKind::AddrInUse => EXIT_ADDRESS_IN_USE,
            Self::Upstream(_) | Self::Flags { .. } => EXIT_CONFIGURATION,
            Self::Listen(_) | Self::Admin(_) | Self::System(_) => 1,
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Running {
    /// Where it listens for requests.
    pub data: Vec<SocketAddr>,
    /// Where it shows its state.
    pub admin: Vec<SocketAddr>,
    /// What its workers share.
    pub proxy: Arc<Proxy>,
    subject: Arc<ProxySubject>,
    draining: Stopper,
    closing: Stopper,
    admin_stop: Stopper,
    background_stop: Stopper,
    workers: Vec<JoinHandle<Ended>>,
    background: JoinHandle<()>,
    admin_thread: admin::Bound,
    drain: crate::config::Drain,
    exporter: Option<Exporter>,
}

/// Runs the proxy until a signal ends it: the command `run`.
#[must_use]
pub fn run(config: Config, warnings: &[Fault]) -> ExitCode {
    let logs: Arc<LogMetrics> = Arc::default();
    let Ok(telemetry) = telemetry::start(&config.log, Arc::clone(&logs)) else {
        return ExitCode::FAILURE;
    };
    let code = match Running::start(config, logs) {
        Ok(running) => {
            for warning in warnings {
                tracing::warn!("configuration: {warning}");
            }
            wait(running)
        }
        Err(error) => {
            tracing::error!("flagside cannot start: {error}");
            error.exit_code()
        }
    };
    drop(telemetry);
    ExitCode::from(code)
}

/// Waits for a signal, drains, and says how that went.
fn wait(running: Running) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("no signals can be received: {error}");
            return 1;
        }
    };
    runtime.block_on(async {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::error!("no signals can be received");
            return 1;
        };
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!("no signals can be received");
            return 1;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => tracing::warn!("SIGHUP ignored: this version reads its configuration at start only"),
            }
        }
        tracing::info!("draining: told to stop");
        let drained = tokio::task::spawn_blocking(move || running.stop());
        tokio::select! {
            clean = drained => match clean {
                Ok(true) => 0,
                Ok(false) => EXIT_DRAIN_TIMEOUT,
                Err(_) => 1,
            },
            _ = terminate.recv() => at_once(),
            _ = interrupt.recv() => at_once(),
        }
    })
}

/// A second signal: somebody is in a hurry. The drain still has threads that would be waited for.
#[allow(
    clippy::exit,
    reason = "the process must end now, with this code, whatever its threads do"
)]
fn at_once() -> u8 {
    std::process::exit(i32::from(EXIT_SECOND_SIGNAL))
}

impl Running {
    /// Starts every part. Listeners are bound when this returns.
    ///
    /// # Errors
    /// When an address, a file or a thread cannot be had.
    pub fn start(config: Config, logs: Arc<LogMetrics>) -> Result<Self, StartError> {
        let started_at = Instant::now();
        let bound = listen::bind(&config.listen.data, config.workers.get())?;
        let (parts, wanted) = Parts::build(config, logs)?;
        let [draining, closing, admin_stop, background_stop] = std::array::from_fn(|_| Stopper::new());
        let subject = Arc::new(ProxySubject::new(&parts, bound.addresses.clone(), started_at));
        parts.metrics.observe(subject.readings());
        let admin_thread = admin::start(
            &parts.config.listen.admin,
            Arc::clone(&subject) as Arc<dyn admin::Subject>,
            parts.metrics.admin(),
            parts.metrics.tasks(),
            admin_stop.stop(),
        )
        .map_err(StartError::Admin)?;
        let admin = admin_thread.addresses().to_vec();
        subject.bound(&admin);
        announce(&parts.config, &bound.addresses, &admin);
        for missing in &bound.missing {
            tracing::warn!("{missing}; going on without it");
        }
        let background = parts.start_background(wanted, &draining, &background_stop)?;
        let workers = parts.start_workers(bound.listeners, &draining, &closing)?;
        Ok(Self {
            data: bound.addresses,
            admin,
            drain: parts.config.drain.clone(),
            exporter: parts.exporter,
            proxy: parts.proxy,
            subject,
            draining,
            closing,
            admin_stop,
            background_stop,
            workers,
            background,
            admin_thread,
        })
    }

    /// Drains and ends (OPS 7.3). Says whether every request was finished.
    #[must_use]
    pub fn stop(self) -> bool {
        self.subject.drain();
        self.draining.request();
        #[allow(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
        std::thread::sleep(self.drain.delay);
        self.closing.request();
        let cut_off: usize = self
            .workers
            .into_iter()
            .map(|worker| worker.join().map_or(1, |ended| ended.cut_off))
            .sum();
        drop(self.exporter);
        self.background_stop.request();
        let background = self.background.join().is_ok();
        self.admin_stop.request();
        self.admin_thread.join();
        if cut_off > 0 {
            tracing::warn!(
                connections = cut_off,
                "stopped; requests that took longer than drain.timeout were cut off"
            );
        } else {
            tracing::info!("stopped; every request was finished");
        }
        cut_off == 0 && background
    }
}

fn announce(config: &Config, data: &[SocketAddr], admin: &[SocketAddr]) {
    let list = |addresses: &[SocketAddr]| {
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    tracing::info!(
        listen.data = list(data),
        listen.admin = list(admin),
        version = env!("CARGO_PKG_VERSION"),
        mode = config.mode.as_str(),
        workers = config.workers.get(),
        memory_limit = config.memory_limit,
        cache_bytes = config.cache.max_bytes,
        "flagside is listening"
    );
    for environment in &config.environments {
        match (&environment.urls, &environment.bootstrap_file) {
            (Some(urls), _) => {
                let host = match urls {
                    Bases::Amplitude(urls) => &urls.eval.host,
                    Bases::Featbit(urls) => &urls.evaluate.host,
                };
                tracing::info!(
                    environment = environment.name,
                    backend = environment.backend.as_str(),
                    upstream.host = host,
                    keys = environment.keys.len(),
                    learn_keys = environment.learn_keys,
                    "environment"
                );
            }
            (None, Some(file)) => {
                tracing::info!(environment = environment.name, file = %file.display(), "environment without upstream: every answer comes from the flags file; name a --region or --upstream to ask it first");
            }
            (None, None) => {}
        }
    }
}

/// The environments, and FeatBit's data from files by index.
type Read = (Arc<[Arc<Environment>]>, Vec<(usize, DataSet)>);

fn environments(config: &Config, upstream: &Arc<Shared>, metrics: &Metrics) -> Result<Read, StartError> {
    let mut environments = Vec::with_capacity(config.environments.len());
    let mut files = Vec::new();
    for (index, settings) in config.environments.iter().enumerate() {
        let mut bootstrap = None;
        if let Some(path) = &settings.bootstrap_file {
            let failed = |what: String| StartError::Flags {
                path: path.display().to_string(),
                what,
            };
            let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            match settings.backend {
                Backend::Amplitude => {
                    let data = FlagData::compile(text).map_err(|error| failed(error.to_string()))?;
                    for problem in data.set.problems() {
                        tracing::warn!(environment = settings.name, flag = %problem.flag, "{}: {}", path.display(), problem.detail);
                    }
                    bootstrap = Some(Arc::new(data));
                }
                Backend::Featbit => {
                    let set = featbit::bootstrap(&text).map_err(failed)?;
                    for problem in set.problems() {
                        tracing::warn!(environment = settings.name, "{}: {problem:?}", path.display());
                    }
                    files.push((index, set));
                }
            }
        }
        let sync = metrics.sync(index);
        let environment = Environment::new(index, settings, &config.upstream, upstream, bootstrap, sync)?;
        environments.push(Arc::new(environment));
    }
    Ok((environments.into(), files))
}

fn proxy(
    config: &Config,
    environments: &Arc<[Arc<Environment>]>,
    deployments: &Arc<Deployments>,
    flag_sync: FlagSync,
    featbit: Arc<Featbit>,
    metrics: &Metrics,
    tracer: Option<Arc<Tracer>>,
) -> Result<Proxy, StartError> {
    let has = |backend: Backend| config.environments.iter().any(|it| it.backend == backend);
    Ok(Proxy {
        routing: Routing {
            prefix: config.listen.path_prefix.clone(),
            amplitude: has(Backend::Amplitude),
            featbit: has(Backend::Featbit),
        },
        featbit,
        environments: Arc::clone(environments),
        deployments: Arc::clone(deployments),
        cache: Cache::new(&config.cache, metrics.cache()),
        flights: Arc::default(),
        keyer: Keyer::random().map_err(|error| io::Error::other(error.to_string()))?,
        flag_sync,
        lifetimes: Lifetimes::from(&config.cache),
        answer_deadline: config.answer_deadline,
        total_deadline: config.upstream.total_deadline,
        upstream: config.upstream.clone(),
        max_headers: config.listen.max_headers,
        max_body: config.listen.max_body,
        ignore_query: config.cache.ignore_query.clone(),
        cors: Cors::new(&config.listen.cors_origins),
        tracer,
    })
}

/// How an environment's FeatBit server is reached for its data.
fn link(shared: &sync::featbit::Shared, environment: &Environment) -> Option<UpstreamLink> {
    let origins = environment.origins.as_ref()?;
    (environment.backend == Backend::Featbit).then(|| UpstreamLink {
        client: Arc::clone(&shared.client),
        dialer: Arc::clone(&shared.dialer),
        polls: Arc::clone(&origins.eval),
        streams: Arc::clone(&origins.stream),
        gate: Arc::clone(&origins.gate),
        settings: shared.upstream.clone(),
    })
}

/// Starts exporting traces, if OpenTelemetry's variables ask for it.
fn tracing_of_requests(metrics: &Metrics) -> io::Result<Option<(Arc<Tracer>, Exporter)>> {
    let (settings, doubts) = trace::Settings::read(|name| std::env::var(name).ok());
    for doubt in doubts {
        tracing::warn!("{doubt}");
    }
    let Some(settings) = settings else {
        return Ok(None);
    };
    tracing::info!(endpoint.host = settings.endpoint.host, "traces are exported");
    trace::start(settings, metrics.traces()).map(Some)
}

/// Everything that threads share, before there are any.
struct Parts {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    upstream: Arc<Shared>,
    names: Names,
    proxy: Arc<Proxy>,
    /// Sends spans while it lives.
    exporter: Option<Exporter>,
}

/// What the background thread is to keep up to date and to deliver.
struct Wanted {
    /// Deployments whose flags are to be polled.
    deployments: mpsc::Receiver<Arc<Deployment>>,
    /// Environments of FeatBit.
    featbit: mpsc::Receiver<Arc<Held>>,
    /// Where insights go.
    insights: Insights,
}

impl Parts {
    fn build(config: Config, logs: Arc<LogMetrics>) -> Result<(Self, Wanted), StartError> {
        let config = Arc::new(config);
        let (upstreams, names) = observer::upstreams(&config);
        let metrics = Metrics::new(Setup {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("FLAGSIDE_REVISION").unwrap_or_default().to_owned(),
            environments: config
                .environments
                .iter()
                .map(|environment| environment.name.clone())
                .collect(),
            featbit_environments: (0..config.environments.len())
                .filter(|at| config.environments[*at].backend == Backend::Featbit)
                .collect(),
            upstreams,
            workers: config.workers.get(),
            logs,
        });
        let observer = Arc::new(UpstreamObserver::new(&names, &metrics));
        let upstream = Shared::new(&config.upstream, observer)?;
        let (environments, files) = environments(&config, &upstream, &metrics)?;
        let keys = config
            .environments
            .iter()
            .enumerate()
            .flat_map(|(index, environment)| {
                let keys = environment.keys.iter();
                keys.filter_map(move |key| Some((index, DeploymentKey::new(key.expose().as_bytes())?)))
            });
        let deployments = Arc::new(Deployments::new(&config.keys, keys));
        let configured = deployments.all();
        let (flag_sync, wanted) = FlagSync::new(config.keys.max_learnt + configured.len());
        let built = featbit::build(&config, &environments, &deployments, files, &metrics)?;
        let (tracer, exporter) = tracing_of_requests(&metrics)?.unzip();
        let proxy = Arc::new(proxy(
            &config,
            &environments,
            &deployments,
            flag_sync,
            built.featbit,
            &metrics,
            tracer,
        )?);
        for deployment in configured {
            if environments[deployment.environment].backend == Backend::Amplitude {
                proxy.flag_sync.follow(deployment);
            }
        }
        let wanted = Wanted {
            deployments: wanted,
            featbit: built.wanted,
            insights: built.insights,
        };
        Ok((
            Self {
                config,
                metrics,
                upstream,
                names,
                proxy,
                exporter,
            },
            wanted,
        ))
    }

    /// The thread on which flags are synced and events delivered: compiling a large set must not stall a data
    /// worker. From `draining` on, events are delivered in haste.
    fn start_background(
        &self,
        wanted: Wanted,
        draining: &Stopper,
        stopper: &Stopper,
    ) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (config, upstream, proxy) = (
            Arc::clone(&self.config),
            Arc::clone(&self.upstream),
            Arc::clone(&self.proxy),
        );
        let (tasks, stop, ending) = (
            Tasks::new(runtime.handle().clone(), self.metrics.tasks()),
            stopper.stop(),
            draining.stop(),
        );
        std::thread::Builder::new()
            .name("flagside-sync".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let client = Arc::new(Client::new(&upstream));
                    let featbit = Arc::clone(&proxy.featbit);
                    let insights = deliver(
                        Arc::clone(&featbit.events),
                        wanted.insights,
                        Arc::clone(&client),
                        Pace::default(),
                        ending,
                        stop.clone(),
                    );
                    let shared = sync::featbit::Shared {
                        client: Arc::clone(&client),
                        dialer: Arc::new(Dialer::new(&upstream)),
                        deployments: Arc::clone(&proxy.deployments),
                        environments: Arc::clone(&proxy.environments),
                        upstream: config.upstream.clone(),
                        settings: featbit::settings(&config),
                    };
                    let data = sync::featbit::run(wanted.featbit, shared, link, tasks.clone(), stop.clone());
                    let flags = sync::flags::run(
                        wanted.deployments,
                        client,
                        Arc::clone(&proxy.deployments),
                        Arc::clone(&proxy.environments),
                        config,
                        tasks.clone(),
                        stop,
                    );
                    tokio::join!(flags, data, insights);
                    let left = tasks.drain(BACKGROUND_GRACE).await;
                    if !left.is_empty() {
                        tracing::debug!(?left, "background tasks did not end in time");
                    }
                });
            })
    }

    fn start_workers(
        &self,
        listeners: Vec<Vec<TcpListener>>,
        draining: &Stopper,
        closing: &Stopper,
    ) -> io::Result<Vec<JoinHandle<Ended>>> {
        let connections = Arc::new(Connections::new(self.config.listen.max_connections));
        let memo_bytes = usize::try_from(memo_bytes(self.config.cache.max_bytes)).unwrap_or(usize::MAX);
        let memo_bytes = memo_bytes / listeners.len().max(1);
        let setups = listeners
            .into_iter()
            .enumerate()
            .map(|(number, listeners)| worker::Setup {
                number,
                listeners,
                proxy: Arc::clone(&self.proxy),
                upstream: Arc::clone(&self.upstream),
                metrics: self.metrics.worker(number),
                connections: Arc::clone(&connections),
                listen: self.config.listen.clone(),
                memo_bytes,
                draining: draining.stop(),
                closing: closing.stop(),
                drain_timeout: self.config.drain.timeout,
            });
        setups.map(worker::start).collect()
    }
}
