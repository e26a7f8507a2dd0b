//! The pods of the whole cluster by their addresses, as the API server reports them: the source of a
//! connection that a gateway accepts.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{Pod, PodUid};
use crate::types::Workload;

/// All pods.
#[derive(Debug, Default)]
pub struct ClusterPods(BTreeMap<PodUid, Pod>);

impl ClusterPods {
    /// Replaces all of them.
    pub fn replace(&mut self, pods: impl IntoIterator<Item = Pod>) {
        self.0 = pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
    }

    /// A pod that came or changed.
    pub fn change(&mut self, pod: Pod) {
        self.0.insert(pod.uid.clone(), pod);
    }

    /// A pod that is gone.
    pub fn remove(&mut self, uid: &PodUid) {
        self.0.remove(uid);
    }

    /// The workloads with their addresses. Finished pods have none any more, pods on the host's network
    /// have none of their own and are known to their node's agent alone, and an address that two pods claim
    /// belongs to neither.
    #[must_use]
    pub fn workloads(&self) -> Vec<Arc<Workload>> {
        let own = |pod: &&Pod| !pod.finished && !pod.host_network;
        let mut claims: HashMap<IpAddr, u32> = HashMap::new();
        for address in self.0.values().filter(own).flat_map(|pod| &pod.addresses) {
            *claims.entry(address.to_canonical()).or_default() += 1;
        }
        let workload = |pod: &Pod| {
            let addresses = pod.addresses.iter().map(IpAddr::to_canonical);
            let addresses: Vec<IpAddr> =
                addresses.filter(|address| claims.get(address) == Some(&1)).collect();
            let by_its_node = pod.host_network && pod.node.is_some();
            let is_known = by_its_node || !addresses.is_empty();
            is_known.then(|| {
                let addresses = if pod.host_network { Vec::new() } else { addresses };
                Arc::new(pod.workload(addresses, Vec::new(), None))
            })
        };
        let running = self.0.values().filter(|pod| !pod.finished);
        running.filter_map(workload).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::pod, *};

    fn addresses(pods: &ClusterPods) -> Vec<(String, Vec<String>)> {
        let text = |workload: &Arc<Workload>| {
            let addresses = workload.addresses.iter().map(ToString::to_string).collect();
            (workload.name.to_string(), addresses)
        };
        pods.workloads().iter().map(text).collect()
    }

    #[test]
    fn an_address_is_one_living_pods_or_nobodys() {
        let mut pods = ClusterPods::default();
        pods.replace([pod(1, &["10.0.0.1", "fd00::1"]), pod(2, &["10.0.0.2"]), pod(3, &[])]);
        let own = |name: &str, list: &[&str]| {
            (name.to_owned(), list.iter().map(|addr| (*addr).to_owned()).collect::<Vec<_>>())
        };
        let (first, second) = (own("web-1", &["10.0.0.1", "fd00::1"]), own("web-2", &["10.0.0.2"]));
        assert_eq!(addresses(&pods), [first.clone(), second.clone()]);
        // A pod that has ended keeps its address in the API, and a new one has it already.
        pods.change(Pod { finished: true, ..pod(2, &["10.0.0.2"]) });
        pods.change(pod(4, &["::ffff:10.0.0.2"]));
        assert_eq!(addresses(&pods), [first.clone(), own("web-4", &["10.0.0.2"])]);
        // Two running pods: the sender cannot be verified.
        pods.change(pod(5, &["10.0.0.2"]));
        assert_eq!(addresses(&pods), std::slice::from_ref(&first));
        pods.remove(&pod(4, &[]).uid);
        assert_eq!(addresses(&pods), [first.clone(), own("web-5", &["10.0.0.2"])]);
        // The node's address is shared by all such pods, so it identifies none of them.
        pods.change(Pod { host_network: true, ..pod(6, &["192.0.2.1"]) });
        assert_eq!(addresses(&pods).last(), Some(&own("web-6", &[])));
        // Not even where a pod of its own network claims it.
        pods.change(Pod { host_network: true, ..pod(7, &["10.0.0.1"]) });
        assert_eq!(addresses(&pods)[0], first);
        pods.change(Pod { host_network: true, finished: true, ..pod(7, &[]) });
        assert_eq!(addresses(&pods).len(), 3);
    }
}
