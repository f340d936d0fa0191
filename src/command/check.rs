//! `flagside check`: what a configuration means, and whether its upstreams can be reached.

use std::fmt::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Arguments, Bases, Config, Environment, Evaluation, Mode, Urls, format_size};

/// `check --online` failed.
const OFFLINE: u8 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Prints what was understood, or all faults; with `online`, connects to every upstream too.
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
    let mut all_reached = true;
    for (host, port) in hosts(&loaded.config) {
        let result = connect(&host, port);
        all_reached &= result.is_ok();
        let line = match result {
            Ok(()) => format!("reached      {host}:{port}\n"),
            Err(error) => format!("not reached  {host}:{port}: {error}\n"),
        };
        super::say(&line);
    }
    if all_reached {
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
    let _ = writeln!(out, "\nenvironment  {} (Amplitude)", environment.name);
    match environment.urls.as_ref().and_then(Bases::amplitude) {
        None => {
            let _ = writeln!(out, "  upstream   none");
        }
        Some(urls) => upstreams(out, urls),
    }
    let keys = match (environment.keys.len(), environment.learn_keys) {
        _ if environment.bootstrap_file.is_some() => "any, because of the flags file".to_owned(),
        (0, true) => "learnt from traffic".to_owned(),
        (0, false) => "none".to_owned(),
        (count, true) => format!("{count} configured, others learnt from traffic"),
        (count, false) => format!("{count} configured, no others"),
    };
    let evaluation = match environment.evaluation {
        Evaluation::Remote => "remote: here when upstream fails or is late",
        Evaluation::Local => "local: always here",
        Evaluation::Off => "off: never here",
    };
    let _ = writeln!(out, "  keys       {keys}\n  evaluation {evaluation}");
    if let Some(file) = &environment.bootstrap_file {
        let _ = writeln!(out, "  flags      {}", file.display());
    }
}

/// The bases, those with the same URL in one line.
fn upstreams(out: &mut String, urls: &Urls) {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for (url, role) in roles(urls) {
        let url = url.to_string();
        match lines.iter_mut().find(|(known, _)| *known == url) {
            Some((_, roles)) => roles.push(role),
            None => lines.push((url, vec![role])),
        }
    }
    for (url, roles) in lines {
        let roles = if roles.len() == 6 {
            "everything".to_owned()
        } else {
            roles.join(", ")
        };
        let _ = writeln!(out, "  upstream   {url} ({roles})");
    }
}

fn roles(urls: &Urls) -> [(&crate::config::BaseUrl, &'static str); 6] {
    [
        (&urls.eval, "eval"),
        (&urls.flags, "flags"),
        (&urls.stream, "stream"),
        (&urls.cohort, "cohort"),
        (&urls.management, "management"),
        (&urls.analytics, "analytics"),
    ]
}

/// Every upstream's host and port, once.
fn hosts(config: &Config) -> Vec<(String, u16)> {
    let mut hosts = Vec::new();
    let bases = config.environments.iter().filter_map(|e| e.urls.as_ref());
    for urls in bases.filter_map(Bases::amplitude) {
        for (url, _) in roles(urls) {
            let host = (url.host.clone(), url.port);
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    hosts
}

/// Connects to the first address that answers.
fn connect(host: &str, port: u16) -> std::io::Result<()> {
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
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
                    - {name: b, urls: none, bootstrap_file: /dev/null, learn_keys: false}\n";
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
               flags      /dev/null\n"
        );
    }

    #[test]
    fn every_host_is_tried_once() {
        let config =
            load_text("environments: [{urls: {eval: http://a, flags: http://a/x, stream: https://a}}]");
        let hosts = hosts(&config.unwrap().config);
        assert_eq!(hosts[..2], [("a".to_owned(), 80), ("a".to_owned(), 443)]);
        assert_eq!(hosts.len(), 5);
    }
}
