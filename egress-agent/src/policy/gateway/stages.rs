//! The gateway's stage: what is looked up by the port at the gateway.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    policy::{HostTable, HttpRule, Owner, Server, ServerTls, TcpRule, TlsRule},
    types::GatewayPort,
};

/// The gateway's stage: by whose servers they are, and by port. Servers of a `Gateway` of the Gateway API that
/// shares a gateway's service have tables of their own, so that no other one's routes are asked.
#[derive(Debug, Default)]
pub(super) struct Stages(BTreeMap<Owner, HashMap<GatewayPort, StagePort>>);

impl Stages {
    pub(super) fn entry(&mut self, owner: &Owner, port: GatewayPort) -> &mut StagePort {
        self.0.entry(owner.clone()).or_default().entry(port).or_default()
    }

    pub(super) fn get(&self, owner: &Owner, port: GatewayPort) -> Option<&StagePort> {
        self.0.get(owner)?.get(&port)
    }

    /// Everybody's on a port, in the order of their names.
    pub(super) fn on(&self, port: GatewayPort) -> impl Iterator<Item = (&Owner, &StagePort)> {
        self.0.iter().filter_map(move |(owner, ports)| Some((owner, ports.get(&port)?)))
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &StagePort> {
        self.0.values().flat_map(HashMap::values)
    }
}

/// The gateway's stage on one of its ports.
#[derive(Debug, Default)]
pub(super) struct StagePort {
    pub(super) served: HostTable<Option<Arc<Server>>>,
    pub(super) http: HostTable<Vec<Arc<HttpRule>>>,
    pub(super) tls: HostTable<Vec<Arc<TlsRule>>>,
    pub(super) tcp: HostTable<Vec<Arc<TcpRule>>>,
    /// All rules of `tcp`, for where no name is known.
    pub(super) any_tcp: Vec<Arc<TcpRule>>,
    /// Settings of the servers that end TLS here.
    pub(super) terminating: Vec<Arc<ServerTls>>,
}
