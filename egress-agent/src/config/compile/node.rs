//! What the node lets out.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    super::{
        decode::SourcePosition,
        problem::Severity,
        resource::{Meta, Resource},
        virtual_service::VirtualService,
    },
    Compiler,
    entry::CompiledEntry,
    reachability,
    registry::Registry,
    shared_targets::{self, NamedRoute, RawRoute, Redirection, SharedPorts},
    whole_ports::whole_ports,
};
use crate::{
    policy::{
        Direct, DirectTarget, EgressPolicy, Exported, Hop, HostIndex, HttpOutcome, NodeAction,
        NodePolicy, NodeRoute, OutboundMode, Protocol, RouteSet, ServerProtocol, Service, Target,
        WeightedDestination,
    },
    types::{GatewayPort, OriginalPort, Port},
};

/// What of a port is decided so far: the gateway group, how it is reached, and who sent it there.
pub(super) type Ports = BTreeMap<OriginalPort, (usize, Hop, Arc<str>)>;

/// What raw TCP has at gateways so far, and the resource that it is of.
#[derive(Default)]
struct Taken {
    /// Ports of gateways' services.
    ports: BTreeMap<(usize, GatewayPort), Arc<str>>,
    /// Gateway groups of what is dialled.
    services: HashMap<(OriginalPort, DirectTarget), (usize, Arc<str>)>,
}

impl Compiler<'_> {
    /// Ports on which names decide, by Istio's resources.
    pub(super) fn ports(
        &mut self,
        registry: &Registry<'_>,
        routes: &[Arc<RouteSet>],
        resources: &[Resource<VirtualService>],
    ) -> Ports {
        let mut ports = Ports::new();
        // Routes of the Gateway API come last: they hold nothing else back.
        for is_translated in [false, true] {
            let own = routes.iter().zip(resources);
            for (set, resource) in own.filter(|(_, r)| r.spec.is_translated == is_translated) {
                self.named_ports(set, resource, registry, &mut ports);
            }
        }
        self.terminating_ports(&mut ports);
        ports
    }

    /// The node's routes, and the ports that raw TCP services share.
    pub(super) fn node(
        &mut self,
        registry: &Registry<'_>,
        routes: &[Arc<RouteSet>],
        resources: &[Resource<VirtualService>],
        egress: &[Arc<EgressPolicy>],
        mut ports: Ports,
    ) -> (NodePolicy, SharedPorts) {
        let mut node: Vec<NamedRoute> = Vec::new();
        self.egress_ports(egress, &mut ports);
        if self.mesh.direct == Direct::Registry {
            let routed = routed(routes);
            let is_routed = |service: &Service| {
                [None, Some(service.port.0)].into_iter().any(|port| {
                    let hosts = routed.get(&(service.protocol, port));
                    hosts.is_some_and(|hosts| hosts.covers(&service.host))
                })
            };
            let unrouted = registry.services.iter().filter(|service| !is_routed(service));
            let unopened: Vec<_> = unrouted
                .filter_map(|service| self.direct(service, &mut ports, &mut node))
                .collect();
            self.close(&unopened, &ports, &mut node);
        }
        if self.mesh.outbound == OutboundMode::AllowAny && !self.mesh.gateways.is_empty() {
            let action = NodeAction::Redirect { group: 0, port: None, hop: self.default_hop(0) };
            let by = "mesh.yaml".into();
            node.push((NodeRoute { port: None, target: DirectTarget::Any, action }, by));
        }
        let by_name = ports.iter().map(|(port, (group, hop, by))| {
            let action = NodeAction::Redirect { group: *group, port: None, hop: *hop };
            let route = NodeRoute { port: Some(*port), target: DirectTarget::Any, action };
            (route, Arc::clone(by))
        });
        node.splice(0..0, by_name);
        let (mut taken, mut raw) = (Taken::default(), Vec::new());
        for (set, resource) in routes.iter().zip(resources) {
            self.raw_tcp(set, &resource.meta, registry, &ports, &mut taken, &mut raw);
        }
        self.egress_raw(egress, &mut raw);
        let (mut taken, mut shared) = (self.taken_ports(&node, &raw), SharedPorts::new());
        node.extend(shared_targets::routes(&raw, &mut taken, &mut shared));
        if self.mesh.outbound == OutboundMode::RegistryOnly {
            whole_ports(&mut node, &mut taken, &mut shared);
        }
        let mut seen: HashSet<NodeRoute> = HashSet::with_capacity(node.len());
        node.retain(|(route, _)| seen.insert(route.clone()));
        let (routes, origins) = node.into_iter().unzip();
        (NodePolicy { routes, origins }, shared)
    }

    /// Ports on which names decide: HTTP and TLS.
    fn named_ports(
        &mut self,
        set: &RouteSet,
        Resource { meta, spec: VirtualService { is_translated, .. } }: &Resource<VirtualService>,
        registry: &Registry<'_>,
        ports: &mut Ports,
    ) {
        let declared = |protocol: Protocol| registry.declared(protocol, set);
        let mut wanted: Vec<(Port, Option<(usize, Hop)>)> = Vec::new();
        for rule in &set.mesh.http {
            let group = match &rule.outcome {
                HttpOutcome::Route(targets) => group_of(targets, self.mesh.direct),
                HttpOutcome::Redirect(_) | HttpOutcome::Respond(..) => Some(None),
            };
            let Some(group) = group else { continue };
            let named = rule.matches.iter().map(|m| m.port);
            for port in expand(named, rule.matches.is_empty(), || declared(Protocol::Http)) {
                wanted.push((port, group));
            }
        }
        for rule in &set.mesh.tls {
            let Some(group) = group_of(&rule.targets, self.mesh.direct) else { continue };
            let named = rule.matches.iter().map(|m| m.port);
            for port in expand(named, false, || declared(Protocol::Tls)) {
                wanted.push((port, group));
            }
        }
        for (port, group) in wanted {
            let port = OriginalPort(port);
            let known = ports.get(&port).map(|(group, _, by)| (*group, Arc::clone(by)));
            match (known, group) {
                (Some((other, by)), Some((group, _))) if other != group => {
                    let name =
                        |group: usize| self.mesh.gateways.get(group).map(|g| g.service.to_string());
                    let message = format!(
                        "port {port} is routed to {} here, and to {} by {by}; the \
                         node sees no names, so all of one port goes to one gateway",
                        name(group).unwrap_or_default(),
                        name(other).unwrap_or_default(),
                    );
                    let at = SourcePosition::root(meta.line, "spec");
                    let mut cx = meta.cx(self.report);
                    // A route of the Gateway API holds nothing else back. Who asks for its hosts is refused by
                    // the other gateway.
                    if *is_translated {
                        cx.note(Severity::Refusal, &at, message);
                    } else {
                        cx.error(&at, message);
                    }
                }
                // The node sees no names, so all of one port goes the stricter way.
                (Some(_), Some((_, hop))) => {
                    if let Some((_, strictest, _)) = ports.get_mut(&port) {
                        *strictest = hop.max(*strictest);
                    }
                }
                (Some(_), None) => {}
                (None, group) if !self.mesh.gateways.is_empty() => {
                    let (group, hop) = group.unwrap_or_else(|| (0, self.default_hop(0)));
                    ports.insert(port, (group, hop, meta.label.as_str().into()));
                }
                (None, _) => {}
            }
        }
    }

    /// Ports on which a gateway terminates TLS: applications may dial them to speak to it
    /// themselves.
    fn terminating_ports(&mut self, ports: &mut Ports) {
        for server in &self.servers {
            if !matches!(server.protocol, ServerProtocol::Terminate(_))
                || server.selector.is_empty()
            {
                continue;
            }
            let selected = self.groups.selected(&server.selector, &self.mesh);
            let Some(group) = selected.first().copied() else { continue };
            let port = OriginalPort(server.port.0);
            // Whoever speaks TLS to the gateway itself doesn't need the node for it.
            let by = || Arc::clone(&server.place.resource);
            ports.entry(port).or_insert_with(|| (group, Hop::Plain, by()));
        }
    }

    /// The hop of what no route leads to a port of the group's service.
    pub(super) fn default_hop(&self, group: usize) -> Hop {
        self.mesh.gateways.get(group).map_or(Hop::Plain, |group| group.hop)
    }

    /// Raw TCP: by address, to a port at the gateway that is the service's own.
    fn raw_tcp(
        &mut self,
        set: &RouteSet,
        meta: &Meta,
        registry: &Registry<'_>,
        ports: &Ports,
        taken: &mut Taken,
        raw: &mut Vec<RawRoute>,
    ) {
        for rule in &set.mesh.tcp {
            let at = SourcePosition::root(meta.line, "spec").field("tcp");
            let Some(Target::Gateway { group, port: gateway_port, hop, owner: _ }) =
                rule.targets.first().map(|weighted| &weighted.target)
            else {
                continue;
            };
            // Through the tunnel the gateway learns what was dialled: its port is of no account.
            let plain = *hop == Hop::Plain;
            if let Some((.., by)) = ports.get(&OriginalPort(gateway_port.0)).filter(|_| plain) {
                let message = format!(
                    "the gateway's port {gateway_port} is used for HTTP or TLS (by {by}), so raw TCP can't be told apart there; choose another port for it"
                );
                meta.cx(self.report).error(&at, message);
                continue;
            }
            let first = taken
                .ports
                .entry((*group, *gateway_port))
                .or_insert_with(|| Arc::clone(&set.label));
            if plain && *first != set.label {
                let message = format!(
                    "the gateway's port {gateway_port} belongs to {first} already; raw TCP is told apart by the gateway's port alone, so choose another"
                );
                meta.cx(self.report).error(&at, message);
                continue;
            }
            let to = Redirection { group: *group, at: *gateway_port, hop: *hop };
            let mut found = false;
            for service in registry.meeting(set) {
                let wanted: Vec<_> = rule
                    .matches
                    .iter()
                    .filter(|m| m.port.is_none_or(|port| port == service.port.0))
                    .collect();
                if wanted.is_empty() && !rule.matches.is_empty() {
                    continue;
                }
                if service.protocol != Protocol::Tcp {
                    let message = format!(
                        "a tcp rule is for ports declared TCP; {} port {} isn't: use http or tls",
                        service.host, service.port
                    );
                    meta.cx(self.report).warn(&at, message);
                    continue;
                }
                found = true;
                let subnets: Vec<_> =
                    wanted.iter().flat_map(|m| m.subnets.iter().copied()).collect();
                let entry = self.entries.named(&service.name);
                let nets = if subnets.is_empty() {
                    entry.map(CompiledEntry::dialled).unwrap_or_default()
                } else {
                    subnets
                };
                let mut targets: Vec<_> = nets.into_iter().map(DirectTarget::Net).collect();
                if targets.is_empty() {
                    targets.extend(service.host.exact().cloned().map(DirectTarget::Name));
                }
                let is_for_all =
                    [&set.exported, &service.exported].iter().all(|to| **to == Exported::All)
                        && (wanted.is_empty() || wanted.iter().any(|m| m.source.is_any()));
                let by: Arc<str> = meta.label.as_str().into();
                for target in targets {
                    let led = || (to.group, Arc::clone(&by));
                    let first = taken.services.entry((service.port, target.clone()));
                    let (other, other_by) = first.or_insert_with(led);
                    if *other != to.group {
                        let name = |group: usize| {
                            self.mesh.gateways.get(group).map(|g| g.service.to_string())
                        };
                        let message = format!(
                            "{} port {} is routed to {} here, and to {} by {other_by}; the node sees no workloads, \
                             so all of it goes to one gateway, and this rule has no effect",
                            service.host,
                            service.port,
                            name(to.group).unwrap_or_default(),
                            name(*other).unwrap_or_default(),
                        );
                        meta.cx(self.report).note(Severity::Refusal, &at, message);
                        continue;
                    }
                    let by = Arc::clone(&by);
                    raw.push(RawRoute { port: service.port, target, to, is_for_all, by });
                }
            }
            if !found {
                let message =
                    "no ServiceEntry declares a port of protocol TCP that this rule is for";
                meta.cx(self.report).warn(&at, message).code = Some("IST0130");
            }
        }
    }
}

/// The hosts that the mesh stage has rules for, by protocol and port; `None` is every port.
fn routed(routes: &[Arc<RouteSet>]) -> HashMap<(Protocol, Option<Port>), HostIndex<()>> {
    let mut routed: HashMap<_, HostIndex<()>> = HashMap::new();
    for set in routes {
        for key in reachability::ports(&set.mesh) {
            let hosts = routed.entry(key).or_default();
            set.rule_hosts().iter().for_each(|host| hosts.add(host, ()));
        }
    }
    routed
}

/// The ports that matches name; one that names none means those that are declared.
fn expand(
    named: impl Iterator<Item = Option<Port>>,
    everything: bool,
    declared: impl Fn() -> Vec<Port>,
) -> Vec<Port> {
    let mut ports = if everything { declared() } else { Vec::new() };
    for port in named {
        match port {
            Some(port) => ports.push(port),
            None => ports.extend(declared()),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The gateway group of a rule, and the strictest hop of its destinations: `None` without a gateway,
/// `Some(None)` where any can say that it is refused, or serves it as a sidecar would.
fn group_of(targets: &[WeightedDestination], direct: Direct) -> Option<Option<(usize, Hop)>> {
    let mut found = None;
    let hops = targets.iter().filter_map(|weighted| match weighted.target {
        Target::Gateway { hop, .. } => Some(hop),
        Target::Refused { .. } | Target::Cluster { .. } => None,
    });
    let strictest = hops.max().unwrap_or_default();
    for weighted in targets {
        match weighted.target {
            Target::Gateway { group, .. } => return Some(Some((group, strictest))),
            Target::Refused { .. } => found = Some(None),
            Target::Cluster { .. } if direct == Direct::Registry => found = Some(None),
            Target::Cluster { .. } => {}
        }
    }
    found
}
