//! The registry's services as the node's routes ask for them.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    policy::{HostIndex, Protocol, RouteSet, Service},
    types::Port,
};

/// The services of the registry, by their hosts.
pub(super) struct Registry<'r> {
    pub(super) services: &'r [Arc<Service>],
    /// Only rules for raw TCP ask for services themselves.
    hosts: OnceCell<HostIndex<usize>>,
    /// The ports that are declared.
    ports: HashMap<Protocol, HostIndex<Port>>,
}

impl<'r> Registry<'r> {
    pub(super) fn of(services: &'r [Arc<Service>]) -> Self {
        let mut ports: HashMap<Protocol, HostIndex<Port>> = HashMap::new();
        // A host that many namespaces declare is asked about once.
        let mut seen = HashSet::new();
        for service in services {
            let (host, protocol, port) = (&service.host, service.protocol, service.port.0);
            if seen.insert((host, protocol, port)) {
                ports.entry(protocol).or_default().add(host, port);
            }
        }
        Self { services, hosts: OnceCell::new(), ports }
    }

    /// The ports of a protocol that are declared for the hosts of a route set.
    pub(super) fn declared(&self, protocol: Protocol, set: &RouteSet) -> Vec<Port> {
        self.ports
            .get(&protocol)
            .map_or_else(Vec::new, |ports| ports.meeting_any(&set.rule_hosts()))
    }

    /// The services that have a host in common with a route set, in order.
    pub(super) fn meeting(&self, set: &RouteSet) -> Vec<&'r Service> {
        let hosts = self.hosts.get_or_init(|| {
            let mut hosts = HostIndex::default();
            let all = self.services.iter().enumerate();
            all.for_each(|(index, service)| hosts.add(&service.host, index));
            hosts
        });
        let found = hosts.meeting_any(&set.rule_hosts()).into_iter();
        found.filter_map(|index| Some(&**self.services.get(index)?)).collect()
    }
}
