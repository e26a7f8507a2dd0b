//! The checks that need all routes at once: hosts in conflict, ways that end at a gateway.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        decode::Spot,
        problem::Severity,
        resource::{Meta, Resource},
        virtual_service::VirtualService,
    },
    Compiler,
    node::meets,
};
use crate::{
    policy::{
        Hop, HostPattern, HttpOutcome, Inside, Protocol, RouteSet, ServerProtocol, Target,
        has_labels,
    },
    types::GatewayPort,
};

/// Where a mesh-stage rule leads.
#[derive(Clone, Copy, Debug)]
struct Way {
    group: usize,
    port: GatewayPort,
    hop: Hop,
    protocol: Protocol,
}

impl Compiler<'_> {
    /// What only shows with all routes at hand: hosts in conflict, ways that end at a gateway.
    pub(super) fn check_routes(
        &mut self,
        resources: &[Resource<VirtualService>],
        routes: &[Arc<RouteSet>],
    ) {
        let mut at_mesh: BTreeMap<(&HostPattern, &str), Vec<&RouteSet>> = BTreeMap::new();
        for (set, Resource { meta, spec }) in routes.iter().zip(resources) {
            let hosts_at = Spot::root(spec.at.line, "spec").field("hosts");
            let mesh = &set.mesh;
            let kinds = [
                ("http", mesh.http.is_empty()),
                ("tls", mesh.tls.is_empty()),
                ("tcp", mesh.tcp.is_empty()),
            ];
            for host in &set.hosts {
                let mut conflict = None;
                for (kind, _) in kinds.into_iter().filter(|(_, empty)| !empty) {
                    let others = at_mesh.entry((host, kind)).or_default();
                    let own = (&set.namespace, &set.exported);
                    conflict = conflict.or_else(|| {
                        let mut others = others.iter();
                        others.find(|o| super::overlaps((&o.namespace, &o.exported), own)).copied()
                    });
                    others.push(set);
                }
                let Some(other) = conflict else { continue };
                let mut message = format!(
                    "VirtualService {} routes {host} at the mesh stage too; its rules are used there",
                    other.name
                );
                if other.namespace != set.namespace {
                    message += ", except for workloads of this one's own namespace";
                }
                meta.cx(self.report).note(Severity::Refusal, &hosts_at, message).code =
                    Some("IST0109");
            }
            for (gateway, _) in &set.gateways {
                let own: Vec<_> = self.servers.iter().filter(|s| s.gateway == *gateway).collect();
                for host in &set.hosts {
                    let served =
                        own.iter().flat_map(|s| &s.hosts).any(|(_, h)| h.intersect(host).is_some());
                    if !served && !own.is_empty() {
                        let message = format!("Gateway {gateway} doesn't serve {host}");
                        meta.cx(self.report).warn(&hosts_at, message).code = Some("IST0132");
                    }
                }
            }
            if !self.broken_gateways {
                self.check_ways(set, meta, spec, routes);
            }
        }
    }

    /// Every mesh-stage rule that leads to a gateway needs a server there and a rule that leads on.
    fn check_ways(
        &mut self,
        set: &RouteSet,
        meta: &Meta,
        spec: &VirtualService,
        routes: &[Arc<RouteSet>],
    ) {
        let http = set.mesh.http.iter().map(|rule| match &rule.outcome {
            HttpOutcome::Route(targets) => (targets.as_slice(), Protocol::Http, "http"),
            HttpOutcome::Redirect(_) | HttpOutcome::Respond(..) => {
                (&[][..], Protocol::Http, "http")
            }
        });
        let tls = set.mesh.tls.iter().map(|rule| (rule.targets.as_slice(), Protocol::Tls, "tls"));
        let tcp = set.mesh.tcp.iter().map(|rule| (rule.targets.as_slice(), Protocol::Tcp, "tcp"));
        for (targets, protocol, field) in http.chain(tls).chain(tcp) {
            for weighted in targets {
                let Target::Gateway { group, port, hop } = weighted.target else { continue };
                let at = spec.at.field(field);
                for host in &set.hosts {
                    let way = Way { group, port, hop, protocol };
                    if let Some(message) = self.missing_way(host, way, routes) {
                        meta.cx(self.report).note(Severity::Refusal, &at, message).code =
                            Some("IST0132");
                    }
                }
            }
        }
    }

    fn missing_way(
        &self,
        host: &HostPattern,
        way: Way,
        routes: &[Arc<RouteSet>],
    ) -> Option<String> {
        let Way { group, port, hop, protocol } = way;
        let labels = &self.mesh.gateways.get(group)?.labels;
        let mut servers = self.servers.iter().filter(|server| {
            server.port == port
                && !server.selector.is_empty()
                && has_labels(labels, &server.selector)
                && server.hosts.iter().any(|(_, served)| served.intersect(host).is_some())
        });
        let Some(server) = servers.next() else {
            return Some(format!(
                "{host} is led to the gateway's port {port}, where no Gateway serves it; it is refused"
            ));
        };
        let fits = match (protocol, &server.protocol) {
            (Protocol::Http, ServerProtocol::Http { .. })
            | (Protocol::Tls, ServerProtocol::Passthrough(_) | ServerProtocol::Tcp)
            | (Protocol::Tcp, ServerProtocol::Tcp) => true,
            // The tunnel is the TLS that such a server ends; without it, the application's own is.
            (Protocol::Http, ServerProtocol::Terminate(tls)) => {
                hop == Hop::Tunnel && tls.inside == Inside::Http
            }
            (Protocol::Tls, ServerProtocol::Terminate(tls)) => {
                hop == Hop::Plain || tls.inside == Inside::Tcp
            }
            (Protocol::Tcp, ServerProtocol::Terminate(tls)) => {
                hop == Hop::Tunnel && tls.inside == Inside::Tcp
            }
            (Protocol::Http | Protocol::Tls | Protocol::Tcp, _) => false,
        };
        if !fits {
            return Some(format!(
                "{host} is led to the gateway's port {port} by a rule for {protocol:?}, but Gateway {} serves {} there; it is refused",
                server.gateway, server.protocol
            ));
        }
        if matches!(server.protocol, ServerProtocol::Http { https_redirect: true }) {
            return None;
        }
        let leads_on = routes.iter().any(|set| {
            let mut rules = set.gateways.iter().filter(|(name, _)| *name == server.gateway);
            let stage = port.0;
            rules.any(|(_, rules)| match server.protocol.carries() {
                Protocol::Http => rules.http.iter().any(|rule| {
                    rule.matches.is_empty()
                        || rule.matches.iter().any(|m| m.port.is_none_or(|p| p == stage))
                }),
                Protocol::Tls => rules
                    .tls
                    .iter()
                    .any(|rule| rule.matches.iter().any(|m| m.port.is_none_or(|p| p == stage))),
                Protocol::Tcp => rules.tcp.iter().any(|rule| {
                    rule.matches.is_empty()
                        || rule.matches.iter().any(|m| m.port.is_none_or(|p| p == stage))
                }),
            }) && meets(host, set)
        });
        (!leads_on).then(|| format!("{host} is led to the gateway's port {port}, but no rule with gateways [{}] leads it on from there; it is refused", server.gateway))
    }
}
