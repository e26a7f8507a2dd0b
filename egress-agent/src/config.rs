//! Istio's resources and egress policies as users write them, and their compilation to one snapshot.

mod annotations;
mod api;
mod api_gateway;
mod api_policies;
mod authorization_policy;
mod compile;
mod cors;
mod decode;
mod destination_rule;
mod egress_policy;
mod fault;
mod fields;
mod gateway;
mod gateway_api;
mod guards;
mod http_route;
mod label_selector;
mod last_good;
mod listener_status;
mod load_balancer;
mod log_format;
mod mesh;
mod meta;
mod names;
mod policies;
mod problem;
mod rate_limit;
mod reference;
mod references;
mod resource;
mod route_filters;
mod service_entry;
mod stream_route;
mod text;
mod translate;
mod virtual_service;
mod yaml;

pub use annotations::PREFIX as ANNOTATION_PREFIX;
pub use api::{compile, compile_in, kinds};
pub use fields::istio_fields;
pub use last_good::LastGood;
pub use listener_status::{ListenerStatus, ListenerStatuses};
pub use log_format::{JSON_OWN, LogFormat, LogFormatError};
pub use problem::{Problem, Problems, Severity, StatusReason};
pub use reference::reference;

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::{policy::Snapshot, types::Labels};

/// A file as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawFile {
    /// Its path, for messages.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// What a cluster says of itself, besides resources. In a directory of files there is nothing of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Discovered {
    /// Services that may be gateways, by full name; `None` where there is no cluster to ask, so that the
    /// settings have to give endpoints.
    pub gateways: Option<BTreeMap<String, DiscoveredGateway>>,
    /// Networks inside, besides those of the settings.
    pub cluster_cidrs: Vec<IpNet>,
    /// Networks that were found and cannot be inside.
    pub refused_cidrs: Vec<IpNet>,
    /// Addresses of the API server's own Service, which are in the network of Services.
    pub api_service: Vec<IpAddr>,
    /// The nodes of the cluster, by name, with their addresses.
    pub nodes: BTreeMap<String, Vec<IpAddr>>,
    /// Addresses by which nodes are reached from outside (type `ExternalIP`). They are not inside, so no pod sends
    /// there directly, and gateways dial none of them.
    pub external_addresses: Vec<IpAddr>,
    /// Where nodes are: `region/zone/subzone`, by name.
    pub localities: BTreeMap<String, String>,
}

/// A Service that may be a gateway.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DiscoveredGateway {
    /// Its selector.
    pub labels: Labels,
    /// The addresses of its endpoints, ready or not.
    pub endpoints: Vec<IpAddr>,
    /// Its own addresses.
    pub other_addresses: Vec<IpAddr>,
}

/// A configuration that can be put in force.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What to put in force.
    pub snapshot: Snapshot,
    /// What to tell the user all the same, sorted by file and line. Some are refusals: a reference
    /// to what does not exist, or no longer exists, is answered by refusing what depends on it, so
    /// that deleting a resource takes effect at once whatever still names it.
    pub warnings: Vec<Problem>,
    /// What becomes of the listeners of the Gateway API's Gateways.
    pub listeners: ListenerStatuses,
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod definitions;
#[cfg(test)]
mod decisions {
    mod authorization {
        mod tests;
    }
    mod delegates;
    mod direct;
    mod egress {
        mod shared_targets;
        mod tests;
        mod union;
    }
    mod gateway_api {
        mod tests;
    }
    mod rates;
    mod refused_today;
    mod scopes;
    mod tests;
    mod unmet;
    mod unsupported;
    mod upstreams;
    mod wildcards;
}
#[cfg(test)]
pub(crate) mod scaling;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tunnels {
    mod tests;
}
#[cfg(test)]
mod walkthrough;
