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
/// Columns of a line that are shown.
const SHOWN_COLUMNS: usize = 220;

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
        println!("   {text}");
    }

    /// A command, and where it runs.
    pub(crate) fn command(&self, place: &str, command: &str) {
        println!("\n   {} {command}", self.paint(DIM, &format!("{place} $")));
    }

    /// A command's output, cut to what fits.
    pub(crate) fn output(&self, text: &str) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in lines.iter().take(SHOWN_LINES) {
            let shown: String = line.chars().take(SHOWN_COLUMNS).collect();
            println!("     {shown}");
        }
        if lines.len() > SHOWN_LINES {
            println!("     … {} more lines", lines.len() - SHOWN_LINES);
        }
    }

    /// A fact beside a command: a log line, a counter.
    pub(crate) fn fact(&self, what: &str, text: &str) {
        println!("   {} {text}", self.paint(DIM, &format!("{what}:")));
    }

    /// Whether it was as it must be.
    pub(crate) fn check(&mut self, what: &str, seen: &str, good: bool) {
        let mark = if good { self.paint(GREEN, "✓") } else { self.paint(RED, "✗") };
        println!("   {mark} {what}: {seen}");
        let (what, seen) = (what.to_owned(), seen.to_owned());
        self.rows.push(Row { step: self.step, what, seen, good });
    }

    /// Prints the table; tells whether all was good.
    pub(crate) fn table(&self) -> bool {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        println!("\n{}", self.paint(BOLD, "── Summary ──"));
        for row in &self.rows {
            let mark = if row.good { self.paint(GREEN, "✓") } else { self.paint(RED, "✗") };
            println!(" {mark} {:>2}  {:<width$}  {}", row.step, row.what, row.seen);
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
