//! Who may use the gateway's own ports: health, metrics, tunnel. They are open on every address of the
//! gateway's host, of which the configuration may not name all, so the source decides.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Enforcement, MeshConfig};

/// What a source is to one of the gateway's own ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Loopback, an address of this host, or one of `nodes` in `mesh.yaml`: it is served first.
    Node,
    /// Another source that is served.
    Other,
    /// A workload under enforcement, or a source that the port's list leaves out.
    Refused,
}

/// Whether nodes use the port, or only those who observe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnPort {
    /// Health and tunnel. A workload on a node's network has the node's address; where the
    /// configuration does not tell them apart, the address is served.
    ForNodes,
    /// Metrics.
    ForObservers,
}

/// The addresses that the configuration gives a meaning.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Callers {
    nodes: HashSet<IpAddr>,
    workloads: HashMap<IpAddr, KnownCaller>,
}

/// What is known of a workload's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct KnownCaller {
    mode: Enforcement,
    /// It may be the address of the node, which the configuration does not name.
    may_be_node: bool,
}

impl Callers {
    /// From `nodes`, `workloads` and the workloads' modes.
    #[must_use]
    pub fn new(mesh: &MeshConfig) -> Self {
        let modes: Vec<_> = mesh.sets().map(|set| set.mode).collect();
        let names_every_node =
            !mesh.nodes.is_empty() && mesh.nodes.iter().all(|node| !node.addresses.is_empty());
        let mut workloads = HashMap::new();
        for workload in &mesh.workloads {
            let mode = modes.get(mesh.set_of(workload)).copied();
            let mode = mode.unwrap_or(Enforcement::Enforce);
            // A workload on a node's network is known by its cgroup: it has no interface of its own.
            let by_cgroup = workload.interface.is_none() && !workload.cgroups.is_empty();
            let known = KnownCaller { mode, may_be_node: by_cgroup && !names_every_node };
            // A node's address is no workload's, whoever claims it.
            let addresses = workload.addresses.iter().map(IpAddr::to_canonical);
            for address in addresses.filter(|one| !mesh.node_addresses.contains_key(one)) {
                workloads.insert(address, known);
            }
        }
        let nodes = mesh.nodes.iter().flat_map(|node| &node.addresses);
        Self { nodes: nodes.map(IpAddr::to_canonical).collect(), workloads }
    }

    /// What the source is. `local` is the address that it connected to. An empty `served` serves
    /// every source but workloads under enforcement.
    #[must_use]
    pub fn classify(
        &self,
        source: IpAddr,
        local: IpAddr,
        port: OwnPort,
        served: &[IpNet],
    ) -> Caller {
        let (source, local) = (source.to_canonical(), local.to_canonical());
        // A connection of this host to its own address has that address at both ends.
        if source.is_loopback() || source == local || self.nodes.contains(&source) {
            return Caller::Node;
        }
        let served = if served.is_empty() {
            match self.workloads.get(&source) {
                Some(KnownCaller { mode: Enforcement::Enforce, may_be_node }) => {
                    *may_be_node && port == OwnPort::ForNodes
                }
                Some(KnownCaller {
                    mode: Enforcement::Audit | Enforcement::AuditRedirect | Enforcement::Exempt,
                    ..
                })
                | None => true,
            }
        } else {
            served.iter().any(|net| net.contains(&source))
        };
        if served { Caller::Other } else { Caller::Refused }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        policy::EnforcementOverride,
        types::{Labels, Namespace, Node, Selector, SpiffeId, Workload},
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn workload(namespace: &str, addresses: &[&str]) -> Arc<Workload> {
        Arc::new(Workload {
            name: "w".into(),
            namespace: Namespace(namespace.into()),
            labels: Labels::new(),
            addresses: addresses.iter().map(|text| ip(text)).collect(),
            cgroups: Vec::new(),
            interface: None,
            node: None,
            service_account: "default".into(),
        })
    }

    fn callers() -> Callers {
        let mesh = MeshConfig {
            nodes: vec![Arc::new(Node {
                name: "n".into(),
                principal: SpiffeId::parse("spiffe://cluster.local/ns/x/sa/y").unwrap(),
                addresses: vec![ip("10.0.0.7"), ip("2001:db8::7")],
            })],
            workloads: vec![
                // One on the host's network has the node's address too.
                workload("shop", &["10.1.0.5", "2001:db8:1::5", "10.0.0.7"]),
                workload("trial", &["10.1.0.6"]),
            ],
            overrides: vec![EnforcementOverride {
                name: "trial".into(),
                selector: Selector {
                    namespaces: vec![Namespace("trial".into())],
                    labels: Labels::new(),
                },
                mode: Enforcement::Audit,
            }],
            ..MeshConfig::default()
        };
        Callers::new(&mesh)
    }

    #[test]
    fn workloads_under_enforcement_are_refused_and_everybody_else_is_served() {
        let callers = callers();
        let local = ip("10.2.0.1");
        for (source, expected) in [
            ("127.0.0.1", Caller::Node),
            ("::1", Caller::Node),
            ("10.2.0.1", Caller::Node),
            ("::ffff:10.2.0.1", Caller::Node),
            ("10.0.0.7", Caller::Node),
            ("2001:db8::7", Caller::Node),
            ("10.1.0.5", Caller::Refused),
            ("::ffff:10.1.0.5", Caller::Refused),
            ("2001:db8:1::5", Caller::Refused),
            ("10.1.0.6", Caller::Other),
            ("10.9.9.9", Caller::Other),
        ] {
            assert_eq!(
                callers.classify(ip(source), local, OwnPort::ForNodes, &[]),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn a_list_of_sources_decides_instead_and_nodes_are_always_served() {
        let callers = callers();
        let served = ["10.1.0.5/32".parse().unwrap()];
        let classify =
            |source| callers.classify(ip(source), ip("10.2.0.1"), OwnPort::ForObservers, &served);
        assert_eq!(classify("10.1.0.5"), Caller::Other);
        assert_eq!(classify("10.1.0.6"), Caller::Refused);
        assert_eq!(classify("10.9.9.9"), Caller::Refused);
        assert_eq!(classify("10.0.0.7"), Caller::Node);
        assert_eq!(classify("::1"), Caller::Node);
    }

    #[test]
    fn a_node_that_the_configuration_does_not_name_can_always_ask_for_health() {
        let mut host = Workload::clone(&workload("shop", &["10.0.0.9"]));
        host.cgroups = vec!["/pods/host".into()];
        let mut mesh = MeshConfig { workloads: vec![Arc::new(host)], ..MeshConfig::default() };
        let classify = |mesh: &MeshConfig, port| {
            Callers::new(mesh).classify(ip("10.0.0.9"), ip("10.2.0.1"), port, &[])
        };
        assert_eq!(classify(&mesh, OwnPort::ForNodes), Caller::Other);
        assert_eq!(classify(&mesh, OwnPort::ForObservers), Caller::Refused);
        mesh.nodes = vec![Arc::new(Node {
            name: "n".into(),
            principal: SpiffeId::parse("spiffe://cluster.local/ns/x/sa/y").unwrap(),
            addresses: vec![ip("10.0.0.7")],
        })];
        assert_eq!(classify(&mesh, OwnPort::ForNodes), Caller::Refused);
    }

    #[test]
    fn a_workload_that_claims_a_nodes_address_keeps_no_node_from_asking() {
        let claimed = vec![workload("shop", &["10.0.0.9", "10.0.0.10"])];
        let mut mesh = MeshConfig { workloads: claimed, ..MeshConfig::default() };
        mesh.node_addresses.insert(ip("10.0.0.9"), "n".into());
        let callers = Callers::new(&mesh);
        let classify =
            |source| callers.classify(ip(source), ip("10.2.0.1"), OwnPort::ForNodes, &[]);
        assert_eq!(classify("10.0.0.9"), Caller::Other);
        assert_eq!(classify("10.0.0.10"), Caller::Refused);
    }
}
