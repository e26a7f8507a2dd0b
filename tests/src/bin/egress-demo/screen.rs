//! What the demo shows: steps, commands with their output, checks, and the table at the end.

use std::{
    env,
    io::{self, IsTerminal},
};

const GREEN: &str = "32";
const RED: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Lines of one command's output that are shown.
const SHOWN_LINES: usize = 8;
/// Characters of a line that are shown.
const SHOWN_CHARACTERS: usize = 300;
/// Columns of everything that is written.
const COLUMNS: usize = 80;
/// Columns of the summary's second column, at the most.
const NAMES: usize = 46;

struct Row {
    step: usize,
    what: String,
    seen: String,
    good: bool,
}

/// Writes to standard output, and remembers each check.
pub(crate) struct Screen {
    colours: bool,
    step: usize,
    rows: Vec<Row>,
}

impl Screen {
    /// Colours only on a terminal, and not where `NO_COLOR` is set.
    pub(crate) fn new() -> Self {
        let colours = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Self { colours, step: 0, rows: Vec::new() }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, title: &str) {
        self.step += 1;
        println!("\n{}", self.paint(BOLD, &format!("── {}. {title} ──", self.step)));
    }

    /// Something to read.
    pub(crate) fn say(&self, text: &str) {
        print!("{}", wrapped("   ", text, 3, ""));
    }

    /// A command, and where it runs. It can be pasted, over several lines too.
    pub(crate) fn command(&self, place: &str, command: &str) {
        let prompt = format!("   {place} $ ");
        let text = wrapped(&prompt, command, 6, " \\");
        let rest = text.strip_prefix(&prompt).unwrap_or(&text);
        print!("\n   {} {rest}", self.paint(DIM, &format!("{place} $")));
    }

    /// A command of root's on a host.
    pub(crate) fn root_command(&self, host: &str, command: &str) {
        let prompt = format!("   {host} # ");
        let text = wrapped(&prompt, command, 6, " \\");
        let rest = text.strip_prefix(&prompt).unwrap_or(&text);
        print!("\n   {} {rest}", self.paint(DIM, &format!("{host} #")));
    }

    /// A text with all of its lines. What is as wide as the screen begins at its edge.
    pub(crate) fn all(&self, text: &str) {
        for line in text.trim_end().lines() {
            let line = line.trim_end();
            if line.chars().count() <= COLUMNS {
                println!("{line}");
            } else {
                print!("{}", wrapped("", line, 4, ""));
            }
        }
    }

    /// A command's output, cut to what fits.
    pub(crate) fn output(&self, text: &str) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in lines.iter().take(SHOWN_LINES) {
            let shown: String = line.chars().take(SHOWN_CHARACTERS).collect();
            print!("{}", wrapped("     ", &shown, 7, ""));
        }
        if lines.len() > SHOWN_LINES {
            println!("     … {} more lines", lines.len() - SHOWN_LINES);
        }
    }

    /// A fact beside a command: a log line, a counter.
    pub(crate) fn fact(&self, what: &str, text: &str) {
        let name = format!("   {what}: ");
        let text = wrapped(&name, text, 5, "");
        let rest = text.strip_prefix(&name).unwrap_or(&text);
        print!("   {} {rest}", self.paint(DIM, &format!("{what}:")));
    }

    /// Whether it was as it must be.
    pub(crate) fn check(&mut self, what: &str, seen: &str, good: bool) {
        let text = wrapped("   ✓ ", &format!("{what}: {seen}"), 5, "");
        let rest = text.strip_prefix("   ✓ ").unwrap_or(&text);
        print!("   {} {rest}", self.mark(good));
        let (what, seen) = (what.to_owned(), seen.to_owned());
        self.rows.push(Row { step: self.step, what, seen, good });
    }

    fn mark(&self, good: bool) -> String {
        if good { self.paint(GREEN, "✓") } else { self.paint(RED, "✗") }
    }

    /// Prints the table; tells whether all was good.
    pub(crate) fn table(&self) -> bool {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        println!("\n{}", self.paint(BOLD, "── Summary ──"));
        for row in &self.rows {
            let text = row_text(row.step, &row.what, &row.seen, width);
            println!(" {} {text}", self.mark(row.good));
        }
        let bad = self.rows.iter().filter(|row| !row.good).count();
        let good = bad == 0 && !self.rows.is_empty();
        let total = self.rows.len();
        let verdict = if good {
            self.paint(GREEN, &format!("All {total} checks were as they must be."))
        } else {
            self.paint(RED, &format!("{bad} of {total} checks were not as they must be."))
        };
        println!("\n{verdict}");
        good
    }
}

/// A text after a prefix, as lines of at most [`COLUMNS`] columns; those after the first one are indented, and
/// all but the last one end with `end`. A word that is longer than a line is cut.
fn wrapped(prefix: &str, text: &str, indent: usize, end: &str) -> String {
    let columns = |text: &str| text.chars().count();
    let mut lines = vec![prefix.to_owned()];
    let mut is_empty = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word = word.to_owned();
        loop {
            let line = lines.last_mut().expect("there is one");
            let space = usize::from(!is_empty);
            let room = COLUMNS.saturating_sub(columns(line) + space + columns(end));
            if columns(&word) <= room {
                if !is_empty {
                    line.push(' ');
                }
                line.push_str(&word);
                is_empty = false;
                break;
            }
            // On a line of its own, in parts if need be.
            if is_empty {
                let at = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
                line.push_str(&word[..at]);
                word = word[at..].to_owned();
            }
            lines.push(" ".repeat(indent));
            is_empty = true;
        }
    }
    lines.join(&format!("{end}\n")) + "\n"
}

/// A row of the summary, after its mark: what was seen follows in the same line, cut to what fits.
fn row_text(step: usize, what: &str, seen: &str, width: usize) -> String {
    let width = width.min(NAMES);
    let cut = |text: &str, room: usize| {
        let all = text.chars().count();
        let shown: String = text.chars().take(if all > room { room - 1 } else { room }).collect();
        if all > room { shown + "…" } else { shown }
    };
    // The mark, a space and the step come before it.
    let room = COLUMNS - 3 - 4 - width - 2;
    let what = cut(what, width);
    format!("{step:>2}  {what:<width$}  {}", cut(seen, room)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
    }

    #[test]
    fn nothing_is_wider_than_a_terminal() {
        let long = "x".repeat(200);
        for text in ["", "short", &"word ".repeat(60), &long, &format!("a {long} b")] {
            for end in ["", " \\"] {
                let all = wrapped("   pod $ ", text, 6, end);
                assert!(widest(&all) <= COLUMNS, "{all}");
                let whole: String =
                    all.replace(end, "").chars().filter(|c| *c != '\n' && *c != ' ').collect();
                let expected: String =
                    format!("pod${text}").chars().filter(|c| *c != ' ').collect();
                assert_eq!(whole, expected);
            }
            let row = format!(" ✓ {}", row_text(12, text, text, 300));
            assert!(widest(&row) <= COLUMNS, "{row}");
        }
    }

    #[test]
    fn a_command_that_is_wrapped_can_be_pasted() {
        let command =
            format!("egress-agent node --config {} --mesh {}", "/c".repeat(20), "/m".repeat(20));
        let text = wrapped("$ ", &command, 6, " \\");
        assert!(text.lines().count() > 1, "{text}");
        let pasted = text.trim_start_matches("$ ").replace(" \\\n      ", " ");
        assert_eq!(pasted.trim_end(), command);
    }
}
