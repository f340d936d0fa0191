//! The effective configuration as YAML that flagside itself accepts.

use std::fmt::{Display, Write};
use std::path::Path;
use std::sync::Arc;

use super::environment::{key_file_setting, key_settings};
use super::fault::Origin;
use super::load::Loaded;
use super::quantity::{format_duration, format_size};
use super::rules::official_region;
use super::{Backend, BaseUrl, Bases, Config, Environment, Evaluation, Level, LogFormat, Mode, Urls};

/// Writes every setting with its effective value; loading the text gives the same configuration.
///
/// Deployment keys and environment secrets are never written: those of a file are named by their file, in place of listed ones there
/// is a comment. With `origins`, each line says where its value came from.
#[must_use]
pub fn print(loaded: &Loaded, origins: bool) -> String {
    let mut page = Page {
        loaded,
        origins,
        lines: Vec::new(),
    };
    let config = &loaded.config;
    page.setting(
        0,
        "mode",
        match config.mode {
            Mode::Sidecar => "sidecar",
            Mode::Shared => "shared",
        },
    );
    page.setting(0, "workers", config.workers);
    page.setting(0, "answer_deadline", format_duration(config.answer_deadline));
    listen(&mut page, config);
    page.section(0, "environments");
    for (at, environment) in config.environments.iter().enumerate() {
        self::environment(&mut page, at, environment);
    }
    upstream(&mut page, config);
    cache(&mut page, config);
    page.section(0, "keys");
    page.setting(1, "keys.max_learnt", config.keys.max_learnt);
    page.setting(1, "keys.negative_entries", config.keys.negative_entries);
    page.setting(1, "keys.negative_ttl", format_duration(config.keys.negative_ttl));
    page.section(0, "sync");
    page.setting(
        1,
        "sync.flags_interval",
        format_duration(config.sync.flags_interval),
    );
    page.setting(1, "sync.jitter", config.sync.jitter);
    page.setting(
        1,
        "sync.featbit_poll_interval",
        format_duration(config.sync.featbit_poll_interval),
    );
    page.setting(
        1,
        "sync.featbit_resync_interval",
        format_duration(config.sync.featbit_resync_interval),
    );
    page.setting(1, "sync.streaming", config.sync.streaming);
    page.section(0, "featbit");
    page.setting(1, "featbit.strict", config.featbit.strict);
    page.section(0, "readiness");
    page.setting(
        1,
        "readiness.deadline",
        format_duration(config.readiness.deadline),
    );
    page.setting(1, "readiness.strict", config.readiness.strict);
    page.section(0, "drain");
    page.setting(1, "drain.delay", format_duration(config.drain.delay));
    page.setting(1, "drain.timeout", format_duration(config.drain.timeout));
    page.section(0, "log");
    page.setting(1, "log.level", level(config.log.level));
    page.setting(
        1,
        "log.format",
        match config.log.format {
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        },
    );
    page.finish()
}

fn listen(page: &mut Page<'_>, config: &Config) {
    let listen = &config.listen;
    page.section(0, "listen");
    page.setting(1, "listen.data", list(&listen.data));
    page.setting(1, "listen.admin", list(&listen.admin));
    page.setting(1, "listen.max_connections", listen.max_connections);
    page.setting(1, "listen.header_timeout", format_duration(listen.header_timeout));
    page.setting(1, "listen.idle_timeout", format_duration(listen.idle_timeout));
    page.setting(1, "listen.max_body", size(listen.max_body));
    page.setting(1, "listen.max_headers", size(listen.max_headers));
    page.setting(1, "listen.path_prefix", quoted(&listen.path_prefix));
    page.section(1, "cors");
    page.setting(2, "listen.cors.origins", list(&listen.cors_origins));
}

fn environment(page: &mut Page<'_>, at: usize, environment: &Environment) {
    let path = |key: &str| format!("environments[{at}].{key}");
    page.setting(2, &path("name"), &environment.name);
    page.mark_item();
    page.setting(2, &path("backend"), environment.backend.as_str());
    let urls = environment.urls.as_ref().and_then(Bases::amplitude);
    if let Some(region) = urls.and_then(region) {
        page.setting(2, &path("region"), region);
    }
    match page.loaded.key_files.get(&at) {
        Some(file) => {
            let setting = key_file_setting(environment.backend);
            page.setting(2, &path(setting), file_text(file));
        }
        None => secrets(page, at, environment.backend),
    }
    page.setting(2, &path("learn_keys"), environment.learn_keys);
    page.setting(
        2,
        &path("evaluation"),
        match environment.evaluation {
            Evaluation::Remote => "remote",
            Evaluation::Local => "local",
            Evaluation::Off => "off",
        },
    );
    if let Some(file) = &environment.bootstrap_file {
        page.setting(2, &path("bootstrap_file"), file_text(file));
    }
    match &environment.urls {
        None => page.setting(2, &path("urls"), "none"),
        Some(Bases::Amplitude(urls)) => {
            let bases = [
                ("eval", &urls.eval),
                ("flags", &urls.flags),
                ("stream", &urls.stream),
                ("cohort", &urls.cohort),
                ("management", &urls.management),
                ("analytics", &urls.analytics),
            ];
            self::urls(page, at, &bases);
        }
        Some(Bases::Featbit(urls)) => {
            let bases = [
                ("featbit", &urls.evaluate),
                ("featbit_stream", &urls.stream),
                ("featbit_event", &urls.event),
            ];
            self::urls(page, at, &bases);
        }
    }
}

/// A comment in place of keys that were listed.
fn secrets(page: &mut Page<'_>, at: usize, backend: Backend) {
    let path = |key: &str| format!("environments[{at}].{key}");
    let is_given = |key: &&str| {
        let origin = page.loaded.origins.get(&path(key));
        origin.is_some_and(|origin| *origin != Origin::Default)
    };
    let mut settings = key_settings(backend);
    let first = settings.next().unwrap_or_default();
    let key = [first]
        .into_iter()
        .chain(settings)
        .find(is_given)
        .unwrap_or(first);
    page.comment(2, &path(key), &format!("{key}: never shown"));
}

/// The region whose official hosts are in use, if all of them are of one region.
fn region(urls: &Urls) -> Option<&'static str> {
    let bases = [
        &urls.eval,
        &urls.flags,
        &urls.stream,
        &urls.cohort,
        &urls.management,
        &urls.analytics,
    ];
    let is_eu = official_region(&urls.eval)?;
    let is_uniform = bases.iter().all(|url| official_region(url) == Some(is_eu));
    is_uniform.then_some(if is_eu { "eu" } else { "us" })
}

fn urls(page: &mut Page<'_>, at: usize, bases: &[(&str, &Arc<BaseUrl>)]) {
    page.section(2, "urls");
    for (key, url) in bases {
        page.setting(
            3,
            &format!("environments[{at}].urls.{key}"),
            quoted(&url.to_string()),
        );
    }
}

fn upstream(page: &mut Page<'_>, config: &Config) {
    let upstream = &config.upstream;
    page.section(0, "upstream");
    page.setting(
        1,
        "upstream.connect_timeout",
        format_duration(upstream.connect_timeout),
    );
    page.setting(
        1,
        "upstream.request_timeout",
        format_duration(upstream.request_timeout),
    );
    page.setting(
        1,
        "upstream.total_deadline",
        format_duration(upstream.total_deadline),
    );
    page.setting(1, "upstream.retries", upstream.retries);
    page.setting(1, "upstream.retry_budget", upstream.retry_budget);
    page.setting(1, "upstream.pool_max_idle", upstream.pool_max_idle);
    page.setting(1, "upstream.max_in_flight", upstream.max_in_flight);
    page.section(1, "circuit");
    page.setting(2, "upstream.circuit.failures", upstream.circuit_failures);
    page.setting(
        2,
        "upstream.circuit.open_for",
        format_duration(upstream.circuit_open_for),
    );
    if let Some(file) = &upstream.ca_file {
        page.setting(1, "upstream.ca_file", file_text(file));
    }
    page.setting(1, "upstream.http2", upstream.http2);
    page.setting(1, "upstream.dns_refresh", format_duration(upstream.dns_refresh));
    page.setting(1, "upstream.max_answer", size(upstream.max_answer));
    page.setting(1, "upstream.max_flags", size(upstream.max_flags));
}

fn cache(page: &mut Page<'_>, config: &Config) {
    let cache = &config.cache;
    page.section(0, "cache");
    page.setting(1, "cache.max_bytes", format_size(cache.max_bytes));
    page.setting(1, "cache.max_entry", size(cache.max_entry));
    page.setting(1, "cache.fresh_for", format_duration(cache.fresh_for));
    page.setting(
        1,
        "cache.stale_while_revalidate",
        format_duration(cache.stale_while_revalidate),
    );
    page.setting(1, "cache.stale_error", format_duration(cache.stale_error));
    page.setting(1, "cache.max_stale", format_duration(cache.max_stale));
    page.setting(1, "cache.ignore_query", list(&cache.ignore_query));
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn size(bytes: usize) -> String {
    format_size(bytes as u64)
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

fn file_text(file: &Path) -> String {
    quoted(&file.to_string_lossy())
}

/// A YAML text in double quotes; `${` keeps its meaning of itself.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

struct Page<'a> {
    loaded: &'a Loaded,
    origins: bool,
    /// Text and, if wanted, origin.
    lines: Vec<(String, Option<String>)>,
}

impl Page<'_> {
    fn section(&mut self, depth: usize, name: &str) {
        self.lines.push((format!("{}{name}:", "  ".repeat(depth)), None));
    }

    fn setting(&mut self, depth: usize, path: &str, value: impl Display) {
        let name = path.rsplit('.').next().unwrap_or(path);
        let line = format!("{}{name}: {value}", "  ".repeat(depth));
        self.push(line, path);
    }

    fn comment(&mut self, depth: usize, path: &str, text: &str) {
        self.push(format!("{}# {text}", "  ".repeat(depth)), path);
    }

    fn push(&mut self, line: String, path: &str) {
        let origin = self.loaded.origins.get(path).unwrap_or(&Origin::Default);
        self.lines
            .push((line, self.origins.then(|| format!("# from {origin}"))));
    }

    /// Makes the last line the first one of a list's item.
    fn mark_item(&mut self) {
        if let Some((line, _)) = self.lines.last_mut() {
            *line = line.replacen("    ", "  - ", 1);
        }
    }

    fn finish(self) -> String {
        let with_origin = self.lines.iter().filter(|(_, origin)| origin.is_some());
        let width = with_origin
            .map(|(line, _)| line.chars().count())
            .filter(|n| *n <= 60)
            .max()
            .unwrap_or(0);
        let mut out = String::new();
        for (line, origin) in self.lines {
            let _ = match origin {
                Some(origin) => writeln!(out, "{line:<width$}  {origin}"),
                None => writeln!(out, "{line}"),
            };
        }
        out
    }
}

#[cfg(test)]
mod tests;
