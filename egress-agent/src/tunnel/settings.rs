//! What the tunnel goes by: groups, healthy gateways, workloads.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Origin, endpoint, error::Refused};
use crate::{
    policy::{Snapshot, TunnelTls},
    types::{ClientAddr, SpiffeId, TrustDomain, Workload},
};

/// One accepted configuration and what is known of its gateways, immutable.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The gateway groups, in the order of the configuration.
    pub groups: Vec<Group>,
    /// Workloads by address.
    pub addresses: HashMap<IpAddr, Arc<Workload>>,
    /// Workloads by cgroup, for those on the node's own network.
    pub cgroups: HashMap<u64, Arc<Workload>>,
    /// The mesh's.
    pub trust_domain: TrustDomain,
}

/// A gateway group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its service, for people.
    pub service: String,
    /// How its tunnels are secured; `None` if it has none.
    pub tls: Option<Arc<TunnelTls>>,
    /// Its healthy endpoints, in a fixed order.
    pub healthy: Vec<SocketAddr>,
}

impl Settings {
    /// Those of a snapshot. `cgroups`: the workloads' cgroups that are under enforcement.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        healthy: &HashSet<IpAddr>,
        cgroups: HashMap<u64, Arc<Workload>>,
    ) -> Self {
        let mesh = &snapshot.mesh;
        let groups = mesh.gateways.iter().map(|group| Group {
            service: group.service.to_string(),
            tls: group.tunnel.clone(),
            healthy: group
                .endpoints
                .iter()
                .filter(|addr| healthy.contains(addr))
                .map(|addr| endpoint(*addr))
                .collect(),
        });
        let by_address = mesh.workloads.iter().flat_map(|workload| {
            let addresses = workload.addresses.iter();
            addresses.map(move |addr| (addr.to_canonical(), Arc::clone(workload)))
        });
        Self {
            groups: groups.collect(),
            addresses: by_address.collect(),
            cgroups,
            trust_domain: mesh.trust_domain.clone(),
        }
    }

    /// The group that the kernel chose.
    pub(super) fn group(&self, origin: &Origin) -> Result<(&Group, &Arc<TunnelTls>), Refused> {
        let group = self.groups.get(origin.group);
        let found = group.and_then(|group| Some((group, group.tls.as_ref()?)));
        let found = found.ok_or(Refused::NotConfigured { group: origin.group })?;
        if found.0.healthy.is_empty() {
            return Err(Refused::NoHealthyGateway { service: found.0.service.clone() });
        }
        Ok(found)
    }

    /// The calling workload. The enforcement point at a pod's interface verifies its address; a workload on the node's
    /// own network is known by its cgroup.
    pub(super) fn workload(&self, origin: &Origin, peer: ClientAddr) -> Option<&Arc<Workload>> {
        let by_address = self.addresses.get(&peer.ip());
        by_address.or_else(|| self.cgroups.get(&origin.cgroup))
    }

    /// The identity that this workload's connections share a tunnel by.
    pub(super) fn identity(&self, workload: Option<&Arc<Workload>>) -> Option<SpiffeId> {
        workload.map(|workload| workload.principal(&self.trust_domain))
    }
}
