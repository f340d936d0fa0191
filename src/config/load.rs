//! From the sources to a valid [`Config`], or to the list of everything that is wrong.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::arguments::{self, Arguments};
use super::environment::{key_file_setting, key_settings};
use super::expand::expand;
use super::fault::{Fault, Origin};
use super::machine::Machine;
use super::reader::Reader;
use super::tree::{self, Node, Step, Value};
use super::variables::{self, Short, Variables};
use super::{Backend, Config, backend, build, rules, yaml};

/// The file that is read when none is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/flagside/flagside.yaml";

/// Everything a configuration is made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The command line.
    pub arguments: Arguments,
    /// The environment.
    pub variables: Vec<(OsString, OsString)>,
    /// Read when neither the command line nor `FLAGSIDE_CONFIG` names a file; need not exist.
    pub default_file: PathBuf,
    /// What the machine grants.
    pub machine: Machine,
}

impl Sources {
    /// The process's own environment and machine, with these arguments.
    #[must_use]
    pub fn of_process(arguments: Arguments) -> Self {
        Self {
            arguments,
            variables: std::env::vars_os().collect(),
            default_file: PathBuf::from(DEFAULT_FILE),
            machine: Machine::detect(),
        }
    }
}

/// A valid configuration and what is to be said about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is doubtful, in no particular order.
    pub warnings: Vec<Fault>,
    /// Where each setting came from, by path (`environments[0].name`).
    pub origins: BTreeMap<String, Origin>,
    /// The file of deployment keys or environment secrets of each environment that has one, by the
    /// environment's place.
    pub key_files: BTreeMap<usize, PathBuf>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub struct Rejected {
    /// Everything that is wrong; never empty.
    pub faults: Vec<Fault>,
    /// What is doubtful besides.
    pub warnings: Vec<Fault>,
}

/// Reads one YAML or JSON text as if it were the only configuration file, on a machine with two processors,
/// no memory limit and no terminal.
///
/// # Errors
///
/// All faults of the text; their file is `config.yaml`.
pub fn load_text(text: &str) -> Result<Loaded, Rejected> {
    let (mut root, mut faults) = yaml::read(Path::new("config.yaml"), text.as_bytes());
    faults.extend(expand(&mut root, &|_| None));
    let machine = Machine {
        cpus: NonZeroUsize::MIN.saturating_add(1),
        memory_limit: None,
        terminal: false,
    };
    finish(&root, &machine, &[], faults, Vec::new())
}

/// Reads, merges and checks all sources: arguments over variables over files over defaults.
///
/// # Errors
///
/// All faults of all sources at once.
pub fn load(sources: &Sources) -> Result<Loaded, Rejected> {
    let mut faults = Vec::new();
    let mut warnings = Vec::new();
    let mut root = Node {
        value: Value::Map(Vec::new()),
        origin: Origin::Default,
    };

    let files = files(sources, &mut faults);
    for file in &files {
        read_file(file, sources, &mut root, &mut faults, &mut warnings);
    }
    let mut variables = variables::read(&sources.variables);
    let short = std::mem::take(&mut variables.short);
    overlay(&mut root, variables, &mut faults, &mut warnings);
    // Bare keys say nothing about where answers come from: `--flags` beside them still answers alone.
    let is_configured = backend::told_of_all(&root)
        .iter()
        .any(|told| *told != Some(Backend::Featbit))
        || short.iter().any(|short| short.key == "region");
    let (of_featbit, of_amplitude): (Vec<Short>, Vec<Short>) = short
        .into_iter()
        .partition(|short| short.backend == Backend::Featbit);
    place_short(of_amplitude, &mut root, &mut faults, &mut warnings);
    let (wrong, doubtful) = arguments::apply(&sources.arguments, &mut root, is_configured);
    faults.extend(wrong);
    warnings.extend(doubtful);
    // Which environment is FeatBit's may be known from the options alone.
    place_short(of_featbit, &mut root, &mut faults, &mut warnings);

    finish(&root, &sources.machine, &files, faults, warnings)
}

/// The merged tree becomes the configuration, unless there are faults.
fn finish(
    root: &Node,
    machine: &Machine,
    files: &[PathBuf],
    mut faults: Vec<Fault>,
    mut warnings: Vec<Fault>,
) -> Result<Loaded, Rejected> {
    let mut reader = Reader::new(root);
    let config = build::config(&mut reader, machine, files);
    rules::check(&config, &mut reader);
    let key_files = key_files(root, &config, &mut reader);
    faults.append(&mut reader.faults);
    warnings.append(&mut reader.warnings);
    sort(&mut warnings);
    if faults.is_empty() {
        return Ok(Loaded {
            config,
            warnings,
            origins: reader.origins,
            key_files,
        });
    }
    sort(&mut faults);
    Err(Rejected { faults, warnings })
}

/// By file and place, then variables, then options; each message once.
fn sort(faults: &mut Vec<Fault>) {
    let rank = |fault: &Fault| match &fault.origin {
        Origin::File { file, line, column } => (0, file.to_path_buf(), *line, *column),
        Origin::Variable(_) => (1, PathBuf::new(), 0, 0),
        Origin::Argument(_) => (2, PathBuf::new(), 0, 0),
        Origin::Default => (3, PathBuf::new(), 0, 0),
    };
    faults.sort_by_cached_key(rank);
    faults.dedup();
}

/// The configuration files: of the command line, else of `FLAGSIDE_CONFIG`, else the default one if there is one.
fn files(sources: &Sources, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    if !sources.arguments.files.is_empty() {
        return sources.arguments.files.clone();
    }
    if let Some((_, value)) = sources
        .variables
        .iter()
        .find(|(name, value)| name == "FLAGSIDE_CONFIG" && !value.is_empty())
    {
        return match value.to_str() {
            Some(list) => arguments::split_list(list).map(PathBuf::from).collect(),
            None => vec![PathBuf::from(value)],
        };
    }
    match sources.default_file.try_exists() {
        Ok(true) => vec![sources.default_file.clone()],
        Ok(false) => Vec::new(),
        Err(error) => {
            faults.push(Fault::new(
                &Origin::file(&sources.default_file),
                "",
                format!("cannot be read: {error}"),
            ));
            Vec::new()
        }
    }
}

fn read_file(
    file: &Path,
    sources: &Sources,
    root: &mut Node,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Fault>,
) {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            faults.push(Fault::new(
                &Origin::file(file),
                "",
                format!("cannot be read: {error}"),
            ));
            return;
        }
    };
    let (mut node, wrong) = yaml::read(file, &bytes);
    let stopped = !wrong.is_empty() && matches!(node.value, Value::Null);
    faults.extend(wrong);
    if stopped {
        return;
    }
    if let Value::Text(_) | Value::List(_) = node.value {
        faults.push(Fault::new(&node.origin, "", node.kind()).expected("a map of settings"));
        return;
    }
    if holds_keys(&node) && rules::is_open_to_others(file) {
        warnings.push(open_to_others(&Origin::file(file), ""));
    }
    faults.extend(expand(&mut node, &|name| {
        variables::lookup(&sources.variables, name)
    }));
    root.merge(node);
}

fn open_to_others(origin: &Origin, path: &str) -> Fault {
    Fault::new(
        origin,
        path,
        "a file with keys that every user of this machine can read",
    )
    .expected("permissions such as 0640")
}

/// Whether a file lists deployment keys or environment secrets itself.
fn holds_keys(node: &Node) -> bool {
    let Some(Value::List(environments)) = node.child("environments").map(|n| &n.value) else {
        return false;
    };
    let lists = ["deployment_keys", "env_secrets", "env_secret"];
    let holds = |environment: &Node| lists.iter().any(|list| environment.child(list).is_some());
    environments.iter().any(holds)
}

/// Puts short variables where they belong: to the only environment of their backend, unless a longer name or an
/// option has said the same thing already.
fn place_short(short: Vec<Short>, root: &mut Node, faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) {
    for Short { backend, key, node } in short {
        let place = backend::Place::of(root, backend, false);
        if backend == Backend::Featbit && matches!(place, backend::Place::New(_)) {
            let remedy = "--featbit-upstream URL, or urls: {featbit: URL} in an environment";
            let what = "no FeatBit environment is configured, ignored";
            warnings.push(Fault::new(&node.origin, "", what).expected(remedy));
            continue;
        }
        let at = match place.single(backend) {
            Ok(at) => at,
            Err(what) => {
                faults.push(Fault::new(&node.origin, "", what));
                continue;
            }
        };
        let path = backend::setting_path(at, key);
        let stronger = |found: &Node| matches!(found.origin, Origin::Variable(_) | Origin::Argument(_));
        if !root.find(&path).is_some_and(stronger) {
            self::place(root, &path, node, faults);
        }
    }
}

/// Lays the variables over the files.
fn overlay(root: &mut Node, variables: Variables, faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) {
    for (path, node) in variables.settings {
        place(root, &path, node, faults);
    }
    for (origin, file) in variables.secret_files {
        if rules::is_open_to_others(&file) {
            warnings.push(open_to_others(&origin, ""));
        }
    }
    faults.extend(variables.faults);
    warnings.extend(variables.warnings);
}

/// Puts a value in its place; keys from here replace keys from below, listed or from a file.
fn place(root: &mut Node, path: &[Step], node: Node, faults: &mut Vec<Fault>) {
    let pattern = tree::pattern(path);
    let siblings = [Backend::Amplitude, Backend::Featbit]
        .map(|backend| key_settings(backend).collect::<Vec<_>>())
        .into_iter()
        .find(|keys| keys.iter().any(|key| pattern == format!("environments[].{key}")));
    if let (Some(siblings), Some((own, before))) = (siblings, path.split_last()) {
        for sibling in siblings {
            let mut other = before.to_vec();
            other.push(Step::Key(sibling.to_owned()));
            let is_weaker = |node: &Node| matches!(node.origin, Origin::File { .. });
            if other.last() != Some(own) && root.find(&other).is_some_and(is_weaker) {
                root.remove(&other);
            }
        }
    }
    if let Err(fault) = root.place(path, node) {
        faults.push(*fault);
    }
}

/// The key files, with a warning for each that others can read.
fn key_files(root: &Node, config: &Config, reader: &mut Reader<'_>) -> BTreeMap<usize, PathBuf> {
    let mut files = BTreeMap::new();
    for (at, environment) in config.environments.iter().enumerate() {
        let path = format!("environments[{at}].{}", key_file_setting(environment.backend));
        let node = tree::steps(&path).and_then(|steps| root.find(&steps));
        let Some(Node {
            value: Value::Text(file),
            origin,
        }) = node
        else {
            continue;
        };
        let file = PathBuf::from(file);
        if rules::is_open_to_others(&file) {
            reader.warnings.push(open_to_others(origin, &path));
        }
        files.insert(at, file);
    }
    files
}

#[cfg(test)]
mod tests;
