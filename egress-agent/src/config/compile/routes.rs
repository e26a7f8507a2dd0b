//! `VirtualService` to route sets: stages, matches, destinations.

use std::{collections::HashSet, rc::Rc, sync::Arc};

use super::{
    super::{
        decode::{Cx, Dict, List, SourcePosition, Spanned},
        names,
        resource::{Meta, Resource},
        virtual_service::{
            TcpDestination, TcpMatch as TcpMirror, TcpRule as TcpRuleMirror, TlsMatch as TlsMirror,
            TlsRule as TlsRuleMirror, VirtualService,
        },
    },
    Compiler,
    lookup::Traffic,
    places,
};
use crate::{
    policy::{
        HostIndex, HostPattern, HttpAction, RouteSet, SourceMatch, StageRules, TcpMatch, TcpRule,
        TlsMatch, TlsRule, WeightedDestination,
    },
    types::{Namespace, Port},
};

/// Hosts that a message lists.
const SHOWN_HOSTS: usize = 20;

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

/// A virtual service's own part of resolving its rules.
pub(super) struct Scope<'a> {
    pub(super) meta: &'a Meta,
    pub(super) hosts: Rc<RouteHosts>,
    pub(super) stages: Vec<Stage>,
}

/// The hosts of a virtual service.
pub(super) struct RouteHosts {
    all: Vec<HostPattern>,
    index: HostIndex<()>,
}

impl From<Vec<HostPattern>> for RouteHosts {
    fn from(all: Vec<HostPattern>) -> Self {
        let mut index = HostIndex::default();
        all.iter().flat_map(HostPattern::rule_hosts).for_each(|host| index.add(&host, ()));
        Self { all, index }
    }
}

impl Scope<'_> {
    /// The same for rules that another virtual service has written.
    pub(super) fn within<'m>(&self, meta: &'m Meta) -> Scope<'m> {
        Scope { meta, hosts: Rc::clone(&self.hosts), stages: self.stages.clone() }
    }
}

impl Compiler<'_> {
    /// Reads a virtual service.
    pub(super) fn route_set(&mut self, resource: &Resource<VirtualService>) -> RouteSet {
        let Resource { meta, spec } = resource;
        let VirtualService { at, hosts, gateways, http, tls, tcp, export_to, is_translated } = spec;
        let stages = self.stages(gateways, *is_translated, meta);
        names::host_count(hosts, at, &mut meta.cx(self.report));
        let hosts = self.route_hosts(hosts, stages.contains(&Stage::Mesh), meta);
        if http.0.is_empty() && tls.0.is_empty() && tcp.0.is_empty() {
            meta.cx(self.report).wrong(
                at,
                "no rules",
                "http, tls or tcp",
                "a VirtualService without rules",
            );
        }
        let exported =
            names::exported(export_to, &meta.namespace, false, &mut meta.cx(self.report));
        let scope = Scope { meta, hosts: Rc::new(hosts.into()), stages };
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
            label: meta.label.as_str().into(),
            namespace: meta.namespace.clone(),
            exported,
            hosts: scope.hosts.all.clone(),
            mesh,
            gateways: at_gateways,
        }
    }

    fn stages(&mut self, gateways: &List<String>, is_translated: bool, meta: &Meta) -> Vec<Stage> {
        if gateways.is_empty() {
            return vec![Stage::Mesh];
        }
        let mut stages = Vec::new();
        for text in gateways {
            let stage = Stage::parse(&text.value, &meta.namespace);
            // A listener of the Gateway API says itself which routes it takes.
            let is_listener = !is_translated && text.value.matches('/').count() > 1;
            if let Stage::Gateway(name) = &stage
                && (is_listener || !self.gateways.contains(&**name))
            {
                let known = self.gateway_names.get_or_init(|| {
                    let mut names: Vec<String> = self.gateways.iter().cloned().collect();
                    names.sort_unstable();
                    names
                });
                let hint = self.hints.nearest(name, known);
                let message =
                    format!("there is no Gateway {name}; what depends on it is refused{hint}");
                meta.cx(self.report).dangling(&text.at, message);
            }
            if is_listener {
                continue;
            }
            if !stages.contains(&stage) {
                stages.push(stage);
            }
        }
        stages
    }

    fn route_hosts(&mut self, hosts: &List<String>, mesh: bool, meta: &Meta) -> Vec<HostPattern> {
        let mut cx = meta.cx(self.report);
        let (mut read, mut seen) = (Vec::new(), HashSet::new());
        let mut index: HostIndex<usize> = HostIndex::default();
        for text in hosts {
            let full = names::expand(&text.value, &meta.namespace);
            let Some(host) = names::pattern_of(&full, text, &mut cx) else { continue };
            if host == HostPattern::Any && mesh {
                cx.wrong(&text.at, "\"*\"", "a host", "a bare * is not allowed at the mesh stage");
            } else if !seen.insert(host.clone()) {
                cx.error(&text.at, format!("the host {host} is listed twice"));
            } else {
                let mut own = host.rule_hosts().into_iter();
                let other = own.find_map(|host| index.first_meeting(&host));
                if let Some(other) = other.and_then(|at| read.get(at)) {
                    let message = format!(
                        "it overlaps with {other}, which an API server refuses: give each a \
                         VirtualService. The more exact one counts"
                    );
                    cx.warn(&text.at, message).found = Some(format!("{:?}", text.value));
                }
                host.rule_hosts().iter().for_each(|host| index.add(host, read.len()));
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
            let place = places::at(scope.meta, at);
            read.push(Arc::new(TlsRule { matches, targets, place }));
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
            let place = places::at(scope.meta, at);
            read.push(Arc::new(TcpRule { matches, targets, place }));
        }
        read
    }

    fn targets(
        &mut self,
        route: &[TcpDestination],
        at: &SourcePosition,
        stage: &Stage,
        port: Option<Port>,
        traffic: Traffic,
        scope: &Scope<'_>,
    ) -> Vec<WeightedDestination> {
        let weights: Vec<_> = route.iter().map(|to| to.weight.as_ref()).collect();
        let weights = shares(&weights, at, &mut scope.meta.cx(self.report));
        let action = Arc::<HttpAction>::default();
        let mut targets = Vec::new();
        for (to, weight) in route.iter().zip(weights) {
            let Some(destination) = &to.destination else { continue };
            let target = self.target(destination, stage, port, traffic, scope);
            targets.push(WeightedDestination { weight, target, action: Arc::clone(&action) });
        }
        targets
    }
}

/// Whether a match is for a stage.
pub(super) fn in_stage(gateways: &List<String>, stage: &Stage, scope: &Scope<'_>) -> bool {
    gateways.is_empty()
        || gateways.iter().any(|text| Stage::parse(&text.value, &scope.meta.namespace) == *stage)
}

/// The port of all matches, if it is one.
pub(super) fn only_port<'a>(
    mut ports: impl Iterator<Item = Option<&'a Spanned<Port>>>,
) -> Option<Port> {
    let first = ports.next()??.value;
    ports.all(|port| port.is_some_and(|port| port.value == first)).then_some(first)
}

/// Weights as they count: a single destination gets everything.
pub(super) fn shares(
    weights: &[Option<&Spanned<u32>>],
    at: &SourcePosition,
    cx: &mut Cx<'_>,
) -> Vec<u32> {
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

pub(super) fn source(
    labels: &Dict<Spanned<String>>,
    namespace: Option<&Spanned<String>>,
) -> SourceMatch {
    SourceMatch {
        labels: names::labels(labels),
        namespace: namespace.map(|n| Namespace(n.value.as_str().into())),
        subnet: None,
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
        if !scope.hosts.index.covers(&name) {
            let hosts = scope.hosts.all.iter().take(SHOWN_HOSTS).map(ToString::to_string);
            let hosts = hosts.collect::<Vec<_>>().join(", ");
            let more = scope.hosts.all.len().saturating_sub(SHOWN_HOSTS);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let expected = format!("a name within {hosts}{more}");
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
        source_subnet,
    } = mirror;
    let subnet = source_subnet.as_ref().and_then(|text| names::network(text, cx));
    TcpMatch {
        port: port.as_ref().map(|port| port.value),
        subnets: destination_subnets.iter().filter_map(|s| names::network(s, cx)).collect(),
        source: SourceMatch { subnet, ..source(source_labels, source_namespace.as_ref()) },
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
