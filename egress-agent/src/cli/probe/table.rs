//! Results as a table and as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    super::wrap::{fitted, wrap},
    allowed::Allowed,
    options::Output,
};
use crate::probe::{ATTEMPTS, Attempt, Errno, Layer, Outcome, Report, Row, Settings};

const GREEN: &str = "32";
const RED: &str = "1;31";
const YELLOW: &str = "33";
const DIM: &str = "2";
const BOLD: &str = "1";
/// Where the column of the list that says what is tried begins.
const WHAT: usize = 20 + 11 + 16;
/// Where the column of details begins.
const DETAIL: usize = 22 + 16 + 16;

/// A run, to be shown.
pub(super) struct Summary<'a> {
    pub(super) settings: &'a Settings,
    pub(super) reports: &'a [Report],
    pub(super) allowed: &'a Allowed,
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    families: Vec<&'static str>,
    needs: &'static str,
    what: &'static str,
    kinds: Vec<&'static str>,
}

/// Prints every attempt; where it is wider than `width`, what is tried goes on below itself.
pub(super) fn list(output: Output, width: usize, out: &mut impl Write) -> io::Result<()> {
    match output {
        Output::Json => {
            let all: Vec<Listed> = ATTEMPTS.iter().map(listed).collect();
            serde_json::to_writer_pretty(&mut *out, &all)?;
            writeln!(out)
        }
        Output::Table => {
            writeln!(out, "{:<20}{:<11}{:<16}WHAT", "NAME", "FAMILY", "NEEDS")?;
            for attempt in ATTEMPTS {
                let Listed { name, families, needs, what, kinds: _ } = listed(attempt);
                let families = families.join(",");
                let first = format!("{name:<20}{families:<11}{needs:<16}");
                write!(out, "{}", wrap(what, &first, &" ".repeat(WHAT), width))?;
            }
            Ok(())
        }
    }
}

fn listed(attempt: &Attempt) -> Listed {
    Listed {
        name: attempt.name,
        families: attempt.families.all().iter().map(|family| family.name()).collect(),
        needs: attempt.needs.name(),
        what: attempt.what,
        kinds: attempt.rows.iter().copied().map(Row::title).collect(),
    }
}

#[derive(Serialize)]
struct Document<'a> {
    probe: String,
    targets: Vec<String>,
    allowed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_detail: Option<&'a str>,
    answered: usize,
    attempts: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    attempt: &'static str,
    family: &'static str,
    what: &'static str,
    kinds: Vec<&'static str>,
    port: u16,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    detail: String,
    milliseconds: u64,
}

impl Summary<'_> {
    /// One object.
    pub(super) fn json(&self, out: &mut impl Write) -> io::Result<()> {
        let (allowed, allowed_detail) = match self.allowed {
            Allowed::NotChecked => (None, None),
            Allowed::Works(text) => (Some(true), Some(&**text)),
            Allowed::Fails(text) => (Some(false), Some(&**text)),
        };
        let document = Document {
            probe: self.settings.id.to_string(),
            targets: self.settings.targets.iter().map(ToString::to_string).collect(),
            allowed,
            allowed_detail,
            answered: self.count(&["answered"]),
            attempts: self.reports.iter().map(line).collect(),
        };
        serde_json::to_writer_pretty(&mut *out, &document)?;
        writeln!(out)
    }

    /// A table, and what to think of it.
    pub(super) fn text(&self, colours: bool, width: usize, out: &mut impl Write) -> io::Result<()> {
        let paint = |code: &str, text: String| {
            if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
        };
        let targets: Vec<String> = self.settings.targets.iter().map(ToString::to_string).collect();
        writeln!(out, "probe {} to {}\n", self.settings.id, targets.join(" and "))?;
        let head = format!("{:<22}{:<16}{:<16}{}", "ATTEMPT", "RESULT", "LAYER", "DETAIL");
        writeln!(out, "{}", paint(BOLD, head))?;
        for report in self.reports {
            let outcome = &report.outcome;
            let result = format!("{:<16}", outcome.name().replace('_', " "));
            let code = match outcome {
                Outcome::Answered(_) | Outcome::Error(_) => RED,
                Outcome::Refused { .. } => GREEN,
                Outcome::NoAnswer(_) | Outcome::Intercepted(_) => YELLOW,
                Outcome::NotApplicable(_) => DIM,
            };
            let name = report.case.name();
            let layer = outcome.layer().map_or("-", Layer::name);
            let detail = outcome.detail();
            let first = format!("{name:<22}{}{layer:<16}", paint(code, result));
            write!(out, "{}", wrap(&detail, &first, &" ".repeat(DETAIL), width))?;
        }
        writeln!(out)?;
        let mut conclusion = Vec::new();
        self.conclusion(&paint, &mut conclusion)?;
        out.write_all(fitted(&String::from_utf8_lossy(&conclusion), width).as_bytes())
    }

    fn conclusion(
        &self,
        paint: &impl Fn(&str, String) -> String,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let (answered, refused) = (self.count(&["answered"]), self.count(&["refused"]));
        let open = self.count(&["no_answer", "intercepted"]);
        let (none, errors) = (self.count(&["not_applicable"]), self.count(&["error"]));
        let total = self.reports.len();
        writeln!(
            out,
            "{total} attempts: {answered} answered, {refused} refused, {open} without an answer of \
             the canary, {none} not applicable, {errors} errors."
        )?;
        match self.allowed {
            Allowed::Works(to) => writeln!(out, "The allowed connection works: {to}.")?,
            Allowed::Fails(error) => {
                let text = format!(
                    "The allowed connection fails: {error}. A dead network looks like enforcement."
                );
                writeln!(out, "{}", paint(RED, text))?;
            }
            Allowed::NotChecked => writeln!(
                out,
                "The allowed connection was not checked (--allow-check): a dead network looks like \
                 enforcement."
            )?,
        }
        for (v6, family) in [(false, "IPv4"), (true, "IPv6")] {
            if self.settings.targets.iter().all(|target| target.is_ipv6() != v6) {
                writeln!(out, "{family} wasn't tried: name the canary's {family} address too.")?;
            }
        }
        if answered > 0 {
            return writeln!(out, "{}", paint(RED, format!("{answered} got out.")));
        }
        let quiet = "Nothing that got out was answered.";
        let silent = if open > 0 {
            format!(
                " Of {open} the sender can't tell: look at what the canary printed for probe {}.",
                self.settings.id
            )
        } else {
            String::new()
        };
        writeln!(out, "{}{silent}", paint(BOLD, quiet.to_owned()))
    }

    fn count(&self, names: &[&str]) -> usize {
        self.reports.iter().filter(|report| names.contains(&report.outcome.name())).count()
    }
}

fn line(report: &Report) -> Line {
    let case = report.case;
    Line {
        name: case.name(),
        attempt: case.attempt.name,
        family: case.family.name(),
        what: case.attempt.what,
        kinds: case.attempt.rows.iter().copied().map(Row::title).collect(),
        port: case.port,
        result: report.outcome.name(),
        layer: report.outcome.layer().map(Layer::name),
        errno: match &report.outcome {
            Outcome::Refused { errno, .. } => Some(Errno(*errno).to_string()),
            Outcome::Answered(_)
            | Outcome::NoAnswer(_)
            | Outcome::Intercepted(_)
            | Outcome::NotApplicable(_)
            | Outcome::Error(_) => None,
        },
        detail: report.outcome.detail(),
        milliseconds: u64::try_from(report.time.as_millis()).unwrap_or(u64::MAX),
    }
}
