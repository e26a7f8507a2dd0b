//! What the parts of compilation share.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    super::{decode::Report, resource::Resource, virtual_service::VirtualService},
    index::{DestinationRules, EgressHosts, Entries, GatewayServers, Groups, Hints},
    lookup::Lookup,
    mesh,
};
use crate::{
    policy::{
        AddressGuard, Cluster, ClusterName, Destination, EgressAddresses, Hop, MeshConfig, Server,
    },
    types::{GatewayPort, Namespace, Port},
};

/// What compilation knows so far.
pub(super) struct Compiler<'r> {
    pub(super) report: &'r mut Report,
    pub(super) mesh: MeshConfig,
    /// Whether there is a `mesh.yaml`: without one no gateway is known.
    pub(super) mesh_given: bool,
    pub(super) places: mesh::GatewayPositions,
    /// Whether there is a cluster, whose pods are not in `mesh.yaml`.
    pub(super) workloads_come_and_go: bool,
    pub(super) guard: AddressGuard,
    pub(super) groups: Groups,
    pub(super) entries: Entries,
    /// Hosts that egress policies name.
    pub(super) egress_hosts: EgressHosts,
    pub(super) rules: DestinationRules,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) by_gateway: HashMap<Arc<str>, GatewayServers>,
    pub(super) by_port: HashMap<GatewayPort, Vec<usize>>,
    /// Names of all gateways, those included whose servers have errors.
    pub(super) gateways: HashSet<String>,
    /// Where those of them dial from that say it, or why nothing is sent there.
    pub(super) gateway_addresses: HashMap<String, Result<Arc<EgressAddresses>, String>>,
    /// Whether servers are missing because of errors in them, told already.
    pub(super) broken_gateways: bool,
    /// Virtual services that others delegate to.
    pub(super) delegates: &'r [Resource<VirtualService>],
    pub(super) delegates_by_name: HashMap<String, &'r Resource<VirtualService>>,
    /// How traffic has to come to a gateway's port and subset, by the namespace that routes it.
    pub(super) hops: HashMap<(String, Port, String, Namespace), Hop>,
    pub(super) hints: Hints,
    /// What the hints for hosts are taken from, made with the first.
    pub(super) host_names: OnceCell<Vec<String>>,
    pub(super) gateway_names: OnceCell<Vec<String>>,
    /// By name; those of one name differ in their settings.
    pub(super) clusters: BTreeMap<ClusterName, Vec<Arc<Cluster>>>,
    pub(super) destinations: HashMap<Lookup, Arc<Destination>>,
}
