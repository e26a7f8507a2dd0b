//! Warnings of what can never be in force: rules for nobody, hosts that nothing leads to.

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        decode::{At, Cx, Dict, Spot},
        gateway::Gateway,
        names,
        resource::Resource,
        virtual_service::VirtualService,
    },
    Compiler,
    routes::source,
};
use crate::{
    policy::{Direct, HostIndex, HostPattern, MeshConfig, OutboundMode, SourceMatch, has_labels},
    types::{Host, Namespace, Workload, steps},
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

    /// Under `direct: deny` a service is reached by routes alone.
    fn unrouted_entries(&mut self, resources: &[Resource<VirtualService>]) {
        if self.mesh.direct != Direct::Deny {
            return;
        }
        let mut routed = HostIndex::default();
        for Resource { meta, spec } in resources.iter().chain(self.delegates) {
            let text = spec.hosts.iter().chain(destinations(spec));
            for host in text.filter_map(|text| pattern(text, &meta.namespace)) {
                routed.add(&host, ());
            }
        }
        for entry in self.entries.iter() {
            let at = Spot::root(entry.meta.line, "spec").field("hosts");
            for host in entry.hosts.iter().filter(|host| !routed.meets(host)) {
                let message = format!(
                    "no VirtualService has a route for {host}, and `direct` is `deny`: it is refused \
                     (no_gateway_route)"
                );
                entry.meta.cx(self.report).warn(&at, message);
            }
        }
    }

    /// Routes for hosts that aren't in the registry. Services in the cluster are no matter of ours.
    fn unknown_hosts(&mut self, resources: &[Resource<VirtualService>]) {
        if self.mesh.outbound != OutboundMode::RegistryOnly {
            return;
        }
        for Resource { meta, spec } in resources {
            for text in &spec.hosts {
                let Some(host) = pattern(text, &meta.namespace) else { continue };
                let inside = matches!(&host, HostPattern::Exact(Host::Name(name)) if names::is_in_cluster(name));
                if inside || self.entries.meet(&host) {
                    continue;
                }
                let message = format!(
                    "no ServiceEntry has {host}: what is sent there is refused \
                     (host_not_in_registry), and these rules are never asked"
                );
                meta.cx(self.report).warn(&text.at, message);
            }
        }
    }
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
    at: &Spot,
    labels: &Dict<At<String>>,
    namespace: Option<&At<String>>,
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

/// Hosts that routes lead to, besides their own.
fn destinations(spec: &VirtualService) -> impl Iterator<Item = &At<String>> {
    let http = spec.http.0.iter().flat_map(|rule| &rule.route.0);
    let http = http.filter_map(|to| to.destination.as_ref());
    let tls = spec.tls.0.iter().flat_map(|rule| &rule.route.0);
    let tcp = spec.tcp.0.iter().flat_map(|rule| &rule.route.0);
    let others = tls.chain(tcp).filter_map(|to| to.destination.as_ref());
    http.chain(others).filter_map(|to| to.host.as_ref())
}

/// `None` where it is invalid, which the compiler reports.
fn pattern(text: &At<String>, namespace: &Namespace) -> Option<HostPattern> {
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
