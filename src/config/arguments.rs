//! Command line options become part of the tree.

use std::path::{Path, PathBuf};

use super::backend::{self, Place, setting_path};
use super::fault::{Fault, Origin, Problem, looks_secret};
use super::settings::{self, Kind, SETTINGS};
use super::suggest::nearest;
use super::tree::{self, Node, Step, Value};
use super::{Backend, BaseUrl, UrlForm, yaml};

/// The configuration options of a command line, as given.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `--config`: files, in order; empty = the default look-up.
    pub files: Vec<PathBuf>,
    /// Every other option, with its dashes, and its value, in order.
    pub options: Vec<(&'static str, String)>,
}

impl Arguments {
    /// The values of an option, in order.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of_name = move |(option, _): &&(&'static str, String)| *option == name;
        self.options
            .iter()
            .filter(of_name)
            .map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }
}

/// Options that stand for one setting each.
const PLAIN: [(&str, &str); 5] = [
    ("--mode", "mode"),
    ("--listen", "listen.data"),
    ("--admin-listen", "listen.admin"),
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
/// `is_configured`: files or variables say where answers of an Amplitude environment come from. If nobody does,
/// `--flags` makes an environment without upstream.
pub(super) fn apply(arguments: &Arguments, root: &mut Node, is_configured: bool) -> (Vec<Fault>, Vec<Fault>) {
    let mut applied = Applied {
        root,
        faults: Vec::new(),
        warnings: Vec::new(),
    };
    for (option, setting) in PLAIN {
        applied.plain(option, setting, arguments);
    }
    applied.amplitude(arguments);
    applied.featbit(arguments);
    applied.flags(arguments, is_configured);
    for value in arguments.values("--set") {
        applied.set(value);
    }
    (applied.faults, applied.warnings)
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
        let values: Vec<&str> = arguments.values(option).collect();
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

    /// `--region` and `--upstream`: where the only Amplitude environment has its answers from.
    fn amplitude(&mut self, arguments: &Arguments) {
        let place = Place::of(self.root, Backend::Amplitude, false);
        let Some(at) = self.single(place, Backend::Amplitude, &["--region", "--upstream"], arguments) else {
            return;
        };
        if let Some(region) = arguments.values("--region").last() {
            self.root.remove(&setting_path(at, "urls"));
            let origin = Origin::Argument("--region".into());
            self.place(&setting_path(at, "region"), Node::text(region, &origin));
        }
        if let Some(url) = arguments.values("--upstream").last() {
            self.bases("--upstream", url, UrlForm::Amplitude, at, &BASES);
        }
    }

    /// `--featbit-upstream`: the same of the only FeatBit environment.
    fn featbit(&mut self, arguments: &Arguments) {
        const OPTION: &str = "--featbit-upstream";
        let is_alone = !arguments.has("--region") && !arguments.has("--upstream");
        let place = Place::of(self.root, Backend::Featbit, is_alone);
        let Some(at) = self.single(place, Backend::Featbit, &[OPTION], arguments) else {
            return;
        };
        if let Some(url) = arguments.values(OPTION).last() {
            self.bases(OPTION, url, UrlForm::Featbit, at, &["featbit"]);
        }
    }

    /// The environment that `options` speak of, if one of them was given and there are not several.
    fn single(
        &mut self,
        place: Place,
        backend: Backend,
        options: &[&'static str],
        arguments: &Arguments,
    ) -> Option<usize> {
        let mut given = options.iter().filter(|option| arguments.has(option)).peekable();
        given.peek()?;
        match place.single(backend) {
            Ok(at) => Some(at),
            Err(what) => {
                for option in given {
                    let origin = Origin::Argument((*option).into());
                    self.faults.push(Fault::new(&origin, "", what.clone()));
                }
                None
            }
        }
    }

    /// Sets bases of the environment at `at` to one URL, in place of all that it had.
    fn bases(&mut self, option: &str, text: &str, form: UrlForm, at: usize, bases: &[&str]) {
        let origin = Origin::Argument(option.into());
        match BaseUrl::parse_as(text, form) {
            Ok((url, dropped)) => {
                if let Some(dropped) = dropped {
                    self.warnings.push(dropped_end(&origin, "", dropped));
                }
                self.root.remove(&setting_path(at, "urls"));
                for base in bases {
                    let path = setting_path(at, &format!("urls.{base}"));
                    self.place(&path, Node::text(url.to_string(), &origin));
                }
            }
            Err(fault) => self.faults.push(fault.at(&origin, "")),
        }
    }

    /// `--flags`: for the first environment of the file's backend, one file for each backend.
    fn flags(&mut self, arguments: &Arguments, is_configured: bool) {
        let is_alone = !arguments.has("--region") && !arguments.has("--upstream");
        let sets_environments = arguments
            .values("--set")
            .any(|value| value.trim_start().starts_with("environments"));
        let origin = Origin::Argument("--flags".into());
        for file in arguments.values("--flags") {
            let told = backend::told_of_all(self.root);
            let only_featbit = !told.is_empty() && told.iter().all(|told| *told == Some(Backend::Featbit));
            let backend = Backend::of_flags_file(Path::new(file)).unwrap_or(if only_featbit {
                Backend::Featbit
            } else {
                Backend::Amplitude
            });
            let (Place::At(at) | Place::New(at) | Place::Several(_, at)) =
                Place::of(self.root, backend, is_alone && backend == Backend::Featbit);
            self.place(&setting_path(at, "bootstrap_file"), Node::text(file, &origin));
            if backend == Backend::Amplitude && !is_configured && is_alone && !sets_environments {
                self.place(&setting_path(at, "urls"), Node::text("none", &origin));
            }
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
