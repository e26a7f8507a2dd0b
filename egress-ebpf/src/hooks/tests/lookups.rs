//! How often a verdict asks the maps: a few times, and more than once. Every question counts that is a look-up in a map
//! of the kernel, whatever kind of map it is.

use std::cell::Cell;

use super::*;
use crate::{
    abi::{FlowKey, FlowPlace, FlowState, GatewayKey, Globals, PodPort, Route, RouteKey},
    decide::PolicyRules,
};

/// What "a few" means at most.
const FEW: u32 = 10;

/// The maps, which count what they are asked.
struct Counted {
    world: World,
    asked: Cell<u32>,
}

impl Counted {
    fn new() -> Self {
        Self { world: World::usual(), asked: Cell::new(0) }
    }

    fn ask(&self) -> &World {
        self.asked.set(self.asked.get() + 1);
        &self.world
    }
}

impl PolicyView for Counted {
    fn globals(&self) -> Globals {
        self.ask().globals()
    }

    fn policy(&self, policy: PolicyId) -> PolicyRules {
        self.ask().policy(policy)
    }

    fn is_denied(&self, addr: &Addr) -> bool {
        self.ask().is_denied(addr)
    }

    fn is_internal(&self, addr: &Addr) -> bool {
        self.ask().is_internal(addr)
    }

    fn is_gateway(&self, key: &GatewayKey) -> bool {
        self.ask().is_gateway(key)
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.ask().route(key)
    }

    fn interface(&self, ifindex: u32) -> Option<PodPort> {
        self.ask().interface(ifindex)
    }

    fn is_pod_address(&self, key: &PodAddress) -> bool {
        self.ask().is_pod_address(key)
    }
}

impl View for Counted {}

impl FlowTable for Counted {
    fn now(&self) -> u64 {
        self.world.now()
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowState> {
        self.ask().flow(key)
    }

    fn next_turn(&self, scope: &FlowPlace) -> u32 {
        self.ask().next_turn(scope)
    }

    fn place(&self, place: &FlowPlace, key: &FlowKey) -> Option<FlowKey> {
        self.ask().place(place, key)
    }

    fn insert_flow(&self, key: &FlowKey, state: FlowState) {
        self.ask().insert_flow(key, state);
    }

    fn change_flow(&self, key: &FlowKey, before: FlowState, after: FlowState) {
        self.ask().change_flow(key, before, after);
    }

    fn end_flow(&self, key: &FlowKey) {
        self.ask().end_flow(key);
    }

    fn refused_syn(&self, slot: u32) -> u64 {
        self.ask().refused_syn(slot)
    }

    fn refuse_syn(&self, slot: u32, now: u64) {
        self.ask().refuse_syn(slot, now);
    }
}

fn is_few(what: &str, expected: Reason, judge: impl FnOnce(&Counted) -> Judgement) {
    let maps = Counted::new();
    assert_eq!(judge(&maps).reason(), expected, "{what}");
    let asked = maps.asked.get();
    assert!((2..=FEW).contains(&asked), "{what}: {asked} look-ups");
}

#[test]
fn each_connect_and_each_packet_costs_a_few_look_ups() {
    for (what, to, port, expected) in [
        ("to a gateway", OUTSIDE, 443, Reason::Routed),
        ("in the cluster", INSIDE, 8080, Reason::Internal),
        ("directly", DIRECT, 9000, Reason::Direct),
        ("without a route", OUTSIDE, 22, Reason::NoRoute),
        ("over IPv6", OUTSIDE6, 443, Reason::Routed),
    ] {
        let flow = flow(protocol::TCP, to, port);
        is_few(&format!("connect {what}"), expected, |maps| socket(flow, true, POLICY, 1, maps));
    }
    for (what, packet, expected) in [
        ("to a gateway", tcp(POD, GATEWAY, 443), Reason::Gateway),
        ("in the cluster", tcp(POD, INSIDE, 8080), Reason::Internal),
        ("directly", tcp(POD, DIRECT, 9000), Reason::Direct),
        ("without a route", tcp(POD, OUTSIDE, 22), Reason::NoRoute),
        ("over IPv6", tcp(POD6, OUTSIDE6, 443), Reason::NotRedirected),
    ] {
        let frame = ip_frame(&packet);
        is_few(&format!("a packet {what}"), expected, |maps| {
            pod(&frame.as_slice(), IFINDEX, false, maps)
        });
    }
}
