//! The one verdict that every hook asks for.

use crate::{
    abi::{
        ADMIN_PORTS, EXEMPTION_TABLES, GatewayKey, Globals, PodAddress, PodPort, Policy, PolicyId,
        Route, RouteKey, TableId, UNKNOWN_TABLE, route_action,
    },
    absent::SurelyAbsent,
    addr::{Addr, PortBe},
    packet::{Flow, protocol},
    reason::Reason,
    verdict::{Action, Mode, Target, Verdict},
};

/// The policy maps, as a verdict reads them.
pub trait PolicyView {
    /// Settings of the node; zeroed where there are none.
    fn globals(&self) -> Globals;
    /// What a policy is made of; one that isn't there enforces, with table 0.
    fn policy(&self, policy: PolicyId) -> PolicyRules;
    /// Whether the address is denied whatever else allows it.
    fn is_denied(&self, addr: &Addr) -> bool;
    /// Whether the address is in the cluster.
    fn is_internal(&self, addr: &Addr) -> bool;
    /// Whether the key is in `GATEWAYS`.
    fn is_gateway(&self, key: &GatewayKey) -> bool;
    /// Whether hosts in the cluster may take packets out of datagrams to this UDP port.
    #[inline(always)]
    fn is_encapsulation_port(&self, port: PortBe) -> bool {
        self.is_gateway(&GatewayKey::encapsulation(port))
    }
    /// The longest prefix that matches.
    fn route(&self, key: &RouteKey) -> Option<Route>;
    /// The pod behind an interface.
    fn interface(&self, ifindex: u32) -> Option<PodPort>;
    /// Whether the address may be a packet's source on the interface.
    fn is_pod_address(&self, key: &PodAddress) -> bool;

    /// [`decide`], which the programs have in a function of its own.
    #[inline(always)]
    fn verdict(&self, place: Place, flow: &Flow, policy: PolicyId) -> Verdict
    where
        Self: Sized,
    {
        decide(place, flow, policy, self)
    }
}

/// What a policy is made of: see [`abi::Policy`](crate::abi::Policy).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyRules {
    /// How verdicts are carried out.
    pub mode: Mode,
    /// Whose routes count.
    pub table: TableId,
}

impl From<Policy> for PolicyRules {
    #[inline(always)]
    fn from(Policy { mode, table }: Policy) -> Self {
        Self { mode: Mode::from_raw(mode), table }
    }
}

/// Where a flow was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a system call: it can still be redirected.
    Socket,
    /// A packet on its way out of a socket, loopback's included.
    Skb,
    /// A packet on an interface, where loopback addresses never belong.
    Wire,
}

/// Judges a flow. The order, here and in [`by_table`], is the security model's: what comes first can't be
/// overruled.
#[inline(always)]
pub fn decide(place: Place, flow: &Flow, policy: PolicyId, view: &impl PolicyView) -> Verdict {
    let PolicyRules { mode, table } = view.policy(policy);
    if mode == Mode::Exempt {
        return Verdict::allow(Reason::Exempt);
    }
    by_table(place, flow, table, view)
}

/// Judges a flow by a table of routes and by what counts for all. Of the flow only its destination, its
/// protocol and whether it is a fragment are asked for, and of the maps neither workloads nor interfaces: so
/// the verdict can be kept ([`cache`](crate::cache)).
#[inline(always)]
pub fn by_table(place: Place, flow: &Flow, table: TableId, view: &impl PolicyView) -> Verdict {
    if let Some(verdict) = own_host(place, &flow.destination) {
        return verdict;
    }
    let globals = view.globals();
    if globals.generation == 0 {
        return Verdict::deny(Reason::NoPolicy);
    }
    let absent = SurelyAbsent::from_raw(globals.absent);
    if !absent.surely_not_denied(&flow.destination) && view.is_denied(&flow.destination) {
        return Verdict::deny(Reason::DeniedPrefix);
    }
    if !absent.surely_no_gateway(&flow.destination)
        && let Some(verdict) = gateway(flow, view)
    {
        // A gateway forwards to external hosts.
        return match verdict.action {
            Action::Allow if table == UNKNOWN_TABLE => Verdict::deny(Reason::UnknownWorkload),
            Action::Allow if table >= EXEMPTION_TABLES => Verdict::deny(Reason::NoRoute),
            Action::Allow | Action::Deny | Action::Redirect(_) | Action::Tunnel(_) => verdict,
        };
    }
    if view.is_internal(&flow.destination) {
        // A node without these programs might unpack it and send on what is inside.
        let datagram = flow.protocol == protocol::UDP;
        return if flow.encapsulates()
            || (datagram && view.is_encapsulation_port(flow.destination_port))
        {
            Verdict::deny(Reason::Encapsulation)
        } else {
            Verdict::allow(Reason::Internal)
        };
    }
    if flow.destination.is_multicast() {
        return Verdict::deny(Reason::Multicast);
    }
    if flow.fragment {
        return Verdict::deny(Reason::Fragment);
    }
    routed(place, flow, table, view)
}

/// Addresses that never leave the host. In `connect` Linux takes the unspecified address for
/// loopback; a packet that has either on a wire is a trick (`route_localnet`, CVE-2020-8558).
#[inline(always)]
fn own_host(place: Place, destination: &Addr) -> Option<Verdict> {
    match place {
        Place::Socket if destination.is_loopback() || destination.is_unspecified() => {
            Some(Verdict::allow(Reason::Loopback))
        }
        Place::Skb if destination.is_loopback() => Some(Verdict::allow(Reason::Loopback)),
        Place::Socket => None,
        Place::Skb | Place::Wire => (destination.is_loopback() || destination.is_unspecified())
            .then_some(Verdict::deny(Reason::Malformed)),
    }
}

/// Whether flows that begin at an address need an entry to be answered: it is of the outside, or a gateway's, whose
/// ports are closed to pods though it may lie in the cluster. A gateway asks the cluster's DNS servers, which are pods.
/// What is denied is never answered.
#[inline(always)]
pub fn needs_entry(addr: &Addr, view: &impl PolicyView) -> bool {
    let own = addr.is_loopback() || addr.is_unspecified() || addr.is_multicast();
    let any = GatewayKey { addr: *addr, port: PortBe([0; 2]), protocol: 0, reserved: 0 };
    !(own
        || addr.is_link_scope()
        || (view.is_internal(addr) && !view.is_gateway(&any))
        || view.is_denied(addr))
}

/// A gateway's address: its routed TCP ports and nothing else, though it may lie in the cluster.
#[inline(always)]
fn gateway(flow: &Flow, view: &impl PolicyView) -> Option<Verdict> {
    // One key for all questions: the programs' stack is short.
    let mut key = GatewayKey {
        addr: flow.destination,
        port: flow.destination_port,
        protocol: protocol::TCP,
        reserved: 0,
    };
    let tcp = flow.protocol == protocol::TCP && !flow.fragment;
    // What nearly every packet to a gateway is, so it is asked for first: only a gateway's address
    // has ports.
    if tcp && view.is_gateway(&key) {
        return Some(Verdict::allow(Reason::Gateway));
    }
    // Whether the address is a gateway's at all.
    (key.port, key.protocol) = (PortBe([0; 2]), 0);
    if !view.is_gateway(&key) {
        return None;
    }
    if flow.fragment {
        return Some(Verdict::deny(Reason::Fragment));
    }
    let own = ADMIN_PORTS.contains(&flow.destination_port.get());
    // Whether every port of it is open.
    key.protocol = protocol::TCP;
    Some(if tcp && !own && view.is_gateway(&key) {
        Verdict::allow(Reason::Gateway)
    } else {
        Verdict::deny(Reason::GatewayPort)
    })
}

#[inline(always)]
fn routed(place: Place, flow: &Flow, table: TableId, view: &impl PolicyView) -> Verdict {
    let tcp = flow.protocol == protocol::TCP;
    if table == UNKNOWN_TABLE {
        return Verdict::deny(Reason::UnknownWorkload);
    }
    let none = if tcp { Reason::NoRoute } else { Reason::Protocol };
    let key = RouteKey {
        table,
        protocol: flow.protocol,
        reserved: 0,
        port: flow.destination_port,
        addr: flow.destination,
    };
    let Some(route) = view.route(&key) else { return Verdict::deny(none) };
    match route.action {
        route_action::DIRECT => Verdict::allow(Reason::Direct),
        // Only a connection can be redirected, and only by the hook that sees it begin.
        route_action::REDIRECT | route_action::TUNNEL if tcp && place == Place::Socket => {
            let port = if route.port.get() == 0 { flow.destination_port } else { route.port };
            let target = Target { group: route.group, port };
            if route.action == route_action::TUNNEL {
                Verdict { action: Action::Tunnel(target), reason: Reason::Tunneled }
            } else {
                Verdict { action: Action::Redirect(target), reason: Reason::Routed }
            }
        }
        route_action::REDIRECT | route_action::TUNNEL if tcp => {
            Verdict::deny(Reason::NotRedirected)
        }
        _ => Verdict::deny(none),
    }
}

#[cfg(test)]
mod tests;
