//! Who asks, and who answers.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Kubernetes labels.
pub type Labels = BTreeMap<String, String>;

/// A Kubernetes namespace's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Namespace(pub Arc<str>);

/// A workload that the configuration knows (`mesh.yaml`'s `workloads`, or a pod).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Where a request comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The address that the connection came from, IPv4-mapped ones as IPv4.
    pub addr: IpAddr,
    /// The workload at that address, if one is known. Without one, rules that ask for a namespace
    /// or labels don't match.
    pub workload: Option<Arc<Workload>>,
}

/// The gateway process: which `Gateway` resources select it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayIdentity {
    /// The labels of its pod, or of `--labels`.
    pub labels: Labels,
    /// Its namespace.
    pub namespace: Namespace,
}
