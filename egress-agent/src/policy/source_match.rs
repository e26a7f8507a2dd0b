//! Conditions on the workload that a request comes from.

use std::fmt;

use ipnet::IpNet;

use crate::types::{Labels, Namespace, Source};

/// Conditions on who asks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceMatch {
    /// Labels that the workload has.
    pub labels: Labels,
    /// The workload's namespace.
    pub namespace: Option<Namespace>,
    /// The network that its address is in.
    pub subnet: Option<IpNet>,
}

impl SourceMatch {
    /// Whether every source is meant.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this source is meant. Of an unknown one only its address is known, so no other condition
    /// holds.
    #[must_use]
    pub fn matches(&self, source: &Source) -> bool {
        if self.subnet.is_some_and(|subnet| !subnet.contains(&source.addr.to_canonical())) {
            return false;
        }
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
        let subnet = self.subnet.iter().map(|subnet| format!("address in {subnet}"));
        f.write_str(&namespace.chain(labels).chain(subnet).collect::<Vec<_>>().join(", "))
    }
}

/// Whether all wanted labels are there.
#[must_use]
pub fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_a_condition_on_the_address() {
        let wanted =
            SourceMatch { subnet: Some("10.0.0.0/24".parse().unwrap()), ..SourceMatch::default() };
        let of = |addr: &str| Source::unauthenticated(addr.parse().unwrap(), None);
        assert!(wanted.matches(&of("10.0.0.5")) && wanted.matches(&of("::ffff:10.0.0.5")));
        assert!(!wanted.matches(&of("10.0.1.5")) && !wanted.matches(&of("2001:db8::1")));
        let labels = Labels::from([("app".into(), "web".into())]);
        assert!(!SourceMatch { labels, ..wanted.clone() }.matches(&of("10.0.0.5")));
        assert_eq!(wanted.to_string(), "address in 10.0.0.0/24");
    }
}
