//! `EgressPolicy` and `ClusterEgressPolicy` to the rules that gateways decide by and the routes of the
//! nodes.
//!
//! They are compiled beside Istio's resources, not into them: a gateway's stage belongs to all namespaces,
//! and what one of them adds there may hide what another has. What they reach is compiled by the same
//! code, so the same destination rules count.

mod draft;
mod node;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use draft::{Draft, DraftRule, draft};
#[cfg(test)]
pub(in crate::config) use draft::{
    MAX_HOSTS, MAX_METHODS, MAX_PATH, MAX_PATHS, MAX_PORTS, MAX_RULES,
};

use super::{
    super::{
        egress_policy::EgressProtocol, names, policies::Policy, problem::Severity,
        resource::Resources,
    },
    Compiler,
    entry::CompiledEntry,
    index::EgressHosts,
    lookup::{Lookup, Traffic},
    precedence::most_specific,
};
use crate::{
    policy::{
        Destination, EgressAccess, EgressPolicy, EgressRule, EgressScope, Hop, HostPattern,
        NamespaceLabels, Protocol,
    },
    types::{GatewayPort, Namespace, OriginalPort, Port},
};

/// Ports at the gateway for raw TCP: below the local ports of Linux and the node ports of Kubernetes. The
/// gateway's own sockets don't lie there, and it takes every port.
const RAW: std::ops::Range<u16> = 20_000..30_000;

/// The policies while they are compiled.
pub(super) struct Drafts<'p>(Vec<Draft<'p>>);

impl Compiler<'_> {
    /// Every host that a rule names, with the namespace whose destination rules count for it.
    pub(super) fn named_by(&self, drafts: &Drafts<'_>) -> EgressHosts {
        let drafts = drafts.0.iter();
        let pairs = drafts.flat_map(|draft| {
            let namespace = self.service_namespace(draft.policy);
            draft.rules.iter().map(move |rule| (namespace.clone(), rule.host.clone()))
        });
        pairs.collect()
    }

    /// Reads the policies, each on its own, then the policies of each namespace together.
    pub(super) fn egress_drafts<'p>(&mut self, resources: &'p Resources) -> Drafts<'p> {
        let policies = resources.policies.iter();
        let mut drafts: Vec<_> =
            policies.map(|policy| draft(policy, &self.mesh, &self.groups, &self.guard)).collect();
        let mut known: HashMap<_, (EgressProtocol, &str)> = HashMap::new();
        for draft in &mut drafts {
            self.report.problems.append(&mut draft.problems);
            let meta = &draft.policy.meta;
            let scope = (!draft.policy.cluster).then_some(&meta.namespace);
            draft.rules.retain(|rule| {
                let key = (scope, rule.host.clone(), rule.port);
                let (protocol, by) =
                    *known.entry(key).or_insert((rule.protocol, meta.label.as_str()));
                if protocol == rule.protocol {
                    return true;
                }
                let message = format!(
                    "{by} says that {} speaks {protocol} on port {}; this rule is refused for it",
                    rule.host, rule.port
                );
                let mut cx = meta.cx(self.report);
                let problem = cx.note(Severity::Refusal, &rule.at.field("protocol"), message);
                problem.found = Some(rule.protocol.to_string());
                problem.expected = Some(protocol.to_string());
                false
            });
        }
        Drafts(drafts)
    }

    /// The policies with what they reach.
    pub(super) fn egress(
        &mut self,
        drafts: Drafts<'_>,
        namespaces: &[(Namespace, crate::types::Labels)],
    ) -> Vec<Arc<EgressPolicy>> {
        let known = Arc::new(NamespaceLabels::new(namespaces.iter().cloned()));
        let raw = self.raw_ports(&drafts);
        let mut destinations = HashMap::new();
        let mut policies = Vec::new();
        for draft in drafts.0 {
            let meta = &draft.policy.meta;
            let mut rules = Vec::new();
            for rule in &draft.rules {
                let access = match rule.protocol {
                    EgressProtocol::Http => EgressAccess::Http {
                        limits: rule.limits.clone(),
                        originates: rule.originate.is_some(),
                    },
                    EgressProtocol::Tls => EgressAccess::Tls,
                    EgressProtocol::Tcp => match raw.get(&(rule.host.clone(), rule.port)) {
                        Some(at) => EgressAccess::Tcp { at: *at },
                        None => continue,
                    },
                };
                let namespace = (!draft.policy.cluster).then(|| meta.namespace.clone());
                let key = (namespace, rule.host.clone(), rule.port, rule.protocol, rule.originate);
                let destination = match destinations.get(&key) {
                    Some(known) => Arc::clone(known),
                    None => {
                        let Some(made) = self.egress_destination(draft.policy, rule) else {
                            continue;
                        };
                        destinations.insert(key, Arc::clone(&made));
                        made
                    }
                };
                self.tell_refusals(draft.policy, rule, draft.group, &destination);
                rules.push(Arc::new(EgressRule {
                    host: rule.host.clone(),
                    port: OriginalPort(rule.port),
                    access,
                    group: draft.group,
                    hop: self.egress_hop(draft.policy, draft.group, rule.port),
                    destination,
                    rate: rule.rate.clone(),
                }));
            }
            let scope = if draft.policy.cluster {
                EgressScope::Cluster(draft.namespaces, Arc::clone(&known))
            } else {
                EgressScope::Namespace(meta.namespace.clone())
            };
            policies.push(Arc::new(EgressPolicy {
                label: meta.label.as_str().into(),
                scope,
                pods: draft.pods,
                mode: draft.mode,
                rules,
            }));
        }
        policies
    }

    /// The namespace whose destination rules count as those of the service.
    fn service_namespace(&self, policy: &Policy) -> Namespace {
        if policy.cluster {
            self.mesh.root_namespace.clone()
        } else {
            policy.meta.namespace.clone()
        }
    }

    /// How a host and port is reached: as a service entry of the policy's namespace would be.
    fn egress_destination(
        &mut self,
        policy: &Policy,
        rule: &DraftRule,
    ) -> Option<Arc<Destination>> {
        let (protocol, traffic) = match rule.protocol {
            EgressProtocol::Http => (Protocol::Http, Traffic::Http),
            EgressProtocol::Tls => (Protocol::Tls, Traffic::Tls),
            EgressProtocol::Tcp => (Protocol::Tcp, Traffic::Tcp),
        };
        let port = rule.originate.unwrap_or(rule.port);
        let mut meta = policy.meta.clone();
        meta.namespace = self.service_namespace(policy);
        let entry = CompiledEntry::of_policy(meta, rule.host.clone(), port, protocol);
        let wanted = Lookup { host: rule.host.clone(), port, subset: String::new(), traffic };
        self.policy_destination(&entry, &wanted, rule.originate.is_some())
    }

    /// Reports that a destination rule asks for what can't be applied.
    fn tell_refusals(
        &mut self,
        policy: &Policy,
        rule: &DraftRule,
        group: usize,
        destination: &Destination,
    ) {
        let namespace = self.mesh.gateways.get(group).and_then(|group| {
            let proven = group.principal.as_ref().map(|id| id.namespace.clone());
            proven.or_else(|| names::namespace_of(&group.service.to_string()))
        });
        let namespace = namespace.unwrap_or_else(|| self.mesh.root_namespace.clone());
        let source = self.service_namespace(policy);
        for provider in &destination.providers {
            for refusal in &provider.reached(Some(&namespace), None).refusals {
                if refusal.source.as_ref().is_none_or(|wanted| *wanted == source) {
                    let message = format!("{}; it is refused", refusal.detail);
                    policy.meta.cx(self.report).note(Severity::Refusal, &rule.at, message);
                }
            }
        }
    }

    /// How traffic to a port of the gateway has to come. Where the policy's pods are in several namespaces,
    /// whichever destination rule asks for mutual TLS is heeded.
    fn egress_hop(&mut self, policy: &Policy, group: usize, port: Port) -> Hop {
        let Some(group) = self.mesh.gateways.get(group) else { return Hop::Plain };
        if !policy.cluster {
            return self.hop(group.service.to_string(), port, "", &policy.meta.namespace);
        }
        let host = HostPattern::Exact(group.service.clone());
        let rules = self.rules.meeting(&host);
        let asked =
            most_specific(&rules, &host, |rule| !rule.is_only_tls && rule.selector.is_none())
                .into_iter()
                .any(|rule| {
                    let own = rule.policy.as_ref().map(|policy| policy.on(port));
                    own.is_some_and(|settings| settings.tunnel.flatten().is_some())
                });
        if asked { Hop::Tunnel } else { Hop::Plain }
    }

    /// A port at the gateway for each raw TCP service. It follows from the host and the port alone, so that
    /// a node and a gateway that read the configuration a moment apart mean the same; only where two
    /// services would get one port does the second one's depend on the first.
    fn raw_ports(&self, drafts: &Drafts<'_>) -> BTreeMap<(HostPattern, Port), GatewayPort> {
        let mut taken: BTreeSet<Port> = self.servers.iter().map(|server| server.port.0).collect();
        taken.extend(self.entries.iter().flat_map(|entry| entry.ports.iter().map(|p| p.number)));
        let all = || drafts.0.iter().flat_map(|draft| &draft.rules);
        let (raw, named): (Vec<_>, Vec<_>) =
            all().partition(|rule| rule.protocol == EgressProtocol::Tcp);
        taken.extend(named.into_iter().map(|rule| rule.port));
        let wanted: BTreeSet<_> =
            raw.into_iter().map(|rule| (rule.host.clone(), rule.port)).collect();
        let mut ports = BTreeMap::new();
        for service in wanted {
            if let Some(free) = free_port(&service.0.to_string(), service.1, &taken) {
                taken.insert(free);
                ports.insert(service, GatewayPort(free));
            }
        }
        ports
    }
}

/// The port at the gateway for raw TCP to this host or network and port, unless it is taken: then the next one that is
/// not.
pub(super) fn free_port(host: &str, port: Port, taken: &BTreeSet<Port>) -> Option<Port> {
    let span = u32::from(RAW.end - RAW.start);
    let first = hash(&format!("{host}:{port}")) % span;
    let mut candidates = (0..span).filter_map(|step| {
        let offset = u16::try_from((first + step) % span).ok()?;
        Port::new(RAW.start + offset)
    });
    candidates.find(|port| !taken.contains(port))
}

/// FNV-1a: the same on every machine and in every version.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hash_is_the_published_one() {
        // http://www.isthe.com/chongo/tech/comp/fnv/
        assert_eq!(super::hash(""), 0x811c_9dc5);
        assert_eq!(super::hash("a"), 0xe40c_292c);
        assert_eq!(super::hash("foobar"), 0xbf9c_f968);
    }
}
