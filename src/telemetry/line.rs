//! The shape of a log line (OPS 10.1).
//!
//! JSON: `ts` (RFC 3339, UTC, microseconds), `level`, `target`, `msg`, then the fields of the event with their dotted
//! names. Text: the same for people. A value is cut at 2 KiB; nothing can end a line but its newline.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::writer::Writer;
use crate::config::LogFormat;
use crate::metrics::LogLevel;

/// Bytes of a value that are written.
const VALUE_MAX: usize = 2048;
/// The field that holds an event's sentence.
const MESSAGE: &str = "message";

/// Writes every event as a line.
#[derive(Debug)]
pub(super) struct LineLayer {
    format: LogFormat,
    writer: Arc<Writer>,
}

impl LineLayer {
    /// Lines of this format, to `writer`.
    pub(super) const fn new(format: LogFormat, writer: Arc<Writer>) -> Self {
        Self { format, writer }
    }
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = level(*event.metadata().level());
        let mut line = match self.format {
            LogFormat::Json => json(event, level, OffsetDateTime::now_utc()),
            LogFormat::Text => text(event, level, OffsetDateTime::now_utc()),
        };
        line.push('\n');
        self.writer.line(level, line.as_bytes());
    }
}

const fn level(level: tracing::Level) -> LogLevel {
    match level {
        tracing::Level::ERROR => LogLevel::Error,
        tracing::Level::WARN => LogLevel::Warn,
        tracing::Level::INFO => LogLevel::Info,
        tracing::Level::DEBUG => LogLevel::Debug,
        tracing::Level::TRACE => LogLevel::Trace,
    }
}

fn json(event: &Event<'_>, level: LogLevel, now: OffsetDateTime) -> String {
    let mut fields = Json::default();
    event.record(&mut fields);
    let mut line = String::with_capacity(128 + fields.message.len() + fields.members.len());
    line.push_str("{\"ts\":\"");
    timestamp(&mut line, now);
    line.push_str("\",\"level\":\"");
    line.push_str(level.as_str());
    line.push_str("\",\"target\":");
    quoted(&mut line, event.metadata().target());
    line.push_str(",\"msg\":");
    quoted(&mut line, cut(&fields.message));
    line.push_str(&fields.members);
    line.push('}');
    line
}

fn text(event: &Event<'_>, level: LogLevel, now: OffsetDateTime) -> String {
    let mut fields = Text::default();
    event.record(&mut fields);
    let mut line = String::with_capacity(96 + fields.message.len() + fields.members.len());
    timestamp(&mut line, now);
    let name = level.as_str().to_ascii_uppercase();
    // Writing to a string cannot fail.
    let _ = write!(line, " {name:>5} {}: ", event.metadata().target());
    printable(&mut line, cut(&fields.message));
    line.push_str(&fields.members);
    line
}

/// Appends `2026-01-31T23:59:59.000001Z`.
pub(super) fn timestamp(line: &mut String, now: OffsetDateTime) {
    let (date, hour, minute, second, micro) = (
        now.date(),
        now.hour(),
        now.minute(),
        now.second(),
        now.microsecond(),
    );
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let _ = write!(
        line,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z"
    );
}

/// The fields as members of a JSON object, each with its comma before it.
#[derive(Debug, Default)]
struct Json {
    message: String,
    members: String,
}

impl Json {
    fn name(&mut self, field: &Field) {
        self.members.push(',');
        let name = plain(field.name());
        // The four names that every line has are not given twice.
        if matches!(name, "ts" | "level" | "target" | "msg") {
            quoted(&mut self.members, &format!("field.{name}"));
        } else {
            quoted(&mut self.members, name);
        }
        self.members.push(':');
    }

    fn raw(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        let _ = write!(self.members, "{value}");
    }
}

impl Visit for Json {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            value.clone_into(&mut self.message);
        } else {
            self.name(field);
            quoted(&mut self.members, cut(value));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.raw(field, value);
        } else {
            self.raw(field, "null");
        }
    }
}

/// The fields as `name=value`, each with its blank before it.
#[derive(Debug, Default)]
struct Text {
    message: String,
    members: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            value.clone_into(&mut self.message);
            return;
        }
        let _ = write!(self.members, " {}=", plain(field.name()));
        let value = cut(value);
        if value.is_empty() || value.contains([' ', '"', '=']) {
            quoted(&mut self.members, value);
        } else {
            printable(&mut self.members, value);
        }
    }
}

/// A field's name without the mark of a raw identifier.
fn plain(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// `value`, or its first [`VALUE_MAX`] bytes.
fn cut(value: &str) -> &str {
    let mut end = value.len().min(VALUE_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// Appends `value` as a JSON string.
fn quoted(line: &mut String, value: &str) {
    line.push('"');
    for character in value.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if u32::from(control) < 0x20 || control == '\u{7f}' => {
                let _ = write!(line, "\\u{:04x}", u32::from(control));
            }
            other => line.push(other),
        }
    }
    line.push('"');
}

/// Appends `value` with control characters escaped, so that no value can forge a line or steer a terminal.
fn printable(line: &mut String, value: &str) {
    for character in value.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn written(format: LogFormat, act: impl FnOnce()) -> String {
        let writer = Arc::new(Writer::new(Arc::default()));
        let layer = LineLayer::new(format, Arc::clone(&writer));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        writer.take()
    }

    #[test]
    fn a_json_line_has_its_four_members_first_and_keeps_dotted_names() {
        let line = written(LogFormat::Json, || {
            tracing::warn!(
                upstream.host = "h",
                duration_ms = 5,
                ok = false,
                ratio = 0.5,
                "it is \"slow\"\n"
            );
        });
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        let names: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                "ts",
                "level",
                "target",
                "msg",
                "upstream.host",
                "duration_ms",
                "ok",
                "ratio"
            ],
            "{line}"
        );
        assert_eq!(value["level"], "warn");
        assert_eq!(value["target"], "flagside::telemetry::line::tests");
        assert_eq!(value["msg"], "it is \"slow\"\n");
        assert_eq!(value["upstream.host"], "h");
        assert_eq!(value["duration_ms"].as_u64(), Some(5));
        assert_eq!(value["ok"], false);
        assert_eq!(value["ratio"].as_f64(), Some(0.5));
    }

    #[test]
    fn a_text_line_is_readable_and_cannot_be_forged() {
        let line = written(LogFormat::Text, || {
            tracing::info!(
                host = "h",
                reason = "two words",
                empty = "",
                evil = "a\nb\u{1b}[2J",
                "hello\nworld"
            );
        });
        let (_, rest) = line.split_once(' ').unwrap();
        assert_eq!(
            rest,
            " INFO flagside::telemetry::line::tests: hello\\nworld host=h reason=\"two words\" empty=\"\" \
             evil=a\\nb\\u{1b}[2J\n"
        );
    }

    #[test]
    fn every_value_makes_valid_json() {
        let control: String = (0..0x20_u8)
            .map(char::from)
            .chain(['\u{7f}', '\u{2028}', '😀', '\\'])
            .collect();
        let line = written(LogFormat::Json, || {
            tracing::info!(
                control,
                not_a_number = f64::NAN,
                big = u64::MAX,
                small = i64::MIN,
                wide = u128::MAX,
                debug = ?Some("x"),
                target = "mine",
                r#type = "t",
                "x"
            );
        });
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["control"], control);
        assert_eq!(value["not_a_number"], Value::Null);
        assert_eq!(value["big"].as_u64(), Some(u64::MAX));
        assert_eq!(value["small"].as_i64(), Some(i64::MIN));
        assert_eq!(value["debug"], "Some(\"x\")");
        assert_eq!(value["field.target"], "mine");
        assert_eq!(value["type"], "t");
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let long = "é".repeat(VALUE_MAX);
        let line = written(LogFormat::Json, || tracing::info!(long, "{long}"));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["long"].as_str().unwrap().len(), VALUE_MAX);
        assert_eq!(value["msg"].as_str().unwrap().len(), VALUE_MAX);
    }

    #[test]
    fn timestamps_are_rfc_3339_in_utc_with_microseconds() {
        for (nanoseconds, wanted) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_700_000_000_000_001_999, "2023-11-14T22:13:20.000001Z"),
        ] {
            let mut line = String::new();
            timestamp(
                &mut line,
                OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap(),
            );
            assert_eq!(line, wanted);
        }
    }
}
