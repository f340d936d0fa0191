//! The families of the admission webhook, on a registry of its own: `flagside injector` is another process.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use prometheus::{Registry, TextEncoder};

use super::cells::{Count, LATENCY, LatencyHistogram, Totals, nanoseconds};
use super::expose::{self, Declare, Process};
use super::shared::{ListenerMetrics, LogMetrics, TaskMetrics};

/// All metrics of a webhook process.
pub struct InjectorMetrics {
    registry: Registry,
    cells: Arc<Cells>,
}

/// When the certificate in use ends, in seconds since 1970.
type NotAfter = Box<dyn Fn() -> Option<i64> + Send + Sync>;

struct Cells {
    revision: String,
    started_at: SystemTime,
    /// Labels `result` and `reason` of every way an admission can end, and how often it did.
    admissions: Vec<([&'static str; 2], Count)>,
    /// How long admissions took, by `result`.
    durations: Vec<(&'static str, LatencyHistogram)>,
    not_after: OnceLock<NotAfter>,
    admin: Arc<ListenerMetrics>,
    logs: Arc<LogMetrics>,
    tasks: Arc<TaskMetrics>,
}

impl InjectorMetrics {
    /// Declares every family, all at zero. `ends` are the labels `result` and `reason` of every way an admission
    /// can end.
    #[must_use]
    pub fn new(
        revision: &str,
        ends: impl IntoIterator<Item = [&'static str; 2]>,
        logs: Arc<LogMetrics>,
    ) -> Self {
        let admissions: Vec<_> = ends
            .into_iter()
            .map(|labels| (labels, Count::default()))
            .collect();
        let mut results: Vec<&'static str> = admissions.iter().map(|([result, _], _)| *result).collect();
        results.dedup();
        let cells = Arc::new(Cells {
            revision: revision.to_owned(),
            started_at: SystemTime::now(),
            admissions,
            durations: results
                .into_iter()
                .map(|result| (result, LatencyHistogram::default()))
                .collect(),
            not_after: OnceLock::new(),
            admin: Arc::default(),
            logs,
            tasks: Arc::default(),
        });
        let registry = Registry::new();
        let on = Declare {
            registry: &registry,
            parts: &cells,
        };
        expose::process_families(&on);
        expose::logs(&on);
        expose::task_panics(&on);
        declare(&on);
        Self { registry, cells }
    }

    /// An admission ended in the way with this index, `took` after its request was whole.
    pub fn admitted(&self, end: usize, took: Duration) {
        let Some(([result, _], count)) = self.cells.admissions.get(end) else {
            return;
        };
        count.add();
        if let Some((_, durations)) = self.cells.durations.iter().find(|(known, _)| known == result) {
            durations.add(&LATENCY, nanoseconds(took));
        }
    }

    /// Where the end of the certificate in use is read. Only the first call counts.
    pub fn observe_certificate(&self, not_after: impl Fn() -> Option<i64> + Send + Sync + 'static) {
        if self.cells.not_after.set(Box::new(not_after)).is_err() {
            tracing::debug!("metrics already know the certificate");
        }
    }

    /// The cells of the admin listener.
    #[must_use]
    pub fn admin(&self) -> Arc<ListenerMetrics> {
        Arc::clone(&self.cells.admin)
    }

    /// The cells of background tasks.
    #[must_use]
    pub fn tasks(&self) -> Arc<TaskMetrics> {
        Arc::clone(&self.cells.tasks)
    }

    /// When the process began.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        self.cells.started_at
    }

    /// The exposition, Prometheus text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(error = %error, "metrics could not be written");
        }
        text
    }
}

impl fmt::Debug for InjectorMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectorMetrics").finish_non_exhaustive()
    }
}

impl Process for Cells {
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn started_at(&self) -> SystemTime {
        self.started_at
    }

    fn logs(&self) -> &LogMetrics {
        &self.logs
    }

    fn tasks(&self) -> &TaskMetrics {
        &self.tasks
    }
}

fn declare(on: &Declare<'_, Cells>) {
    on.counter(
        "flagside_injector_admissions_total",
        "Admission requests for pods, by how they ended and why.",
        &["result", "reason"],
        |cells, out| {
            for (labels, count) in &cells.admissions {
                out.number(labels, count.get());
            }
        },
    );
    on.histogram(
        "flagside_injector_admission_duration_seconds",
        "From the last byte of an admission request to its answer.",
        &["result"],
        |cells, out| {
            for (result, durations) in &cells.durations {
                let mut totals = Totals::new(&LATENCY);
                totals.add(&LATENCY, durations);
                out.histogram(&[result], &totals);
            }
        },
    );
    on.gauge(
        "flagside_tls_certificate_not_after_timestamp_seconds",
        "When the certificate in use ends, in seconds since 1970.",
        &["name"],
        |cells, out| {
            if let Some(at) = cells.not_after.get().and_then(|read| read()) {
                out.value(&["injector"], at as f64);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_under_their_labels() {
        let metrics = InjectorMetrics::new("abc", [["a", "x"], ["b", "y"], ["b", "z"]], Arc::default());
        metrics.admitted(2, Duration::from_millis(1));
        metrics.admitted(2, Duration::from_millis(1));
        metrics.admitted(99, Duration::ZERO);
        metrics.observe_certificate(|| Some(1_900_000_000));
        let text = metrics.render();
        for line in [
            "flagside_injector_admissions_total{result=\"a\",reason=\"x\"} 0",
            "flagside_injector_admissions_total{result=\"b\",reason=\"z\"} 2",
            "flagside_injector_admission_duration_seconds_count{result=\"b\"} 2",
            "flagside_tls_certificate_not_after_timestamp_seconds{name=\"injector\"} 1900000000",
            "flagside_task_panics_total 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        assert!(text.contains("process_start_time_seconds") && text.contains("flagside_build_info"));
    }
}
