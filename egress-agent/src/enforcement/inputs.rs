//! What a snapshot needs to be known: which gateways answer, and addresses of names.

use std::{collections::HashSet, net::IpAddr};

use tokio::sync::watch;

use super::{dns::Names, health::Checker};
use crate::{
    policy::{DirectTarget, Snapshot},
    types::Host,
};

/// Whether all is known that a verdict needs: which gateways answer, and addresses of names.
pub(super) fn is_informed(snapshot: &Snapshot, checker: &Checker, names: &Names) -> bool {
    let answers = snapshot.mesh.gateways.is_empty() || !checker.healthy.borrow().is_empty();
    let resolved = names.resolved.borrow();
    answers && names.wanted.borrow().iter().all(|name| resolved.contains_key(name))
}

/// Asks for the health and the addresses that a snapshot needs; new answers arrive as changes.
pub(super) fn ask(snapshot: &Snapshot, checker: &Checker, names: &Names) {
    let endpoints: HashSet<IpAddr> =
        snapshot.mesh.gateways.iter().flat_map(|group| group.endpoints.clone()).collect();
    publish(&checker.endpoints, endpoints);
    let wanted: HashSet<Host> = snapshot
        .node
        .routes
        .iter()
        .filter_map(|route| match &route.target {
            DirectTarget::Name(host) => Some(host.clone()),
            DirectTarget::Any | DirectTarget::Net(_) => None,
        })
        .collect();
    publish(&names.wanted, wanted);
}

/// Tells who listens, if it is news.
fn publish<T: PartialEq>(to: &watch::Sender<T>, value: T) {
    to.send_if_modified(|old| {
        *old != value && {
            *old = value;
            true
        }
    });
}
