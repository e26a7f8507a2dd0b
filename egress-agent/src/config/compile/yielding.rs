//! Routes of the Gateway API for raw TCP give way: where another one, or names, have the port at the gateway, they
//! have no effect. Istio's own resources are errors there, but a route of one namespace must not hold back what
//! others say.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{
    super::{
        decode::SourcePosition, problem::Severity, resource::Resource,
        virtual_service::VirtualService,
    },
    Compiler,
    node::Ports,
};
use crate::{
    policy::{Hop, RouteSet, Target},
    types::{GatewayPort, OriginalPort},
};

impl Compiler<'_> {
    /// Takes the rules of those routes away.
    pub(super) fn yield_ports(
        &mut self,
        routes: &mut [Arc<RouteSet>],
        resources: &[Resource<VirtualService>],
        ports: &Ports,
    ) {
        let mut taken: HashMap<(usize, GatewayPort), Arc<str>> = HashMap::new();
        for gives_way in [false, true] {
            let sets = routes.iter_mut().zip(resources);
            for (set, resource) in sets.filter(|(_, r)| r.spec.is_translated == gives_way) {
                let conflict = wanted(set).find_map(|(group, port)| {
                    let other = match taken.entry((group, port)) {
                        Entry::Vacant(free) => {
                            free.insert(Arc::clone(&set.label));
                            ports.get(&OriginalPort(port.0)).map(|(.., by)| by)
                        }
                        Entry::Occupied(first) => {
                            (*first.get() != set.label).then_some(&*first.into_mut())
                        }
                    };
                    Some((port, Arc::clone(other?)))
                });
                let Some((port, by)) = conflict.filter(|_| gives_way) else { continue };
                let message = format!(
                    "the gateway's port {port} is used by {by}, and raw TCP is distinguished by the gateway's port \
                     alone: the route has no effect, and its services are refused. Give it a port of its own"
                );
                let at = SourcePosition::root(resource.meta.line, "spec").field("rules");
                resource.meta.cx(self.report).note(Severity::Refusal, &at, message);
                Arc::make_mut(set).mesh.tcp.clear();
            }
        }
    }
}

/// The ports at gateways' services that raw TCP is sent to as it is.
fn wanted(set: &RouteSet) -> impl Iterator<Item = (usize, GatewayPort)> {
    let targets = set.mesh.tcp.iter().flat_map(|rule| &rule.targets);
    targets.filter_map(|weighted| match &weighted.target {
        Target::Gateway { group, port, hop: Hop::Plain, owner: _ } => Some((*group, *port)),
        Target::Gateway { .. } | Target::Cluster { .. } | Target::Refused { .. } => None,
    })
}
