//! Who is where: this gateway, workloads and nodes.

use std::{net::IpAddr, sync::Arc};

use super::GatewayPolicy;
use crate::{policy::Origin, types::Source};

impl GatewayPolicy {
    /// The credentials that proxies of tunnels are shown.
    pub fn shown_to_proxies(&self) -> impl Iterator<Item = &str> {
        let targets = self.snapshot.rules.clusters.iter().filter_map(|c| c.connect.as_ref());
        targets.filter_map(|target| target.credential.as_deref())
    }

    /// Where this gateway is.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Who is behind this address. Behind a node's address any pod of the node may be: one on the host's network,
    /// or each where the network plug-in puts the node's address in the place of theirs. So no workload is.
    #[must_use]
    pub fn source(&self, addr: IpAddr) -> Source {
        let addr = addr.to_canonical();
        let workload = self.workloads.get(&addr).filter(|_| !self.nodes.contains_key(&addr));
        Source::unauthenticated(addr, workload.cloned())
    }

    /// The node of the cluster that has this address.
    #[must_use]
    pub fn node_at(&self, addr: IpAddr) -> Option<&Arc<str>> {
        self.nodes.get(&addr.to_canonical())
    }
}
