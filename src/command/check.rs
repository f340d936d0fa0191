//! `flagside check`: what a configuration means, and whether its upstreams can be reached.

mod online;

use std::fmt::Write;
use std::process::ExitCode;

use crate::config::{Arguments, Backend, BaseUrl, Bases, Config, Environment, Evaluation, Mode, format_size};

/// `check --online` failed.
const OFFLINE: u8 = 4;

/// Prints what was understood, or all faults; with `online`, tries every upstream too.
pub(super) fn run(arguments: Arguments, online: bool) -> ExitCode {
    let loaded = match super::load(arguments) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    super::complain(&super::warning_lines(&loaded.warnings));
    let said = super::say(&summary(&loaded.config));
    if !online {
        return said;
    }
    if online::reach(&loaded.config) {
        said
    } else {
        ExitCode::from(OFFLINE)
    }
}

/// What the configuration says, for people.
fn summary(config: &Config) -> String {
    let mut out = String::from("The configuration is valid.\n\n");
    let mode = match config.mode {
        Mode::Sidecar => "sidecar",
        Mode::Shared => "shared",
    };
    let files = match config.files.as_slice() {
        [] => "none".to_owned(),
        files => files
            .iter()
            .map(|f| f.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let limit = config.memory_limit.map_or_else(
        || "no memory limit known".to_owned(),
        |limit| format!("memory limit {}", format_size(limit)),
    );
    let rows = [
        ("files", files),
        (
            "mode",
            format!("{mode}, {}", counted(config.workers.get(), "worker")),
        ),
        ("data", joined(&config.listen.data)),
        ("admin", joined(&config.listen.admin)),
        (
            "cache",
            format!("{} ({limit})", format_size(config.cache.max_bytes)),
        ),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<12} {value}");
    }
    for environment in &config.environments {
        self::environment(&mut out, environment);
    }
    out
}

fn environment(out: &mut String, environment: &Environment) {
    let product = environment.backend.product();
    let _ = writeln!(out, "\nenvironment  {} ({product})", environment.name);
    match &environment.urls {
        None => {
            let _ = writeln!(out, "  upstream   none");
        }
        Some(bases) => upstreams(out, bases),
    }
    let keys = match (environment.keys.len(), environment.learn_keys) {
        _ if environment.bootstrap_file.is_some() => match environment.backend {
            Backend::Amplitude => "any, because of the flags file".to_owned(),
            Backend::Featbit => "any of the flags file's environment".to_owned(),
        },
        (0, true) => "learnt from traffic".to_owned(),
        (0, false) => "none".to_owned(),
        (count, true) => format!("{count} configured, others learnt from traffic"),
        (count, false) => format!("{count} configured, no others"),
    };
    let name = match environment.backend {
        Backend::Amplitude => "keys",
        Backend::Featbit => "secrets",
    };
    let evaluation = match environment.evaluation {
        Evaluation::Remote => "remote: here when upstream fails or is late",
        Evaluation::Local => "local: always here",
        Evaluation::Off => "off: never here",
    };
    let _ = writeln!(out, "  {name:<10} {keys}\n  evaluation {evaluation}");
    if let Some(file) = &environment.bootstrap_file {
        let _ = writeln!(out, "  flags      {}", file.display());
    }
}

/// The bases, those with the same URL in one line.
fn upstreams(out: &mut String, bases: &Bases) {
    let all = roles(bases);
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for (url, role) in &all {
        let url = url.to_string();
        match lines.iter_mut().find(|(known, _)| *known == url) {
            Some((_, roles)) => roles.push(role),
            None => lines.push((url, vec![role])),
        }
    }
    for (url, roles) in lines {
        let roles = if roles.len() == all.len() {
            "everything".to_owned()
        } else {
            roles.join(", ")
        };
        let _ = writeln!(out, "  upstream   {url} ({roles})");
    }
}

/// Each base with what it is for.
fn roles(bases: &Bases) -> Vec<(&BaseUrl, &'static str)> {
    match bases {
        Bases::Amplitude(urls) => vec![
            (&urls.eval, "eval"),
            (&urls.flags, "flags"),
            (&urls.stream, "stream"),
            (&urls.cohort, "cohort"),
            (&urls.management, "management"),
            (&urls.analytics, "analytics"),
        ],
        Bases::Featbit(urls) => vec![
            (&urls.evaluate, "requests"),
            (&urls.stream, "streams"),
            (&urls.event, "events"),
        ],
    }
}

fn joined(addresses: &[std::net::SocketAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;

    use super::*;

    #[test]
    fn the_summary_says_what_was_understood() {
        let text = "mode: shared\nworkers: 1\nenvironments:\n- {name: a, region: eu, deployment_keys: [k1]}\n\
                    - {name: b, urls: none, bootstrap_file: /dev/null, learn_keys: false}\n\
                    - {name: c, urls: {featbit: \"http://featbit:5100\", featbit_stream: \"wss://stream\"}}\n\
                    - {name: d, backend: featbit, bootstrap_file: /dev/null, evaluation: local, learn_keys: false}\n";
        let summary = summary(&load_text(text).unwrap().config);
        assert_eq!(
            summary,
            "The configuration is valid.\n\
             \n\
             files        none\n\
             mode         shared, 1 worker\n\
             data         0.0.0.0:3546\n\
             admin        127.0.0.1:3547\n\
             cache        256MiB (no memory limit known)\n\
             \n\
             environment  a (Amplitude)\n  \
               upstream   https://api.lab.eu.amplitude.com (eval)\n  \
               upstream   https://flag.lab.eu.amplitude.com (flags)\n  \
               upstream   https://stream.lab.eu.amplitude.com (stream)\n  \
               upstream   https://cohort-v2.lab.eu.amplitude.com (cohort)\n  \
               upstream   https://experiment.eu.amplitude.com (management)\n  \
               upstream   https://api.eu.amplitude.com (analytics)\n  \
               keys       1 configured, no others\n  \
               evaluation remote: here when upstream fails or is late\n\
             \n\
             environment  b (Amplitude)\n  \
               upstream   none\n  \
               keys       any, because of the flags file\n  \
               evaluation remote: here when upstream fails or is late\n  \
               flags      /dev/null\n\
             \n\
             environment  c (FeatBit)\n  \
               upstream   http://featbit:5100 (requests, events)\n  \
               upstream   https://stream (streams)\n  \
               secrets    learnt from traffic\n  \
               evaluation remote: here when upstream fails or is late\n\
             \n\
             environment  d (FeatBit)\n  \
               upstream   none\n  \
               secrets    any of the flags file's environment\n  \
               evaluation local: always here\n  \
               flags      /dev/null\n"
        );
    }

    #[test]
    fn every_host_is_tried_once() {
        let config =
            load_text("environments: [{urls: {eval: http://a, flags: http://a/x, stream: https://a}}]");
        let hosts = online::hosts(&config.unwrap().config);
        assert_eq!(hosts[..2], [("a".to_owned(), 80), ("a".to_owned(), 443)]);
        assert_eq!(hosts.len(), 5);
    }
}
