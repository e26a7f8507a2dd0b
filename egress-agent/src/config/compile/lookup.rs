//! What a destination is looked for by.

use crate::{
    policy::{ClusterName, HostPattern, Protocol},
    types::Port,
};

/// What is looked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Lookup {
    pub(super) host: HostPattern,
    pub(super) port: Port,
    pub(super) subset: String,
    pub(super) traffic: Traffic,
}

impl Lookup {
    pub(super) fn cluster_name(&self) -> ClusterName {
        ClusterName::outbound(self.port, &self.subset, &self.host.to_string())
    }
}

/// What is sent to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Traffic {
    Http,
    Tls,
    Tcp,
}

impl From<Protocol> for Traffic {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http => Self::Http,
            Protocol::Tls => Self::Tls,
            Protocol::Tcp => Self::Tcp,
        }
    }
}
