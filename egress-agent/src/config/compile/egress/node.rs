//! What the node sends to the gateway because of policies.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        Compiler,
        entry::CompiledEntry,
        node::Ports,
        registry::Registry,
        shared_targets::{RawRoute, Redirection},
    },
    Draft, Drafts, EgressProtocol,
};
use crate::{
    config::problem::Severity,
    policy::{DirectTarget, EgressAccess, EgressPolicy, HostPattern, Protocol, RouteSet, Target},
    types::{Host, Port},
};

/// The gateway groups that routes send raw TCP services to, by host or address, and the first route of each.
pub(in crate::config::compile) type RawGroups = BTreeMap<(Port, HostPattern), (usize, Arc<str>)>;

impl Compiler<'_> {
    /// Where Istio's resources send raw TCP.
    pub(in crate::config::compile) fn raw_groups(
        &self,
        registry: &Registry<'_>,
        routes: &[Arc<RouteSet>],
    ) -> RawGroups {
        let mut groups = RawGroups::new();
        let rules = routes.iter().flat_map(|set| set.mesh.tcp.iter().map(move |rule| (set, rule)));
        for (set, rule) in rules {
            let first = rule.targets.first().map(|weighted| &weighted.target);
            let Some(Target::Gateway { group, .. }) = first else { continue };
            let services = registry.meeting(set).into_iter();
            let raw = services
                .filter(|service| service.protocol == Protocol::Tcp && rule.is_on(service.port.0));
            for service in raw {
                let nets = self.entries.named(&service.name).map(CompiledEntry::dialled);
                let single = nets
                    .into_iter()
                    .flatten()
                    .filter(|net| net.prefix_len() == net.max_prefix_len());
                let addresses = single.map(|net| HostPattern::Exact(Host::Ip(net.addr())));
                for host in addresses.chain([service.host.clone()]) {
                    let by = || (*group, Arc::clone(&set.label));
                    groups.entry((service.port.0, host)).or_insert_with(by);
                }
            }
        }
        groups
    }

    /// Takes the rules out whose port an older resource sends to another gateway: the node sees no names.
    pub(in crate::config::compile) fn one_gateway_a_port(
        &mut self,
        drafts: &mut Drafts<'_>,
        istio: &Ports,
        raw: RawGroups,
    ) {
        let names = istio.iter();
        let names = names.map(|(port, (group, _, by))| ((port.0, None), (*group, Arc::clone(by))));
        let raw = raw.into_iter().map(|((port, host), by)| ((port, Some(host)), by));
        let mut known: BTreeMap<(Port, Option<HostPattern>), _> = names.chain(raw).collect();
        for Draft { policy, group, rules, .. } in &mut drafts.0 {
            rules.retain(|rule| {
                // Raw TCP goes by its host as well.
                let host = (rule.protocol == EgressProtocol::Tcp).then(|| rule.host.clone());
                let label = || (*group, policy.meta.label.as_str().into());
                let (other, by) = known.entry((rule.port, host.clone())).or_insert_with(label);
                if other == group {
                    return true;
                }
                let name = |group: usize| {
                    let found = self.mesh.gateways.get(group);
                    found.map(|group| group.service.to_string()).unwrap_or_default()
                };
                let (what, unseen) = match host {
                    None => (format!("port {}", rule.port), "names, so all of one port"),
                    Some(host) => {
                        (format!("{host} port {}", rule.port), "workloads, so all of it")
                    }
                };
                let message = format!(
                    "{what} goes to another gateway because of {by}; the node sees no {unseen} goes to one \
                     gateway, and this rule is refused"
                );
                let (found, expected) = (name(*group), name(*other));
                let mut cx = policy.meta.cx(self.report);
                let problem = cx.note(Severity::Refusal, &rule.at.field("port"), message);
                (problem.found, problem.expected) = (Some(found), Some(expected));
                false
            });
        }
    }

    /// Ports on which the gateway decides by name.
    pub(in crate::config::compile) fn egress_ports(
        &self,
        policies: &[Arc<EgressPolicy>],
        ports: &mut Ports,
    ) {
        for policy in policies {
            for rule in &policy.rules {
                if matches!(rule.access, EgressAccess::Tcp { .. }) {
                    continue;
                }
                let by = || (rule.group, rule.hop, Arc::clone(&policy.label));
                let (group, hop, _) = ports.entry(rule.port).or_insert_with(by);
                // All of one port goes the stricter way.
                if *group == rule.group {
                    *hop = rule.hop.max(*hop);
                }
            }
        }
    }

    /// Raw TCP: by address, to the port at the gateway that is the service's own.
    pub(in crate::config::compile) fn egress_raw(
        &self,
        policies: &[Arc<EgressPolicy>],
        raw: &mut Vec<RawRoute>,
    ) {
        let all = policies.iter();
        for (policy, rule) in all.flat_map(|p| p.rules.iter().map(move |rule| (p, rule))) {
            let EgressAccess::Tcp { at } = rule.access else { continue };
            let target = match &rule.host {
                HostPattern::Exact(Host::Ip(ip)) => DirectTarget::Net((*ip).into()),
                HostPattern::Exact(name @ Host::Name(_)) => DirectTarget::Name(name.clone()),
                HostPattern::Below(_) | HostPattern::Ending(_) | HostPattern::Any => continue,
            };
            let to = Redirection { group: rule.group, at, hop: rule.hop };
            let (port, by) = (rule.port, Arc::clone(&policy.label));
            raw.push(RawRoute { port, target, to, is_for_all: false, by });
        }
    }
}
