//! Warnings of what can never be in force: rules for nobody, hosts that nothing leads to.

use std::collections::HashSet;

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
    policy::{Direct, HostPattern, MeshConfig, OutboundMode, has_labels},
    types::{Host, Labels, Namespace},
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
            for Resource { meta, spec } in resources.iter().chain(self.delegates) {
                sources(spec, &self.mesh, &mut meta.cx(self.report));
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
        let selectors: Vec<Labels> =
            gateways.iter().map(|gateway| names::labels(&gateway.spec.selector)).collect();
        let mut cx = Cx { report: self.report, file: &self.places.file, resource: None };
        for (group, at) in self.mesh.gateways.iter().zip(&self.places.gateways) {
            let selected = selectors
                .iter()
                .any(|selector| !selector.is_empty() && has_labels(&group.labels, selector));
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
        let mut routed = Hosts::default();
        for Resource { meta, spec } in resources.iter().chain(self.delegates) {
            let text = spec.hosts.iter().chain(destinations(spec));
            for host in text.filter_map(|text| pattern(text, &meta.namespace)) {
                routed.add(&host);
            }
        }
        for entry in &self.entries {
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
        let mut known = Hosts::default();
        self.entries.iter().flat_map(|entry| &entry.hosts).for_each(|host| known.add(host));
        for Resource { meta, spec } in resources {
            for text in &spec.hosts {
                let Some(host) = pattern(text, &meta.namespace) else { continue };
                let inside = matches!(&host, HostPattern::Exact(Host::Name(name)) if names::is_in_cluster(name));
                if inside || known.meets(&host) {
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
fn sources(spec: &VirtualService, mesh: &MeshConfig, cx: &mut Cx<'_>) {
    for rule in &spec.http.0 {
        for one in &rule.matches.0 {
            nobody(&one.at, &one.source_labels, one.source_namespace.as_ref(), mesh, cx);
        }
    }
    for rule in &spec.tls.0 {
        for one in &rule.matches.0 {
            nobody(&one.at, &one.source_labels, one.source_namespace.as_ref(), mesh, cx);
        }
    }
    for rule in &spec.tcp.0 {
        for one in &rule.matches.0 {
            nobody(&one.at, &one.source_labels, one.source_namespace.as_ref(), mesh, cx);
        }
    }
}

fn nobody(
    at: &Spot,
    labels: &Dict<At<String>>,
    namespace: Option<&At<String>>,
    mesh: &MeshConfig,
    cx: &mut Cx<'_>,
) {
    let wanted = source(labels, namespace);
    if wanted.labels.is_empty() && wanted.namespace.is_none() {
        return;
    }
    let fits = mesh.workloads.iter().any(|workload| {
        has_labels(&workload.labels, &wanted.labels)
            && wanted.namespace.as_ref().is_none_or(|wanted| *wanted == workload.namespace)
    });
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

/// A set of host patterns that answers whether another one has a host in common with any of them.
#[derive(Default)]
struct Hosts {
    exact: HashSet<Host>,
    /// Of `*.example.com`, `example.com`.
    below: HashSet<Box<str>>,
    /// All names above any of the others.
    above: HashSet<Box<str>>,
    any: bool,
}

impl Hosts {
    fn add(&mut self, pattern: &HostPattern) {
        let name = match pattern {
            HostPattern::Any => {
                self.any = true;
                return;
            }
            HostPattern::Exact(host) => {
                self.exact.insert(host.clone());
                match host {
                    Host::Name(name) => name,
                    Host::Ip(_) => return,
                }
            }
            HostPattern::Below(suffix) => {
                self.below.insert((&**suffix).into());
                suffix
            }
        };
        self.above.extend(parents(name).map(Into::into));
    }

    fn meets(&self, pattern: &HostPattern) -> bool {
        let within = |name: &str| parents(name).any(|above| self.below.contains(above));
        self.any
            || match pattern {
                HostPattern::Any => !self.exact.is_empty() || !self.below.is_empty(),
                HostPattern::Exact(host) => {
                    self.exact.contains(host) || matches!(host, Host::Name(name) if within(name))
                }
                HostPattern::Below(suffix) => {
                    self.below.contains(&**suffix)
                        || within(suffix)
                        || self.above.contains(&**suffix)
                }
            }
    }
}

/// `b.c` and `c` of `a.b.c`.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[at + 1..])
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn patterns() -> impl Strategy<Value = HostPattern> {
        let texts = [
            "*",
            "a.example",
            "b.a.example",
            "*.a.example",
            "*.example",
            "*.b.a.example",
            "b.example",
            "192.0.2.1",
            "example",
        ];
        select(texts.to_vec()).prop_map(|text| HostPattern::parse(text).unwrap())
    }

    proptest! {
        #[test]
        fn the_set_answers_as_its_members_do(
            members in proptest::collection::vec(patterns(), 0..4), asked in patterns(),
        ) {
            let mut hosts = Hosts::default();
            members.iter().for_each(|member| hosts.add(member));
            let expected = members.iter().any(|member| member.intersect(&asked).is_some());
            prop_assert_eq!(hosts.meets(&asked), expected, "{:?} {}", members, asked);
        }
    }
}
