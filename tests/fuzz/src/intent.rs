//! What a snapshot means, read off the snapshot itself.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use egress_agent::{
    bpf::plan::{PlanInputs, PodHardware, PodInterface},
    policy::{
        AddressGuard, DirectTarget, Enforcement, GatewayGroup, Hop, NodeAction, NodeRoute, Snapshot,
    },
    types::{GatewayPort, Host, OriginalPort, Port},
};
use egress_ebpf::{abi::ADMIN_PORTS, decide::Place, packet::Flow, reason::Reason};
use ipnet::IpNet;

use crate::{frame::POD_MAC, random::Random};

const TCP: u8 = 6;
const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
/// Always denied (DESIGN: the cloud's metadata service).
const METADATA: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];

/// A snapshot, and the facts it meets. Without a generation there is none yet.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub(crate) snapshot: Snapshot,
    pub(crate) facts: PlanInputs,
}

/// What becomes of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Allow(Reason),
    Deny(Reason),
    Redirect { group: u32, port: u16, hop: Hop },
}

/// Interfaces and addresses whose pods are looked at.
pub(crate) fn ends() -> impl Iterator<Item = (u32, IpAddr)> {
    let addresses = [IpAddr::from([10, 0, 0, 5]), IpAddr::from([10, 0, 0, 6])];
    (7..10).flat_map(move |ifindex| addresses.map(|ip| (ifindex, ip)))
}

impl Intent {
    /// Before the first snapshot.
    pub(crate) fn nothing() -> Self {
        Self { snapshot: Snapshot::default(), facts: PlanInputs::default() }
    }

    pub(crate) fn random(random: &mut Random<'_>, generation: u64) -> Self {
        let mut snapshot = Snapshot::default();
        let mesh = &mut snapshot.mesh;
        mesh.enforcement = match (random.rarely(), random.bool()) {
            (false, _) => Enforcement::Enforce,
            (true, false) => Enforcement::Audit,
            (true, true) => Enforcement::AuditRedirect,
        };
        mesh.cluster_cidrs = random.list(3, Random::net);
        mesh.denied_cidrs = random.list(2, Random::net);
        mesh.gateways = random.list(3, |random| GatewayGroup {
            service: name(random),
            labels: [].into(),
            endpoints: random.list(3, Random::ip),
            other_addresses: Vec::new(),
            principal: None,
            tunnel: None,
            hop: Hop::Plain,
        });
        snapshot.node.routes = random.list(7, route);
        let endpoints = snapshot.mesh.gateways.iter().flat_map(|gateway| &gateway.endpoints);
        let healthy = endpoints.filter(|_| random.bool()).copied().collect();
        let facts = PlanInputs {
            resolved: random
                .list(3, |random| (name(random), random.list(3, Random::ip)))
                .into_iter()
                .collect(),
            healthy,
            tunnel: random.list(2, |random| SocketAddr::new(random.ip(), random.port())),
            pods: random.list(3, |random| PodInterface {
                ifindex: 7 + u32::from(random.u8() % 3),
                addresses: random.list(2, |random| IpAddr::from([10, 0, 0, 5 + random.u8() % 2])),
                hardware: PodHardware::Known(POD_MAC),
                policy: 0,
            }),
            workloads: BTreeMap::new(),
            generation,
            events_per_second: u32::from(random.u8()),
            max_groups: if random.rarely() { 1 } else { 8 },
            ..PlanInputs::default()
        };
        Self { snapshot, facts }
    }

    /// Addresses that the snapshot names.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let mesh = &self.snapshot.mesh;
        let nets = mesh.cluster_cidrs.iter().chain(&mesh.denied_cidrs);
        let gateways = mesh.gateways.iter().flat_map(|gateway| &gateway.endpoints);
        let routes = self.snapshot.node.routes.iter().filter_map(|route| match &route.target {
            DirectTarget::Net(net) => Some(net.addr()),
            DirectTarget::Any | DirectTarget::Name(_) => None,
        });
        let resolved = self.facts.resolved.values().flatten().copied();
        let resolved = resolved.chain(self.facts.tunnel.iter().map(SocketAddr::ip));
        nets.map(IpNet::addr).chain(gateways.copied()).chain(routes).chain(resolved)
    }

    /// Whether the pod behind the interface may send from the address.
    pub(crate) fn may_send(&self, ifindex: u32, ip: IpAddr) -> bool {
        self.facts.pods.iter().any(|pod| pod.ifindex == ifindex && pod.addresses.contains(&ip))
    }

    /// The verdict, and whether audit mode lets everything pass.
    pub(crate) fn verdict(&self, place: Place, flow: &Flow) -> (Answer, bool) {
        let audit =
            self.facts.generation != 0 && self.snapshot.mesh.enforcement != Enforcement::Enforce;
        (self.answer(place, flow), audit)
    }

    fn answer(&self, place: Place, flow: &Flow) -> Answer {
        let to = IpAddr::from(flow.destination);
        match place {
            Place::Socket if to.is_loopback() || to.is_unspecified() => {
                return Answer::Allow(Reason::Loopback);
            }
            Place::Skb if to.is_loopback() => return Answer::Allow(Reason::Loopback),
            Place::Skb | Place::Wire if to.is_loopback() || to.is_unspecified() => {
                return Answer::Deny(Reason::Malformed);
            }
            Place::Socket | Place::Skb | Place::Wire => {}
        }
        if self.facts.generation == 0 {
            return Answer::Deny(Reason::NoPolicy);
        }
        let mesh = &self.snapshot.mesh;
        let metadata = METADATA.iter().any(|ip| ip.parse() == Ok(to));
        if metadata || mesh.denied_cidrs.iter().any(|net| net.contains(&to)) {
            return Answer::Deny(Reason::DeniedPrefix);
        }
        // The tunnel's listener: its port, and nothing of its address else.
        let port = flow.destination_port.get();
        let here = |at: &SocketAddr| at.ip().to_canonical() == to && at.port() == port;
        let listens = port != 0 && self.facts.tunnel.iter().any(here);
        if listens && flow.protocol == TCP && !flow.fragment {
            return Answer::Allow(Reason::Gateway);
        }
        if self.groups().any(|(_, gateway)| gateway.endpoints.contains(&to)) {
            return self.at_gateway(to, flow);
        }
        if mesh.cluster_cidrs.iter().any(|net| net.contains(&to)) {
            return Answer::Allow(Reason::Internal);
        }
        if to.is_multicast() || to == IpAddr::from([255; 4]) {
            return Answer::Deny(Reason::Multicast);
        }
        if flow.fragment {
            return Answer::Deny(Reason::Fragment);
        }
        if flow.protocol != TCP {
            return Answer::Deny(Reason::Protocol);
        }
        match self.route(to, flow.destination_port.get()) {
            None => Answer::Deny(Reason::NoRoute),
            Some(NodeAction::Direct) => Answer::Allow(Reason::Direct),
            Some(NodeAction::Redirect { .. }) if place != Place::Socket => {
                Answer::Deny(Reason::NotRedirected)
            }
            Some(NodeAction::Redirect { group, port, hop }) => Answer::Redirect {
                hop,
                group: u32::try_from(group).unwrap_or(u32::MAX),
                port: port.map_or(flow.destination_port.get(), |port| port.0.get()),
            },
        }
    }

    /// Groups that the kernel has room for.
    fn groups(&self) -> impl Iterator<Item = (usize, &GatewayGroup)> {
        let most = usize::try_from(self.facts.max_groups).unwrap_or(usize::MAX);
        self.snapshot.mesh.gateways.iter().enumerate().take(most)
    }

    /// Routes that can be carried out.
    fn routes(&self) -> impl Iterator<Item = &NodeRoute> {
        let most = usize::try_from(self.facts.max_groups).unwrap_or(usize::MAX);
        self.snapshot.node.routes.iter().filter(move |route| match route.action {
            // Addresses without a port can't be carried out.
            _ if route.port.is_none() && route.target != DirectTarget::Any => false,
            NodeAction::Redirect { group, .. } => {
                group < most && !at_gateway(route).is_some_and(|port| ADMIN_PORTS.contains(&port))
            }
            NodeAction::Direct => true,
        })
    }

    fn at_gateway(&self, to: IpAddr, flow: &Flow) -> Answer {
        if flow.fragment {
            return Answer::Deny(Reason::Fragment);
        }
        let dialled = flow.destination_port.get();
        let opened = self.routes().any(|route| match route.action {
            // What goes through the tunnel goes to no gateway by itself.
            NodeAction::Direct | NodeAction::Redirect { hop: Hop::Tunnel, .. } => false,
            NodeAction::Redirect { group, hop: Hop::Plain, .. } => {
                let gateway = self.snapshot.mesh.gateways.get(group);
                gateway.is_some_and(|gateway| gateway.endpoints.contains(&to))
                    && match at_gateway(route) {
                        Some(port) => port == dialled,
                        None => !ADMIN_PORTS.contains(&dialled),
                    }
            }
        });
        if flow.protocol == TCP && opened {
            Answer::Allow(Reason::Gateway)
        } else {
            Answer::Deny(Reason::GatewayPort)
        }
    }

    /// What the most specific route says; of two equally specific ones the stricter one.
    fn route(&self, to: IpAddr, dialled: u16) -> Option<NodeAction> {
        let mut best: Option<(Specific, NodeAction)> = None;
        for route in self.routes() {
            let Some(specific) = self.specific(route, to, dialled) else { continue };
            let wins = best.is_none_or(|(other, action)| {
                (specific, strict(route.action)) > (other, strict(action))
            });
            if wins {
                best = Some((specific, route.action));
            }
        }
        // What goes to every port of a gateway doesn't go to its own.
        let (specific, action) = best?;
        let every_port = specific == Specific::EveryPort;
        let own = every_port
            && matches!(action, NodeAction::Redirect { .. })
            && ADMIN_PORTS.contains(&dialled);
        (!own).then_some(action)
    }

    /// How specific the route is for this destination; `None` if it isn't for it.
    fn specific(&self, route: &NodeRoute, to: IpAddr, dialled: u16) -> Option<Specific> {
        let port = route.port.map(|port| port.0.get());
        if port.is_some_and(|port| port != dialled) {
            return None;
        }
        match (&route.target, port) {
            (DirectTarget::Any, None) => Some(Specific::EveryPort),
            (DirectTarget::Any, Some(_)) => Some(Specific::Port),
            (DirectTarget::Net(net), _) => {
                net.contains(&to).then(|| Specific::Net(net.prefix_len()))
            }
            (DirectTarget::Name(name), _) => {
                let widest = if to.is_ipv4() { 32 } else { 128 };
                let known = self.facts.resolved.get(name)?;
                // A name opens no address that the gateway itself would not dial.
                let dialled = AddressGuard::new(&self.snapshot.mesh).allows(to);
                (dialled && known.contains(&to)).then_some(Specific::Net(widest))
            }
        }
    }
}

/// To a gateway is stricter than out, and through the tunnel than in clear.
fn strict(action: NodeAction) -> u8 {
    match action {
        NodeAction::Direct => 0,
        NodeAction::Redirect { hop: Hop::Plain, .. } => 1,
        NodeAction::Redirect { hop: Hop::Tunnel, .. } => 2,
    }
}

/// How much of a flow a route is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Specific {
    EveryPort,
    Port,
    Net(u8),
}

/// The port at the gateway that a redirect leads to; `None` is any.
fn at_gateway(route: &NodeRoute) -> Option<u16> {
    match route.action {
        NodeAction::Direct => None,
        NodeAction::Redirect { port, .. } => {
            port.map(|port| port.0).or(route.port.map(|port| port.0)).map(Port::get)
        }
    }
}

fn name(random: &mut Random<'_>) -> Host {
    let name = random.choose(&NAMES);
    Host::parse(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn route(random: &mut Random<'_>) -> NodeRoute {
    let port = Port::new(random.port()).map(OriginalPort);
    let target = match random.u8() % 4 {
        0 => DirectTarget::Any,
        1 => DirectTarget::Name(name(random)),
        _ => DirectTarget::Net(random.net()),
    };
    let action = if random.bool() {
        NodeAction::Direct
    } else {
        let to = if random.bool() { Port::new(random.port()).map(GatewayPort) } else { None };
        let hop = random.choose(&[Hop::Plain, Hop::Plain, Hop::Tunnel]);
        NodeAction::Redirect { group: random.below(4), port: to, hop }
    };
    NodeRoute { port, target, action }
}
