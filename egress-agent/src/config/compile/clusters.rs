//! `DestinationRule` to clusters' settings, by Istio's precedence: port over subset over rule.

use std::sync::Arc;

use super::{
    super::{
        destination_rule::{DestinationRule, Subset},
        names,
        resource::{Meta, Resource},
    },
    Compiler, nodes,
    services::Entry,
    traffic::{self, Policy, Settings, Tunnel},
};
use crate::{
    policy::{
        ClientTls, Cluster, ClusterName, Exported, Hop, HostPattern, HttpVersion, LoadBalancer,
        TunnelTls,
    },
    types::{Labels, Namespace, Port},
};

/// A destination rule, read.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) meta: Meta,
    pub(super) host: HostPattern,
    exported: Exported,
    policy: Policy,
    subsets: Vec<RuleSubset>,
}

impl Rule {
    /// Every wish for a tunnel, wherever in the rule it stands.
    fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let policies = self.subsets.iter().map(|subset| &subset.policy);
        let settings = std::iter::once(&self.policy).chain(policies).flat_map(|policy| {
            std::iter::once(&policy.settings).chain(policy.ports.iter().map(|(_, own)| own))
        });
        settings.filter_map(|settings| settings.tunnel.as_ref()?.as_ref())
    }
}

#[derive(Debug)]
struct RuleSubset {
    name: String,
    labels: Labels,
    policy: Policy,
}

impl Compiler<'_> {
    /// Reads a destination rule.
    pub(super) fn rule(&mut self, resource: &Resource<DestinationRule>) -> Option<Rule> {
        let Resource { meta, spec } = resource;
        let DestinationRule { at: _, host, traffic_policy, subsets, export_to } = spec;
        let host_text = host.as_ref()?;
        let full = names::expand(&host_text.value, &meta.namespace);
        let internal = self.group(&full).is_some() || names::is_in_cluster(&full);
        let mut cx = meta.cx(self.report);
        let host = names::pattern_of(&full, host_text, &mut cx)?;
        let policy = traffic_policy.as_ref().map(|p| traffic::policy(p, internal, &mut cx));
        let policy = policy.unwrap_or_default();
        let mut read: Vec<RuleSubset> = Vec::new();
        for Subset { at: _, name, labels, traffic_policy } in &subsets.0 {
            let Some(name) = name else { continue };
            if read.iter().any(|subset| subset.name == name.value) {
                cx.error(&name.at, format!("the subset {:?} is defined twice", name.value));
                continue;
            }
            let own = traffic_policy.as_ref().map(|p| traffic::policy(p, internal, &mut cx));
            read.push(RuleSubset {
                name: name.value.clone(),
                labels: names::labels(labels),
                policy: own.unwrap_or_default(),
            });
        }
        Some(Rule {
            meta: meta.clone(),
            host,
            exported: names::exported(export_to, &meta.namespace),
            policy,
            subsets: read,
        })
    }

    /// The rules for a host: of those that cover it and are visible, the most specific.
    fn rules_for(&self, host: &HostPattern, client: &Namespace) -> Vec<&Rule> {
        let mut found: Vec<&Rule> = Vec::new();
        for rule in &self.rules {
            if !rule.host.covers(host) || !rule.exported.includes(Some(client)) {
                continue;
            }
            match found.first() {
                Some(best) if best.host == rule.host => found.push(rule),
                Some(best) if !best.host.covers(&rule.host) => {}
                _ => found = vec![rule],
            }
        }
        found
    }

    /// Whether a destination rule for the host has this subset.
    pub(super) fn has_subset(&self, host: &HostPattern, subset: &str, client: &Namespace) -> bool {
        let mut rules = self.rules_for(host, client).into_iter();
        rules.any(|rule| rule.subsets.iter().any(|s| s.name == subset))
    }

    /// The cluster of a service's port; its subset is known to exist.
    pub(super) fn cluster(
        &mut self,
        entry: usize,
        host: &HostPattern,
        port: Port,
        subset: &str,
        client: &Namespace,
    ) -> Option<Arc<Cluster>> {
        let name = ClusterName::outbound(port, subset, &host.to_string());
        if let Some(cluster) = self.clusters.get(&name) {
            return Some(Arc::clone(cluster));
        }
        let entry = self.entries.get(entry)?;
        let service = entry.port(port)?;
        let (settings, labels) = self.settings_for(host, port, subset, client);
        let (pool, upgrade) = settings.pool.unwrap_or_default();
        let cluster = Arc::new(Cluster {
            discovery: entry.discovery(host, service, &labels),
            http: if upgrade { HttpVersion::Http2 } else { service.http },
            tls: settings.tls.flatten().map(|tls| with_names(tls, entry)),
            load_balancer: settings.load_balancer.unwrap_or(LoadBalancer::LeastRequest),
            pool,
            outlier: settings.outlier.flatten(),
            name: name.clone(),
        });
        self.clusters.insert(name, Arc::clone(&cluster));
        Some(cluster)
    }

    /// What holds for a host's port and subset, and the subset's labels.
    fn settings_for(
        &self,
        host: &HostPattern,
        port: Port,
        subset: &str,
        client: &Namespace,
    ) -> (Settings, Labels) {
        let rules = self.rules_for(host, client);
        let chosen = rules.iter().find_map(|r| r.subsets.iter().find(|s| s.name == subset));
        let base = rules.first().map(|rule| rule.policy.on(port)).unwrap_or_default();
        let labels = chosen.map(|subset| subset.labels.clone()).unwrap_or_default();
        let settings = match chosen {
            // The subset's own settings for the port replace everything, as the rule's do.
            Some(subset) if subset.policy.ports.iter().any(|(number, _)| *number == port) => {
                subset.policy.on(port)
            }
            Some(subset) => subset.policy.settings.clone().or(base),
            None => base,
        };
        (settings, labels)
    }

    /// How traffic that a rule of `client` leads to this port of a gateway's service has to come.
    pub(super) fn hop(&self, group: usize, port: Port, subset: &str, client: &Namespace) -> Hop {
        let Some(group) = self.mesh.gateways.get(group) else { return Hop::Plain };
        let host = HostPattern::Exact(group.service.clone());
        let (settings, _) = self.settings_for(&host, port, subset, client);
        if settings.tunnel.flatten().is_some() { Hop::Tunnel } else { Hop::Plain }
    }

    /// The tunnels to the gateways' services: one each, whichever port and subset asks for it.
    pub(super) fn tunnels(&mut self) {
        let mut unspoken = nodes::unspoken(&self.mesh.workloads);
        for index in 0..self.mesh.gateways.len() {
            let Some(group) = self.mesh.gateways.get(index) else { continue };
            let host = HostPattern::Exact(group.service.clone());
            let (service, principal) = (group.service.to_string(), group.principal.clone());
            let namespace = principal.as_ref().map(|id| id.namespace.clone());
            let namespace = namespace.or_else(|| names::namespace_of(&service));
            let mut first: Option<(Tunnel, String)> = None;
            let mut hop = Hop::Plain;
            for rule in self.rules.iter().filter(|rule| rule.host == host) {
                let at = super::super::decode::Spot::root(rule.meta.line, "spec");
                if rule.policy.settings.tunnel.as_ref().is_some_and(Option::is_some) {
                    hop = Hop::Tunnel;
                }
                for wish in rule.tunnels() {
                    let mut cx = rule.meta.cx(self.report);
                    if let Some(message) = unspoken.take() {
                        cx.warn(&at, message);
                    }
                    match &first {
                        None => first = Some((wish.clone(), rule.meta.label.clone())),
                        Some((same, _)) if same == wish => {}
                        Some((_, other)) => {
                            let message = format!(
                                "the tls settings for {service} differ from those of {other}: \
                                 a node has one tunnel to a gateway, so all of them must have the \
                                 same mode, files and subjectAltNames"
                            );
                            cx.error(&at, message);
                        }
                    }
                }
                if namespace.is_none() && first.is_some() {
                    let message = format!(
                        "the namespace of the gateway {service} can't be told, so nobody knows \
                         which identity it must have; name it NAME.NAMESPACE.svc.cluster.local, \
                         or give its `principal` in mesh.yaml"
                    );
                    rule.meta.cx(self.report).error(&at, message);
                }
            }
            let (Some((wish, _)), Some(namespace)) = (first, namespace) else { continue };
            let trust_domain = self.mesh.trust_domain.clone();
            let Some(group) = self.mesh.gateways.get_mut(index) else { continue };
            group.hop = hop;
            group.tunnel = Some(Arc::new(TunnelTls {
                credential: wish.credential,
                subject_alt_names: wish.subject_alt_names,
                trust_domain,
                namespace,
                principal,
            }));
        }
    }

    /// Warns about rules for hosts that don't exist, and about two for one host.
    pub(super) fn check_rules(&mut self) {
        let mut seen: Vec<(&HostPattern, &Exported, String)> = Vec::new();
        for rule in &self.rules {
            let mut cx = rule.meta.cx(self.report);
            let at = super::super::decode::Spot::root(rule.meta.line, "spec").field("host");
            let known = self.entries.iter().flat_map(|entry| &entry.hosts);
            let covers = known.into_iter().any(|h| rule.host.covers(h) || h.covers(&rule.host));
            let name = rule.host.to_string();
            let group = super::group_named(&self.mesh, &name).is_some();
            let excused = names::is_in_cluster(&name) && !self.mesh_given;
            if !(covers || group || excused) {
                let message = format!(
                    "no ServiceEntry and no gateway is named {name}; the rule has no effect"
                );
                cx.warn(&at, message).code = Some("IST0174");
            }
            match seen
                .iter()
                .find(|(host, exported, _)| **host == rule.host && **exported == rule.exported)
            {
                Some((.., other)) => {
                    cx.warn(&at, format!("{other} is for the same host; its traffic policy is used, and the subsets of both"));
                }
                None => seen.push((&rule.host, &rule.exported, rule.meta.label.clone())),
            }
        }
    }
}

/// `subjectAltNames` of the service entry, where the rule names none.
fn with_names(mut tls: ClientTls, entry: &Entry) -> ClientTls {
    if tls.subject_alt_names.is_empty() {
        tls.subject_alt_names.clone_from(&entry.subject_alt_names);
    }
    tls
}
