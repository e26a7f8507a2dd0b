//! Warnings of what can never be in force: rules that no workload matches, hosts that nothing leads to.

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        decode::{Cx, Dict, List, SourcePosition, Spanned},
        gateway::Gateway,
        names,
        resource::Resource,
        virtual_service::{Destination, VirtualService},
    },
    Compiler,
    entry::EntryPort,
    routes::source,
};
use crate::{
    policy::{Direct, HostIndex, HostPattern, MeshConfig, OutboundMode, SourceMatch, has_labels},
    types::{Host, Namespace, Port, Workload, steps},
};

impl Compiler<'_> {
    /// What can't be reached, and what can't match. Linear in the number of resources.
    pub(super) fn check_reach(
        &mut self,
        gateways: &[Resource<Gateway>],
        resources: &[Resource<VirtualService>],
    ) {
        // Without mesh.yaml it isn't known who is there.
        if !self.mesh_given {
            return;
        }
        if !self.workloads_come_and_go {
            let workloads = Workloads::of(&self.mesh);
            for Resource { meta, spec } in resources.iter().chain(self.delegates) {
                sources(spec, &workloads, &mut meta.cx(self.report));
            }
        }
        self.unselected_gateways(gateways);
        self.unrouted_entries(resources);
        self.unknown_hosts(resources);
    }

    /// A gateway's process whose labels no Gateway selects has no servers. Where there is no Gateway at all,
    /// none of the gateways is to have one.
    fn unselected_gateways(&mut self, gateways: &[Resource<Gateway>]) {
        if gateways.is_empty() || self.mesh.outbound != OutboundMode::RegistryOnly {
            return;
        }
        let mut selected: HashSet<usize> = HashSet::new();
        for gateway in gateways {
            let selector = names::labels(&gateway.spec.selector);
            if !selector.is_empty() {
                selected.extend(self.groups.selected(&selector, &self.mesh).iter());
            }
        }
        let mut cx = Cx { report: self.report, file: &self.places.file, resource: None };
        let groups = self.mesh.gateways.iter().zip(&self.places.gateways).enumerate();
        for (index, (group, at)) in groups {
            let selected = selected.contains(&index);
            if !selected {
                let message = format!(
                    "no Gateway selects these labels, so {} has no servers: what is routed there is \
                     refused",
                    group.service
                );
                cx.warn(&at.field("labels"), message);
            }
        }
    }

    /// Under `direct: deny` a service is reached through gateways alone: a rule of the mesh leads one of its
    /// ports to a gateway, or a rule of a gateway leads to it.
    fn unrouted_entries(&mut self, resources: &[Resource<VirtualService>]) {
        if self.mesh.direct != Direct::Deny {
            return;
        }
        let gateways: HashSet<&Host> =
            self.mesh.gateways.iter().map(|group| &group.service).collect();
        let mut routed = HostsByPort::default();
        for Resource { meta, spec } in resources.iter().chain(self.delegates) {
            let of = |text: &Spanned<String>| pattern(text, &meta.namespace);
            let hosts = spec.hosts.iter().filter_map(of).flat_map(|host| host.rule_hosts());
            let hosts: Vec<HostPattern> = hosts.collect();
            for rule in rules(spec) {
                let is_outside = |(text, _): &(&Spanned<String>, _)| {
                    of(text).is_some_and(|host| {
                        !matches!(&host, HostPattern::Exact(host) if gateways.contains(host))
                            && self.entries.meet(&host)
                    })
                };
                // A rule without destinations answers by itself or delegates.
                let leads_past =
                    !rule.destinations.is_empty() && rule.destinations.iter().all(is_outside);
                for one in &rule.matches {
                    let port = one.port.map(|port| port.value);
                    if one.is_for(spec, Stages::Mesh) && !leads_past {
                        hosts.iter().for_each(|host| routed.add(host, port));
                    }
                    // A delegate has the gateways of whoever delegates to it.
                    if hosts.is_empty() || !one.is_for(spec, Stages::MeshAlone) {
                        let leads_to = rule.destinations.iter();
                        let leads_to = leads_to.filter_map(|(text, port)| Some((of(text)?, *port)));
                        leads_to.for_each(|(host, port)| routed.add(&host, port));
                    }
                }
            }
        }
        for entry in self.entries.iter() {
            let at = SourcePosition::root(entry.meta.line, "spec").field("hosts");
            let is_routed = |host: &&HostPattern| {
                let routed_port = |port: &EntryPort| routed.meets(host, port.number);
                // Ports with errors are reported already.
                entry.ports.iter().any(routed_port) || (entry.broken && routed.meets_any(host))
            };
            for host in entry.hosts.iter().filter(|host| !is_routed(host)) {
                let message = format!(
                    "no VirtualService leads {host}{} to a gateway, and `direct` is `deny`: it is \
                     refused (no_gateway_route)",
                    of_ports(&entry.ports)
                );
                entry.meta.cx(self.report).warn(&at, message);
            }
        }
    }

    /// Routes for hosts that aren't in the registry, and for ports that it does not have. Services in the
    /// cluster are no matter of ours.
    fn unknown_hosts(&mut self, resources: &[Resource<VirtualService>]) {
        if self.mesh.outbound != OutboundMode::RegistryOnly {
            return;
        }
        let mut declared = HostsByPort::default();
        for entry in self.entries.iter() {
            let all = entry.broken.then_some(None);
            for port in entry.ports.iter().map(|port| Some(port.number)).chain(all) {
                entry.hosts.iter().for_each(|host| declared.add(host, port));
            }
        }
        for Resource { meta, spec } in resources {
            let mut known = Vec::new();
            let mut complete = true;
            let mut leads_to_one = None;
            for text in &spec.hosts {
                let host = pattern(text, &meta.namespace);
                let inside = |host: &HostPattern| matches!(host, HostPattern::Exact(Host::Name(name)) if names::is_in_cluster(name));
                let Some(host) = host.filter(|host| !inside(host)) else {
                    complete = false;
                    continue;
                };
                if host.rule_hosts().iter().any(|host| self.entries.meet(host)) {
                    let namespace = &meta.namespace;
                    if is_suffix(&host)
                        && self.entries.covering(&host).is_empty()
                        && *leads_to_one.get_or_insert_with(|| leads_to_one_host(spec, namespace))
                    {
                        let message = format!(
                            "ServiceEntries have single hosts of {host} alone: what is sent to others is \
                             refused (host_not_in_registry). One with the host '{host}' is missing"
                        );
                        meta.cx(self.report).warn(&text.at, message);
                    }
                    known.push(host);
                    continue;
                }
                let message = format!(
                    "no ServiceEntry has {host}: what is sent there is refused \
                     (host_not_in_registry), and these rules are never asked"
                );
                meta.cx(self.report).warn(&text.at, message);
            }
            if !complete || known.is_empty() {
                continue;
            }
            // At the mesh a match's port is the one that the application dialled.
            for of in rules(spec).flat_map(|rule| rule.matches) {
                let port = of.port.filter(|port| {
                    let is_declared = |host: &HostPattern| {
                        let mut hosts = host.rule_hosts().into_iter();
                        hosts.any(|host| declared.meets(&host, port.value))
                    };
                    of.is_for(spec, Stages::MeshAlone) && !known.iter().any(is_declared)
                });
                let Some(port) = port else { continue };
                let hosts: Vec<String> = known.iter().map(ToString::to_string).collect();
                let message = format!(
                    "no ServiceEntry has port {} of {}: this never matches",
                    port.value,
                    hosts.join(", ")
                );
                meta.cx(self.report).warn(&port.at, message);
            }
        }
    }
}

/// Hosts by port; without one, hosts with every port.
#[derive(Default)]
struct HostsByPort(HashMap<Option<Port>, HostIndex<()>>);

impl HostsByPort {
    fn add(&mut self, host: &HostPattern, port: Option<Port>) {
        self.0.entry(port).or_default().add(host, ());
    }

    /// Whether one of the hosts with this port has something in common with the pattern.
    fn meets(&self, host: &HostPattern, port: Port) -> bool {
        [None, Some(port)].iter().filter_map(|key| self.0.get(key)).any(|hosts| hosts.meets(host))
    }

    /// The same with any port.
    fn meets_any(&self, host: &HostPattern) -> bool {
        self.0.values().any(|hosts| hosts.meets(host))
    }
}

/// ` port 80` or ` ports 80, 443`.
fn of_ports(ports: &[EntryPort]) -> String {
    let numbers: Vec<String> = ports.iter().map(|port| port.number.to_string()).collect();
    match numbers.len() {
        0 => String::new(),
        1 => format!(" port {}", numbers[0]),
        _ => format!(" ports {}", numbers.join(", ")),
    }
}

/// Which stages something is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stages {
    /// Where traffic leaves the application, among others.
    Mesh,
    /// There and nowhere else.
    MeshAlone,
}

/// What a match of any kind of rule says of ports and stages.
struct Match<'s> {
    port: Option<&'s Spanned<Port>>,
    gateways: &'s List<String>,
}

impl Match<'_> {
    /// Whether it is for these stages, within those of its virtual service.
    fn is_for(&self, spec: &VirtualService, stages: Stages) -> bool {
        let is_mesh = |name: &Spanned<String>| name.value == "mesh";
        let own = if self.gateways.is_empty() { &spec.gateways } else { self.gateways };
        match stages {
            Stages::Mesh => own.is_empty() || own.iter().any(is_mesh),
            Stages::MeshAlone => own.iter().all(is_mesh),
        }
    }
}

/// A rule of any kind: what it is for, and where it leads.
struct Rule<'s> {
    /// One without conditions where the rule has none.
    matches: Vec<Match<'s>>,
    /// With the port; without one any.
    destinations: Vec<(&'s Spanned<String>, Option<Port>)>,
}

impl<'s> Rule<'s> {
    fn new(
        spec: &'s VirtualService,
        matches: impl Iterator<Item = Match<'s>>,
        destinations: impl Iterator<Item = Option<&'s Destination>>,
    ) -> Self {
        let mut matches: Vec<_> = matches.collect();
        if matches.is_empty() {
            matches.push(Match { port: None, gateways: &spec.gateways });
        }
        let destinations = destinations.flatten().filter_map(|to| {
            let port = to.port.as_ref().and_then(|port| port.number.as_ref());
            Some((to.host.as_ref()?, port.map(|port| port.value)))
        });
        Self { matches, destinations: destinations.collect() }
    }
}

/// All rules.
fn rules(spec: &VirtualService) -> impl Iterator<Item = Rule<'_>> {
    let http = spec.http.0.iter().map(|rule| {
        let matches = rule.matches.0.iter();
        let matches = matches.map(|one| Match { port: one.port.as_ref(), gateways: &one.gateways });
        Rule::new(spec, matches, rule.route.0.iter().map(|to| to.destination.as_ref()))
    });
    let tls = spec.tls.0.iter().map(|rule| {
        let matches = rule.matches.0.iter();
        let matches = matches.map(|one| Match { port: one.port.as_ref(), gateways: &one.gateways });
        Rule::new(spec, matches, rule.route.0.iter().map(|to| to.destination.as_ref()))
    });
    let tcp = spec.tcp.0.iter().map(|rule| {
        let matches = rule.matches.0.iter();
        let matches = matches.map(|one| Match { port: one.port.as_ref(), gateways: &one.gateways });
        Rule::new(spec, matches, rule.route.0.iter().map(|to| to.destination.as_ref()))
    });
    http.chain(tls).chain(tcp)
}

/// Conditions on who asks that no workload fulfils.
fn sources(spec: &VirtualService, workloads: &Workloads<'_>, cx: &mut Cx<'_>) {
    for rule in &spec.http.0 {
        for one in &rule.matches.0 {
            nobody(&one.at, &one.source_labels, one.source_namespace.as_ref(), workloads, cx);
        }
    }
    for rule in &spec.tls.0 {
        for one in &rule.matches.0 {
            nobody(&one.at, &one.source_labels, one.source_namespace.as_ref(), workloads, cx);
        }
    }
    for rule in &spec.tcp.0 {
        for one in &rule.matches.0 {
            nobody(&one.at, &one.source_labels, one.source_namespace.as_ref(), workloads, cx);
        }
    }
}

fn nobody(
    at: &SourcePosition,
    labels: &Dict<Spanned<String>>,
    namespace: Option<&Spanned<String>>,
    workloads: &Workloads<'_>,
    cx: &mut Cx<'_>,
) {
    let wanted = source(labels, namespace);
    if wanted.labels.is_empty() && wanted.namespace.is_none() {
        return;
    }
    let fits = workloads.any(&wanted);
    if !fits {
        let field = if wanted.labels.is_empty() { "sourceNamespace" } else { "sourceLabels" };
        let message = format!("no workload in mesh.yaml is {wanted}: this never matches");
        cx.warn(&at.field(field), message);
    }
}

/// Whether all names that a pattern has end in the same way.
pub(super) fn is_suffix(host: &HostPattern) -> bool {
    match host {
        HostPattern::Below(_) | HostPattern::Ending(_) => true,
        HostPattern::Exact(_) | HostPattern::Any => false,
    }
}

/// Whether a route leads to one external host, as where one server has all names of a wildcard.
pub(super) fn leads_to_one_host(spec: &VirtualService, namespace: &Namespace) -> bool {
    let mut destinations = rules(spec).flat_map(|rule| rule.destinations);
    destinations.any(|(text, _)| match pattern(text, namespace) {
        Some(HostPattern::Exact(Host::Name(name))) => !names::is_in_cluster(&name),
        Some(HostPattern::Exact(Host::Ip(_))) => true,
        Some(HostPattern::Below(_) | HostPattern::Ending(_) | HostPattern::Any) | None => false,
    })
}

/// `None` where it is invalid, which the compiler reports.
pub(super) fn pattern(text: &Spanned<String>, namespace: &Namespace) -> Option<HostPattern> {
    HostPattern::parse(&names::expand(&text.value, namespace)).ok()
}

/// The workloads of `mesh.yaml`, by each of their labels and by namespace.
struct Workloads<'m> {
    labelled: HashMap<(&'m str, &'m str), Vec<&'m Workload>>,
    namespaces: HashSet<&'m Namespace>,
}

impl<'m> Workloads<'m> {
    fn of(mesh: &'m MeshConfig) -> Self {
        let mut labelled: HashMap<_, Vec<&Workload>> = HashMap::new();
        for workload in &mesh.workloads {
            for (key, value) in &workload.labels {
                labelled.entry((key.as_str(), value.as_str())).or_default().push(&**workload);
            }
        }
        let namespaces = mesh.workloads.iter().map(|workload| &workload.namespace).collect();
        Self { labelled, namespaces }
    }

    /// Whether one of them fulfils the condition. Only those with the rarest of its labels are asked.
    fn any(&self, wanted: &SourceMatch) -> bool {
        let namespace = wanted.namespace.as_ref();
        if wanted.labels.is_empty() {
            return namespace.is_none_or(|namespace| self.namespaces.contains(namespace));
        }
        let labelled = wanted.labels.iter().map(|(key, value)| {
            self.labelled.get(&(key.as_str(), value.as_str())).map_or(&[][..], Vec::as_slice)
        });
        let rarest = labelled.min_by_key(|workloads| workloads.len()).unwrap_or_default();
        rarest.iter().any(|workload| {
            steps::count(1);
            namespace.is_none_or(|wanted| *wanted == workload.namespace)
                && has_labels(&workload.labels, &wanted.labels)
        })
    }
}
