//! Hosts outside the registry.

use std::{collections::HashMap, sync::Arc};

use crate::{
    policy::{Cluster, ClusterName, ConnectionPool, Discovery, Keepalive},
    types::{OriginalPort, Port},
};

/// The clusters of hosts outside the registry, one a port: that of the address which a host is resolved to.
#[derive(Debug)]
pub(super) struct Passthrough {
    known: HashMap<OriginalPort, Arc<Cluster>>,
    keepalive: Option<Keepalive>,
}

impl Passthrough {
    /// One for each port that is likely to be dialled: those of services, and HTTP's.
    pub(super) fn new(
        services: impl Iterator<Item = OriginalPort>,
        keepalive: Option<Keepalive>,
    ) -> Self {
        let usual = [80, 443].into_iter().filter_map(Port::new).map(OriginalPort);
        let known = services.chain(usual).map(|port| (port, Arc::new(cluster(port, keepalive))));
        Self { known: known.collect(), keepalive }
    }

    /// That of a port.
    pub(super) fn cluster(&self, port: OriginalPort) -> Arc<Cluster> {
        let known = self.known.get(&port).map(Arc::clone);
        known.unwrap_or_else(|| Arc::new(cluster(port, self.keepalive)))
    }
}

fn cluster(port: OriginalPort, keepalive: Option<Keepalive>) -> Cluster {
    plain(ClusterName::passthrough(), Discovery::Request(port.0), keepalive)
}

/// A cluster without settings of its own.
pub(super) fn plain(
    name: ClusterName,
    discovery: Discovery,
    keepalive: Option<Keepalive>,
) -> Cluster {
    let pool = ConnectionPool { keepalive, ..ConnectionPool::default() };
    Cluster { pool, ..Cluster::new(name, discovery) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_a_cluster_and_the_likely_ones_the_same_each_time() {
        let port = |number| OriginalPort(Port::new(number).unwrap());
        let clusters = Passthrough::new([port(8080)].into_iter(), None);
        for (number, is_known) in [(80, true), (443, true), (8080, true), (9000, false)] {
            let [one, other] = [(); 2].map(|()| clusters.cluster(port(number)));
            assert_eq!(Arc::ptr_eq(&one, &other), is_known, "{number}");
            assert_eq!(one, other);
            let Discovery::Request(its) = &one.discovery else { panic!("{one:?}") };
            assert_eq!(its.get(), number);
        }
    }
}
