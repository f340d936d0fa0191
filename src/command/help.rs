//! The help texts: 80 columns, the usual case first.

use super::parse::Topic;

/// The text about `topic`.
pub(super) const fn text(topic: Topic) -> &'static str {
    match topic {
        Topic::Flagside | Topic::Help => FLAGSIDE,
        Topic::Run => RUN,
        Topic::Demo => DEMO,
        Topic::Evaluate => EVALUATE,
        Topic::Inject => INJECT,
        Topic::Injector => INJECTOR,
        Topic::Check => CHECK,
        Topic::PrintConfig => PRINT_CONFIG,
        Topic::Schema => SCHEMA,
        Topic::Probe => PROBE,
        Topic::Sleep => SLEEP,
        Topic::Version => VERSION,
    }
}

const FLAGSIDE: &str = "\
flagside answers feature flag questions next to your application: from
upstream, from memory, or by evaluating the flags itself when upstream is gone.

Usage: flagside [COMMAND] [OPTIONS]

Commands:
  run           run the proxy; what happens without a command
  demo          a tour on loopback: no set-up, no network, half a minute
  evaluate      evaluate a user against a flags file, offline
  check         say what a configuration means, or all that is wrong with it
  print-config  print every effective setting
  inject        add the sidecar to Kubernetes manifests
  injector      the admission webhook that adds the sidecar to pods
  schema        print the JSON Schema of the configuration file
  probe         ask the admin listener and exit 0 or 1, for health checks
  sleep         wait so many seconds, for images without a shell
  version       print the version
  help          help about a command: flagside help run
                and about the settings: flagside help settings
                and the metrics: flagside help metrics

Examples:
  flagside demo                              see it work
  flagside                                   in front of Amplitude, US region
  flagside --region eu                       the same, EU region
  flagside --featbit-upstream http://featbit:5100
                                             in front of FeatBit
  flagside --flags flags.json                answer from a file alone
  flagside check --config flagside.yaml      before a deployment

Without configuration flagside needs no secret: deployment keys are learnt from
the requests. Point your SDK's server URL at http://127.0.0.1:3546.
";

const RUN: &str = "\
Run the proxy.

Usage: flagside [run] [OPTIONS]

Options:
  -c, --config FILE      YAML or JSON; several: later ones override.
                         Default: $FLAGSIDE_CONFIG, then
                         /etc/flagside/flagside.yaml if it exists
      --region us|eu     Amplitude's region [us]
      --upstream URL     send everything for Amplitude to this URL instead
      --featbit-upstream URL
                         FeatBit's evaluation server, http://HOST:5100; alone:
                         for FeatBit only, else beside Amplitude
      --flags FILE       flags to start from, as /sdk/v2/flags answers them, or
                         a data-sync message of FeatBit's; alone: answer from
                         the file, without upstream
      --listen ADDR      for applications; ADDRESS:PORT, :PORT or PORT
                         [127.0.0.1:3546 and [::1]:3546]
      --admin-listen ADDR
                         for probes and metrics [127.0.0.1:3547]
      --mode MODE        sidecar: for one pod, over loopback [default];
                         shared: for many, on 0.0.0.0
      --log-level LEVEL  error, warn, info, debug or trace [info]
      --log-format FORM  json or text [text on a terminal, else json]
      --set PATH=VALUE   any setting, such as cache.fresh_for=30s
      --dry-run          check the configuration and stop
  -h, --help             this text

The same settings can be given as environment variables
(FLAGSIDE_CACHE__FRESH_FOR=30s) and in files; this command line is the
strongest. flagside help settings lists them all.

Exit codes: 0 stopped cleanly, 1 failure, 2 configuration or usage,
3 address in use, 124 drain timed out, 130 second signal.
";

const DEMO: &str = "\
Show what flagside does: a built-in upstream with example flags, the proxy in
front of it, and a story of hits, misses, an outage and the recovery, printed as
it happens. Everything stays on loopback and ends by itself.

Usage: flagside demo [OPTIONS]

Options:
      --engine NAME  amplitude or featbit: whose protocol and flags [amplitude]
      --keep         leave upstream and proxy running; print curl lines to try
  -h, --help         this text
";

const EVALUATE: &str = "\
Evaluate a user against a flags file, offline.

Usage: flagside evaluate --flags FILE [OPTIONS]
       flagside evaluate --jsonl [--flags FILE] < REQUESTS

Options:
      --engine NAME      amplitude or featbit; without, the form of the file or
                         line tells
      --flags FILE       flags, as Amplitude's /sdk/v2/flags answers them, or a
                         data-sync message of FeatBit
      --user JSON        the user object; @FILE or - for standard input. For
                         FeatBit an end user or a whole evaluate request
      --user-id ID       the user's id; replaces the one in --user
      --device-id ID     the device's id; replaces the one in --user (Amplitude)
      --flag-keys A,B    evaluate only these flags; --flag-key A for one
      --v1               print the shape of /v1/vardata (Amplitude)
      --explain          print how each answer came about, step by step
      --jsonl            read one JSON request per line from standard input and
                         print one reply per line. Amplitude:
                         {\"flags\": [...], \"user\": {...}, \"flagKeys\": [...]}
                         gives {\"result\": {...}}; FeatBit:
                         {\"data\": {...}, \"request\": {...}} gives
                         {\"status\": 200, \"results\": [...]}, with
                         \"unevaluable\": [...] if flags have no answer, or
                         {\"status\": 400, \"message\": \"...\"}. A line that cannot
                         be used gives {\"error\": \"...\"}
  -h, --help             this text

Example:
  flagside evaluate --flags flags.json --user-id ada --explain
";

const INJECT: &str = "\
Add the sidecar to Kubernetes manifests: files or standard input in, the same
text with the sidecar out. Comments, order and formatting stay; a workload that
has the sidecar is left as it is. What became of each goes to standard error.

Usage: flagside inject [OPTIONS] [FILE]... > injected.yaml
       kubectl get deploy web -o yaml | flagside inject | kubectl apply -f -

Options:
      --image IMAGE            the sidecar's image
      --env NAME[=TEMPLATE]    a variable for the application's containers that
                               do not set it [TEMPLATE: http://127.0.0.1:{port}]
      --legacy                 a plain container, for Kubernetes before 1.29
      --config NAME            ConfigMap with flagside.yaml [flagside-sidecar];
                               it need not exist
      --secret NAME            Secret with keys, found in /run/secrets/flagside
                               [flagside-sidecar]; it need not exist
      --port PORT              for the application [3546]
      --admin-port PORT        for probes and metrics [3547]
      --cpu-request QUANTITY   [10m]
      --memory-request QUANTITY, --memory-limit QUANTITY
                               [32Mi, 128Mi]
      --log-level LEVEL        error, warn, info, debug or trace
      --image-pull-policy POLICY
                               Always, IfNotPresent or Never
      --template FILE          the same names in YAML, and container: a map that
                               is merged over the container
  -h, --help                   this text

Pods may say otherwise by annotations: flagside.io/inject (enabled, disabled),
and flagside.io/ before config, secret, image, log-level, cpu-request,
memory-request, memory-limit, port, admin-port, set-env and native.

Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs, Pods and
Lists are known; YAML with many documents, and JSON.
";

const INJECTOR: &str = "\
The admission webhook that adds the sidecar to pods. It needs no access to the
Kubernetes API. POST an AdmissionReview to any path; a pod is always allowed.

Usage: flagside injector [OPTIONS]

Options:
      --template FILE       YAML: image, image-pull-policy, config, secret,
                            port, admin-port, log-level, cpu-request,
                            memory-request, memory-limit, native, set-env,
                            allow-image-override, and container: a map that is
                            merged over the container
      --set NAME=VALUE      one of these names, stronger than the file
      --cert FILE, --key FILE
                            PEM, read again when they change
                            [/etc/flagside/tls/tls.crt, tls.key]
      --listen ADDR         for the API server, over TLS [0.0.0.0:8443]
      --admin-listen ADDR   for probes and metrics [0.0.0.0:3547]
      --exclude-namespace NAME
                            left alone besides kube-system and kube-node-lease;
                            several
      --drain-delay DURATION, --drain-timeout DURATION
                            [5s, 25s]
      --log-level LEVEL, --log-format FORM
  -h, --help                this text

flagside help inject lists the annotations of pods.

Exit codes: 0 stopped cleanly, 2 usage or certificate, 3 address in use,
124 drain timed out, 130 second signal.
";

const CHECK: &str = "\
Read the configuration as run would, and say what it means, or everything that
is wrong with it: place, problem and remedy, all in one go.

Usage: flagside check [OPTIONS]

Options:
      --online  also try every upstream (exit code 4 if one fails): connect to
                Amplitude's, ask FeatBit's for its health
  -h, --help    this text
and those of flagside run: --config, --set and so on.

Exit codes: 0 valid, 2 faults, 4 an upstream cannot be reached.
";

const PRINT_CONFIG: &str = "\
Print every effective setting as YAML that flagside accepts itself. Deployment
keys and environment secrets are left out.

Usage: flagside print-config [OPTIONS]

Options:
      --origin  say after each value where it came from
  -h, --help    this text
and those of flagside run: --config, --set and so on.
";

const SCHEMA: &str = "\
Print the JSON Schema (draft-07) of the configuration file, for editors and for
checks before a deployment. The YAML language server of editors takes it from a
file's first line:

  # yaml-language-server: $schema=flagside.schema.json

Usage: flagside schema
";

const PROBE: &str = "\
Ask the admin listener, and exit 0 if the answer is 200, else 1. For health
checks in images without a shell.

Usage: flagside probe [ready|live|startup|URL] [OPTIONS]

Options:
      --wait DURATION  keep asking for so long, such as 10s [0s]
  -h, --help           this text

The listener's address comes from the configuration file and the environment
[127.0.0.1:3547]. Without argument: ready.
";

const SLEEP: &str = "\
Wait, then exit 0. For preStop hooks in images without a shell.

Usage: flagside sleep SECONDS

SECONDS is a whole number, or a duration with its unit such as 250ms.
";

const VERSION: &str = "\
Print the version, and the revision it was built from if that is known.

Usage: flagside version
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_80_columns_and_say_how_to_use_the_command() {
        for (_, topic) in super::super::parse::COMMANDS {
            let text = text(topic);
            assert!(text.contains("\nUsage: flagside"), "{text}");
            assert!(text.ends_with('\n'));
            for line in text.lines() {
                assert!(line.chars().count() <= 80 && line.trim_end() == line, "{line}");
            }
        }
    }
}
