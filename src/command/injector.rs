//! `flagside injector`: the admission webhook.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lexopt::Parser;
use tokio::signal::unix::{SignalKind, signal};

use super::inject::read_template;
use super::parse::{Command, Item, Parsed, Topic, next, path, unexpected, value};
use crate::config::{Level, Log, LogFormat, parse_duration};
use crate::inject::Template;
use crate::inject::server::{Injector, Settings};
use crate::metrics::LogMetrics;
use crate::task::Stopper;
use crate::telemetry;

const ADDRESS_IN_USE: u8 = 3;
const DRAIN_TIMEOUT: u8 = 124;
const SECOND_SIGNAL: u8 = 130;

const OPTIONS: [&str; 12] = [
    "--template",
    "--set",
    "--cert",
    "--key",
    "--listen",
    "--admin-listen",
    "--exclude-namespace",
    "--drain-delay",
    "--drain-timeout",
    "--log-level",
    "--log-format",
    "--help",
];

/// What `flagside injector` was asked for.
#[derive(Debug)]
pub(super) struct Options {
    settings: Settings,
    log: Log,
}

/// Reads the arguments of `flagside injector`.
pub(super) fn parse(parser: &mut Parser) -> Parsed<Command> {
    let mut settings = Settings {
        template: Template::default(),
        excluded: Vec::new(),
        listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
        admin: SocketAddr::from(([0, 0, 0, 0], 3547)),
        certificate: PathBuf::from("/etc/flagside/tls/tls.crt"),
        key: PathBuf::from("/etc/flagside/tls/tls.key"),
        drain_delay: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(25),
    };
    let mut log = Log {
        level: Level::Info,
        format: if io::stdout().is_terminal() {
            LogFormat::Text
        } else {
            LogFormat::Json
        },
    };
    let mut given = Vec::new();
    while let Some(item) = next(parser)? {
        let Item::Option(name) = &item else {
            return Err(unexpected(&item, "injector", &OPTIONS));
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Command::Help(Topic::Injector)),
            "--template" => read_template(&mut settings.template, &path(parser, name)?)?,
            "--set" => given.push(value(parser, name)?),
            "--cert" => settings.certificate = path(parser, name)?,
            "--key" => settings.key = path(parser, name)?,
            "--listen" => settings.listen = address(name, &value(parser, name)?)?,
            "--admin-listen" => settings.admin = address(name, &value(parser, name)?)?,
            "--exclude-namespace" => settings.excluded.push(value(parser, name)?),
            "--drain-delay" => settings.drain_delay = duration(name, &value(parser, name)?)?,
            "--drain-timeout" => settings.drain_timeout = duration(name, &value(parser, name)?)?,
            "--log-level" => log.level = level(&value(parser, name)?)?,
            "--log-format" => log.format = format(&value(parser, name)?)?,
            _ => return Err(unexpected(&item, "injector", &OPTIONS)),
        }
    }
    for text in given {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("--set: no = in it (got {text}); expected NAME=VALUE"))?;
        settings
            .template
            .set(name, value)
            .map_err(|what| format!("--set {name}: {what}"))?;
    }
    settings.template.check()?;
    Ok(Command::Injector(Box::new(Options { settings, log })))
}

fn address(option: &str, text: &str) -> Parsed<SocketAddr> {
    let whole = match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => format!("0.0.0.0:{port}"),
        Err(_) => text.to_owned(),
    };
    whole
        .parse()
        .map_err(|_| format!("{option}: not an address (got {text}); expected ADDRESS:PORT, :PORT or PORT"))
}

fn duration(option: &str, text: &str) -> Parsed<Duration> {
    parse_duration(text).map_err(|problem| format!("{option}: {problem}"))
}

fn level(text: &str) -> Parsed<Level> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        "trace" => Ok(Level::Trace),
        _ => Err(format!(
            "--log-level: unknown word (got {text}); expected error, warn, info, debug or trace"
        )),
    }
}

fn format(text: &str) -> Parsed<LogFormat> {
    match text {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err(format!(
            "--log-format: unknown word (got {text}); expected json or text"
        )),
    }
}

/// Serves until a signal ends it.
pub(super) fn run(options: Options) -> ExitCode {
    let logs: Arc<LogMetrics> = Arc::default();
    let Ok(telemetry) = telemetry::start(&options.log, Arc::clone(&logs)) else {
        return ExitCode::FAILURE;
    };
    let code = serve(options.settings, logs);
    drop(telemetry);
    ExitCode::from(code)
}

fn serve(settings: Settings, logs: Arc<LogMetrics>) -> u8 {
    let fingerprint = settings.template.fingerprint();
    let injector = match Injector::start(settings, logs) {
        Ok(injector) => injector,
        Err(error) => {
            tracing::error!("flagside injector cannot start: {error}");
            return if error.is_in_use() {
                ADDRESS_IN_USE
            } else {
                super::USAGE
            };
        }
    };
    let stopper = Stopper::new();
    let stop = stopper.stop();
    if let Err(error) = on_signals(&injector, stopper) {
        tracing::error!("no signals can be received: {error}");
        return 1;
    }
    let admin = injector.admin().first().map(ToString::to_string);
    tracing::info!(
        listen.webhook = %injector.address(),
        listen.admin = admin,
        template = fingerprint,
        version = env!("CARGO_PKG_VERSION"),
        "flagside injector is listening"
    );
    if injector.run(&stop) {
        tracing::info!("stopped; every request was finished");
        0
    } else {
        tracing::warn!("stopped; requests that took longer than --drain-timeout were cut off");
        DRAIN_TIMEOUT
    }
}

/// The first SIGTERM or SIGINT asks for the stop, the second one ends the process.
fn on_signals(injector: &Injector, stopper: Stopper) -> io::Result<()> {
    let _context = injector.runtime().enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut told = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    injector.runtime().spawn(async move {
        told().await;
        tracing::info!("draining: told to stop");
        stopper.request();
        told().await;
        at_once();
    });
    Ok(())
}

#[allow(
    clippy::exit,
    reason = "the process must end now, with this code, whatever its threads do"
)]
fn at_once() {
    std::process::exit(i32::from(SECOND_SIGNAL));
}
