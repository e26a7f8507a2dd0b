//! What compilation looks resources up in: by host, by name and by gateway. A look-up takes as long as
//! what it finds, so that compilation takes as long as its input is large.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use super::{
    super::{decode::nearest, names, translate::SharedService},
    entry::CompiledEntry,
    rule::Rule,
};
use crate::{
    policy::{
        HostIndex, HostPattern, InnerProtocol, MeshConfig, Owner, Protocol, Server, ServerProtocol,
        has_labels,
    },
    types::{Host, Labels, Namespace, Port, steps},
};

/// The registry's entries.
#[derive(Debug, Default)]
pub(super) struct Entries {
    all: Vec<CompiledEntry>,
    /// An entry, and which of its hosts it is.
    hosts: HostIndex<(usize, usize)>,
    by_name: HashMap<String, usize>,
    by_namespace: HashMap<Namespace, HostIndex<()>>,
    declared: HashMap<HostPattern, Declared>,
}

/// What all entries of a host declare.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// The ports, each with the protocol of the first entry.
    pub(super) ports: Vec<(Port, Protocol)>,
    /// Some ports of some of them have errors, reported already.
    pub(super) broken: bool,
}

impl From<Vec<CompiledEntry>> for Entries {
    fn from(all: Vec<CompiledEntry>) -> Self {
        let mut entries = Self::default();
        for (index, entry) in all.iter().enumerate() {
            entries.by_name.entry(entry.meta.full_name()).or_insert(index);
            let own = entries.by_namespace.entry(entry.meta.namespace.clone()).or_default();
            for (number, host) in entry.hosts.iter().enumerate() {
                entries.hosts.add(host, (index, number));
                own.add(host, ());
                let declared = entries.declared.entry(host.clone()).or_default();
                declared.broken |= entry.broken;
                for port in &entry.ports {
                    if !declared.ports.iter().any(|(number, _)| *number == port.number) {
                        declared.ports.push((port.number, port.protocol));
                    }
                }
            }
        }
        Self { all, ..entries }
    }
}

impl Entries {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, CompiledEntry> {
        steps::count(self.all.len());
        self.all.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&CompiledEntry> {
        self.all.get(index)
    }

    /// The entry of this full name.
    pub(super) fn named(&self, name: &str) -> Option<&CompiledEntry> {
        self.all.get(*self.by_name.get(name)?)
    }

    /// Whether a host of an entry has something in common with the pattern.
    pub(super) fn meet(&self, host: &HostPattern) -> bool {
        self.hosts.meets(host)
    }

    /// The same of the entries of a namespace.
    pub(super) fn meet_in(&self, namespace: &Namespace, host: &HostPattern) -> bool {
        self.by_namespace.get(namespace).is_some_and(|hosts| hosts.meets(host))
    }

    /// Whether hosts of entries with this port cover the pattern.
    pub(super) fn has(&self, host: &HostPattern, port: Port) -> bool {
        let covering = self.hosts.covering(host).flatten();
        let mut entries = covering.filter_map(|(entry, _)| self.all.get(*entry));
        entries.any(|entry| entry.port(port).is_some())
    }

    /// The same with more of them.
    pub(super) fn with(self, more: Vec<CompiledEntry>) -> Self {
        if more.is_empty() {
            return self;
        }
        let mut all = self.all;
        all.extend(more);
        all.into()
    }

    /// What the entries declare of the most specific host that covers the pattern.
    pub(super) fn declared(&self, host: &HostPattern) -> Option<&Declared> {
        let (entry, number) = self.hosts.narrowest(host)?;
        self.declared.get(self.all.get(entry)?.hosts.get(number)?)
    }

    /// The entries whose hosts cover the pattern, each with the most specific of them: those of the
    /// more specific host come first.
    pub(super) fn covering(&self, host: &HostPattern) -> Vec<(usize, &HostPattern)> {
        let mut seen = HashSet::new();
        let covering = self.hosts.covering(host).flatten();
        covering
            .filter(|(entry, _)| seen.insert(*entry))
            .filter_map(|(entry, number)| Some((*entry, self.all.get(*entry)?.hosts.get(*number)?)))
            .collect()
    }
}

/// Hosts that egress policies name, by the namespace whose destination rules count for them.
#[derive(Debug, Default)]
pub(super) struct EgressHosts {
    hosts: HostIndex<()>,
    by_namespace: HashMap<Namespace, HostIndex<()>>,
}

impl FromIterator<(Namespace, HostPattern)> for EgressHosts {
    fn from_iter<I: IntoIterator<Item = (Namespace, HostPattern)>>(all: I) -> Self {
        let mut named = Self::default();
        for (namespace, host) in all {
            named.hosts.add(&host, ());
            named.by_namespace.entry(namespace).or_default().add(&host, ());
        }
        named
    }
}

impl EgressHosts {
    /// Whether one of them has something in common with the pattern.
    pub(super) fn meet(&self, host: &HostPattern) -> bool {
        self.hosts.meets(host)
    }

    /// The same of those of a namespace.
    pub(super) fn meet_in(&self, namespace: &Namespace, host: &HostPattern) -> bool {
        self.by_namespace.get(namespace).is_some_and(|hosts| hosts.meets(host))
    }
}

/// The destination rules.
#[derive(Debug, Default)]
pub(super) struct DestinationRules {
    all: Vec<Rule>,
    hosts: HostIndex<usize>,
}

impl From<Vec<Rule>> for DestinationRules {
    fn from(all: Vec<Rule>) -> Self {
        let mut hosts = HostIndex::default();
        for (index, rule) in all.iter().enumerate() {
            rule.hosts().iter().for_each(|host| hosts.add(host, index));
        }
        Self { all, hosts }
    }
}

impl DestinationRules {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Rule> {
        steps::count(self.all.len());
        self.all.iter()
    }

    /// The rules that have a host in common with the pattern, in order.
    pub(super) fn meeting(&self, host: &HostPattern) -> Vec<&Rule> {
        let found = self.hosts.meeting(host).into_iter();
        found.filter_map(|index| self.all.get(index)).collect()
    }
}

/// The gateways' services.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_name: HashMap<String, usize>,
    hosts: HostIndex<usize>,
    /// The services of `Gateway`s of the Gateway API that have none of their own, by full name.
    shared: BTreeMap<String, SharedService>,
    namespaces: HashSet<Namespace>,
    selected: HashMap<Labels, Rc<[usize]>>,
}

impl From<&MeshConfig> for Groups {
    fn from(mesh: &MeshConfig) -> Self {
        let mut groups = Self::default();
        for (index, group) in mesh.gateways.iter().enumerate() {
            groups.hosts.add(&HostPattern::Exact(group.service.clone()), index);
            let proven = group.principal.as_ref().map(|id| id.namespace.clone());
            let namespace = proven.or_else(|| names::namespace_of(&group.service.to_string()));
            groups.namespaces.extend(namespace);
            let Some(full) = group.service.as_name() else { continue };
            for domain in ["", ".svc.cluster.local", ".cluster.local"] {
                if let Some(name) = full.strip_suffix(domain) {
                    groups.by_name.entry(name.to_owned()).or_insert(index);
                }
            }
        }
        groups
    }
}

impl Groups {
    /// Adds services of `Gateway`s of the Gateway API that are served by another one.
    pub(super) fn share(&mut self, services: Vec<SharedService>) {
        for service in services {
            let Ok(host) = Host::parse(&service.name) else { continue };
            self.by_name.entry(service.name.clone()).or_insert(service.group);
            self.hosts.add(&HostPattern::Exact(host), service.group);
            self.shared.entry(service.name.clone()).or_insert(service);
        }
    }

    /// The `Gateway` of the Gateway API that a service is of, where it is served by another one.
    pub(super) fn owner(&self, name: &str) -> Owner {
        self.shared.get(name).map(|service| Arc::clone(&service.owner))
    }

    /// The service that a name of a destination stands for: the group's, or one that it serves besides.
    pub(super) fn service(&self, group: usize, name: &str, mesh: &MeshConfig) -> String {
        match (self.shared.get(name), mesh.gateways.get(group)) {
            (None, Some(group)) => group.service.to_string(),
            (Some(_), _) | (None, None) => name.to_owned(),
        }
    }

    /// The services that a group serves besides its own.
    pub(super) fn shared_by(&self, group: usize) -> Vec<HostPattern> {
        let shared = self.shared.values().filter(|service| service.group == group);
        shared.filter_map(|service| HostPattern::parse(&service.name).ok()).collect()
    }

    /// The index of a service, by its full name or without the cluster's domain.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Whether the pattern covers one of them.
    pub(super) fn meet(&self, host: &HostPattern) -> bool {
        self.hosts.meets(host)
    }

    /// Whether there is one in this namespace.
    pub(super) fn are_in(&self, namespace: &Namespace) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The indices of those whose processes have all labels of the selector.
    pub(super) fn selected(&mut self, selector: &Labels, mesh: &MeshConfig) -> Rc<[usize]> {
        if let Some(known) = self.selected.get(selector) {
            return Rc::clone(known);
        }
        let groups = mesh.gateways.iter().enumerate();
        let found: Rc<[usize]> = groups
            .filter(|(_, group)| has_labels(&group.labels, selector))
            .map(|(index, _)| index)
            .collect();
        steps::count(mesh.gateways.len());
        self.selected.insert(selector.clone(), Rc::clone(&found));
        found
    }
}

/// What the servers of one `Gateway` have in common.
#[derive(Debug, Default)]
pub(super) struct GatewayServers {
    /// Their hosts.
    pub(super) hosts: HostIndex<()>,
    /// The namespaces of the gateways that it is for; the root namespace where none is known.
    pub(super) namespaces: Vec<Namespace>,
    /// By port: whether all of them terminate TLS that carries raw TCP.
    terminate: HashMap<Port, bool>,
}

impl GatewayServers {
    /// Whether all servers, of this port or of any, terminate TLS that carries raw TCP.
    pub(super) fn terminates_tcp(&self, port: Option<Port>) -> bool {
        match port {
            Some(port) => self.terminate.get(&port).is_some_and(|all| *all),
            None => !self.terminate.is_empty() && self.terminate.values().all(|all| *all),
        }
    }
}

/// The servers, by their `Gateway`.
pub(super) fn by_gateway(
    servers: &[Arc<Server>],
    groups: &mut Groups,
    mesh: &MeshConfig,
) -> HashMap<Arc<str>, GatewayServers> {
    let mut all: HashMap<Arc<str>, GatewayServers> = HashMap::new();
    let mut selectors: HashSet<(&str, &Labels)> = HashSet::new();
    for server in servers {
        let own = all.entry(Arc::clone(&server.gateway)).or_default();
        server.hosts.iter().for_each(|(_, host)| own.hosts.add(host, ()));
        let tcp = matches!(
            &server.protocol,
            ServerProtocol::Terminate(tls) if tls.inside == InnerProtocol::Tcp
        );
        *own.terminate.entry(server.port.0).or_insert(true) &= tcp;
        if selectors.insert((&server.gateway, &server.selector)) {
            let selected = groups.selected(&server.selector, mesh);
            let services = selected.iter().filter_map(|index| mesh.gateways.get(*index));
            own.namespaces.extend(services.filter_map(|group| {
                let proven = group.principal.as_ref().map(|id| id.namespace.clone());
                proven.or_else(|| names::namespace_of(&group.service.to_string()))
            }));
        }
    }
    for own in all.values_mut() {
        own.namespaces.sort_unstable();
        own.namespaces.dedup();
        if own.namespaces.is_empty() {
            own.namespaces.push(mesh.root_namespace.clone());
        }
    }
    all
}

/// Names that were probably meant. Looking for one compares it with all others, so that one compilation
/// has a bound for it: of thousands of unknown names the first get a hint.
#[derive(Debug)]
pub(super) struct Hints {
    left: usize,
    comparisons: usize,
}

impl Default for Hints {
    fn default() -> Self {
        Self { left: 50, comparisons: 200_000 }
    }
}

impl Hints {
    /// `. Did you mean NAME?`, or nothing.
    pub(super) fn nearest(&mut self, text: &str, names: &[String]) -> String {
        if names.is_empty() || self.left == 0 || names.len() > self.comparisons {
            return String::new();
        }
        self.left -= 1;
        self.comparisons -= names.len();
        steps::count(names.len());
        let near = nearest(text, names.iter().map(String::as_str));
        near.map(|near| format!(". Did you mean {near}?")).unwrap_or_default()
    }
}
