//! The pods of a node, without I/O: what a cgroup's path says, and who may use which interface and
//! address. What the API server and the kernel report is fed in; workloads come out.

mod announced;
mod cgroup;
mod cluster;
mod table;

pub use self::{
    announced::Announced,
    cgroup::{ContainerId, PodCgroup, PodUid, unified_path},
    cluster::ClusterPods,
    table::{ObservedInterface, ObservedInterfaces, Table, UnknownInterface},
};

use std::{net::IpAddr, sync::Arc};

use crate::types::{Labels, Namespace};

/// What the API server says of a pod, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// The UID that the path of its cgroup carries: `metadata.uid`, and of a static pod's mirror the
    /// annotation `kubernetes.io/config.hash`.
    pub uid: PodUid,
    /// `metadata.namespace`.
    pub namespace: Namespace,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.serviceAccountName`.
    pub service_account: Arc<str>,
    /// `spec.nodeName`; `None` before it is scheduled.
    pub node: Option<Arc<str>>,
    /// `spec.hostNetwork`: its address is the node's.
    pub host_network: bool,
    /// `status.phase` is `Succeeded` or `Failed`: the API server still shows its addresses, which may
    /// be another pod's by now.
    pub finished: bool,
    /// `status.podIPs`. They come after the pod's first packet, and may be an earlier sandbox's.
    pub addresses: Vec<IpAddr>,
}

#[cfg(test)]
mod testing {
    use super::*;

    /// A UID that ends in this number.
    pub(super) fn uid(number: u32) -> PodUid {
        PodUid::parse(&format!("00000000-0000-4000-8000-{number:012x}")).unwrap()
    }

    /// A pod named after its UID's number.
    pub(super) fn pod(number: u32, addresses: &[&str]) -> Pod {
        Pod {
            uid: uid(number),
            namespace: Namespace("shop".into()),
            name: format!("web-{number}").into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            service_account: "web".into(),
            node: Some("node-1".into()),
            host_network: false,
            finished: false,
            addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
        }
    }
}
