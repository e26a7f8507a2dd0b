//! Prometheus' text exposition format.

use std::fmt::{self, Display, Write as _};

/// The media type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as text, family by family.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// Begins a family: what its samples are called, of which type they are, and what they mean.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.0, "# HELP {name} {help}")?;
        writeln!(self.0, "# TYPE {name} {kind}")
    }

    /// A family with one sample, without labels.
    pub(super) fn single(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: impl Display,
    ) -> fmt::Result {
        self.family(name, kind, help)?;
        self.sample(name, &[], value)
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// A sample of the family.
    pub(super) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) -> fmt::Result {
        self.0.push_str(name);
        if !labels.is_empty() {
            self.0.push('{');
            self.labels(labels)?;
            self.0.push('}');
        }
        writeln!(self.0, " {value}")
    }

    /// A sample whose labels are written already.
    pub(super) fn labelled(
        &mut self,
        name: &str,
        labels: &str,
        value: impl Display,
    ) -> fmt::Result {
        writeln!(self.0, "{name}{{{labels}}} {value}")
    }

    /// A bucket of a histogram.
    pub(super) fn labelled_le(
        &mut self,
        name: &str,
        labels: &str,
        bound: &str,
        value: u64,
    ) -> fmt::Result {
        writeln!(self.0, "{name}_bucket{{{labels},le=\"{bound}\"}} {value}")
    }

    /// Labels without braces.
    pub(super) fn labels(&mut self, labels: &[(&str, &str)]) -> fmt::Result {
        for (index, (name, value)) in labels.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(self.0, "{comma}{name}=\"")?;
            for c in value.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_help_type_and_samples() {
        let mut out = Exposition::default();
        out.family("egress_a_total", "counter", "What it counts.").unwrap();
        out.sample("egress_a_total", &[("name", "a\"b\\c\nd"), ("x", "y")], 7).unwrap();
        out.single("egress_b", "gauge", "What it is.", 1).unwrap();
        assert_eq!(
            out.into_text(),
            "# HELP egress_a_total What it counts.\n# TYPE egress_a_total counter\n\
             egress_a_total{name=\"a\\\"b\\\\c\\nd\",x=\"y\"} 7\n\
             # HELP egress_b What it is.\n# TYPE egress_b gauge\negress_b 1\n"
        );
    }
}
