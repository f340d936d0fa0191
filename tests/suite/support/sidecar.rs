//! The program under test, as a child process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::ask::Ask;
use super::caller::{Caller, Response};
use super::metrics::Metrics;
use super::upstream::FakeUpstream;
use super::wait::{PATIENCE, eventually};

/// What the program is to be started with.
#[derive(Debug)]
pub struct Builder {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: TempDir,
}

/// A program that runs; dropping it kills it.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    output: Arc<Output>,
    data: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    _directory: TempDir,
}

/// A program that ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    stdout: Vec<String>,
    stderr: Vec<String>,
    /// Streams that came to their end.
    ended: usize,
}

impl Builder {
    fn empty() -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        Self {
            arguments: Vec::new(),
            environment: Vec::new(),
            directory,
        }
    }

    /// One more argument.
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// One more setting.
    pub fn set(self, path: &str, value: &str) -> Self {
        self.arg("--set").arg(&format!("{path}={value}"))
    }

    /// Clocks so slow that only the test decides when something is late.
    pub fn patient(self) -> Self {
        let clocks = [
            "answer_deadline",
            "upstream.request_timeout",
            "upstream.total_deadline",
        ];
        clocks
            .into_iter()
            .fold(self, |settings, clock| settings.set(clock, "60s"))
    }

    /// One more environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A configuration file with this text.
    pub fn config(self, yaml: &str) -> Self {
        let path = self.file("flagside.yaml", yaml);
        self.arg("--config").arg(&path)
    }

    /// A flags file with this content.
    pub fn flags(self, flags: &Value) -> Self {
        let path = self.file("flags.json", &flags.to_string());
        self.arg("--flags").arg(&path)
    }

    /// Writes a file into the program's directory and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("the directory is writable");
        path.to_str().expect("its name is ASCII").to_owned()
    }

    /// Starts the proxy and waits until it listens; panics with its output when it does not.
    pub fn start(self) -> Sidecar {
        let mut sidecar = self.spawn();
        match sidecar.find_addresses() {
            Some((data, admin)) => (sidecar.data, sidecar.admin) = (data, admin),
            None => panic!("it does not listen: {:#?}", sidecar.output.lock()),
        }
        sidecar
    }

    /// Runs the command to its end with `input` on standard input; panics when it does not end.
    pub fn run_with(self, input: &str) -> Ended {
        self.spawn_with(Some(input)).end(PATIENCE)
    }

    /// Runs the command to its end; panics when that takes longer than `patience`.
    pub fn run_within(self, patience: Duration) -> Ended {
        self.spawn_with(None).end(patience)
    }

    /// Runs the command to its end; panics when it does not end.
    pub fn run(self) -> Ended {
        self.run_within(PATIENCE)
    }

    fn spawn(self) -> Sidecar {
        self.spawn_with(None)
    }

    fn spawn_with(self, input: Option<&str>) -> Sidecar {
        let stdin = match input {
            Some(input) => {
                Stdio::from(fs::File::open(self.file("stdin", input)).expect("it was just written"))
            }
            None => Stdio::null(),
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagside"));
        // Nothing of the tester's environment may reach the program: neither settings nor keys nor proxies.
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "LLVM_PROFILE_FILE"));
        command
            .envs(self.environment)
            .args(&self.arguments)
            .current_dir(self.directory.path());
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program was built");
        let output = Arc::new(Output::default());
        output.collect(child.stdout.take().expect("it is piped"), |lines| {
            &mut lines.stdout
        });
        output.collect(child.stderr.take().expect("it is piped"), |lines| {
            &mut lines.stderr
        });
        Sidecar {
            child,
            output,
            data: Vec::new(),
            admin: Vec::new(),
            _directory: self.directory,
        }
    }
}

impl Sidecar {
    /// Starts it in front of `upstream` with the settings of most tests.
    pub fn start(upstream: &FakeUpstream) -> Self {
        Self::in_front_of(upstream).start()
    }

    /// The settings of most tests: free ports, JSON logs, flags polled as often as may be, `upstream` behind it.
    pub fn in_front_of(upstream: &FakeUpstream) -> Builder {
        Self::alone()
            .arg("--upstream")
            .arg(&upstream.url())
            .set("sync.flags_interval", "1s")
    }

    /// `flagside run` on free ports with JSON logs, and nothing else.
    pub fn alone() -> Builder {
        let listen = [
            "run",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ];
        listen.into_iter().fold(Builder::empty(), Builder::arg)
    }

    /// Another command of the program.
    pub fn command(arguments: &[&str]) -> Builder {
        arguments
            .iter()
            .fold(Builder::empty(), |builder, argument| builder.arg(argument))
    }

    /// Where questions go.
    pub fn data(&self) -> SocketAddr {
        self.data[0]
    }

    /// Where probes and scrapes go.
    pub fn admin(&self) -> SocketAddr {
        self.admin[0]
    }

    /// A new client of the data listener.
    pub fn caller(&self) -> Caller {
        Caller::new(self.data())
    }

    /// Asks on a new connection.
    pub fn ask(&self, ask: &Ask) -> Response {
        self.caller().ask(ask)
    }

    /// GETs a path of the admin listener.
    pub fn admin_get(&self, path: &str) -> Response {
        self.admin_ask(&Ask::new("GET", path))
    }

    /// Asks the admin listener under its own name.
    pub fn admin_ask(&self, ask: &Ask) -> Response {
        Caller::new(self.admin()).ask(&ask.clone().host(&self.admin()))
    }

    /// One scrape.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin_get("/metrics").text())
    }

    /// The sum of a metric over the series that have `labels`.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until a metric is at least `least`.
    pub fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name}{labels:?} >= {least}"), || {
            (self.metric(name, labels) >= least).then_some(())
        });
    }

    /// Waits until flags were fetched and taken over `count` times, over all deployments.
    pub fn wait_for_syncs(&self, count: u32) {
        eventually(&format!("{count} flag syncs"), || {
            let metrics = self.metrics();
            let runs = |result| {
                metrics.sum(
                    "flagside_sync_runs_total",
                    &[("source", "flags"), ("result", result)],
                )
            };
            (runs("changed") + runs("unchanged") >= f64::from(count)).then_some(())
        });
    }

    /// The admin listener's `/status`.
    pub fn status(&self) -> Value {
        self.admin_get("/status").json()
    }

    /// Everything it wrote to standard output so far.
    pub fn logs(&self) -> Vec<String> {
        self.output.lock().stdout.clone()
    }

    /// Everything it wrote so far, to whichever stream, as one text.
    pub fn everything_written(&self) -> String {
        let lines = self.output.lock();
        [lines.stdout.join("\n"), lines.stderr.join("\n")].join("\n")
    }

    /// Sends it a signal by name (`TERM`, `INT`, `KILL`, …).
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -s {name} {}", self.child.id()))
            .status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "SIG{name} was not sent"
        );
    }

    /// Waits until it ends and returns its exit code, -1 for a signal; panics when it goes on for longer.
    pub fn wait_exit(&mut self, patience: Duration) -> i32 {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code().unwrap_or(-1);
            }
            assert!(
                started.elapsed() < patience,
                "it still runs: {:#?}",
                self.output.lock()
            );
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for the end of a command and for everything that it wrote.
    fn end(mut self, patience: Duration) -> Ended {
        let code = self.wait_exit(patience);
        let lines = self.output.wait(|lines| lines.ended == 2);
        Ended {
            code,
            stdout: lines.stdout.join("\n"),
            stderr: lines.stderr.join("\n"),
        }
    }

    fn find_addresses(&self) -> Option<(Vec<SocketAddr>, Vec<SocketAddr>)> {
        let lines = self
            .output
            .wait(|lines| lines.ended == 2 || lines.stdout.iter().any(|line| listening(line).is_some()));
        lines.stdout.iter().find_map(|line| listening(line))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `reached`, at most [`PATIENCE`]; the caller looks for itself which it was.
    fn wait(&self, reached: impl Fn(&Lines) -> bool) -> MutexGuard<'_, Lines> {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, |lines| !reached(lines));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn collect(
        self: &Arc<Self>,
        stream: impl Read + Send + 'static,
        side: fn(&mut Lines) -> &mut Vec<String>,
    ) {
        let output = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                side(&mut output.lock()).push(String::from_utf8_lossy(&line).into_owned());
                output.changed.notify_all();
            }
            output.lock().ended += 1;
            output.changed.notify_all();
        });
    }
}

/// The data and admin addresses of the first log line: `listen.data` and `listen.admin`, lists with commas.
fn listening(line: &str) -> Option<(Vec<SocketAddr>, Vec<SocketAddr>)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| line.get(name).or_else(|| line.get("fields")?.get(name));
    let addresses = |name: &str| -> Option<Vec<SocketAddr>> {
        match field(name)? {
            Value::String(list) => {
                let list = list
                    .trim_matches(['[', ']'])
                    .split(',')
                    .map(|address| address.trim().trim_matches('"'));
                list.map(|address| address.parse().ok()).collect()
            }
            Value::Array(list) => list
                .iter()
                .map(|address| address.as_str()?.parse().ok())
                .collect(),
            _ => None,
        }
    };
    Some((addresses("listen.data")?, addresses("listen.admin")?))
}

#[test]
fn the_bound_addresses_are_read_from_the_first_log_line() {
    let line = r#"{"ts":"2025-11-21T00:00:00Z","level":"INFO","msg":"flagside is listening",
        "listen.data":"127.0.0.1:41, [::1]:41","listen.admin":"127.0.0.1:42"}"#;
    let (data, admin) = listening(line).unwrap();
    assert_eq!((data.len(), admin[0].port()), (2, 42));
    assert!(listening(r#"{"msg":"something else"}"#).is_none());
    assert!(listening("no JSON").is_none());
}
