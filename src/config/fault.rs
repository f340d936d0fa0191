//! What is wrong with a configuration, where it stands, and what to write instead.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::evaluate::featbit::secret::environment_of;

/// Where a value came from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    /// Nobody said anything: the default.
    #[default]
    Default,
    /// A place in a file; line and column count from 1, in characters. Line 0: the file as a whole.
    File {
        /// The file as it was named.
        file: Arc<Path>,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// An environment variable, by name.
    Variable(Arc<str>),
    /// A command line option, with its dashes.
    Argument(Arc<str>),
}

impl Origin {
    /// A file as a whole.
    #[must_use]
    pub fn file(file: &Path) -> Self {
        Self::File {
            file: Arc::from(file),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line: 0, .. } => write!(f, "{}", file.display()),
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable(name) | Self::Argument(name) => f.write_str(name),
        }
    }
}

/// What is wrong with a value, wherever it stands.
///
/// Prints as `what (got X); expected Y; did you mean Z?`, without the parts that it lacks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problem {
    /// What is wrong, without the value.
    pub what: String,
    /// The value as given: shortened, and never one that looks like a secret.
    pub got: Option<String>,
    /// What would be right.
    pub expected: Option<String>,
    /// The likely intention.
    pub meant: Option<String>,
}

/// One thing that is wrong, or doubtful, with the configuration.
///
/// Prints as `origin path: ` and the problem.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fault {
    /// Where the value stands.
    pub origin: Origin,
    /// The setting, such as `environments[0].urls.eval`; empty when no setting is concerned.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

impl Problem {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..Self::default()
        }
    }

    /// Adds the value as given.
    pub(crate) fn got(mut self, value: &str) -> Self {
        self.got = Some(shown(value));
        self
    }

    /// Adds what would be right.
    pub(crate) fn expected(mut self, text: impl Into<String>) -> Self {
        self.expected = Some(text.into());
        self
    }

    /// Adds the likely intention, if there is one.
    pub(crate) fn meant(mut self, text: Option<impl Into<String>>) -> Self {
        self.meant = text.map(Into::into);
        self
    }

    /// The problem in its place.
    pub(crate) fn at(self, origin: &Origin, path: impl Into<String>) -> Fault {
        Fault {
            origin: origin.clone(),
            path: path.into(),
            problem: self,
        }
    }
}

impl Fault {
    /// A fault at `origin`, about the setting `path`.
    pub(crate) fn new(origin: &Origin, path: &str, what: impl Into<String>) -> Self {
        Problem::new(what).at(origin, path)
    }

    /// Adds the value as given.
    pub(crate) fn got(self, value: &str) -> Self {
        Self {
            problem: self.problem.got(value),
            ..self
        }
    }

    /// Adds what would be right.
    pub(crate) fn expected(self, text: impl Into<String>) -> Self {
        Self {
            problem: self.problem.expected(text),
            ..self
        }
    }

    /// Adds the likely intention, if there is one.
    pub(crate) fn meant(self, text: Option<impl Into<String>>) -> Self {
        Self {
            problem: self.problem.meant(text),
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(got) = &self.got {
            write!(f, " (got {got})")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(meant) = &self.meant {
            write!(f, "; did you mean {meant}?")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.path.as_str()) {
            (Origin::Default, "") => {}
            (Origin::Default, path) => write!(f, "{path}: ")?,
            (origin, "") => write!(f, "{origin}: ")?,
            (origin, path) => write!(f, "{origin} {path}: ")?,
        }
        self.problem.fmt(f)
    }
}

/// A value as it may stand in a message: one line, at most 60 characters, `***` if it looks like a secret.
pub(crate) fn shown(value: &str) -> String {
    if looks_secret(value) {
        return "***".to_owned();
    }
    if value.is_empty() {
        return "\"\"".to_owned();
    }
    let mut text = String::new();
    for (at, c) in value.chars().enumerate() {
        if at == 60 {
            text.push('…');
            break;
        }
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// Whether `value` is, or holds, something like a key or password: a deployment key, user-info in a URL, or
/// a run of 24 letters and digits with both among them, or a FeatBit environment secret.
pub(crate) fn looks_secret(value: &str) -> bool {
    let has_user_info = value.split_once("://").is_some_and(|(_, rest)| {
        rest.split(['/', '?', '#'])
            .next()
            .is_some_and(|a| a.contains('@'))
    });
    let is_key_run = |run: &str| {
        run.len() >= 24
            && run.bytes().any(|b| b.is_ascii_digit())
            && run.bytes().any(|b| b.is_ascii_alphabetic())
    };
    let is_env_secret = |run: &str| {
        let has = |is: fn(&u8) -> bool| run.as_bytes().iter().any(is);
        has(u8::is_ascii_digit)
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && environment_of(run).is_some()
    };
    has_user_info
        || has_deployment_key(value)
        || value
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
            .any(is_env_secret)
        || value.split(|c: char| !c.is_ascii_alphanumeric()).any(is_key_run)
}

/// `client-` or `server-` and at least 12 more characters of a key.
fn has_deployment_key(value: &str) -> bool {
    ["client-", "server-"].iter().any(|start| {
        value.split(start).skip(1).any(|rest| {
            let key = rest
                .split(|c: char| !c.is_ascii_alphanumeric())
                .next()
                .unwrap_or_default();
            key.len() >= 12 && key.bytes().any(|b| b.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_prints_the_parts_it_has() {
        let place = Origin::File {
            file: Arc::from(Path::new("f.yaml")),
            line: 3,
            column: 7,
        };
        let full = Fault::new(&place, "log.level", "unknown word")
            .got("inf")
            .expected("error, warn, info, debug or trace")
            .meant(Some("info"));
        assert_eq!(
            full.to_string(),
            "f.yaml:3:7 log.level: unknown word (got inf); expected error, warn, info, debug or trace; did you mean info?"
        );
        assert_eq!(
            Fault::new(&Origin::file(Path::new("f.yaml")), "", "is empty").to_string(),
            "f.yaml: is empty"
        );
        assert_eq!(
            Fault::new(&Origin::Default, "a.b", "is odd").to_string(),
            "a.b: is odd"
        );
        assert_eq!(Fault::new(&Origin::Default, "", "is odd").to_string(), "is odd");
    }

    #[test]
    fn values_are_shortened_escaped_and_redacted() {
        let long = "x".repeat(100);
        for (value, wanted) in [
            ("", "\"\"".to_owned()),
            ("a\nb\u{1b}", "a\\nb\\u{1b}".to_owned()),
            (long.as_str(), format!("{}…", "x".repeat(60))),
            ("client-abcDEF123456", "***".to_owned()),
            ("a,server-abcDEF123456xyz", "***".to_owned()),
            ("https://me:pw@example.com/", "***".to_owned()),
            (
                "https://example.com/@here",
                "https://example.com/@here".to_owned(),
            ),
            ("0123456789abcdef01234567", "***".to_owned()),
            ("api.lab.amplitude.com", "api.lab.amplitude.com".to_owned()),
            ("client-side", "client-side".to_owned()),
            (
                "http://v3faJy3RCUO8d-EJiVdN6waR-GjfNan02Ms9c_LiTD6w/x",
                "***".to_owned(),
            ),
            (
                "the-flags-of-all-the-production-environments",
                "the-flags-of-all-the-production-environments".to_owned(),
            ),
        ] {
            assert_eq!(shown(value), wanted, "{value:?}");
        }
    }
}
