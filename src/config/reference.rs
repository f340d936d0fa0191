//! The reference of all settings, as text for the terminal and as the page `docs/configuration.md`.

use std::fmt::Write;

use super::settings::{Kind, Preset, SETTINGS, Setting};

/// The list of settings for a terminal of 80 columns.
#[must_use]
pub fn reference_text() -> String {
    let mut out = String::new();
    let mut section = "";
    for setting in SETTINGS {
        let (here, _) = split(setting.path);
        if here != section {
            let _ = writeln!(out, "{}{here}", if section.is_empty() { "" } else { "\n" });
            section = here;
        }
        let _ = writeln!(out, "  {}", setting.path);
        let facts = match default_text(setting) {
            Some(default) => format!("{}; default: {default}", setting.kind),
            None => setting.kind.to_string(),
        };
        wrap(&mut out, &facts, 6);
        wrap(&mut out, setting.doc, 6);
    }
    out
}

/// The page `docs/configuration.md`.
#[must_use]
pub fn reference_markdown() -> String {
    let mut tables = String::new();
    let mut section = "";
    for setting in SETTINGS {
        let (here, name) = split(setting.path);
        if here != section {
            let _ = write!(
                tables,
                "\n### {here}\n\n| Setting | Value | Default | What it does |\n|---|---|---|---|\n"
            );
            section = here;
        }
        let default = match setting.default {
            Preset::Text(text) => format!("`{text}`"),
            Preset::Computed(text) => text.to_owned(),
            Preset::Unset => "–".to_owned(),
        };
        let _ = writeln!(
            tables,
            "| `{name}` | {} | {default} | {} |",
            value_cell(setting.kind),
            setting.doc
        );
    }
    include_str!("reference.md").replace("{{settings}}\n", tables.trim_start())
}

fn value_cell(kind: Kind) -> String {
    match kind {
        Kind::Word(words) => words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Kind::Switch => "`true`, `false`".to_owned(),
        other => other.to_string(),
    }
}

fn default_text(setting: &Setting) -> Option<&'static str> {
    match setting.default {
        Preset::Text(text) | Preset::Computed(text) => Some(text),
        Preset::Unset => None,
    }
}

/// The section and the rest of the path.
fn split(path: &str) -> (&str, &str) {
    path.split_once('.').unwrap_or(("general", path))
}

/// Writes words in lines of at most 79 columns.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > 79 {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            let _ = write!(out, "{:indent$}{word}", "");
            column = indent + width;
        } else {
            let _ = write!(out, " {word}");
            column += 1 + width;
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_equals_the_table() {
        let page = include_str!("../../docs/configuration.md");
        let wanted = reference_markdown();
        assert!(
            page == wanted,
            "run: cargo run -- help settings --markdown > docs/configuration.md"
        );
    }

    #[test]
    fn the_list_fits_a_terminal() {
        let text = reference_text();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for setting in SETTINGS {
            assert!(text.contains(setting.path), "{}", setting.path);
        }
    }
}
