//! What a pod dials, as far as a node sees it.

use ipnet::IpNet;

use crate::types::{Host, OriginalPort};

/// Addresses of a route; names are resolved by the node, again and again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DirectTarget {
    /// Every address: the gateway decides by name.
    Any,
    /// These.
    Net(IpNet),
    /// Those that this name resolves to.
    Name(Host),
}

/// What was dialled, where only the workload says which raw TCP service is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedPort {
    /// The port that was dialled.
    pub port: OriginalPort,
    /// What was dialled there: a name or network that several resources are about, or any address that is of none of
    /// the services on that port, of which several are known by name alone.
    pub target: DirectTarget,
}
