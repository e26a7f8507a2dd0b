//! A change of a map.

use egress_ebpf::{
    abi::{
        GatewayKey, Globals, Group, GroupId, PodAddress, PodPort, Policy, PolicyId, Route,
        RouteKey, Tunnel,
    },
    addr::Addr,
};

use super::change::Change;
use crate::bpf::plan::Prefix;

/// One change of one map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Of `GLOBALS`.
    Globals(Globals),
    /// Of `POLICIES`.
    Policy(PolicyId, Policy),
    /// Of `ROUTES`.
    Route(Change<Prefix<RouteKey>, Route>),
    /// Of `GROUPS`.
    Group(GroupId, Box<Group>),
    /// Of `GATEWAYS`.
    Gateway(Change<GatewayKey, ()>),
    /// Of `TUNNEL`.
    Tunnel(Tunnel),
    /// Of `INTERNAL`.
    Internal(Change<Prefix<Addr>, ()>),
    /// Of `DENIED`.
    Denied(Change<Prefix<Addr>, ()>),
    /// Of `SLOTS`: the pod behind an interface.
    PodInterface(Change<u32, PodPort>),
    /// Of `SLOTS` or `POD_ADDRESSES`: an address of it.
    PodAddress(Change<PodAddress, ()>),
    /// Of `WORKLOADS`.
    Workload(Change<u64, PolicyId>),
}
