//! What the maps should hold.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use egress_ebpf::{
    abi::{
        GROUP_ENDPOINTS, GatewayKey, Globals, Group, PodAddress, Policy, Tunnel, UNKNOWN_POLICY,
        UNKNOWN_TABLE, mode,
    },
    absent::SurelyAbsent,
    addr::{Addr, PortBe},
};
use ipnet::IpNet;

use super::{
    CLOSED, Contents, NO_INTERFACE, POLICY, PlanInputs, PlanProblem, PodHardware, PodInterface,
    TABLE, policy_id,
    routes::{Builder, TCP, gateway_key, group_id, prefixes},
    tables,
};
use crate::{
    policy::{Enforcement, MeshConfig, Snapshot},
    types::Port,
};

/// Denied whatever `deniedCidrs` says: the cloud's metadata service, which hands out the node's
/// credentials.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl Contents {
    /// What the maps should hold for this snapshot.
    #[must_use]
    pub fn desired(snapshot: &Snapshot, facts: &PlanInputs) -> (Self, Vec<PlanProblem>) {
        let mut contents = Self::default();
        let mut problems = Vec::new();
        contents.set_pods(&facts.pods);
        contents.set_forwarders(&facts.forwarders);
        let taken = facts.pods.iter().filter(|pod| pod.hardware == PodHardware::Taken);
        problems.extend(taken.map(|pod| PlanProblem::HardwareTaken { ifindex: pod.ifindex }));
        contents.workloads.clone_from(&facts.workloads);
        contents.globals = Some(Globals {
            generation: facts.generation.max(1),
            events_per_second: facts.events_per_second,
            default_policy: POLICY,
            uplink_policy: POLICY,
            absent: 0,
            digest: facts.held.digest,
            accepted_at: facts.held.accepted_at,
        });
        let tables = tables(&snapshot.mesh);
        for (index, set) in snapshot.mesh.sets().enumerate() {
            let table = tables.get(&index).copied().unwrap_or(TABLE);
            contents.policies.insert(policy_id(index), Policy { mode: mode_of(set.mode), table });
        }
        let unknown =
            Policy { mode: mode_of(mode_of_unknown(&snapshot.mesh)), table: UNKNOWN_TABLE };
        contents.policies.insert(UNKNOWN_POLICY, unknown);
        let closed = Policy { mode: mode::ENFORCE, table: UNKNOWN_TABLE };
        contents.policies.insert(CLOSED, closed);
        contents.internal = snapshot.mesh.cluster_cidrs.iter().flat_map(prefixes).collect();
        let metadata = METADATA.map(IpNet::from);
        contents.denied =
            snapshot.mesh.denied_cidrs.iter().chain(&metadata).flat_map(prefixes).collect();
        let tunnels = snapshot.mesh.encapsulation_ports.iter();
        contents
            .gateways
            .extend(tunnels.map(|port| GatewayKey::encapsulation(PortBe::new(port.get()))));
        contents.set_groups(&snapshot.mesh, facts, &mut problems);
        contents.set_listeners(&facts.tunnel);
        let mut routes = Builder::new(snapshot, facts);
        snapshot.node.routes.iter().for_each(|route| routes.add(route));
        for (index, set) in snapshot.mesh.sets().enumerate() {
            let table = tables.get(&index).copied();
            let to = set.to.into_iter().flatten().zip(table.into_iter().cycle());
            to.for_each(|(to, table)| routes.exempt(table, to));
        }
        routes.finish(&mut contents, &mut problems);
        let absent = contents.absent();
        if let Some(globals) = &mut contents.globals {
            globals.absent = absent.raw();
        }
        problems.dedup();
        (contents, problems)
    }

    /// What `TUNNEL` holds, as the kernel has it.
    pub(in crate::bpf) fn set_tunnel(&mut self, tunnel: Tunnel) {
        self.tunnel = (tunnel != Tunnel::NONE).then_some(tunnel);
    }

    /// Where the tunnel's listener is, and that it may be reached there; the address's other ports are
    /// judged as if there were none.
    fn set_listeners(&mut self, listeners: &[SocketAddr]) {
        let mut tunnel = Tunnel::NONE;
        for listener in listeners {
            let (ip, port) = (listener.ip().to_canonical(), listener.port());
            let Some(dialled) = Port::new(port) else { continue };
            let (addr, at) = match ip {
                IpAddr::V4(_) => (&mut tunnel.v4, &mut tunnel.port_v4),
                IpAddr::V6(_) => (&mut tunnel.v6, &mut tunnel.port_v6),
            };
            (*addr, *at) = (ip.into(), PortBe::new(port));
            self.gateways.insert(gateway_key(ip, Some(dialled), TCP));
        }
        self.set_tunnel(tunnel);
    }

    /// What is in neither map, so that it needn't be looked for.
    fn absent(&self) -> SurelyAbsent {
        let absent = self
            .gateways
            .iter()
            .fold(SurelyAbsent::ALL, |absent, key| absent.with_gateway(&key.addr));
        self.denied
            .iter()
            .fold(absent, |absent, prefix| absent.with_denied(prefix.bits, &prefix.data))
    }

    /// Replaces what is known of pods, which doesn't depend on a snapshot.
    pub fn set_pods(&mut self, pods: &[PodInterface]) {
        let interfaces = pods.iter().filter(|pod| pod.ifindex != NO_INTERFACE);
        self.pod_interfaces = interfaces.map(|pod| (pod.ifindex, pod.into())).collect();
        self.pod_addresses = pods
            .iter()
            .flat_map(|pod| {
                // A pod's socket may have them too, before its packet is at the interface.
                let on = move |addr: &IpAddr| {
                    [pod.ifindex, NO_INTERFACE]
                        .map(|ifindex| PodAddress { ifindex, addr: Addr::from(*addr) })
                };
                pod.addresses.iter().flat_map(on)
            })
            .collect();
    }

    /// Says which interfaces may forward to the gateways, though they are no pod's.
    pub fn set_forwarders(&mut self, forwarders: &BTreeSet<u32>) {
        self.pod_addresses.extend(forwarders.iter().copied().map(PodAddress::forwarder));
    }

    fn set_groups(
        &mut self,
        mesh: &MeshConfig,
        facts: &PlanInputs,
        problems: &mut Vec<PlanProblem>,
    ) {
        for (index, gateway) in mesh.gateways.iter().enumerate() {
            let Some(id) = group_id(index, facts) else {
                problems.push(PlanProblem::TooManyGroups {
                    service: gateway.service.clone(),
                    group: index,
                    max: facts.max_groups,
                });
                continue;
            };
            let healthy: Vec<Addr> = gateway
                .endpoints
                .iter()
                .filter(|endpoint| facts.healthy.contains(endpoint))
                .map(|endpoint| Addr::from(*endpoint))
                .collect();
            if healthy.len() > GROUP_ENDPOINTS {
                problems.push(PlanProblem::TooManyEndpoints {
                    service: gateway.service.clone(),
                    found: healthy.len(),
                });
            }
            self.groups.insert(id, Group::new(&healthy));
            // An endpoint that isn't healthy is a gateway all the same: its other ports stay shut.
            // At a host's other addresses all ports do: nothing is routed there.
            for address in gateway.endpoints.iter().chain(&gateway.other_addresses) {
                self.gateways.insert(gateway_key(*address, None, 0));
            }
        }
    }
}

/// The mode of a workload that is not known, which may turn out to be in any set: it is audited only where
/// every set is.
fn mode_of_unknown(mesh: &MeshConfig) -> Enforcement {
    // Without redirects, since it has no routes.
    let is_audited = |mode| matches!(mode, Enforcement::Audit | Enforcement::AuditRedirect);
    let all_audited = mesh.sets().all(|set| is_audited(set.mode));
    if all_audited { Enforcement::Audit } else { Enforcement::Enforce }
}

const fn mode_of(enforcement: Enforcement) -> u32 {
    match enforcement {
        Enforcement::Enforce => mode::ENFORCE,
        Enforcement::Audit => mode::AUDIT,
        Enforcement::AuditRedirect => mode::AUDIT_REDIRECT,
        Enforcement::Exempt => mode::EXEMPT,
    }
}
