//! Policies of the size that is measured.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, anyhow};
use egress_agent::{
    bpf::{Contents, PlanInputs, PodHardware, PodInterface},
    policy::{DirectTarget, GatewayGroup, Hop, NodeAction, NodeRoute, Snapshot},
    types::{GatewayPort, Host, OriginalPort, Port},
};
use ipnet::{IpNet, Ipv4Net};

/// Addresses of the scene.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Routed by name to the gateway.
pub(crate) const ROUTED_PORT: u16 = 443;
/// Of the services that may be reached directly.
pub(crate) const DIRECT_PORT: u16 = 5432;
/// At the gateway, of the raw TCP services.
const TCP_PORT: u16 = 15_443;

/// The address of a service with a route of its own: in 100.64.0.0/10, spread.
pub(crate) fn service(number: u32) -> Ipv4Addr {
    // An odd factor, so that neighbours in the list are none in the trie.
    Ipv4Addr::from(0x6440_0000 | number.wrapping_mul(0x9e_3779) & 0x3f_ffff)
}

/// A cluster, one gateway, `routes` services by address (every second one direct, the others to the
/// gateway).
pub(crate) fn snapshot(routes: u32) -> Result<Snapshot> {
    let port = |number| Port::new(number).ok_or_else(|| anyhow!("port {number}"));
    let mut snapshot = Snapshot::default();
    snapshot.mesh.cluster_cidrs = vec!["10.0.0.0/8".parse()?, "fd00::/8".parse()?];
    snapshot.mesh.gateways = vec![GatewayGroup {
        service: Host::parse("egress.example")?,
        labels: [].into(),
        endpoints: vec![GATEWAY.into()],
        other_addresses: Vec::new(),
        principal: None,
        tunnel: None,
        hop: Hop::Plain,
    }];
    let redirect = |to| NodeAction::Redirect { group: 0, port: to, hop: Hop::Plain };
    let routed = Some(OriginalPort(port(ROUTED_PORT)?));
    snapshot.node.routes.push(NodeRoute {
        port: routed,
        target: DirectTarget::Any,
        action: redirect(None),
    });
    let direct = Some(OriginalPort(port(DIRECT_PORT)?));
    let raw = Some(GatewayPort(port(TCP_PORT)?));
    for number in 0..routes {
        let net = IpNet::V4(Ipv4Net::from(service(number)));
        let action = if number % 2 == 0 { NodeAction::Direct } else { redirect(raw) };
        let target = DirectTarget::Net(net);
        snapshot.node.routes.push(NodeRoute { port: direct, target, action });
    }
    Ok(snapshot)
}

/// The pods' hardware address.
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

/// A pod on loopback, which is the interface of `BPF_PROG_TEST_RUN`, and others elsewhere.
pub(crate) fn facts(pods: u32) -> PlanInputs {
    let others = (1..pods).map(|number| PodInterface {
        ifindex: 1000 + number,
        addresses: vec![Ipv4Addr::from(0x0a10_0000 + number).into()],
        hardware: PodHardware::Known(POD_MAC),
        policy: 0,
    });
    let pod = PodInterface {
        ifindex: 1,
        addresses: vec![IpAddr::V4(POD)],
        hardware: PodHardware::Known(POD_MAC),
        policy: 0,
    };
    PlanInputs {
        healthy: [IpAddr::V4(GATEWAY)].into(),
        pods: std::iter::once(pod).chain(others).collect(),
        workloads: (1..=u64::from(pods)).map(|cgroup| (cgroup, 0)).collect(),
        generation: 1,
        events_per_second: 100,
        max_groups: 256,
        ..PlanInputs::default()
    }
}

/// What the maps should hold.
pub(crate) fn contents(snapshot: &Snapshot, facts: &PlanInputs) -> Result<Contents> {
    match Contents::desired(snapshot, facts) {
        (contents, problems) if problems.is_empty() => Ok(contents),
        (_, problems) => Err(anyhow!("the plan has problems: {problems:?}")),
    }
}

/// Where a service moves to: outside of the network of the others.
pub(crate) fn moved(number: u32) -> Ipv4Net {
    Ipv4Net::from(Ipv4Addr::from(0xcb00_7100 + number))
}
