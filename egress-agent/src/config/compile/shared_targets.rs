//! Raw TCP services of one name or network that are routed to different ports of a gateway, each for other workloads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::egress::free_port;
use crate::{
    policy::{DirectTarget, Hop, NodeAction, NodeRoute, SharedPort},
    types::{GatewayPort, OriginalPort, Port},
};

/// What was dialled, by ports at the gateway that are no service's own.
pub(super) type SharedPorts = BTreeMap<GatewayPort, SharedPort>;

/// A route, and the resource that it is of: `VirtualService default/name`.
pub(super) type NamedRoute = (NodeRoute, Arc<str>);

/// Where a raw TCP service is routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Redirection {
    /// The gateway group.
    pub(super) group: usize,
    /// The port at the gateway.
    pub(super) at: GatewayPort,
    /// How it goes there.
    pub(super) hop: Hop,
}

impl Redirection {
    fn action(self) -> NodeAction {
        NodeAction::Redirect { group: self.group, port: Some(self.at), hop: self.hop }
    }
}

/// What a resource says of a raw TCP service.
pub(super) struct RawRoute {
    /// The port that applications dial.
    pub(super) port: OriginalPort,
    /// What they dial.
    pub(super) target: DirectTarget,
    /// Where it is routed.
    pub(super) to: Redirection,
    /// Whether it is for every workload.
    pub(super) is_for_all: bool,
    /// The resource: `VirtualService default/name`.
    pub(super) by: Arc<str>,
}

impl RawRoute {
    fn key(&self) -> (OriginalPort, DirectTarget) {
        (self.port, self.target.clone())
    }
}

/// The node's routes for raw TCP. The node sees no workloads, so all that one name or network has on a port takes one
/// route. Where resources route it to several ports of a gateway, it goes to another port of the gateway, which decides
/// by the workload. A tunnel needs no such port: it carries what was dialled.
pub(super) fn routes(
    raw: &[RawRoute],
    taken: &mut BTreeSet<Port>,
    shared: &mut SharedPorts,
) -> Vec<NamedRoute> {
    let mut by_target: HashMap<(OriginalPort, DirectTarget), Vec<&RawRoute>> = HashMap::new();
    for route in raw {
        by_target.entry(route.key()).or_default().push(route);
    }
    let (mut made, mut known) = (Vec::new(), HashSet::new());
    for first in raw {
        let Some(same) = by_target.get(&first.key()) else { continue };
        if !known.insert((first.port, &first.target)) {
            continue;
        }
        let around = around(first, same, &by_target);
        let one_group = same.iter().copied().chain(around).map(|route| route.to);
        let all: Vec<Redirection> = one_group.filter(|to| to.group == first.to.group).collect();
        let strictest = all.iter().find(|to| to.hop == Hop::Tunnel);
        let action = match strictest {
            Some(tunnel) => tunnel.action(),
            None if all.iter().all(|to| *to == first.to) => first.to.action(),
            None => {
                let Some(free) = free_port(&seed(&first.target), first.port.0, taken) else {
                    continue;
                };
                taken.insert(free);
                let at = GatewayPort(free);
                let meant = SharedPort { port: first.port, target: first.target.clone() };
                shared.insert(at, meant);
                Redirection { at, ..first.to }.action()
            }
        };
        let (port, target) = (Some(first.port), first.target.clone());
        made.push((NodeRoute { port, target, action }, Arc::clone(&first.by)));
    }
    made
}

/// The services of larger networks, where not all workloads see one of exactly these addresses.
fn around<'r>(
    first: &RawRoute,
    same: &[&RawRoute],
    by_target: &HashMap<(OriginalPort, DirectTarget), Vec<&'r RawRoute>>,
) -> Vec<&'r RawRoute> {
    let DirectTarget::Net(net) = &first.target else { return Vec::new() };
    if same.iter().any(|route| route.is_for_all) {
        return Vec::new();
    }
    let larger = (0..net.prefix_len()).filter_map(|len| IpNet::new(net.addr(), len).ok());
    larger
        .filter_map(|larger| by_target.get(&(first.port, DirectTarget::Net(larger.trunc()))))
        .flatten()
        .copied()
        .collect()
}

/// What a free port follows from.
fn seed(target: &DirectTarget) -> String {
    match target {
        DirectTarget::Any => "*".to_owned(),
        DirectTarget::Net(net) => net.to_string(),
        DirectTarget::Name(host) => host.to_string(),
    }
}
