//! What the node sends to the gateway because of policies.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        Compiler,
        node::{NamedRoute, Ports},
    },
    Draft, Drafts, EgressProtocol,
};
use crate::{
    config::problem::Severity,
    policy::{DirectTarget, EgressAccess, EgressPolicy, HostPattern, NodeAction, NodeRoute},
    types::{Host, OriginalPort, Port},
};

impl Compiler<'_> {
    /// Takes the rules out whose port an older resource sends to another gateway: the node sees no names.
    pub(in crate::config::compile) fn one_gateway_a_port(
        &mut self,
        drafts: &mut Drafts<'_>,
        istio: &Ports,
    ) {
        let mut known: BTreeMap<Port, (usize, Arc<str>)> =
            istio.iter().map(|(port, (group, _, by))| (port.0, (*group, Arc::clone(by)))).collect();
        for Draft { policy, group, rules, .. } in &mut drafts.0 {
            rules.retain(|rule| {
                if rule.protocol == EgressProtocol::Tcp {
                    return true;
                }
                let label = || (*group, policy.meta.label.as_str().into());
                let (other, by) = known.entry(rule.port).or_insert_with(label);
                if other == group {
                    return true;
                }
                let name = |group: usize| {
                    let found = self.mesh.gateways.get(group);
                    found.map(|group| group.service.to_string()).unwrap_or_default()
                };
                let message = format!(
                    "port {} goes to another gateway because of {by}; the node sees no names, so all of \
                     one port goes to one gateway, and this rule is refused",
                    rule.port
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
        node: &mut Vec<NamedRoute>,
    ) {
        let all = policies.iter();
        for (policy, rule) in all.flat_map(|p| p.rules.iter().map(move |rule| (p, rule))) {
            let EgressAccess::Tcp { at } = rule.access else { continue };
            let target = match &rule.host {
                HostPattern::Exact(Host::Ip(ip)) => DirectTarget::Net((*ip).into()),
                HostPattern::Exact(name @ Host::Name(_)) => DirectTarget::Name(name.clone()),
                HostPattern::Below(_) | HostPattern::Ending(_) | HostPattern::Any => continue,
            };
            let action = NodeAction::Redirect { group: rule.group, port: Some(at), hop: rule.hop };
            let port: Option<OriginalPort> = Some(rule.port);
            node.push((NodeRoute { port, target, action }, Arc::clone(&policy.label)));
        }
    }
}
