//! An explanation for people.

use super::super::wrap::{WIDTH, wrap};
use crate::explain::{Explanation, Outcome, Verdict};

/// Columns of the steps' names.
const STEP: usize = 10;

/// Lines of at most 80 columns.
pub(super) fn render(explanation: &Explanation) -> String {
    let Explanation { from, url, outcome, enforced, steps } = explanation;
    let mut text = String::new();
    text.push_str(&wrap(&format!("{from} to {url}"), "", "  ", WIDTH));
    text.push('\n');
    let indent = " ".repeat(STEP + 2);
    for line in steps {
        let first = format!("  {:STEP$}", line.step);
        text.push_str(&wrap(&line.text, &first, &indent, WIDTH));
        for place in &line.by {
            text.push_str(&wrap(
                &place.to_string(),
                &format!("{indent}- "),
                &format!("{indent}  "),
                WIDTH,
            ));
        }
    }
    text.push('\n');
    text.push_str(&wrap(&sentence(outcome), "", "  ", WIDTH));
    if let Some(enforced) = enforced {
        let sentence = format!("Enforced, it would be {}", sentence(enforced));
        text.push_str(&wrap(&sentence, "", "  ", WIDTH));
    }
    let last = enforced.as_ref().unwrap_or(outcome);
    if last.verdict == Verdict::Refused {
        let hint = format!("`egress-agent reasons {}` says what to do.", last.reason);
        text.push_str(&wrap(&hint, "", "  ", WIDTH));
    }
    text
}

fn sentence(outcome: &Outcome) -> String {
    let verdict = match outcome.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Answered => "answered",
        Verdict::Refused => "refused",
    };
    format!("{verdict} ({}): {}", outcome.reason, outcome.detail)
}
