//! The checks that need all routes at once: hosts in conflict, ways that end at a gateway.

use std::{
    collections::{HashMap, HashSet, hash_map},
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
    overlaps::Declared,
};
use crate::{
    policy::{
        Hop, HostIndex, HostPattern, HttpOutcome, InnerProtocol, Owner, Protocol, RouteSet,
        ServerProtocol, StageRules, Target,
    },
    types::{GatewayPort, Port},
};

/// The gateway to which a mesh-stage rule routes.
#[derive(Clone, Copy, Debug)]
struct RouteHop<'r> {
    group: usize,
    owner: &'r Owner,
    port: GatewayPort,
    hop: Hop,
    protocol: Protocol,
}

/// By gateway group, owner and port there: the servers that its processes have.
type Served = HashMap<(usize, Owner, GatewayPort), HostIndex<usize>>;

/// The hosts that the rules of one protocol at a `Gateway` forward.
#[derive(Debug, Default)]
struct ForwardedHosts {
    /// By rules for every port.
    anywhere: HostIndex<()>,
    /// By rules for one port.
    on_port: HashMap<Port, HostIndex<()>>,
}

impl ForwardedHosts {
    fn add(&mut self, port: Option<Port>, hosts: &[HostPattern]) {
        let index = match port {
            Some(port) => self.on_port.entry(port).or_default(),
            None => &mut self.anywhere,
        };
        hosts.iter().for_each(|host| index.add(host, ()));
    }

    fn forwards(&self, port: Port, host: &HostPattern) -> bool {
        host.rule_hosts().iter().any(|host| {
            self.anywhere.meets(host)
                || self.on_port.get(&port).is_some_and(|hosts| hosts.meets(host))
        })
    }
}

/// Where the next hops of all routes are looked up.
struct ReachabilityIndex<'r> {
    served: Served,
    onward: HashMap<(&'r str, Protocol), ForwardedHosts>,
}

impl<'r> ReachabilityIndex<'r> {
    fn of(routes: &'r [Arc<RouteSet>]) -> Self {
        let mut onward: HashMap<_, ForwardedHosts> = HashMap::new();
        for set in routes {
            for (gateway, rules) in &set.gateways {
                for (protocol, port) in ports(rules) {
                    onward.entry((&**gateway, protocol)).or_default().add(port, &set.rule_hosts());
                }
            }
        }
        Self { served: Served::new(), onward }
    }
}

/// The ports that the rules of a stage are for; `None` is every port.
pub(super) fn ports(rules: &StageRules) -> HashSet<(Protocol, Option<Port>)> {
    let mut all = HashSet::new();
    for rule in &rules.http {
        if rule.matches.is_empty() {
            all.insert((Protocol::Http, None));
        }
        all.extend(rule.matches.iter().map(|m| (Protocol::Http, m.port)));
    }
    for rule in &rules.tls {
        all.extend(rule.matches.iter().map(|m| (Protocol::Tls, m.port)));
    }
    for rule in &rules.tcp {
        if rule.matches.is_empty() {
            all.insert((Protocol::Tcp, None));
        }
        all.extend(rule.matches.iter().map(|m| (Protocol::Tcp, m.port)));
    }
    all
}

impl Compiler<'_> {
    /// What only shows with all routes at hand: hosts in conflict, ways that end at a gateway.
    pub(super) fn check_routes(
        &mut self,
        resources: &[Resource<VirtualService>],
        routes: &[Arc<RouteSet>],
    ) {
        let mut at_mesh: HashMap<(&HostPattern, &str), Declared> = HashMap::new();
        let mut stops = ReachabilityIndex::of(routes);
        for (number, (set, Resource { meta, spec })) in routes.iter().zip(resources).enumerate() {
            let hosts_at = SourcePosition::root(spec.at.line, "spec").field("hosts");
            let mesh = &set.mesh;
            let kinds = [
                ("http", mesh.http.is_empty()),
                ("tls", mesh.tls.is_empty()),
                ("tcp", mesh.tcp.is_empty()),
            ];
            for host in &set.hosts {
                let mut conflict = None;
                for (kind, _) in kinds.into_iter().filter(|(_, empty)| !empty) {
                    let earlier = at_mesh.entry((host, kind)).or_default();
                    let first = earlier.add(number, (&set.namespace, &set.exported));
                    conflict = conflict.or_else(|| routes.get(first?));
                }
                let Some(other) = conflict else { continue };
                let mut message = format!(
                    "{} routes {host} at the mesh stage too; its rules are used there",
                    other.label
                );
                if other.namespace != set.namespace {
                    message += ", except for workloads of this one's own namespace";
                }
                meta.cx(self.report).note(Severity::Refusal, &hosts_at, message).code =
                    Some("IST0109");
            }
            for (gateway, _) in &set.gateways {
                let Some(own) = self.by_gateway.get(gateway) else { continue };
                for host in set
                    .hosts
                    .iter()
                    .filter(|host| !host.rule_hosts().iter().any(|host| own.hosts.meets(host)))
                {
                    let message = format!("Gateway {gateway} doesn't serve {host}");
                    meta.cx(self.report).warn(&hosts_at, message).code = Some("IST0132");
                }
            }
            if !self.broken_gateways {
                self.check_ways(set, meta, spec, &mut stops);
            }
        }
    }

    /// Every mesh-stage rule that leads to a gateway needs a server there and a rule that leads on.
    fn check_ways(
        &mut self,
        set: &RouteSet,
        meta: &Meta,
        spec: &VirtualService,
        stops: &mut ReachabilityIndex<'_>,
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
                let Target::Gateway { group, port, hop, owner } = &weighted.target else {
                    continue;
                };
                let at = spec.at.field(field);
                for host in &set.hosts {
                    let (group, port, hop) = (*group, *port, *hop);
                    let way = RouteHop { group, owner, port, hop, protocol };
                    if let Some(message) = self.missing_way(host, way, stops) {
                        meta.cx(self.report).note(Severity::Refusal, &at, message).code =
                            Some("IST0132");
                    }
                }
            }
        }
    }

    /// The servers of an owner that the processes of a gateway have on a port.
    fn served(&mut self, group: usize, owner: &Owner, port: GatewayPort) -> HostIndex<usize> {
        let mut hosts = HostIndex::default();
        for index in self.by_port.get(&port).into_iter().flatten() {
            let Some(server) = self.servers.get(*index) else { continue };
            let selected = self.groups.selected(&server.selector, &self.mesh);
            let is_here = !server.selector.is_empty() && selected.binary_search(&group).is_ok();
            if is_here && server.owner == *owner {
                server.hosts.iter().for_each(|(_, host)| hosts.add(host, *index));
            }
        }
        hosts
    }

    fn missing_way(
        &mut self,
        host: &HostPattern,
        way: RouteHop<'_>,
        stops: &mut ReachabilityIndex<'_>,
    ) -> Option<String> {
        let RouteHop { group, owner, port, hop, protocol } = way;
        self.mesh.gateways.get(group)?;
        let served = match stops.served.entry((group, owner.clone(), port)) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(place) => place.insert(self.served(group, owner, port)),
        };
        let first = host.rule_hosts().iter().filter_map(|host| served.first_meeting(host)).min();
        let server = first.and_then(|index| self.servers.get(index));
        let Some(server) = server else {
            return Some(format!(
                "{host} is routed to the gateway's port {port}, where no Gateway serves it; it is refused"
            ));
        };
        let fits = match (protocol, &server.protocol) {
            (Protocol::Http, ServerProtocol::Http { .. })
            | (Protocol::Tls, ServerProtocol::Passthrough(_) | ServerProtocol::Tcp)
            | (Protocol::Tcp, ServerProtocol::Tcp) => true,
            // The tunnel is the TLS that such a server ends; without it, the application's own is.
            (Protocol::Http, ServerProtocol::Terminate(tls)) => {
                hop == Hop::Tunnel && tls.inside == InnerProtocol::Http
            }
            (Protocol::Tls, ServerProtocol::Terminate(tls)) => {
                hop == Hop::Plain || tls.inside == InnerProtocol::Tcp
            }
            (Protocol::Tcp, ServerProtocol::Terminate(tls)) => {
                hop == Hop::Tunnel && tls.inside == InnerProtocol::Tcp
            }
            (Protocol::Http | Protocol::Tls | Protocol::Tcp, _) => false,
        };
        if !fits {
            return Some(format!(
                "{host} is routed to the gateway's port {port} by a rule for {protocol:?}, but Gateway {} serves {} there; it is refused",
                server.gateway, server.protocol
            ));
        }
        if matches!(server.protocol, ServerProtocol::Http { https_redirect: true }) {
            return None;
        }
        let onward = stops.onward.get(&(&*server.gateway, server.protocol.carries()));
        let leads_on = onward.is_some_and(|onward| onward.forwards(port.0, host));
        (!leads_on).then(|| format!("{host} is routed to the gateway's port {port}, but no rule with gateways [{}] routes it on from there; it is refused", server.gateway))
    }
}
