//! What connections are found by.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::version::Version;
use crate::{
    policy::{Cluster, EgressAddresses},
    types::{ClientAddr, Host, LocalAddr, ShareOwner},
};

/// What a connection was made for. The whole cluster is part of it: when the configuration changes
/// anything about it, connections made before aren't used again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Key {
    pub(in super::super) cluster: Arc<Cluster>,
    /// Whom it was resolved for, and whom the certificate was verified for.
    pub(in super::super) host: Host,
    pub(in super::super) version: Version,
    /// The client's connection that its own is for alone: the PROXY protocol names it.
    pub(in super::super) client: Option<(ClientAddr, LocalAddr)>,
    /// Where it was dialled from: the addresses, and whose one of them it is.
    pub(in super::super) from: Option<(Arc<EgressAddresses>, ShareOwner)>,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A part of what `Eq` compares, which is all that hashing needs.
        self.cluster.name.hash(state);
        self.host.hash(state);
        self.client.map(|(peer, local)| (peer.0, local.0)).hash(state);
        self.from.as_ref().map(|(_, owner)| owner).hash(state);
    }
}
