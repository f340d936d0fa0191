//! Command line options become part of the tree.

use std::path::PathBuf;

use super::BaseUrl;
use super::fault::{Fault, Origin, Problem, looks_secret};
use super::settings::{self, Kind, SETTINGS};
use super::suggest::nearest;
use super::tree::{self, Node, Step, Value};
use super::yaml;

/// The configuration options of a command line, as given.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `--config`: files, in order; empty = the default look-up.
    pub files: Vec<PathBuf>,
    /// Every other option, with its dashes, and its value, in order.
    pub options: Vec<(&'static str, String)>,
}

/// Options that stand for one setting each.
const PLAIN: [(&str, &str); 7] = [
    ("--mode", "mode"),
    ("--listen", "listen.data"),
    ("--admin-listen", "listen.admin"),
    ("--region", "environments[0].region"),
    ("--flags", "environments[0].bootstrap_file"),
    ("--log-level", "log.level"),
    ("--log-format", "log.format"),
];

const BASES: [&str; 6] = ["eval", "flags", "stream", "cohort", "management", "analytics"];

/// A text from a variable or option as the kind of setting wants it: lists as JSON, or by commas and lines.
pub(super) fn value(kind: Kind, text: &str, origin: &Origin) -> Result<Node, Problem> {
    if !kind.is_list() {
        return Ok(Node::text(text, origin));
    }
    let inside = text.trim_start().strip_prefix('[').map(str::trim_start);
    if !inside.is_some_and(|rest| rest.starts_with(['"', ']'])) {
        return Ok(Node::texts(split_list(text), origin));
    }
    match yaml::read_value(text, origin) {
        (node, faults) if faults.is_empty() && matches!(node.value, Value::List(_)) => Ok(node),
        _ => Err(Problem::new("not a JSON list").expected(kind.to_string())),
    }
}

/// The items of a list by commas and lines, without blanks around them and lines that begin with `#`.
pub(super) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// Lays the options over `root`; returns faults and warnings.
///
/// `is_configured`: files or variables say where an environment's answers come from. If nobody does,
/// `--flags` makes an environment without upstream.
pub(super) fn apply(arguments: &Arguments, root: &mut Node, is_configured: bool) -> (Vec<Fault>, Vec<Fault>) {
    let mut applied = Applied {
        root,
        faults: Vec::new(),
        warnings: Vec::new(),
    };
    let given = |name: &str| arguments.options.iter().any(|(option, _)| *option == name);
    let sets_environments = arguments
        .options
        .iter()
        .any(|(option, value)| *option == "--set" && value.trim_start().starts_with("environments"));
    if (given("--region") || given("--upstream")) && applied.single_environment(arguments) {
        applied.root.remove(&environment("urls"));
    }
    for (option, setting) in PLAIN {
        applied.plain(option, setting, arguments);
    }
    let is_alone = !is_configured && !sets_environments && !given("--region") && !given("--upstream");
    if given("--flags") && is_alone {
        applied.place(
            &environment("urls"),
            Node::text("none", &Origin::Argument("--flags".into())),
        );
    }
    for (option, value) in &arguments.options {
        match *option {
            "--upstream" => applied.upstream(value),
            "--set" => applied.set(value),
            _ => {}
        }
    }
    (applied.faults, applied.warnings)
}

fn environment(key: &str) -> Vec<Step> {
    vec![
        Step::Key("environments".to_owned()),
        Step::Index(0),
        Step::Key(key.to_owned()),
    ]
}

struct Applied<'a> {
    root: &'a mut Node,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Applied<'_> {
    fn place(&mut self, path: &[Step], node: Node) {
        if let Err(fault) = self.root.place(path, node) {
            self.faults.push(*fault);
        }
    }

    /// Lists collect all values of an option; of others the last one counts.
    fn plain(&mut self, option: &'static str, setting: &str, arguments: &Arguments) {
        let values: Vec<&str> = arguments
            .options
            .iter()
            .filter(|(o, _)| *o == option)
            .map(|(_, v)| v.as_str())
            .collect();
        let Some(last) = values.last() else { return };
        let origin = Origin::Argument(option.into());
        let Some(path) = tree::steps(setting) else { return };
        let is_list = settings::setting(&tree::pattern(&path)).is_some_and(|s| s.kind.is_list());
        let node = if is_list {
            Node::texts(values.iter().flat_map(|v| split_list(v)), &origin)
        } else {
            Node::text(*last, &origin)
        };
        self.place(&path, node);
    }

    /// `--upstream` and `--region` speak of the only environment; with several it is a fault.
    fn single_environment(&mut self, arguments: &Arguments) -> bool {
        let count = match self.root.child("environments").map(|node| &node.value) {
            Some(Value::List(items)) => items.len(),
            _ => 0,
        };
        if count > 1 {
            for option in ["--region", "--upstream"] {
                if arguments.options.iter().any(|(o, _)| *o == option) {
                    let what = format!("means a single environment, and {count} are configured");
                    self.faults
                        .push(Fault::new(&Origin::Argument(option.into()), "", what));
                }
            }
        }
        count <= 1
    }

    fn upstream(&mut self, text: &str) {
        let origin = Origin::Argument("--upstream".into());
        match BaseUrl::parse(text) {
            Ok((url, dropped)) => {
                if let Some(dropped) = dropped {
                    self.warnings.push(dropped_end(&origin, "", dropped));
                }
                for base in BASES {
                    let mut path = environment("urls");
                    path.push(Step::Key(base.to_owned()));
                    self.place(&path, Node::text(url.to_string(), &origin));
                }
            }
            Err(fault) => self.faults.push(fault.at(&origin, "")),
        }
    }

    fn set(&mut self, text: &str) {
        let origin = Origin::Argument("--set".into());
        let Some((name, given)) = text.split_once('=') else {
            let fault = Fault::new(&origin, "", "no = in it")
                .got(text)
                .expected("PATH=VALUE");
            self.faults.push(fault);
            return;
        };
        let Some(path) = tree::steps(name.trim()) else {
            self.faults.push(
                Fault::new(&origin, "", "not a path")
                    .got(name)
                    .expected("a path such as log.level"),
            );
            return;
        };
        let pattern = tree::pattern(&path);
        let printed = tree::Path(&path).to_string();
        let kind = settings::setting(&pattern).map(|s| s.kind);
        // Paths often hold hashes, which look like keys.
        let is_file = matches!(kind, Some(Kind::File));
        if kind.is_some_and(Kind::is_secret) || (looks_secret(given) && !is_file) {
            let what = "looks like a secret, which every process on this machine can read here";
            let remedy = "secrets in a file or a variable";
            self.warnings
                .push(Fault::new(&origin, &printed, what).expected(remedy));
        }
        let node = match kind {
            Some(kind) => match value(kind, given, &origin) {
                Ok(node) => node,
                Err(problem) => return self.faults.push(problem.at(&origin, printed)),
            },
            None if pattern == "environments" => {
                let (node, faults) = yaml::read_value(given, &origin);
                self.faults.extend(faults);
                node
            }
            None => return self.unknown(&pattern, &printed, &origin),
        };
        self.place(&path, node);
    }

    fn unknown(&mut self, pattern: &str, printed: &str, origin: &Origin) {
        let children = settings::children(pattern);
        let fault = if children.is_empty() {
            let meant = nearest(pattern, SETTINGS.iter().map(|s| s.path)).map(|p| p.replace("[]", "[0]"));
            Fault::new(origin, printed, "unknown setting").meant(meant)
        } else {
            let expected = format!("one of its settings: {}", settings::one_of(&children));
            Fault::new(origin, printed, "a section").expected(expected)
        };
        self.faults.push(fault);
    }
}

/// What is said about a base URL whose end was dropped.
pub(super) fn dropped_end(origin: &Origin, path: &str, dropped: &str) -> Fault {
    let what = match dropped {
        "/v1" => "/v1 at the end of the URL is dropped: flagside adds the version itself".to_owned(),
        end => format!("{end} at the end of the URL is dropped"),
    };
    Fault::new(origin, path, what)
}
