//! The tables that decisions look things up in, made once a snapshot.

use std::{
    cell::OnceCell,
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::stages::Stages;
use crate::{
    policy::{
        Discovery, Exported, Hop, HostIndex, HostPattern, HostTable, HttpRule, InnerProtocol,
        Owner, Protocol, RouteSet, Rules, Scoped, Server, ServerProtocol, Service, StageRules,
        Target, TcpRule, TlsRule, WeightedDestination,
    },
    types::{ConfigMap, GatewayPort, Host, Namespace, OriginalPort, Port},
};

/// The rules of a route set that are for a port.
#[derive(Debug)]
pub(super) struct Bound<T> {
    pub(super) set: Arc<RouteSet>,
    pub(super) rules: Vec<Arc<T>>,
}

impl<T> Scoped for Bound<T> {
    fn namespace(&self) -> &Namespace {
        &self.set.namespace
    }
    fn exported(&self) -> &Exported {
        &self.set.exported
    }
}

/// The mesh stage on one original port.
#[derive(Debug, Default)]
pub(super) struct MeshPort {
    pub(super) services: HostTable<Vec<Arc<Service>>>,
    pub(super) http: HostTable<Vec<Bound<HttpRule>>>,
    pub(super) tls: HostTable<Vec<Bound<TlsRule>>>,
    /// Whether the node sends connections here that deserve an answer in their own protocol.
    pub(super) speaks: bool,
}

/// A mesh-stage rule that leads raw TCP to this process.
#[derive(Debug)]
pub(super) struct TcpEntry {
    pub(super) routes: Arc<RouteSet>,
    pub(super) rule: Arc<TcpRule>,
    /// What it is for: who sees none of these has no business here.
    pub(super) services: Vec<Arc<Service>>,
    /// How it has to come here.
    pub(super) hop: Hop,
    /// Whose servers are meant.
    pub(super) owner: Owner,
}

/// A raw TCP service that a mesh-stage rule leads to this process, by what applications dial.
#[derive(Debug)]
pub(super) struct TunnelTcp {
    pub(super) routes: Arc<RouteSet>,
    pub(super) rule: Arc<TcpRule>,
    pub(super) service: Arc<Service>,
    /// Its addresses; empty where the node finds them by name.
    pub(super) nets: Vec<IpNet>,
    /// Its name, where it has one.
    pub(super) host: Option<Host>,
    /// The group that the rule leads to.
    pub(super) group: usize,
    /// The port at the gateway.
    pub(super) stage: GatewayPort,
    /// Whose servers are meant there.
    pub(super) owner: Owner,
    /// How it has to come here.
    pub(super) hop: Hop,
}

/// The mesh stage by original port.
pub(super) fn mesh(rules: &Rules) -> ConfigMap<OriginalPort, MeshPort> {
    let mut mesh: ConfigMap<_, MeshPort> = ConfigMap::default();
    for service in &rules.services {
        let port = mesh.entry(service.port).or_default();
        port.services.entry(&service.host).push(Arc::clone(service));
        port.speaks |= service.protocol != Protocol::Tcp;
    }
    for port in rules.routes.iter().flat_map(|set| named_ports(set)) {
        mesh.entry(OriginalPort(port)).or_default().speaks = true;
    }
    let every: Vec<OriginalPort> = mesh.keys().copied().collect();
    for set in &rules.routes {
        // Rules that name their ports are nothing to the tables of all others.
        let named: HashSet<OriginalPort> = named_ports(set).map(OriginalPort).collect();
        let named: Vec<OriginalPort> = named.into_iter().collect();
        for port in if is_for_every_port(set) { &every } else { &named } {
            let Some(table) = mesh.get_mut(port) else { continue };
            let http = relevant(&set.mesh.http, |rule| http_on(rule, port.0));
            let tls = relevant(&set.mesh.tls, |rule| tls_on(rule, port.0));
            for host in &set.hosts {
                if !http.is_empty() {
                    let (set, rules) = (Arc::clone(set), http.clone());
                    table.http.entry(host).push(Bound { set, rules });
                }
                if !tls.is_empty() {
                    let (set, rules) = (Arc::clone(set), tls.clone());
                    table.tls.entry(host).push(Bound { set, rules });
                }
            }
        }
    }
    mesh
}

/// Whether a rule of the mesh stage for HTTP or TLS is for whatever port.
fn is_for_every_port(set: &RouteSet) -> bool {
    let http = |rule: &Arc<HttpRule>| {
        rule.matches.is_empty() || rule.matches.iter().any(|m| m.port.is_none())
    };
    let tls = |rule: &Arc<TlsRule>| rule.matches.iter().any(|m| m.port.is_none());
    set.mesh.http.iter().any(http) || set.mesh.tls.iter().any(tls)
}

/// Ports that the mesh stage's rules for HTTP and TLS name, declared or not.
fn named_ports(set: &RouteSet) -> impl Iterator<Item = Port> {
    let http = set.mesh.http.iter().flat_map(|rule| rule.matches.iter().filter_map(|m| m.port));
    let tls = set.mesh.tls.iter().flat_map(|rule| rule.matches.iter().filter_map(|m| m.port));
    http.chain(tls)
}

fn relevant<T>(rules: &[Arc<T>], on_port: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
    rules.iter().filter(|rule| on_port(rule)).cloned().collect()
}

fn http_on(rule: &HttpRule, port: Port) -> bool {
    rule.matches.is_empty()
        || rule.matches.iter().any(|wanted| wanted.port.is_none_or(|wanted| wanted == port))
}

fn tls_on(rule: &TlsRule, port: Port) -> bool {
    rule.matches.iter().any(|wanted| wanted.port.is_none_or(|wanted| wanted == port))
}

/// The gateway's stage: for each server and each route set bound to its gateway, the hosts
/// that both name.
pub(super) fn stages(servers: &[&Arc<Server>], routes: &[Arc<RouteSet>]) -> Stages {
    let mut stages = Stages::default();
    for server in servers {
        let stage = stages.entry(&server.owner, server.port);
        for (_, host) in &server.hosts {
            // The first gateway wins; `check` tells of the conflict.
            stage.served.entry(host).get_or_insert_with(|| Arc::clone(server));
            // A listener has its host for itself: rules of one that names it less exactly are not for it.
            if server.gateway.matches('/').count() > 1 {
                stage.http.entry(host);
                stage.tls.entry(host);
                stage.tcp.entry(host);
            }
        }
        if let ServerProtocol::Terminate(tls) = &server.protocol {
            stage.terminating.push(Arc::clone(tls));
        }
    }
    let mut seen = HashSet::new();
    // Where two meet at the same host, the one that names it more exactly comes first.
    let mut bound = bindings(servers, routes);
    bound.sort_by_key(|binding| Reverse(binding.precision));
    for Binding { server, set, rules, host, .. } in bound {
        if !seen.insert((&server.owner, server.port, host.clone(), Arc::as_ptr(set))) {
            continue;
        }
        let stage = stages.entry(&server.owner, server.port);
        let port = server.port.0;
        // A server for HTTP has no use for other rules, nor they for it.
        match &server.protocol {
            ServerProtocol::Http { .. } => {
                let rules = relevant(&rules.http, |rule| http_on(rule, port));
                stage.http.entry(&host).extend(rules);
            }
            ServerProtocol::Passthrough(_) => {
                let rules = relevant(&rules.tls, |rule| tls_on(rule, port));
                stage.tls.entry(&host).extend(rules);
            }
            ServerProtocol::Tcp => {
                let rules = relevant(&rules.tcp, |rule| rule.is_on(port));
                stage.any_tcp.extend(rules.iter().cloned());
                stage.tcp.entry(&host).extend(rules);
            }
            ServerProtocol::Terminate(tls) => match tls.inside {
                InnerProtocol::Http => {
                    let rules = relevant(&rules.http, |rule| http_on(rule, port));
                    stage.http.entry(&host).extend(rules);
                }
                InnerProtocol::Tcp => {
                    let rules = relevant(&rules.tcp, |rule| rule.is_on(port));
                    stage.tcp.entry(&host).extend(rules);
                }
            },
        }
    }
    stages
}

struct Binding<'a> {
    server: &'a Server,
    set: &'a Arc<RouteSet>,
    rules: &'a StageRules,
    host: HostPattern,
    precision: usize,
}

/// In the order of servers, route sets, the servers' hosts, and the route sets'.
fn bindings<'a>(servers: &[&'a Arc<Server>], routes: &'a [Arc<RouteSet>]) -> Vec<Binding<'a>> {
    let mut by_gateway: HashMap<&str, GatewayRouteSets<'_>> = HashMap::new();
    for set in routes {
        for (gateway, rules) in &set.gateways {
            let own = by_gateway.entry(gateway).or_default();
            for (number, host) in set.hosts.iter().enumerate() {
                let item = (own.sets.len(), number);
                host.rule_hosts().iter().for_each(|host| own.hosts.add(host, item));
            }
            own.sets.push((set, rules));
        }
    }
    let mut all = Vec::new();
    for server in servers {
        let Some(own) = by_gateway.get(&*server.gateway) else { continue };
        let mut met: Vec<(usize, usize, usize)> = Vec::new();
        for (number, (_, served)) in server.hosts.iter().enumerate() {
            let wanted = own.hosts.meeting(served).into_iter();
            met.extend(wanted.map(|(set, wanted)| (set, number, wanted)));
        }
        met.sort_unstable();
        all.extend(met.into_iter().filter_map(|(set, served, wanted)| {
            let (set, rules) = *own.sets.get(set)?;
            let (namespace, served) = server.hosts.get(served)?;
            let wanted = set.hosts.get(wanted)?;
            if namespace.as_ref().is_some_and(|namespace| *namespace != set.namespace) {
                return None;
            }
            let itself = || wanted.rules(served).then(|| served.clone());
            let host = served.intersect(wanted).or_else(itself)?;
            Some(Binding { server, set, rules, host, precision: precision(wanted) })
        }));
    }
    all
}

/// The route sets that are bound to a gateway, with their rules there.
#[derive(Default)]
struct GatewayRouteSets<'a> {
    sets: Vec<(&'a Arc<RouteSet>, &'a StageRules)>,
    /// A route set, and which of its hosts it is.
    hosts: HostIndex<(usize, usize)>,
}

/// Exact names over wildcards, longer wildcards over shorter ones.
fn precision(pattern: &HostPattern) -> usize {
    match pattern {
        HostPattern::Exact(_) => usize::MAX,
        HostPattern::Below(suffix) => suffix.len() + 1,
        HostPattern::Ending(suffix) => suffix.len(),
        HostPattern::Any => 0,
    }
}

/// Raw TCP services by the port at the gateway.
pub(super) fn tcp(
    rules: &Rules,
    services: &ServiceIndex,
    member: &[bool],
) -> ConfigMap<OriginalPort, Vec<TcpEntry>> {
    let mut tcp: ConfigMap<_, Vec<TcpEntry>> = ConfigMap::default();
    for set in &rules.routes {
        for rule in &set.mesh.tcp {
            let targets = gateway_targets(&rule.targets)
                .filter(|(group, ..)| member.get(*group).is_some_and(|member| *member));
            let mut ports: BTreeMap<(OriginalPort, Owner), Hop> = BTreeMap::new();
            for (_, port, hop, owner) in targets {
                let key = (OriginalPort(port.0), owner.clone());
                let strictest = ports.entry(key).or_default();
                *strictest = hop.max(*strictest);
            }
            for ((port, owner), hop) in ports {
                let services = services.raw(set, rule, rules).cloned().collect();
                let (routes, rule) = (Arc::clone(set), Arc::clone(rule));
                tcp.entry(port).or_default().push(TcpEntry { routes, rule, services, hop, owner });
            }
        }
    }
    tcp
}

/// Raw TCP services by the port that applications dial.
pub(super) fn tunnel_tcp(
    rules: &Rules,
    services: &ServiceIndex,
    member: &[bool],
) -> ConfigMap<OriginalPort, Vec<TunnelTcp>> {
    let mut tcp: ConfigMap<_, Vec<TunnelTcp>> = ConfigMap::default();
    let led = rules.routes.iter().flat_map(|set| set.mesh.tcp.iter().map(move |rule| (set, rule)));
    for (set, rule) in led {
        // The node goes by the first destination too: it can't tell which one will be chosen.
        let first = rule.targets.first().into_iter();
        let first = first.flat_map(|first| gateway_targets(std::slice::from_ref(first)));
        for (group, stage, hop, owner) in first {
            if !member.get(group).is_some_and(|member| *member) {
                continue;
            }
            for service in services.raw(set, rule, rules) {
                let matches = rule.matches.iter();
                let here = matches.filter(|m| m.port.is_none_or(|port| port == service.port.0));
                let mut nets: Vec<_> = here.flat_map(|m| m.subnets.iter().copied()).collect();
                if nets.is_empty() {
                    nets = addresses(service);
                }
                tcp.entry(service.port).or_default().push(TunnelTcp {
                    routes: Arc::clone(set),
                    rule: Arc::clone(rule),
                    service: Arc::clone(service),
                    nets,
                    host: service.host.exact().cloned(),
                    group,
                    stage,
                    owner: owner.clone(),
                    hop,
                });
            }
        }
    }
    tcp
}

/// The registry's services by their hosts. Only rules for raw TCP ask.
#[derive(Default)]
pub(super) struct ServiceIndex(OnceCell<HostIndex<usize>>);

impl ServiceIndex {
    /// The raw TCP services that a mesh-stage rule is for.
    fn raw<'r>(
        &self,
        set: &RouteSet,
        rule: &TcpRule,
        rules: &'r Rules,
    ) -> impl Iterator<Item = &'r Arc<Service>> {
        let index = self.0.get_or_init(|| {
            let mut hosts = HostIndex::default();
            let all = rules.services.iter().enumerate();
            all.for_each(|(index, service)| hosts.add(&service.host, index));
            hosts
        });
        let met = index.meeting_any(&set.rule_hosts()).into_iter();
        let met = met.filter_map(|index| rules.services.get(index));
        met.filter(|service| service.protocol == Protocol::Tcp && rule.is_on(service.port.0))
    }
}

/// Addresses that applications dial for a service, where they are known.
fn addresses(service: &Service) -> Vec<IpNet> {
    if !service.addresses.is_empty() {
        return service.addresses.clone();
    }
    match &service.cluster.discovery {
        Discovery::Static(endpoints) => {
            endpoints.iter().map(|endpoint| IpNet::from(endpoint.addr.ip())).collect()
        }
        Discovery::Dns(names) => {
            let ips = names.iter().filter_map(|(host, _)| match host {
                Host::Ip(ip) => Some(IpNet::from(*ip)),
                Host::Name(_) => None,
            });
            ips.collect()
        }
        Discovery::Request(_) => Vec::new(),
    }
}

fn gateway_targets(
    targets: &[WeightedDestination],
) -> impl Iterator<Item = (usize, GatewayPort, Hop, &Owner)> {
    targets.iter().filter_map(|target| match &target.target {
        Target::Gateway { group, port, hop, owner } => Some((*group, *port, *hop, owner)),
        Target::Cluster { .. } | Target::Refused { .. } => None,
    })
}

#[cfg(test)]
mod tests;
