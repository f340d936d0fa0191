//! Log lines: one JSON object or one readable line each, to standard output.
//!
//! Lines go through a bounded buffer to a thread of their own: a request never waits for a log, a line that
//! does not fit is dropped and counted. The level applies to flagside's own targets; dependencies
//! speak up from `warn`. Nothing secret is logged because secrets are a type that prints `***`; a panic is logged
//! by its place, its text only where it is a literal of the program.

use std::io;
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{Level, Log};
use crate::metrics::LogMetrics;

mod line;
mod suppress;
mod writer;

use line::LineLayer;
pub use suppress::Suppress;
use writer::Writer;

/// The prefix of flagside's own targets.
const OWN: &str = "flagside";
/// How long the end of the process waits for lines to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// Logging under way. Dropping it writes what is still buffered, waiting a second at most; later lines are
/// dropped and counted.
#[derive(Debug)]
#[must_use = "lines are written only while this lives"]
pub struct Telemetry {
    writer: Arc<Writer>,
    levels: Levels,
}

/// Changes the level while the process runs.
#[derive(Clone, Debug)]
pub struct Levels(reload::Handle<Targets, Registry>);

/// Starts logging to standard output for the whole process, and logs panics from now on. To be called once,
/// before threads are started that log.
///
/// # Errors
///
/// When the writer's thread cannot be started, or logging had been started before.
pub fn start(log: &Log, counts: Arc<LogMetrics>) -> io::Result<Telemetry> {
    let writer = Arc::new(Writer::new(counts));
    writer.start(io::stdout())?;
    let (filter, handle) = reload::Layer::new(targets(log.level));
    let lines = LineLayer::new(log.format, Arc::clone(&writer));
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    panic::set_hook(Box::new(log_panic));
    Ok(Telemetry {
        writer,
        levels: Levels(handle),
    })
}

impl Telemetry {
    /// What changes the level.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.writer.finish(FLUSH);
    }
}

impl Levels {
    /// From now on lines below `level` are not written.
    pub fn set(&self, level: Level) {
        // Fails only when logging has ended, and then no level matters.
        let _ = self.0.reload(targets(level));
    }
}

/// `at` as RFC 3339 in UTC with microseconds, as in log lines: `2026-01-31T23:59:59.000001Z`.
#[must_use]
pub fn timestamp(at: SystemTime) -> String {
    let mut text = String::with_capacity(27);
    line::timestamp(&mut text, at.into());
    text
}

/// Own targets from `level`, all others from `warn` or from `level` if that is stricter.
fn targets(level: Level) -> Targets {
    let own = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        .with_target(OWN, own)
}

/// Logs where a thread panicked. A text made at run time may hold a user's data and is left out.
fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let place = info
        .location()
        .map(|at| format!("{}:{}", at.file(), at.line()))
        .unwrap_or_default();
    let text = info
        .payload()
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(not shown)");
    tracing::error!(
        thread = thread.name().unwrap_or("unnamed"),
        place,
        error.msg = text,
        "a thread panicked: this is a bug in flagside"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use crate::metrics::LogLevel;

    /// Runs `act` with logging to memory and gives what was written.
    fn written(level: Level, act: impl FnOnce(&Levels)) -> String {
        let writer = Arc::new(Writer::new(Arc::default()));
        let (filter, handle) = reload::Layer::new(targets(level));
        let lines = LineLayer::new(LogFormat::Json, Arc::clone(&writer));
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        tracing::subscriber::with_default(subscriber, || act(&Levels(handle)));
        writer.take()
    }

    #[test]
    fn dependencies_speak_up_from_warn_and_own_targets_from_the_level() {
        for (level, wanted) in [
            (Level::Error, "EK"),
            (Level::Warn, "EWKV"),
            (Level::Info, "EWIKV"),
            (Level::Trace, "EWIDTKV"),
        ] {
            let text = written(level, |_| {
                tracing::error!("E");
                tracing::warn!("W");
                tracing::info!("I");
                tracing::debug!("D");
                tracing::trace!("T");
                tracing::error!(target: "hyper::proto", "K");
                tracing::warn!(target: "hyper::proto", "V");
                tracing::info!(target: "hyper::proto", "J");
                tracing::debug!(target: "hyper::proto", "H");
            });
            let messages: String = text
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                .map(|line| line["msg"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(messages, wanted, "{level:?}");
        }
    }

    #[test]
    fn the_level_can_be_changed() {
        let text = written(Level::Warn, |levels| {
            for _ in 0..2 {
                tracing::info!("quiet, then heard");
                levels.set(Level::Info);
            }
        });
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn only_literal_panic_texts_are_logged() {
        let text = written(Level::Info, |_| {
            // The hook is the process's; it is called here by hand so that other tests keep theirs.
            let (send, caught) = std::sync::mpsc::channel();
            let before = panic::take_hook();
            let ours = std::thread::current().id();
            panic::set_hook(Box::new(move |info| {
                if std::thread::current().id() == ours {
                    log_panic(info);
                    send.send(()).unwrap();
                } else {
                    before(info);
                }
            }));
            let secret = String::from("u-17");
            let _ = panic::catch_unwind(|| panic!("a literal"));
            let _ = panic::catch_unwind(|| panic!("user {secret}"));
            drop(panic::take_hook());
            assert_eq!(caught.iter().count(), 2);
        });
        assert!(text.contains("\"error.msg\":\"a literal\""), "{text}");
        assert!(text.contains("src/telemetry.rs:"), "{text}");
        assert!(text.contains("(not shown)") && !text.contains("u-17"), "{text}");
    }

    #[test]
    fn lines_are_counted_by_level() {
        let counts = Arc::new(LogMetrics::default());
        let writer = Arc::new(Writer::new(Arc::clone(&counts)));
        let lines = LineLayer::new(LogFormat::Text, writer);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::warn!("one");
            tracing::warn!("two");
            tracing::info!("three");
        });
        assert_eq!(counts.written_total(LogLevel::Warn), 2);
        assert_eq!(counts.written_total(LogLevel::Info), 1);
        assert_eq!(counts.dropped_total(LogLevel::Warn), 0);
    }
}
