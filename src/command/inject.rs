//! `flagside inject`: manifests in, the same manifests with the sidecar out.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::Parser;

use super::parse::{Command, Item, Parsed, Topic, next, path, unexpected, value};
use crate::inject::{Template, load, manifest, template};

/// What `flagside inject` was asked for.
#[derive(Debug)]
pub(super) struct Options {
    /// The sidecar, unless a pod says otherwise.
    pub(super) template: Template,
    /// What to read; `-` or none: standard input.
    pub(super) files: Vec<PathBuf>,
}

/// Options that are not names of the template.
const OPTIONS: [&str; 4] = ["--template", "--env", "--legacy", "--help"];

/// Reads the arguments of `flagside inject`.
pub(super) fn parse(parser: &mut Parser) -> Parsed<Command> {
    let mut options = Options {
        template: Template::default(),
        files: Vec::new(),
    };
    let template = &mut options.template;
    // Who writes the manifest may name the image in it.
    template.set("allow-image-override", "true")?;
    let mut given = Vec::new();
    while let Some(item) = next(parser)? {
        match &item {
            Item::Option(name) if name == "--help" || name == "-h" => {
                return Ok(Command::Help(Topic::Inject));
            }
            Item::Option(name) if name == "--template" => read_template(template, &path(parser, name)?)?,
            Item::Option(name) if name == "--env" => given.push(("set-env", value(parser, name)?)),
            Item::Option(name) if name == "--legacy" => given.push(("native", "false".to_owned())),
            Item::Option(name) => match template_name(name) {
                Some(known) => given.push((known, value(parser, name)?)),
                None => {
                    let names = template::NAMES.map(|name| format!("--{name}"));
                    let known: Vec<&str> = names.iter().map(String::as_str).chain(OPTIONS).collect();
                    return Err(unexpected(&item, "inject", &known));
                }
            },
            Item::Value(file) => options.files.push(PathBuf::from(file)),
        }
    }
    for (name, text) in given {
        template
            .set(name, &text)
            .map_err(|what| format!("--{name}: {what}"))?;
    }
    template.check()?;
    Ok(Command::Inject(Box::new(options)))
}

fn template_name(option: &str) -> Option<&'static str> {
    let name = option.strip_prefix("--")?;
    template::NAMES.into_iter().find(|known| *known == name)
}

/// Reads a template file over `template`.
pub(super) fn read_template(template: &mut Template, file: &PathBuf) -> Parsed<()> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    load::read(template, &text).map_err(|problems| {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("{name}:{problem}"))
            .collect();
        lines.join("\n")
    })
}

/// Writes every file with its sidecars to standard output, and what became of each workload to standard error,
/// as comments. If anything cannot be read or edited, nothing is written but the reasons, and the code is 1.
pub(super) fn run(options: &Options) -> ExitCode {
    if options.files.is_empty() && io::stdin().is_terminal() {
        super::complain("flagside: no manifests: name files, or pipe them in\n");
        return ExitCode::from(super::USAGE);
    }
    let standard_input = [PathBuf::from("-")];
    let files = if options.files.is_empty() {
        &standard_input[..]
    } else {
        &options.files
    };
    let mut out = String::new();
    let mut failed = false;
    for file in files {
        let (name, read) = read(file);
        let injected = read.and_then(|text| {
            manifest::inject(&text, &options.template).map_err(|problem| format!("{name}:{problem}"))
        });
        match injected {
            Ok(injected) => {
                for report in &injected.reports {
                    super::complain(&format!("# {name}:{report}\n"));
                    for warning in &report.warnings {
                        super::complain(&format!("# {name}:{}: warning: {warning}\n", report.line));
                    }
                }
                append(&mut out, &injected.text);
            }
            Err(problem) => {
                super::complain(&format!("flagside: {problem}\n"));
                failed = true;
            }
        }
    }
    if failed {
        return ExitCode::FAILURE;
    }
    super::say(&out)
}

fn read(file: &PathBuf) -> (String, Result<String, String>) {
    let mut bytes = Vec::new();
    let (name, done) = if file.as_os_str() == "-" {
        (
            "standard input".to_owned(),
            io::stdin().lock().read_to_end(&mut bytes),
        )
    } else {
        let name = file.display().to_string();
        (
            name,
            std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
        )
    };
    let text = done.map_err(|error| format!("{name}: {error}")).and_then(|_| {
        String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("{name}:{line}: not UTF-8 text")
        })
    });
    (name, text)
}

/// Appends the documents of another file: with `---` between, unless the file brings its own.
fn append(out: &mut String, text: &str) {
    if !out.is_empty() {
        if !out.ends_with('\n') {
            out.push('\n');
        }
        let first = text
            .lines()
            .find(|line| !line.trim().is_empty() && !line.starts_with('#'));
        if !first.is_some_and(|line| line.starts_with("---")) {
            out.push_str("---\n");
        }
    }
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_apart() {
        for (first, second, wanted) in [
            ("", "a: 1\n", "a: 1\n"),
            ("a: 1\n", "b: 2\n", "a: 1\n---\nb: 2\n"),
            ("a: 1", "# c\n---\nb: 2\n", "a: 1\n# c\n---\nb: 2\n"),
            ("{}", "{}", "{}\n---\n{}"),
        ] {
            let mut out = first.to_owned();
            append(&mut out, second);
            assert_eq!(out, wanted);
        }
    }
}
