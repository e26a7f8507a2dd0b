//! `direct: registry`: what the node lets out past every gateway.

use std::{iter, sync::Arc};

use egress_ebpf::reason::Reason;

use super::{
    super::{decode::SourcePosition, problem::Severity},
    Compiler,
    entry::CompiledEntry,
    lookup::Lookup,
    node::{NamedRoute, Ports},
};
use crate::policy::{DirectTarget, NodeAction, NodeRoute, Protocol, Service};

impl Compiler<'_> {
    /// `direct: registry` for a service without a route.
    pub(super) fn direct(
        &mut self,
        service: &Service,
        ports: &mut Ports,
        node: &mut Vec<NamedRoute>,
    ) {
        let Some(entry) = self.entries.named(&service.name) else { return };
        if service.protocol == Protocol::Http {
            if self.mesh.gateways.is_empty() {
                let at = SourcePosition::root(entry.meta.line, "spec").field("ports");
                let message = format!(
                    "port {} speaks HTTP and needs a gateway to hold it to that, but mesh.yaml names none; it is refused",
                    service.port
                );
                entry.meta.cx(self.report).warn(&at, message);
            } else {
                let hop = self.default_hop(0);
                let by = || entry.meta.label.as_str().into();
                ports.entry(service.port).or_insert_with(|| (0, hop, by()));
            }
            return;
        }
        if let Some(asked) = self.beyond_the_node(entry, service) {
            let at = SourcePosition::root(entry.meta.line, "spec").field("ports");
            let message = format!(
                "{asked}: on a direct connection to {} port {} nobody does that, and it is refused. Route it \
                 through a gateway",
                service.host, service.port
            );
            entry.meta.cx(self.report).note(Severity::Refusal, &at, message);
            return;
        }
        let nets = entry.dialled();
        let is_wildcard = service.host.exact().is_none() && nets.is_empty();
        if service.protocol == Protocol::Tls && is_wildcard && !self.mesh.gateways.is_empty() {
            // Only who sees the server name can resolve it.
            let hop = self.default_hop(0);
            let by = || entry.meta.label.as_str().into();
            ports.entry(service.port).or_insert_with(|| (0, hop, by()));
            return;
        }
        let mut targets: Vec<_> = nets.into_iter().map(DirectTarget::Net).collect();
        if targets.is_empty() {
            match service.host.exact() {
                Some(host) => targets.push(DirectTarget::Name(host.clone())),
                None => {
                    let at = SourcePosition::root(entry.meta.line, "spec").field("hosts");
                    let message = format!(
                        "{} can't be reached directly on port {}: the node can't resolve a wildcard. Route it through a gateway",
                        service.host, service.port
                    );
                    entry.meta.cx(self.report).warn(&at, message);
                }
            }
        }
        let by: Arc<str> = entry.meta.label.as_str().into();
        let direct = |target| {
            let action = NodeAction::Direct;
            (NodeRoute { port: Some(service.port), target, action }, Arc::clone(&by))
        };
        node.extend(targets.into_iter().map(direct));
    }

    /// What destination rules ask for, for whichever clients, that only a gateway can do. The node's routes are
    /// the same for all workloads, so one rule is enough.
    fn beyond_the_node(&self, entry: &CompiledEntry, service: &Service) -> Option<String> {
        let (host, port) = (service.host.clone(), service.port.0);
        let traffic = service.protocol.into();
        let wanted = Lookup { host: host.clone(), port, subset: String::new(), traffic };
        let provider = self.provided(entry, host, &wanted)?;
        let clients = provider.by_client.iter().map(|(_, reached)| reached);
        clients.chain(iter::once(&provider.others)).find_map(|reached| {
            // What the application has encrypted goes out as it is: nothing of it is clear text.
            let is_clear = service.protocol != Protocol::Tls;
            let mut refusals = reached.refusals.iter();
            let refusal = refusals.find(|one| is_clear || one.reason != Reason::WrongProtocol);
            if let Some(refusal) = refusal {
                return Some(refusal.detail.to_string());
            }
            let cluster = &reached.cluster;
            if cluster.rate.is_some() {
                return Some(format!("{} asks for a rate limit", entry.meta.label));
            }
            let pool = &cluster.pool;
            let asked = [
                (is_clear && cluster.tls.is_some(), "TLS"),
                (cluster.connect.is_some(), "a proxy"),
                (cluster.proxy_protocol.is_some(), "the PROXY protocol"),
                (pool.max_connections != u32::MAX, "a limit of connections"),
                (pool.max_connection_duration.is_some(), "a limit of their duration"),
            ];
            let (_, what) = asked.into_iter().find(|(is_asked, _)| *is_asked)?;
            let rules: Vec<&str> = reached.rules.iter().map(|rule| &**rule).collect();
            Some(format!("{} asks for {what}", rules.join(", ")))
        })
    }
}
