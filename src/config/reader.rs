//! Typed access to the tree: every value is checked against its setting, every fault is collected, and what
//! is missing or wrong is replaced by its default so that reading goes on to the next fault.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::fault::{Fault, Origin, Problem};
use super::settings::{self, Kind, Preset, Setting};
use super::suggest::nearest;
use super::tree::{self, Node, Value};
use super::{BaseUrl, Secret, arguments, values};

/// Reads settings out of a merged tree.
pub(super) struct Reader<'a> {
    root: &'a Node,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    /// Where each setting that was read came from, by path.
    pub(super) origins: BTreeMap<String, Origin>,
}

impl<'a> Reader<'a> {
    /// Reports all keys of `root` that are no settings, and parts of the wrong shape.
    pub(super) fn new(root: &'a Node) -> Self {
        let mut reader = Self {
            root,
            faults: Vec::new(),
            warnings: Vec::new(),
            origins: BTreeMap::new(),
        };
        reader.check_keys(root, "", "");
        reader
    }

    fn check_keys(&mut self, node: &Node, section: &str, path: &str) {
        let entries = match &node.value {
            Value::Null => return,
            Value::Map(entries) => entries,
            Value::Text(_) | Value::List(_) => {
                self.faults
                    .push(Fault::new(&node.origin, path, node.kind()).expected("a map of settings"));
                return;
            }
        };
        for entry in entries {
            let join = |parent: &str| match parent {
                "" => entry.key.clone(),
                _ => format!("{parent}.{}", entry.key),
            };
            let (below, path) = (join(section), join(path));
            let is_map = matches!(entry.node.value, Value::Map(_));
            let is_section = !settings::children(&below).is_empty();
            if settings::setting(&below).is_some() && !(is_section && is_map) {
                continue;
            }
            if is_section {
                self.check_keys(&entry.node, &below, &path);
            } else if settings::children(&format!("{below}[]")).is_empty() {
                self.unknown_key(&entry.key, &entry.key_origin, section, &path);
            } else {
                self.check_items(&entry.node, &format!("{below}[]"), &path);
            }
        }
    }

    fn check_items(&mut self, node: &Node, section: &str, path: &str) {
        match &node.value {
            Value::Null => {}
            Value::List(items) if items.is_empty() => {
                self.faults
                    .push(Fault::new(&node.origin, path, "an empty list").expected("at least one item"));
            }
            Value::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.check_keys(item, section, &format!("{path}[{at}]"));
                }
            }
            Value::Text(_) | Value::Map(_) => {
                let hint = "a list (each item begins with a dash)";
                self.faults
                    .push(Fault::new(&node.origin, path, node.kind()).expected(hint));
            }
        }
    }

    fn unknown_key(&mut self, key: &str, origin: &Origin, section: &str, path: &str) {
        let siblings = settings::children(section);
        let elsewhere = settings::SETTINGS
            .iter()
            .find(|s| s.path.rsplit('.').next() == Some(key))
            .map(|s| s.path);
        let meant = nearest(key, siblings.iter().copied()).or(elsewhere);
        let fault = Fault::new(origin, path, "unknown key").meant(meant);
        self.faults.push(if meant.is_some() {
            fault
        } else {
            fault.expected(settings::one_of(&siblings))
        });
    }

    /// The node of a setting, if it was given; notes its origin.
    fn given(&mut self, path: &str) -> Option<&'a Node> {
        let node = tree::steps(path).and_then(|steps| self.root.find(&steps));
        self.origins.insert(
            path.to_owned(),
            node.map(|n| n.origin.clone()).unwrap_or_default(),
        );
        node
    }

    /// Where a setting that was read came from.
    pub(super) fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or_default()
    }

    /// The tree that is read.
    pub(super) const fn root(&self) -> &'a Node {
        self.root
    }

    /// Whether something stands at `path`.
    pub(super) fn is_given(&self, path: &str) -> bool {
        tree::steps(path).is_some_and(|steps| self.root.find(&steps).is_some())
    }

    /// Whether a text stands at `path`.
    pub(super) fn is_text(&self, path: &str) -> bool {
        let node = tree::steps(path).and_then(|steps| self.root.find(&steps));
        node.is_some_and(|node| matches!(node.value, Value::Text(_)))
    }

    /// Whether something is wrong at `path` or below.
    pub(super) fn is_faulty(&self, path: &str) -> bool {
        self.faults.iter().any(|fault| fault.path.starts_with(path))
    }

    /// Where a fault about `path` is to be sought: the setting itself, else the innermost given thing around it.
    fn place(&self, path: &str) -> Origin {
        let origin = self.origin(path);
        if origin != Origin::Default {
            return origin;
        }
        let Some(steps) = tree::steps(path) else {
            return origin;
        };
        let mut around = (1..=steps.len())
            .rev()
            .filter_map(|depth| self.root.find(&steps[..depth]));
        around.next().map_or(Origin::Default, |node| node.origin.clone())
    }

    pub(super) fn fault(&mut self, path: &str, what: impl Into<String>) -> &mut Problem {
        let fault = Fault::new(&self.place(path), path, what);
        push(&mut self.faults, fault)
    }

    pub(super) fn warn(&mut self, path: &str, what: impl Into<String>) -> &mut Problem {
        let fault = Fault::new(&self.place(path), path, what);
        push(&mut self.warnings, fault)
    }

    /// One value: as given, else as the table presets it, else none.
    fn one<T>(&mut self, path: &str, parse: impl Fn(Kind, &str) -> Result<T, Problem>) -> Option<T> {
        let setting = self.setting(path)?;
        if let Some(node) = self.given(path) {
            let parsed = match &node.value {
                Value::Text(text) => parse(setting.kind, text),
                _ => Err(Problem::new(node.kind()).expected(setting.kind.to_string())),
            };
            match parsed {
                Ok(value) => return Some(value),
                Err(problem) => self.place_problem(problem, &node.origin, path),
            }
        }
        match setting.default {
            Preset::Text(text) => parse(setting.kind, text).ok(),
            Preset::Computed(_) | Preset::Unset => None,
        }
    }

    /// The items of a list: a list of texts, or one text with commas. None if it was not given.
    fn many<T>(&mut self, path: &str, parse: impl Fn(Kind, &str) -> Result<T, Problem>) -> Option<Vec<T>> {
        let kind = self.setting(path)?.kind;
        let node = self.given(path)?;
        let split;
        let items = match &node.value {
            Value::List(items) => items,
            Value::Text(text) => {
                split = arguments::split_list(text)
                    .map(|item| Node::text(item, &node.origin))
                    .collect();
                &split
            }
            Value::Null | Value::Map(_) => {
                self.fault(path, node.kind()).expected = Some(kind.to_string());
                return None;
            }
        };
        let mut parsed = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let result = match &item.value {
                Value::Text(text) => parse(kind, text),
                _ => Err(Problem::new(item.kind()).expected(kind.item())),
            };
            match result {
                Ok(value) => parsed.push(value),
                Err(problem) if matches!(node.value, Value::Text(_)) => {
                    self.place_problem(problem, &item.origin, path)
                }
                Err(problem) => self.place_problem(problem, &item.origin, &format!("{path}[{at}]")),
            }
        }
        Some(parsed)
    }

    fn place_problem(&mut self, problem: Problem, origin: &Origin, path: &str) {
        self.faults.push(problem.at(origin, path));
    }

    fn setting(&mut self, path: &str) -> Option<&'static Setting> {
        let pattern = tree::steps(path)
            .map(|steps| tree::pattern(&steps))
            .unwrap_or_default();
        let setting = settings::setting(&pattern);
        if setting.is_none() {
            self.fault(
                path,
                "a setting that flagside asks for and does not know; please report this",
            );
        }
        setting
    }

    pub(super) fn duration(&mut self, path: &str) -> Duration {
        self.one(path, values::duration).unwrap_or_default()
    }

    pub(super) fn duration_if_given(&mut self, path: &str) -> Option<Duration> {
        self.one(path, values::duration)
    }

    pub(super) fn size(&mut self, path: &str) -> usize {
        usize::try_from(self.one(path, values::size).unwrap_or_default()).unwrap_or(usize::MAX)
    }

    pub(super) fn size_if_given(&mut self, path: &str) -> Option<u64> {
        self.one(path, values::size)
    }

    pub(super) fn count(&mut self, path: &str) -> usize {
        self.count_if_given(path).unwrap_or_default()
    }

    pub(super) fn count_u32(&mut self, path: &str) -> u32 {
        u32::try_from(self.count(path)).unwrap_or(u32::MAX)
    }

    pub(super) fn count_if_given(&mut self, path: &str) -> Option<usize> {
        self.one(path, values::count)
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    pub(super) fn share(&mut self, path: &str) -> f64 {
        self.one(path, values::share).unwrap_or_default()
    }

    pub(super) fn switch(&mut self, path: &str) -> bool {
        self.switch_if_given(path).unwrap_or_default()
    }

    pub(super) fn switch_if_given(&mut self, path: &str) -> Option<bool> {
        self.one(path, values::switch)
    }

    pub(super) fn word(&mut self, path: &str) -> &'static str {
        self.word_if_given(path).unwrap_or_default()
    }

    pub(super) fn word_if_given(&mut self, path: &str) -> Option<&'static str> {
        self.one(path, values::word)
    }

    pub(super) fn name(&mut self, path: &str) -> Option<String> {
        self.one(path, values::name)
    }

    pub(super) fn prefix(&mut self, path: &str) -> String {
        self.one(path, values::prefix).unwrap_or_default()
    }

    pub(super) fn file(&mut self, path: &str) -> Option<PathBuf> {
        self.one(path, |kind, text| match text {
            "" => Err(Problem::new("empty").expected(kind.to_string())),
            text => Ok(PathBuf::from(text)),
        })
    }

    pub(super) fn url(&mut self, path: &str) -> Option<BaseUrl> {
        let (url, dropped) = self.one(path, |kind, text| match kind {
            Kind::Url(form) => BaseUrl::parse_as(text, form),
            _ => BaseUrl::parse(text),
        })?;
        if let Some(dropped) = dropped {
            let warning = arguments::dropped_end(&self.origin(path), path, dropped);
            self.warnings.push(warning);
        }
        Some(url)
    }

    /// The map at `path` of which the word there may take the place.
    pub(super) fn word_instead_of_map(&mut self, path: &str) -> Option<&'static str> {
        let is_map = tree::steps(path)
            .and_then(|steps| self.root.find(&steps))
            .is_some_and(|node| matches!(node.value, Value::Map(_)));
        if is_map {
            return None;
        }
        let before = self.faults.len();
        let word = self.word_if_given(path);
        if let Some(Fault {
            problem: Problem {
                expected: Some(expected),
                ..
            },
            ..
        }) = self.faults.get_mut(before)
        {
            expected.push_str(", or a map of settings");
        }
        word
    }

    pub(super) fn addresses(&mut self, path: &str, defaults: &[IpAddr]) -> Option<Vec<SocketAddr>> {
        let before = self.faults.len();
        let lists = self.many(path, |kind, text| values::addresses(kind, text, defaults))?;
        let flat: Vec<SocketAddr> = lists.into_iter().flatten().collect();
        if flat.is_empty() && self.faults.len() == before {
            self.fault(path, "an empty list").expected = Some("at least one address".to_owned());
        }
        let twice = (0..flat.len()).find(|at| flat[*at].port() != 0 && flat[..*at].contains(&flat[*at]));
        if let Some(at) = twice {
            self.fault(path, "the same address twice").got = Some(flat[at].to_string());
        }
        Some(flat).filter(|list| !list.is_empty())
    }

    pub(super) fn origins_list(&mut self, path: &str) -> Vec<String> {
        let list = self.many(path, |kind, text| match text {
            "*" => Ok(None),
            text => values::origin(kind, text).map(Some),
        });
        let list = list.unwrap_or_default();
        if list.len() > 1 && list.contains(&None) {
            self.fault(path, "* beside other origins").expected =
                Some("either * or a list of origins".to_owned());
        }
        list.into_iter().flatten().collect()
    }

    pub(super) fn parameters(&mut self, path: &str) -> Vec<String> {
        self.many(path, values::parameter).unwrap_or_default()
    }

    pub(super) fn keys(&mut self, path: &str) -> Option<Vec<Secret>> {
        self.many(path, values::key)
    }
}

fn push(faults: &mut Vec<Fault>, fault: Fault) -> &mut Problem {
    let at = faults.len();
    faults.push(fault);
    &mut faults[at].problem
}
