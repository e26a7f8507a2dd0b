//! The Gateway API's resources in Istio's words, as Istio translates them itself: a listener is a server of a
//! `Gateway`, a route a `VirtualService` for each of its hosts and parents, a `BackendTLSPolicy` a
//! `DestinationRule`. What compiles Istio's resources, explains and checks them does the same for these.
//!
//! A resource that cannot be carried out holds nothing else back: what it is for is refused, and reported. Those
//! that are for other controllers alone are passed over in silence.

mod attach;
mod backends;
mod filters;
mod gateways;
mod grants;
mod grpc;
mod http;
mod listeners;
mod matches;
mod merge;
mod notes;
mod servers;
mod streams;
mod tls_policies;
mod world;

pub(super) use gateways::SharedService;
pub(super) use world::{Validators, World};

use std::collections::HashMap;

use attach::Parents;
use backends::Backends;
use grants::Grants;
use merge::Merged;

use super::{
    decode::Report,
    gateway_api::order,
    listener_status::ListenerStatuses,
    names,
    resource::{Resource, Resources, sort},
};
use crate::policy::NamespaceLabels;

/// What a translation says besides the resources that it adds.
pub(super) struct Translated {
    /// Services of Gateways that others serve.
    pub(super) shared: Vec<SharedService>,
    /// What becomes of listeners.
    pub(super) listeners: ListenerStatuses,
}

/// Adds what the Gateway API's resources come to.
pub(super) fn translate(
    resources: &mut Resources,
    world: &World<'_>,
    report: &mut Report,
) -> Translated {
    let api = std::mem::take(&mut resources.api);
    let grants = Grants::of(&api.grants);
    let labels = NamespaceLabels::new(resources.namespaces.iter().cloned());
    let found = gateways::translate(&api.gateways, &grants, world, report);
    let entries: HashMap<(&str, &str), &Resource<_>> = resources
        .entries
        .iter()
        .map(|entry| ((&*entry.meta.namespace.0, entry.meta.name.as_str()), entry))
        .collect();
    let policies = tls_policies::translate(&api.tls_policies, &entries, &found, world, report);
    let hosts = resources.entries.iter().flat_map(|entry| &entry.spec.hosts);
    let services = hosts.map(|host| host.value.as_str()).filter(|host| names::is_in_cluster(host));
    let services = services.collect();
    let parents =
        Parents { gateways: &found, entries: &entries, services: &services, labels: &labels };
    let backends = Backends { grants: &grants, unserved: &policies.unserved };
    let mut merged = Merged::default();
    for route in &api.http {
        http::translate(route, (&parents, &backends, world), &mut merged, report);
    }
    for route in &api.grpc {
        grpc::translate(route, (&parents, &backends, world), &mut merged, report);
    }
    let mut routes = merged.into_routes();
    for route in &api.tls {
        routes.extend(streams::tls(route, &parents, &backends, report));
    }
    for route in &api.tcp {
        routes.extend(streams::tcp(route, &parents, &backends, report));
    }
    routes.sort_by(|a, b| order(&a.meta).cmp(&order(&b.meta)));
    let listeners = found.statuses();
    resources.gateways.extend(found.made);
    sort(&mut resources.gateways);
    resources.routes.extend(routes);
    sort(&mut resources.routes);
    // Of two rules for one host the first one's settings count: TLS must not be lost for an older one. All else is
    // the other one's.
    resources.rules.splice(0..0, policies.made);
    Translated { shared: found.shared, listeners }
}
