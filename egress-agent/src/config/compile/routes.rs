//! `VirtualService` to route sets: stages, matches, destinations.

use std::{collections::HashSet, sync::Arc};

use egress_ebpf::reason::Reason;

use super::{
    super::{
        decode::{At, Cx, Dict, List, Spot},
        names,
        problem::Severity,
        resource::{Meta, Resource},
        virtual_service::{
            Destination, TcpDestination, TcpMatch as TcpMirror, TcpRule as TcpRuleMirror,
            TlsMatch as TlsMirror, TlsRule as TlsRuleMirror, VirtualService,
        },
    },
    Compiler,
};
use crate::{
    policy::{
        Discovery, HostPattern, HttpAction, Protocol, RouteSet, SourceMatch, StageRules, Target,
        TcpMatch, TcpRule, TlsMatch, TlsRule, Weighted,
    },
    types::{GatewayPort, Namespace, Port},
};

/// Where a virtual service's rules can be in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Where traffic leaves the application.
    Mesh,
    /// At the gateway of this name (`default/istio-egressgateway`).
    Gateway(Arc<str>),
}

impl Stage {
    /// A name of a list `gateways`.
    pub(super) fn parse(text: &str, namespace: &Namespace) -> Self {
        match text {
            "mesh" => Self::Mesh,
            full if full.contains('/') => Self::Gateway(full.into()),
            name => Self::Gateway(format!("{}/{name}", namespace.0).into()),
        }
    }
}

/// What is sent to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Traffic {
    Http,
    Tls,
    Tcp,
}

/// A virtual service's own part of resolving its rules.
pub(super) struct Scope<'a> {
    pub(super) meta: &'a Meta,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) stages: Vec<Stage>,
}

impl Compiler<'_> {
    /// Reads a virtual service.
    pub(super) fn route_set(&mut self, resource: &Resource<VirtualService>) -> RouteSet {
        let Resource { meta, spec } = resource;
        let VirtualService { at, hosts, gateways, http, tls, tcp, export_to } = spec;
        let stages = self.stages(gateways, meta);
        let hosts = self.route_hosts(hosts, stages.contains(&Stage::Mesh), meta);
        if http.0.is_empty() && tls.0.is_empty() && tcp.0.is_empty() {
            meta.cx(self.report).wrong(
                at,
                "no rules",
                "http, tls or tcp",
                "a VirtualService without rules",
            );
        }
        let scope = Scope { meta, hosts, stages };
        let mut mesh = StageRules::default();
        let mut at_gateways = Vec::new();
        for stage in &scope.stages {
            let rules = StageRules {
                http: self.http_rules(&http.0, stage, &scope),
                tls: self.tls_rules(&tls.0, stage, &scope),
                tcp: self.tcp_rules(&tcp.0, stage, &scope),
            };
            match stage {
                Stage::Mesh => mesh = rules,
                Stage::Gateway(name) => at_gateways.push((Arc::clone(name), rules)),
            }
        }
        RouteSet {
            name: meta.full_name().into(),
            namespace: meta.namespace.clone(),
            exported: names::exported(export_to, &meta.namespace),
            hosts: scope.hosts,
            mesh,
            gateways: at_gateways,
        }
    }

    fn stages(&mut self, gateways: &List<String>, meta: &Meta) -> Vec<Stage> {
        if gateways.is_empty() {
            return vec![Stage::Mesh];
        }
        let mut stages = Vec::new();
        for text in gateways {
            let stage = Stage::parse(&text.value, &meta.namespace);
            if let Stage::Gateway(name) = &stage
                && !self.gateways.iter().any(|known| **known == **name)
            {
                let known = super::nearest(name, self.gateways.iter().map(String::as_str));
                let mut message =
                    format!("there is no Gateway {name}; what depends on it is refused");
                if let Some(known) = known {
                    message += &format!(". Did you mean {known}?");
                }
                meta.cx(self.report).dangling(&text.at, message);
            }
            if !stages.contains(&stage) {
                stages.push(stage);
            }
        }
        stages
    }

    fn route_hosts(&mut self, hosts: &List<String>, mesh: bool, meta: &Meta) -> Vec<HostPattern> {
        let mut cx = meta.cx(self.report);
        let mut read = Vec::new();
        for text in hosts {
            let full = names::expand(&text.value, &meta.namespace);
            let Some(host) = names::pattern_of(&full, text, &mut cx) else { continue };
            if host == HostPattern::Any && mesh {
                cx.wrong(&text.at, "\"*\"", "a host", "a bare * is not allowed at the mesh stage");
            } else if read.contains(&host) {
                cx.error(&text.at, format!("the host {host} is listed twice"));
            } else {
                read.push(host);
            }
        }
        read
    }

    fn tls_rules(
        &mut self,
        rules: &[TlsRuleMirror],
        stage: &Stage,
        scope: &Scope<'_>,
    ) -> Vec<Arc<TlsRule>> {
        let mut read = Vec::new();
        for TlsRuleMirror { at, matches, route } in rules {
            let here = matches.0.iter().filter(|m| in_stage(&m.gateways, stage, scope));
            let here: Vec<&TlsMirror> = here.collect();
            if here.is_empty() {
                continue;
            }
            let ports = here.iter().map(|m| m.port.as_ref());
            let port = only_port(ports);
            let mut cx = scope.meta.cx(self.report);
            let matches: Vec<_> = here.iter().map(|m| tls_match(m, scope, &mut cx)).collect();
            let targets = self.targets(&route.0, at, stage, port, Traffic::Tls, scope);
            read.push(Arc::new(TlsRule { matches, targets }));
        }
        read
    }

    fn tcp_rules(
        &mut self,
        rules: &[TcpRuleMirror],
        stage: &Stage,
        scope: &Scope<'_>,
    ) -> Vec<Arc<TcpRule>> {
        let mut read = Vec::new();
        for TcpRuleMirror { at, matches, route } in rules {
            let here = matches.0.iter().filter(|m| in_stage(&m.gateways, stage, scope));
            let here: Vec<&TcpMirror> = here.collect();
            if here.is_empty() && !matches.0.is_empty() {
                continue;
            }
            let port = only_port(here.iter().map(|m| m.port.as_ref()));
            let mut cx = scope.meta.cx(self.report);
            let matches: Vec<_> = here.iter().map(|m| tcp_match(m, &mut cx)).collect();
            let targets = self.targets(&route.0, at, stage, port, Traffic::Tcp, scope);
            read.push(Arc::new(TcpRule { matches, targets }));
        }
        read
    }

    fn targets(
        &mut self,
        route: &[TcpDestination],
        at: &Spot,
        stage: &Stage,
        port: Option<Port>,
        traffic: Traffic,
        scope: &Scope<'_>,
    ) -> Vec<Weighted> {
        let weights: Vec<_> = route.iter().map(|to| to.weight.as_ref()).collect();
        let weights = shares(&weights, at, &mut scope.meta.cx(self.report));
        let action = Arc::<HttpAction>::default();
        let mut targets = Vec::new();
        for (to, weight) in route.iter().zip(weights) {
            let Some(destination) = &to.destination else { continue };
            let target = self.target(destination, stage, port, traffic, scope);
            targets.push(Weighted { weight, target, action: Arc::clone(&action) });
        }
        targets
    }

    /// What a destination means at a stage.
    pub(super) fn target(
        &mut self,
        destination: &Destination,
        stage: &Stage,
        stage_port: Option<Port>,
        traffic: Traffic,
        scope: &Scope<'_>,
    ) -> Target {
        let Destination { at, host, subset, port } = destination;
        let Some(host) = host else { return refused(Reason::NoGatewayRoute, "no destination") };
        let name = names::expand(&host.value, &scope.meta.namespace);
        let port = port.as_ref().and_then(|port| port.number.as_ref());
        if let Some(group) = self.group(&name) {
            return self.gateway_target(group, destination, &name, stage, stage_port, scope);
        }
        let mut cx = scope.meta.cx(self.report);
        let Some(pattern) = names::pattern_of(&name, host, &mut cx) else {
            return refused(Reason::NoGatewayRoute, "an invalid destination");
        };
        let Some((pattern, indices)) = self.find_service(&pattern) else {
            return self.unknown_host(host, &name, scope);
        };
        let declared: Vec<Port> = indices
            .iter()
            .filter_map(|index| self.entries.get(*index))
            .flat_map(|entry| entry.ports.iter().map(|port| port.number))
            .collect();
        let mut entries = indices.iter().filter_map(|index| self.entries.get(*index));
        let told = entries.any(|entry| entry.broken);
        let number = match (port, declared.as_slice()) {
            (Some(port), _) => port.value,
            (None, [only]) => *only,
            (None, _) if told => {
                return refused(Reason::HostNotInRegistry, "a broken ServiceEntry");
            }
            (None, _) => {
                let list = declared.iter().map(ToString::to_string).collect::<Vec<_>>();
                let mut cx = scope.meta.cx(self.report);
                let message = format!("{name} has several ports; say which");
                let problem = cx.note(Severity::Error, &at.field("port"), message);
                problem.code = Some("IST0112");
                problem.expected = Some(format!("one of {}", list.join(", ")));
                return refused(Reason::NoGatewayRoute, "the destination's port is not said");
            }
        };
        let entry = indices.into_iter().find(|index| {
            self.entries.get(*index).is_some_and(|entry| entry.port(number).is_some())
        });
        let Some(entry) = entry else {
            if told {
                return refused(Reason::HostNotInRegistry, "a broken ServiceEntry");
            }
            let spot = port.map_or(at, |port| &port.at);
            let list = declared.iter().map(ToString::to_string).collect::<Vec<_>>();
            let mut cx = scope.meta.cx(self.report);
            let message = format!(
                "the ServiceEntry of {name} has no port {number}; requests to it are refused"
            );
            let problem = cx.dangling(spot, message);
            problem.found = Some(number.to_string());
            problem.expected = Some(format!("one of {}", list.join(", ")));
            let detail = format!("no ServiceEntry declares {name} port {number}");
            return refused(Reason::HostNotInRegistry, &detail);
        };
        let subset_name = subset.as_ref().map_or("", |subset| subset.value.as_str());
        if let Some(subset) = subset
            && !self.has_subset(&pattern, &subset.value, &scope.meta.namespace)
        {
            return self.unknown_subset(subset, &name, scope);
        }
        let own = &scope.meta.namespace;
        let Some(cluster) = self.cluster(entry, &pattern, number, subset_name, own) else {
            return refused(Reason::NoGatewayRoute, "no such cluster");
        };
        let declared = self.entries.get(entry).and_then(|entry| entry.port(number));
        let declared = declared.map_or(Protocol::Tcp, |port| port.protocol);
        let mut cx = scope.meta.cx(self.report);
        match traffic {
            Traffic::Http if declared == Protocol::Tls && cluster.tls.is_none() => {
                cx.note(Severity::Error, at, format!("plain HTTP would be sent to {name} port {number}, which is declared to speak TLS; it is refused instead. A DestinationRule with tls.mode SIMPLE for it makes the gateway start TLS"));
                refused(
                    Reason::WrongProtocol,
                    &format!(
                        "plain HTTP must not be sent to {name} port {number}, which is declared to speak TLS"
                    ),
                )
            }
            Traffic::Tls if cluster.tls.is_some() => {
                cx.note(Severity::Error, at, format!("TLS of the application would be wrapped in TLS again: a DestinationRule starts TLS to {name} port {number}; it is refused instead"));
                refused(
                    Reason::WrongProtocol,
                    &format!("TLS to {name} port {number} would be wrapped in TLS again"),
                )
            }
            Traffic::Tcp
                if matches!(cluster.discovery, Discovery::Request(_)) && *stage != Stage::Mesh =>
            {
                cx.note(Severity::Error, at, format!("raw TCP can't be sent to the wildcard {name}: there is no name to resolve; it is refused"));
                refused(Reason::NoGatewayRoute, "raw TCP to a wildcard")
            }
            Traffic::Http | Traffic::Tls | Traffic::Tcp => {
                Target::Cluster { cluster, host: pattern.exact().cloned() }
            }
        }
    }

    fn gateway_target(
        &mut self,
        group: usize,
        destination: &Destination,
        name: &str,
        stage: &Stage,
        stage_port: Option<Port>,
        scope: &Scope<'_>,
    ) -> Target {
        let Destination { at, host: _, subset, port } = destination;
        if *stage != Stage::Mesh {
            let mut cx = scope.meta.cx(self.report);
            cx.note(Severity::Error, at, "at the gateway's stage a rule leads to the gateway again; give its match `gateways: [mesh]`, and add a rule that leads to the external host. It is refused");
            return refused(
                Reason::NoGatewayRoute,
                "the gateway's rule leads to the gateway again",
            );
        }
        if let Some(subset) = subset {
            let full = self.mesh.gateways.get(group).map(|g| HostPattern::Exact(g.service.clone()));
            let known =
                full.is_some_and(|f| self.has_subset(&f, &subset.value, &scope.meta.namespace));
            if !known {
                return self.unknown_subset(subset, name, scope);
            }
        }
        let port = port.as_ref().and_then(|p| p.number.as_ref()).map(|p| p.value).or(stage_port);
        let Some(port) = port else {
            let mut cx = scope.meta.cx(self.report);
            let message = "the gateway has several ports; say which";
            cx.note(Severity::Error, &at.field("port"), message).code = Some("IST0112");
            return refused(Reason::NoGatewayRoute, "the gateway's port is not said");
        };
        Target::Gateway { group, port: GatewayPort(port) }
    }

    /// The service entries for a destination: those of its own name, or else of the most specific
    /// wildcard that covers it. The pattern is the destination's, so that its cluster bears its name.
    fn find_service(&self, wanted: &HostPattern) -> Option<(HostPattern, Vec<usize>)> {
        let mut best: Option<&HostPattern> = None;
        for host in self.entries.iter().flat_map(|entry| &entry.hosts) {
            if host.covers(wanted) && best.is_none_or(|best| best.covers(host)) {
                best = Some(host);
            }
        }
        let best = best?;
        let entries = self.entries.iter().enumerate();
        let entries = entries.filter(|(_, entry)| entry.hosts.contains(best));
        Some((wanted.clone(), entries.map(|(index, _)| index).collect()))
    }

    fn unknown_host(&mut self, host: &At<String>, name: &str, scope: &Scope<'_>) -> Target {
        let known = self.entries.iter().flat_map(|entry| &entry.hosts).map(ToString::to_string);
        let mut known: Vec<String> = known.collect();
        known.extend(self.mesh.gateways.iter().map(|group| group.service.to_string()));
        let near = super::nearest(name, known.iter().map(String::as_str));
        let hint = near.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
        let mut cx = scope.meta.cx(self.report);
        if names::is_in_cluster(name) && !self.mesh_given {
            cx.warn(&host.at, format!("{name} isn't known as a gateway: without mesh.yaml (`--mesh`) no gateway is; what is routed there is refused")).code = Some("IST0101");
        } else if names::is_in_cluster(name) {
            cx.dangling(&host.at, format!("{name} is neither a gateway in mesh.yaml nor a host of a ServiceEntry; what is routed there is refused{hint}"));
        } else {
            cx.dangling(
                &host.at,
                format!(
                    "no ServiceEntry has the host {name}; what is routed there is refused{hint}"
                ),
            );
        }
        let detail = format!("a VirtualService leads to {name}, which doesn't exist");
        let reason = if names::is_in_cluster(name) {
            Reason::NoGatewayRoute
        } else {
            Reason::HostNotInRegistry
        };
        refused(reason, &detail)
    }

    fn unknown_subset(&mut self, subset: &At<String>, name: &str, scope: &Scope<'_>) -> Target {
        let mut cx = scope.meta.cx(self.report);
        let message = format!(
            "no DestinationRule for {name} has the subset {:?}; what is routed there is refused",
            subset.value
        );
        cx.dangling(&subset.at, message);
        let detail = format!("{name} has no subset {:?}", subset.value);
        refused(Reason::NoGatewayRoute, &detail)
    }
}

fn refused(reason: Reason, detail: &str) -> Target {
    Target::Refused { reason, detail: detail.into() }
}

/// Whether a match is for a stage.
pub(super) fn in_stage(gateways: &List<String>, stage: &Stage, scope: &Scope<'_>) -> bool {
    gateways.is_empty()
        || gateways.iter().any(|text| Stage::parse(&text.value, &scope.meta.namespace) == *stage)
}

/// The port of all matches, if it is one.
pub(super) fn only_port<'a>(mut ports: impl Iterator<Item = Option<&'a At<Port>>>) -> Option<Port> {
    let first = ports.next()??.value;
    ports.all(|port| port.is_some_and(|port| port.value == first)).then_some(first)
}

/// Weights as they count: a single destination gets everything.
pub(super) fn shares(weights: &[Option<&At<u32>>], at: &Spot, cx: &mut Cx<'_>) -> Vec<u32> {
    if let [_] = weights {
        return vec![1];
    }
    let shares: Vec<_> = weights.iter().map(|weight| weight.map_or(0, |w| w.value)).collect();
    if shares.iter().all(|share| *share == 0) {
        let found = if shares.is_empty() { "no destination" } else { "weights that add up to 0" };
        cx.wrong(&at.field("route"), found, "destinations with weights", "nothing could be routed");
    }
    shares
}

pub(super) fn source(labels: &Dict<At<String>>, namespace: Option<&At<String>>) -> SourceMatch {
    SourceMatch {
        labels: names::labels(labels),
        namespace: namespace.map(|n| Namespace(n.value.as_str().into())),
    }
}

fn tls_match(mirror: &TlsMirror, scope: &Scope<'_>, cx: &mut Cx<'_>) -> TlsMatch {
    let TlsMirror {
        at: _,
        sni_hosts,
        destination_subnets,
        port,
        source_labels,
        gateways: _,
        source_namespace,
    } = mirror;
    if let Some(subnet) = destination_subnets.first() {
        cx.warn(
            &subnet.at,
            "has no effect: names decide about TLS, the dialled address is never trusted",
        );
    }
    let mut server_names = Vec::new();
    for text in sni_hosts {
        let Some(name) = names::pattern(text, cx) else { continue };
        if !scope.hosts.iter().any(|host| host.covers(&name)) {
            let hosts = scope.hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
            let expected = format!("a name within {}", hosts.join(", "));
            cx.wrong(
                &text.at,
                format!("{:?}", text.value),
                expected,
                "the server name isn't within the VirtualService's hosts",
            );
        }
        server_names.push(name);
    }
    let source = source(source_labels, source_namespace.as_ref());
    TlsMatch { port: port.as_ref().map(|port| port.value), server_names, source }
}

fn tcp_match(mirror: &TcpMirror, cx: &mut Cx<'_>) -> TcpMatch {
    let TcpMirror {
        at: _,
        destination_subnets,
        port,
        source_labels,
        gateways: _,
        source_namespace,
    } = mirror;
    TcpMatch {
        port: port.as_ref().map(|port| port.value),
        subnets: destination_subnets.iter().filter_map(|s| names::network(s, cx)).collect(),
        source: source(source_labels, source_namespace.as_ref()),
    }
}

/// Names in a match's `gateways` that the virtual service doesn't have: the match can never hold.
pub(super) fn check_stages(
    gateways: &List<String>,
    scope: &Scope<'_>,
    seen: &mut HashSet<String>,
    cx: &mut Cx<'_>,
) {
    for text in gateways {
        let stage = Stage::parse(&text.value, &scope.meta.namespace);
        if !scope.stages.contains(&stage) && seen.insert(text.at.path.to_string()) {
            let message = format!(
                "{:?} isn't among the VirtualService's gateways, so this never matches",
                text.value
            );
            cx.warn(&text.at, message).code = Some("IST0130");
        }
    }
}
