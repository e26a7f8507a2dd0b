//! `DestinationRule` to clusters' settings, by Istio's precedence: port over subset over rule.

use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
};

use super::{
    super::{
        decode::{Cx, SourcePosition},
        destination_rule::{DestinationRule, Subset},
        names,
        resource::Resource,
    },
    Compiler, common_settings, nodes,
    precedence::{merged, most_specific},
    rule::{Rule, RuleSubset, Subsets},
    traffic::{self, Kinds, Tunnel},
};
use crate::{
    policy::{Exported, Hop, HostPattern, TunnelTls},
    types::{Labels, Namespace, Port},
};

impl Compiler<'_> {
    /// Reads a destination rule.
    pub(super) fn rule(&mut self, resource: &Resource<DestinationRule>) -> Option<Rule> {
        let Resource { meta, spec } = resource;
        let DestinationRule { at: _, host, traffic_policy, subsets, export_to, workload_selector } =
            spec;
        let host_text = host.as_ref()?;
        let full = names::expand(&host_text.value, &meta.namespace);
        let mut host = names::pattern_of(&full, host_text, &mut meta.cx(self.report))?;
        if let Some(group) = self.groups.named(&full) {
            let service = self.groups.service(group, &full, &self.mesh);
            host = HostPattern::parse(&service).unwrap_or(host);
        }
        let is_only_tls = meta.label.starts_with("BackendTLSPolicy ");
        // What the host is says what the rule means; how its name is spelled does not.
        let hosts = host.rule_hosts();
        let kinds = Kinds {
            gateway: !is_only_tls && hosts.iter().any(|host| self.groups.meet(host)),
            registry: hosts
                .iter()
                .any(|host| self.entries.meet(host) || self.egress_hosts.meet(host)),
        };
        let mut cx = meta.cx(self.report);
        let selector = workload_selector.as_ref().map(|selector| {
            if kinds.gateway {
                let message = "the way to a gateway is one for all: without the selector the rule would \
                               be for every client";
                cx.wrong(&selector.at, "workloadSelector", "nothing", message);
            }
            let foreign = export_to.iter().find(|to| {
                to.value != "." && *to.value != *meta.namespace.0 || export_to.len() > 1
            });
            if let Some(foreign) = foreign {
                let message = "a rule with workloadSelector is for its own namespace alone";
                cx.wrong(&foreign.at, format!("{:?}", foreign.value), "\".\" alone", message);
            }
            names::labels(&selector.match_labels)
        });
        let credential = common_settings::credential(meta, &self.mesh.root_namespace, &mut cx);
        let mut policy = traffic_policy.as_ref().map(|p| traffic::policy(p, kinds, &mut cx));
        let mut read = Subsets::default();
        for Subset { at: _, name, labels, traffic_policy } in &subsets.0 {
            let Some(name) = name else { continue };
            if read.by_name.contains_key(&name.value) {
                cx.error(&name.at, format!("the subset {:?} is defined twice", name.value));
                continue;
            }
            let own = traffic_policy.as_ref().map(|p| traffic::policy(p, kinds, &mut cx));
            read.by_name.insert(name.value.clone(), read.all.len());
            read.all.push(RuleSubset {
                name: name.value.clone(),
                labels: names::labels(labels),
                policy: own.unwrap_or_default(),
            });
        }
        if let Some(credential) = credential {
            let subsets = read.all.iter_mut().map(|subset| &mut subset.policy);
            let mut used = false;
            for policy in policy.iter_mut().chain(subsets) {
                used |= policy.set_credential(&credential);
            }
            if !used {
                let message = "the rule has no tunnel that the credential could be for";
                let name = &credential.name;
                cx.wrong(&name.at, format!("{:?}", name.value), "a tunnel", message);
            }
        }
        let exported = match selector {
            Some(_) => Exported::To(vec![meta.namespace.clone()]),
            None => names::exported(export_to, &meta.namespace, false, &mut cx),
        };
        Some(Rule {
            meta: meta.clone(),
            host,
            exported,
            selector,
            policy,
            subsets: read,
            is_only_tls,
        })
    }

    /// Whether a destination rule for a gateway's service has this subset.
    pub(super) fn has_subset(&self, host: &HostPattern, subset: &str, client: &Namespace) -> bool {
        self.gateway_rules(host, client).iter().any(|rule| rule.subset(subset).is_some())
    }

    /// The rules for a gateway's service. Whichever namespace asks for mutual TLS there is heeded:
    /// the way to a gateway must not be the weaker for somebody's choice of a namespace.
    fn gateway_rules(&self, host: &HostPattern, client: &Namespace) -> Vec<&Rule> {
        most_specific(&self.rules.meeting(host), host, |rule| {
            !rule.is_only_tls && rule.selector.is_none() && rule.exported.includes(Some(client))
        })
    }

    /// How traffic that a rule of `client` leads to this port of a gateway's service has to come.
    pub(super) fn hop(
        &mut self,
        service: String,
        port: Port,
        subset: &str,
        client: &Namespace,
    ) -> Hop {
        let key = (service, port, subset.to_owned(), client.clone());
        if let Some(known) = self.hops.get(&key) {
            return *known;
        }
        let Ok(host) = HostPattern::parse(&key.0) else { return Hop::Plain };
        let settings = merged(&self.gateway_rules(&host, client), port, subset);
        let hop = if settings.tunnel.flatten().is_some() { Hop::Tunnel } else { Hop::Plain };
        self.hops.insert(key, hop);
        hop
    }

    /// The tunnels to the gateways' services: one each, whichever port and subset asks for it.
    pub(super) fn tunnels(&mut self) {
        let mut unspoken = nodes::unspoken(&self.mesh);
        for index in 0..self.mesh.gateways.len() {
            let Some(group) = self.mesh.gateways.get(index) else { continue };
            let host = HostPattern::Exact(group.service.clone());
            let (service, principal) = (group.service.to_string(), group.principal.clone());
            let namespace = principal.as_ref().map(|id| id.namespace.clone());
            let namespace = namespace.or_else(|| names::namespace_of(&service));
            let mut first: Option<(Tunnel, String)> = None;
            let mut hop = Hop::Plain;
            let mut rules =
                most_specific(&self.rules.meeting(&host), &host, |rule| !rule.is_only_tls);
            for shared in self.groups.shared_by(index) {
                let own =
                    most_specific(&self.rules.meeting(&shared), &shared, |rule| !rule.is_only_tls);
                rules.extend(own.into_iter().filter(|rule| rule.host == shared));
            }
            // Whose gateway it is comes first, then the mesh: an older rule of a tenant takes nothing from them.
            rules.sort_by_key(|rule| {
                let of = &rule.meta.namespace;
                (namespace.as_ref() != Some(of), *of != self.mesh.root_namespace)
            });
            for rule in rules {
                let at = SourcePosition::root(rule.meta.line, "spec");
                let own = rule.policy.as_ref().and_then(|policy| policy.settings.tunnel.as_ref());
                if own.is_some_and(Option::is_some) && rule.covers(&host) {
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
                key_groups: self.mesh.key_groups.clone(),
                trust_domain,
                namespace,
                principal,
            }));
        }
    }

    /// Warns about rules for hosts that don't exist, and about two for one host.
    pub(super) fn check_rules(&mut self) {
        let mut seen: HashMap<RuleKey<'_>, &Rule> = HashMap::new();
        for rule in self.rules.iter() {
            let mut cx = rule.meta.cx(self.report);
            let at = SourcePosition::root(rule.meta.line, "spec").field("host");
            let hosts = rule.hosts();
            let covers =
                hosts.iter().any(|host| self.entries.meet(host) || self.egress_hosts.meet(host));
            let name = rule.host.to_string();
            let group = hosts.iter().any(|host| self.groups.meet(host));
            // Without mesh.yaml no gateway is known.
            let excused = names::is_in_cluster(&name) && !self.mesh_given;
            if !(covers || group || excused) {
                let message = format!(
                    "no ServiceEntry and no gateway is named {name}; the rule has no effect"
                );
                cx.warn(&at, message).code = Some("IST0174");
            }
            let own = &rule.meta.namespace;
            let of_service = hosts.iter().any(|host| self.entries.meet_in(own, host));
            let of_policy = hosts.iter().any(|host| self.egress_hosts.meet_in(own, host));
            let of_gateway = self.groups.are_in(own);
            let used =
                group || of_service || of_policy || of_gateway || *own == self.mesh.root_namespace;
            if covers && !used && self.mesh_given && rule.selector.is_none() {
                let message = format!(
                    "gateways do not use this rule: only those of the gateway's namespace, of the \
                     ServiceEntry's and of the root namespace ({}) count there",
                    self.mesh.root_namespace.0
                );
                cx.warn(&at, message);
            }
            // There is one a host, and the next rule counts besides.
            if rule.is_only_tls {
                continue;
            }
            match seen.entry((&rule.host, own, &rule.exported, &rule.selector)) {
                hash_map::Entry::Occupied(first) => merge_notes(first.get(), rule, &at, &mut cx),
                hash_map::Entry::Vacant(place) => drop(place.insert(rule)),
            }
        }
    }
}

/// What two rules that stand in each other's place have in common.
type RuleKey<'r> = (&'r HostPattern, &'r Namespace, &'r Exported, &'r Option<Labels>);

/// What of a later rule for the same host has no effect.
fn merge_notes(first: &Rule, rule: &Rule, at: &SourcePosition, cx: &mut Cx<'_>) {
    let other = &first.meta.label;
    if first.policy.is_some() && rule.policy.is_some() {
        let message = format!(
            "{other} is for the same host; its traffic policy is used, and the subsets of both"
        );
        cx.warn(at, message);
    }
    let mut own = rule.subsets.all.iter();
    if let Some(twice) = own.find(|own| first.subset(&own.name).is_some()) {
        let message = format!(
            "{other} is for the same host and defines the subset {:?}; its own is used",
            twice.name
        );
        cx.warn(at, message);
    }
}
