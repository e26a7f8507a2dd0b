//! A destination rule as compilation uses it.

use std::collections::HashMap;

use super::{
    super::resource::Meta,
    traffic::{Policy, TlsWish, Tunnel},
};
use crate::{
    policy::{Exported, HostPattern},
    types::{Labels, Namespace, Port},
};

/// A destination rule, read.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) meta: Meta,
    pub(super) host: HostPattern,
    pub(super) exported: Exported,
    /// It is for clients of its namespace with these labels.
    pub(super) selector: Option<Labels>,
    /// Its own traffic policy, if it has one.
    pub(super) policy: Option<Policy>,
    pub(super) subsets: Subsets,
    /// Whether it was made of a `BackendTLSPolicy`: it says nothing but TLS towards the registry, and the next rule
    /// the rest.
    pub(super) is_only_tls: bool,
}

/// The subsets of a rule, in order.
#[derive(Debug, Default)]
pub(super) struct Subsets {
    pub(super) all: Vec<RuleSubset>,
    pub(super) by_name: HashMap<String, usize>,
}

impl Rule {
    /// The hosts that it is for.
    pub(super) fn hosts(&self) -> Vec<HostPattern> {
        self.host.rule_hosts()
    }

    /// Whether it is for all of these hosts.
    pub(super) fn covers(&self, host: &HostPattern) -> bool {
        self.host.rules(host)
    }

    /// Every wish for a tunnel, wherever in the rule it stands.
    pub(super) fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let policies = self.subsets.all.iter().map(|subset| &subset.policy);
        let settings = self.policy.iter().chain(policies).flat_map(|policy| {
            std::iter::once(&policy.settings).chain(policy.ports.iter().map(|(_, own)| own))
        });
        settings.filter_map(|settings| settings.tunnel.as_ref()?.as_ref())
    }

    /// Whether it may count for clients with this selector's labels, or where there is none, for the other ones.
    pub(super) fn selects(&self, client: Option<&Namespace>, selected: Option<&Labels>) -> bool {
        let is_own = self.selector.as_ref() == selected && client == Some(&self.meta.namespace);
        self.selector.is_none() || is_own
    }

    /// Whether it is for its own namespace alone.
    pub(super) fn is_private(&self) -> bool {
        match &self.exported {
            Exported::All => false,
            Exported::To(names) => names.iter().all(|name| *name == self.meta.namespace),
        }
    }

    /// The namespaces that it names.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let exported = match &self.exported {
            Exported::All => &[][..],
            Exported::To(names) => names,
        };
        exported.iter().chain(std::iter::once(&self.meta.namespace))
    }

    /// The subset of this name.
    pub(super) fn subset(&self, name: &str) -> Option<&RuleSubset> {
        self.subsets.all.get(*self.subsets.by_name.get(name)?)
    }

    /// Whether it asks for TLS to a service of the registry, on this port and subset.
    pub(super) fn asks_tls(&self, port: Port, subset: &str) -> bool {
        let named = self.subset(subset).map(|own| &own.policy);
        self.policy.iter().chain(named).any(|policy| {
            matches!(policy.on(port).tls, Some(TlsWish::Originate(_) | TlsWish::Unavailable(_)))
        })
    }
}

/// A subset of a rule.
#[derive(Debug)]
pub(super) struct RuleSubset {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) policy: Policy,
}
