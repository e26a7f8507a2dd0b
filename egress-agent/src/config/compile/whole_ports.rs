//! Ports that raw TCP services without addresses have as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Compiler,
    egress::free_port,
    shared_targets::{NamedRoute, RawRoute, SharedPorts},
};
use crate::{
    policy::{DirectTarget, Hop, NodeAction, NodeRoute, SharedPort},
    types::{GatewayPort, Host, OriginalPort, Port},
};

/// What routes of a port that are no networks' say.
#[derive(Default)]
struct PortRoutes {
    names: BTreeSet<Host>,
    /// Where they lead: group, port at the gateway, hop.
    to: BTreeSet<(usize, Option<GatewayPort>, Hop)>,
    /// The first resource.
    by: Option<Arc<str>>,
    /// Whether something leads elsewhere by name, or the whole port somewhere already.
    is_taken: bool,
}

/// Raw TCP services that are known by name alone get all of their port where nothing else on that port is known by
/// name: as in Istio, whose listener for such a service takes every address. The gateway resolves the name itself and
/// connects to nothing else, so what DNS answers whom does not matter.
///
/// Where several services share the port, addresses that the node knows distinguish them; every other address goes to a
/// port of the gateway's that is no service's own, and reaches the name that the workload is allowed, if it is a single
/// one.
pub(super) fn whole_ports(
    node: &mut Vec<NamedRoute>,
    taken: &mut BTreeSet<Port>,
    shared: &mut SharedPorts,
) {
    let mut ports: BTreeMap<OriginalPort, PortRoutes> = BTreeMap::new();
    for (route, by) in &*node {
        let Some(port) = route.port else { continue };
        match (&route.target, route.action) {
            (DirectTarget::Name(host), NodeAction::Redirect { group, port: at, hop }) => {
                let routes = ports.entry(port).or_default();
                routes.names.insert(host.clone());
                routes.to.insert((group, at, hop));
                routes.by.get_or_insert_with(|| Arc::clone(by));
            }
            (DirectTarget::Name(_), NodeAction::Direct) | (DirectTarget::Any, _) => {
                ports.entry(port).or_default().is_taken = true;
            }
            (DirectTarget::Net(_), _) => {}
        }
    }
    ports.retain(|_, routes| !routes.is_taken);
    for (route, _) in node.iter_mut() {
        let routes = route.port.and_then(|port| ports.get(&port));
        let is_only = routes.is_some_and(|routes| routes.names.len() == 1);
        if is_only && matches!(route.target, DirectTarget::Name(_)) {
            route.target = DirectTarget::Any;
        }
    }
    for (port, PortRoutes { names, to, by, is_taken: _ }) in ports {
        let (Some((group, at, hop)), Some(by)) = (to.first().copied(), by) else { continue };
        let is_one_way = to.iter().all(|(to, _, how)| (*to, *how) == (group, hop));
        if names.len() < 2 || !is_one_way {
            continue;
        }
        let target = DirectTarget::Any;
        let at = match hop {
            // The gateway learns what was dialled.
            Hop::Tunnel => at,
            Hop::Plain => {
                let Some(free) = free_port("*", port.0, taken) else { continue };
                taken.insert(free);
                shared.insert(GatewayPort(free), SharedPort { port, target: target.clone() });
                Some(GatewayPort(free))
            }
        };
        let action = NodeAction::Redirect { group, port: at, hop };
        node.push((NodeRoute { port: Some(port), target, action }, by));
    }
}

impl Compiler<'_> {
    /// Ports that applications dial, or that the gateway has a meaning for.
    pub(super) fn taken_ports(&self, node: &[NamedRoute], raw: &[RawRoute]) -> BTreeSet<Port> {
        let servers = self.servers.iter().map(|server| server.port.0);
        let entries = self.entries.iter().flat_map(|entry| entry.ports.iter().map(|p| p.number));
        let named = node.iter().filter_map(|(route, _)| Some(route.port?.0));
        let raw = raw.iter().flat_map(|route| [route.port.0, route.to.at.0]);
        servers.chain(entries).chain(named).chain(raw).collect()
    }
}
