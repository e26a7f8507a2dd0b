//! Conditions on the workload that a request comes from.

use std::fmt;

use crate::types::{Labels, Namespace, Source};

/// Conditions on who asks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceMatch {
    /// Labels that the workload has.
    pub labels: Labels,
    /// The workload's namespace.
    pub namespace: Option<Namespace>,
}

impl SourceMatch {
    /// Whether this source is meant. Of an unknown one nothing is known, so no condition holds.
    #[must_use]
    pub fn matches(&self, source: &Source) -> bool {
        if self.labels.is_empty() && self.namespace.is_none() {
            return true;
        }
        let labels = || {
            let workload = source.workload.as_ref();
            workload.is_some_and(|workload| has_labels(&workload.labels, &self.labels))
        };
        self.namespace.as_ref().is_none_or(|wanted| Some(wanted) == source.namespace())
            && (self.labels.is_empty() || labels())
    }
}

impl fmt::Display for SourceMatch {
    /// `namespace shop, app=web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.iter().map(|namespace| format!("namespace {}", namespace.0));
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        f.write_str(&namespace.chain(labels).collect::<Vec<_>>().join(", "))
    }
}

/// Whether all wanted labels are there.
#[must_use]
pub fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
