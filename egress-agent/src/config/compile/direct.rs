//! `direct: registry`: what the node lets out past every gateway.

use std::{collections::BTreeSet, iter, sync::Arc};

use egress_ebpf::reason::Reason;
use ipnet::IpNet;

use super::{
    super::{decode::SourcePosition, problem::Severity},
    Compiler,
    entry::CompiledEntry,
    lookup::Lookup,
    node::Ports,
    shared_targets::NamedRoute,
};
use crate::{
    policy::{DirectTarget, NodeAction, NodeRoute, Protocol, Service},
    types::Namespace,
};

/// A service that is not opened past the gateways.
pub(super) struct Unopened<'s> {
    service: &'s Service,
    nets: Vec<IpNet>,
    /// Who asks for what.
    asked: String,
}

impl Compiler<'_> {
    /// `direct: registry` for a service without a route. Returns it where it is not opened, for what only a
    /// gateway can do.
    pub(super) fn direct<'s>(
        &mut self,
        service: &'s Service,
        ports: &mut Ports,
        node: &mut Vec<NamedRoute>,
    ) -> Option<Unopened<'s>> {
        let entry = self.entries.named(&service.name)?;
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
            return None;
        }
        let nets = entry.dialled();
        let is_wildcard = service.host.exact().is_none() && nets.is_empty();
        if service.protocol == Protocol::Tls && is_wildcard && !self.mesh.gateways.is_empty() {
            // Only the gateway sees the server name, so only it can resolve it.
            let hop = self.default_hop(0);
            let by = || entry.meta.label.as_str().into();
            ports.entry(service.port).or_insert_with(|| (0, hop, by()));
            return None;
        }
        if let Some(asked) = self.beyond_the_node(entry, service) {
            return Some(Unopened { service, nets, asked });
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
        None
    }

    /// Takes what is not opened out of what other services open, and reports it. A node sees addresses alone.
    pub(super) fn close(
        &mut self,
        unopened: &[Unopened<'_>],
        ports: &Ports,
        node: &mut Vec<NamedRoute>,
    ) {
        for Unopened { service, nets, asked } in unopened {
            // All connections to this port go to a gateway, which does what is asked for.
            if service.protocol == Protocol::Tls && ports.contains_key(&service.port) {
                continue;
            }
            let is_same = |route: &NodeRoute| {
                let is_here =
                    route.action == NodeAction::Direct && route.port == Some(service.port);
                is_here
                    && match &route.target {
                        DirectTarget::Net(net) => {
                            nets.iter().any(|own| net.contains(own) || own.contains(net))
                        }
                        DirectTarget::Name(host) => service.host.exact() == Some(host),
                        DirectTarget::Any => false,
                    }
            };
            let mut others: BTreeSet<Arc<str>> = BTreeSet::new();
            node.retain(|(route, by)| {
                let is_same = is_same(route);
                if is_same {
                    others.insert(Arc::clone(by));
                }
                !is_same
            });
            let Some(entry) = self.entries.named(&service.name) else { continue };
            let others: Vec<&str> = others.iter().map(|by| &**by).collect();
            let others = match others.is_empty() {
                true => String::new(),
                false => format!(", nor the same addresses for {}", others.join(", ")),
            };
            let at = SourcePosition::root(entry.meta.line, "spec").field("ports");
            let message = format!(
                "{asked}. A node cannot do that, and does not open {} port {}{others}: route it through a \
                 gateway",
                service.host, service.port
            );
            entry.meta.cx(self.report).note(Severity::Refusal, &at, message);
        }
    }

    /// What destination rules ask for that only a gateway can do, for clients of any namespace that sees the
    /// service. The node's routes are the same for all workloads, so one rule is enough.
    fn beyond_the_node(&self, entry: &CompiledEntry, service: &Service) -> Option<String> {
        let (host, port) = (service.host.clone(), service.port.0);
        let traffic = service.protocol.into();
        let wanted = Lookup { host: host.clone(), port, subset: String::new(), traffic };
        let Some(provider) = self.provided(entry, host, &wanted) else {
            return Some(format!("{} does not say how port {port} is reached", entry.meta.label));
        };
        let sees = |client: &Namespace| {
            *client == provider.namespace || provider.exported.includes(Some(client))
        };
        let clients = provider.by_client.iter().filter(|(clients, _)| sees(&clients.namespace));
        let clients = clients.map(|(_, reached)| reached);
        clients.chain(iter::once(&provider.others)).find_map(|reached| {
            // What the application has encrypted goes out as it is: nothing of it is clear text.
            let is_clear = service.protocol != Protocol::Tls;
            let refusal = reached.refusals.iter().find(|one| {
                one.source.as_ref().is_none_or(sees)
                    && (is_clear || one.reason != Reason::WrongProtocol)
            });
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
