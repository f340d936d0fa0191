//! What the tour shows: steps, rows in columns, sentences; 80 columns, colours on terminals only.

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

/// Columns that a line may take.
const WIDTH: usize = 80;
/// Columns of a row: what is asked, where the answer is from, how long it took; the rest is upstream's.
const WHAT: usize = 36;
const SOURCE: usize = 14;
const TIME: usize = 10;
const UPSTREAM: usize = 12;

/// How a text stands out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    /// Titles.
    Bold,
    /// Explanations.
    Dim,
    /// From memory.
    Green,
    /// From upstream.
    Yellow,
    /// Computed here.
    Cyan,
    /// Not as told.
    Red,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
            Self::Red => "1;31",
        }
    }
}

/// One line of what happened.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What was asked, in at most 36 columns.
    pub(super) what: String,
    /// Where the answer is from.
    pub(super) source: String,
    /// How `source` stands out.
    pub(super) tone: Tone,
    /// How long it took; of many, the slowest.
    pub(super) took: Option<Duration>,
    /// How often upstream was asked meanwhile.
    pub(super) upstream: Option<u64>,
}

/// The screen. A reader that goes away (`| head`) ends the output, not the tour.
#[derive(Debug)]
pub(super) struct Screen<W> {
    out: W,
    colours: bool,
}

/// Whether standard output is a terminal whose user has nothing against colours (no-color.org).
pub(super) fn wants_colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

impl<W: Write> Screen<W> {
    /// Writes to `out`.
    pub(super) const fn new(out: W, colours: bool) -> Self {
        Self { out, colours }
    }

    /// A line as it is; empty for a gap.
    pub(super) fn line(&mut self, text: &str) {
        // Flushed line by line: the tour is shown as it happens.
        let _ = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
    }

    /// The heads of the columns.
    pub(super) fn heads(&mut self) {
        let text = format!(
            "{:4}{:WHAT$}{:>SOURCE$}{:>TIME$}{:>UPSTREAM$}",
            "", "", "source", "time", "upstream"
        );
        self.toned(Tone::Dim, &text);
    }

    /// Begins a step.
    pub(super) fn step(&mut self, number: usize, title: &str) {
        self.line("");
        self.toned(Tone::Bold, &format!("{number:2}  {title}"));
    }

    /// What happened.
    pub(super) fn row(&mut self, row: &Row) {
        let source = self.tone(row.tone, &format!("{:>SOURCE$}", row.source));
        let took = row.took.map(duration).unwrap_or_default();
        let upstream = match row.upstream {
            None => String::new(),
            Some(0) => "-".to_owned(),
            Some(1) => "1 request".to_owned(),
            Some(n) => format!("{n} requests"),
        };
        let rest = format!("{took:>TIME$}{upstream:>UPSTREAM$}");
        self.line(format!("{:4}{:WHAT$}{source}{rest}", "", row.what).trim_end());
    }

    /// What it means.
    pub(super) fn say(&mut self, text: &str) {
        for line in wrap(text, WIDTH - 4) {
            self.toned(Tone::Dim, &format!("    {line}"));
        }
    }

    /// Something is not as told.
    pub(super) fn contradict(&mut self, text: &str) {
        for line in wrap(&format!("NOT AS TOLD: {text}"), WIDTH - 4) {
            self.toned(Tone::Red, &format!("    {line}"));
        }
    }

    /// A line in a tone.
    pub(super) fn toned(&mut self, tone: Tone, text: &str) {
        let text = self.tone(tone, text);
        self.line(&text);
    }

    fn tone(&self, tone: Tone, text: &str) -> String {
        if self.colours {
            format!("\x1b[{}m{text}\x1b[0m", tone.code())
        } else {
            text.to_owned()
        }
    }
}

/// A duration as people read it, in at most three digits or so: `94 µs`, `8.24 ms`, `401 ms`, `1.02 s`.
pub(super) fn duration(took: Duration) -> String {
    let micros = took.as_micros();
    let seconds = took.as_secs_f64();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", seconds * 1e3),
        10_000..100_000 => format!("{:.1} ms", seconds * 1e3),
        100_000..1_000_000 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// Lines of at most `width` columns, broken at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(colours: bool, show: impl FnOnce(&mut Screen<Vec<u8>>)) -> String {
        let mut screen = Screen::new(Vec::new(), colours);
        show(&mut screen);
        String::from_utf8(screen.out).unwrap()
    }

    fn row(upstream: u64) -> Row {
        Row {
            what: "Ada asks".to_owned(),
            source: "hit".to_owned(),
            tone: Tone::Green,
            took: Some(Duration::from_micros(94)),
            upstream: Some(upstream),
        }
    }

    #[test]
    fn rows_stand_in_columns_under_their_heads() {
        let text = shown(false, |screen| {
            screen.heads();
            screen.row(&row(0));
            screen.row(&row(12));
        });
        let ends: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(ends, [76, 76, 76], "{text}");
        assert!(text.contains("hit     94 µs           -\n"), "{text}");
        assert!(text.contains("12 requests\n"), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
    }

    #[test]
    fn colours_change_no_column() {
        let plain = shown(false, |screen| screen.row(&row(1)));
        let toned = shown(true, |screen| screen.row(&row(1)));
        assert_ne!(plain, toned);
        assert_eq!(toned.replace("\x1b[32m", "").replace("\x1b[0m", ""), plain);
    }

    #[test]
    fn sentences_are_wrapped() {
        let text = shown(false, |screen| screen.say(&"many words ".repeat(30)));
        assert!(text.lines().count() > 1, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        for (micros, wanted) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.00 ms"),
            (82_449, "82.4 ms"),
            (401_200, "401 ms"),
            (1_020_000, "1.02 s"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), wanted);
        }
    }
}
