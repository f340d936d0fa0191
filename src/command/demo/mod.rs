//! `flagside demo`: a self-contained tour on loopback.
//!
//! A built-in `upstream` with example flags of one `vendor`, the real proxy in front of it, and a `story` that an
//! application lives through: misses, hits, a flag change, an outage, the recovery. It reads no configuration,
//! writes no file, talks to nobody but itself, and holds itself to what it tells: if a step turns out otherwise
//! it says so and the exit code is 1.

mod amplitude;
mod client;
mod featbit;
mod screen;
mod story;
mod teller;
mod upstream;
mod vendor;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::command::evaluate::Engine;
use crate::config::{self, Arguments, Config, Machine, Sources};
use crate::run::Running;

use screen::{Screen, Tone};
use teller::Teller;
use upstream::{LATENCY, Upstream};
use vendor::Vendor;

/// How long answers are fresh here: short, so that the tour need not wait long for one to grow old.
const FRESH_FOR: Duration = Duration::from_secs(3);
/// When a stand-in is used: the default.
const ANSWER_DEADLINE: Duration = Duration::from_millis(400);

/// What the tour sets: everything is loopback, everything is quick.
const OPTIONS: [(&str, &str); 6] = [
    ("--listen", "127.0.0.1:0"),
    ("--admin-listen", "127.0.0.1:0"),
    ("--set", "cache.fresh_for=3s"),
    ("--set", "upstream.request_timeout=800ms"),
    ("--set", "upstream.total_deadline=2s"),
    ("--set", "upstream.circuit.open_for=1s"),
];

/// Runs the tour of a vendor; with `keep`, everything stays up at its end until a signal comes.
#[must_use]
pub fn run(engine: Engine, keep: bool) -> ExitCode {
    let mut screen = Screen::new(io::stdout(), screen::wants_colours());
    match tour(&mut screen, engine, keep) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            super::complain(&format!("flagside demo: {problem}\n"));
            ExitCode::FAILURE
        }
    }
}

/// The tour. Says how many claims did not come true.
fn tour(screen: &mut Screen<impl Write>, engine: Engine, keep: bool) -> Result<u32, String> {
    let upstream = Upstream::start(vendor::of(engine))
        .map_err(|error| format!("the built-in upstream cannot start: {error}"))?;
    let config = config(&upstream)?;
    let running =
        Running::start(config, Arc::default()).map_err(|error| format!("the proxy cannot start: {error}"))?;
    let (Some(&data), Some(&admin)) = (running.data.first(), running.admin.first()) else {
        return Err("the proxy listens nowhere".to_owned());
    };
    introduce(screen, &upstream, data);
    let told = Teller::new(screen, &upstream, &running.proxy, data).and_then(Teller::tell);
    let contradictions = told.map_err(|error| format!("a question got no answer: {error}"))?;
    screen.line("");
    if contradictions > 0 {
        screen.contradict(&format!(
            "{contradictions} of the claims above did not come true."
        ));
    } else if keep {
        invite(screen, &upstream, data, admin);
        wait_for_signal().map_err(|error| format!("no signals can be received: {error}"))?;
    } else {
        next(screen, upstream.vendor);
    }
    let _ = running.stop();
    Ok(contradictions)
}

/// Who plays.
fn introduce(screen: &mut Screen<impl Write>, upstream: &Upstream, data: SocketAddr) {
    screen.toned(
        Tone::Bold,
        "flagside demo: a short tour; everything stays on loopback",
    );
    screen.line("");
    screen.line(&format!("    upstream   http://{}", upstream.address));
    screen.say(&format!(
        "           built in: {}'s protocol, {} example flags, {} ms away",
        upstream.vendor.product(),
        upstream.flags(),
        LATENCY.as_millis()
    ));
    screen.line(&format!("    flagside   http://{data}"));
    screen.say("           the real proxy; answers stay fresh for 3 s here, and flags are");
    screen.say("           looked up every second, so that you need not wait");
    screen.line("");
}

/// The configuration of the tour. Neither files nor variables of this machine have a say in it.
fn config(upstream: &Upstream) -> Result<Config, String> {
    let mut options: Vec<_> = OPTIONS
        .iter()
        .map(|&(option, value)| (option, value.to_owned()))
        .collect();
    let vendor = upstream.vendor;
    options.push((vendor.option(), format!("http://{}", upstream.address)));
    options.extend(
        vendor
            .settings()
            .iter()
            .map(|setting| ("--set", (*setting).to_owned())),
    );
    let sources = Sources {
        arguments: Arguments {
            files: Vec::new(),
            options,
        },
        variables: Vec::new(),
        default_file: PathBuf::new(),
        machine: Machine::detect(),
    };
    let loaded = config::load(&sources).map_err(|rejected| {
        let faults: Vec<String> = rejected.faults.iter().map(ToString::to_string).collect();
        format!("its own configuration is wrong: {}", faults.join("; "))
    })?;
    Ok(loaded.config)
}

/// This program, as it was called.
fn program() -> String {
    let called = std::env::args_os().next();
    called.map_or_else(
        || "flagside".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Where to go from here.
fn next(screen: &mut Screen<impl Write>, vendor: &dyn Vendor) {
    let program = program();
    let flags = if Path::new(vendor.flags_file()).exists() {
        vendor.flags_file()
    } else {
        "FLAGS.json"
    };
    screen.toned(Tone::Bold, "Next");
    screen.say("Run it next to your service, and point the SDK's server URL at it:");
    screen.line(&format!("      {program} {}", vendor.run_arguments()));
    screen.say("Ask why a user gets a variant:");
    screen.line(&format!("      {program} evaluate --explain --user-id ada \\"));
    screen.line(&format!("        --flags {flags}"));
    screen.say("Keep upstream and proxy of this tour running, to try them with curl:");
    screen.line(&format!("      {program} {} --keep", vendor.demo_arguments()));
    screen.say("README.md has the rest: configuration, Kubernetes, operations.");
}

/// What to try while everything is kept running.
fn invite(screen: &mut Screen<impl Write>, upstream: &Upstream, data: SocketAddr, admin: SocketAddr) {
    let cloud = upstream.address;
    screen.toned(Tone::Bold, "Both keep running until Ctrl-C. Try");
    for (what, commands) in [
        (
            "A question; the answer's Cache-Status says where it came from:",
            upstream.vendor.curl(data),
        ),
        (
            "The cloud: take it away, change a flag, bring it back (also: fail):",
            ["hang", "change", "answer"]
                .map(|order| format!("curl -X POST http://{cloud}/demo/{order}"))
                .into(),
        ),
        (
            "What flagside knows about itself:",
            vec![
                format!("curl http://{admin}/status"),
                format!("curl http://{admin}/metrics"),
            ],
        ),
    ] {
        screen.say(what);
        for command in commands {
            screen.line(&format!("      {command}"));
        }
    }
}

fn wait_for_signal() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_the_tour_are_what_it_says() {
        for engine in Engine::ALL {
            let upstream = Upstream::start(vendor::of(engine)).unwrap();
            let config = config(&upstream).unwrap();
            assert_eq!(config.cache.fresh_for, FRESH_FOR);
            assert_eq!(config.answer_deadline, ANSWER_DEADLINE);
            assert_eq!(config.environments.len(), 1, "{engine:?}");
            let mut addresses = config.listen.data.iter().chain(&config.listen.admin);
            assert!(addresses.all(|address| address.ip().is_loopback()));
        }
    }

    #[test]
    fn a_claim_that_does_not_come_true_is_shown_and_counted() {
        let upstream = Upstream::start(vendor::of(Engine::Amplitude)).unwrap();
        let running = Running::start(config(&upstream).unwrap(), Arc::default()).unwrap();
        let mut shown = Vec::new();
        let mut screen = Screen::new(&mut shown, false);
        let mut teller = Teller::new(&mut screen, &upstream, &running.proxy, running.data[0]).unwrap();
        teller.claim(true, "water is wet");
        teller.claim(false, "the moon is made of cheese");
        assert_eq!(teller.contradictions, 1);
        drop(teller);
        assert!(running.stop());
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(shown, "    NOT AS TOLD: the moon is made of cheese\n");
    }
}
