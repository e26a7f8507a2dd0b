//! Who is who on this node: a state machine fed with what the API server and the kernel report.
//!
//! - An identity comes from the UID in a cgroup's path. It ends when the cgroup is gone: a pod that the
//!   API server has deleted may still send.
//! - An interface is the pod's whose processes were seen first in the network namespace behind it.
//! - Its addresses are those that it had when it was first seen, before a process of the pod could
//!   change them. The API server's come later, and only settle a dispute.
//! - An address that two interfaces have is one pod's at most.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use super::{Pod, PodUid};
use crate::types::Workload;

/// What the kernel shows at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObservedInterfaces {
    /// The cgroups of pods, below the cgroup2 mount.
    pub cgroups: BTreeMap<PodUid, PathBuf>,
    /// The pods' interfaces that are there.
    pub interfaces: Vec<ObservedInterface>,
}

/// A pod's interface on the host's side, and what is behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedInterface {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: Arc<str>,
    /// The inode of the network namespace behind it; `None` where it isn't found yet.
    pub namespace: Option<u64>,
    /// The pods that have processes there.
    pub pods: BTreeSet<PodUid>,
    /// The addresses of its other end.
    pub addresses: Vec<IpAddr>,
}

/// An interface whose pod is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownInterface {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Since when it is there and unknown.
    pub since: SystemTime,
    /// The UID of the pod behind it, where that is known and the API server doesn't know it.
    pub pod: Option<PodUid>,
    /// What may be a source of its packets.
    pub addresses: Vec<IpAddr>,
}

/// The pods of this node, and their interfaces.
#[derive(Debug, Default)]
pub struct Table {
    pods: BTreeMap<PodUid, KnownPod>,
    cgroups: BTreeMap<PodUid, PathBuf>,
    interfaces: BTreeMap<u32, Interface>,
    /// Counts interfaces, in the order in which they were seen first.
    seen: u64,
}

#[derive(Debug)]
struct KnownPod {
    pod: Pod,
    /// The API server has deleted it.
    deleted: bool,
}

#[derive(Debug)]
struct Interface {
    name: Arc<str>,
    namespace: Option<u64>,
    /// Once it is known it stays until its cgroup is gone.
    owner: Option<PodUid>,
    /// Once there are some they stay.
    addresses: Vec<IpAddr>,
    order: u64,
    since: SystemTime,
}

impl Table {
    /// The API server's whole list. Pods that it doesn't have are deleted.
    pub fn list(&mut self, pods: impl IntoIterator<Item = Pod>) {
        for known in self.pods.values_mut() {
            known.deleted = true;
        }
        for pod in pods {
            self.change(pod);
        }
        self.remove_ended();
    }

    /// A pod that came or changed.
    pub fn change(&mut self, pod: Pod) {
        self.pods.insert(pod.uid.clone(), KnownPod { pod, deleted: false });
    }

    /// A pod that the API server has deleted. It stays itself as long as its cgroup is there.
    pub fn remove(&mut self, uid: &PodUid) {
        if let Some(known) = self.pods.get_mut(uid) {
            known.deleted = true;
        }
        self.remove_ended();
    }

    /// What the kernel shows now.
    pub fn see(&mut self, now: SystemTime, sightings: ObservedInterfaces) {
        let ObservedInterfaces { cgroups, interfaces } = sightings;
        self.cgroups = cgroups;
        let there: BTreeSet<u32> = interfaces.iter().map(|sighting| sighting.ifindex).collect();
        self.interfaces.retain(|index, _| there.contains(index));
        for sighting in interfaces {
            self.see_interface(now, sighting);
        }
        for interface in self.interfaces.values_mut() {
            if interface.owner.as_ref().is_some_and(|owner| !self.cgroups.contains_key(owner)) {
                interface.owner = None;
                interface.since = now;
            }
        }
        self.remove_ended();
    }

    fn see_interface(&mut self, now: SystemTime, sighting: ObservedInterface) {
        let ObservedInterface { ifindex, name, namespace, pods, addresses } = sighting;
        let known = self.interfaces.get(&ifindex);
        // An index may come again, with another namespace behind it.
        let same = known.is_some_and(|known| {
            known.namespace.is_none() || namespace.is_none() || known.namespace == namespace
        });
        if !same {
            self.seen += 1;
            let fresh = Interface {
                name: Arc::clone(&name),
                namespace: None,
                owner: None,
                addresses: Vec::new(),
                order: self.seen,
                since: now,
            };
            self.interfaces.insert(ifindex, fresh);
        }
        let Some(interface) = self.interfaces.get_mut(&ifindex) else { return };
        interface.name = name;
        interface.namespace = interface.namespace.or(namespace);
        if interface.addresses.is_empty() {
            interface.addresses = addresses.iter().map(IpAddr::to_canonical).collect();
        }
        if interface.owner.is_none() {
            // Two pods never share a namespace, so whoever is there besides came in by other ways.
            let mut owners = pods.into_iter().filter(|pod| self.cgroups.contains_key(pod));
            interface.owner = owners.next().filter(|_| owners.next().is_none());
        }
    }

    /// Forgets deleted pods whose cgroups are gone.
    fn remove_ended(&mut self) {
        let cgroups = &self.cgroups;
        self.pods.retain(|uid, known| !known.deleted || cgroups.contains_key(uid));
    }

    /// The workloads of this node: pods that the API server knows, and that have a cgroup here.
    #[must_use]
    pub fn workloads(&self) -> Vec<Arc<Workload>> {
        let mut workloads = Vec::new();
        for (uid, KnownPod { pod, .. }) in &self.pods {
            let Some(cgroup) = self.cgroups.get(uid) else { continue };
            let interface = self.interface_of(pod);
            let addresses = interface.map(|(_, interface)| self.addresses(interface));
            let name = interface.map(|(_, interface)| Arc::clone(&interface.name));
            let cgroups = vec![cgroup.clone()];
            workloads.push(Arc::new(pod.workload(addresses.unwrap_or_default(), cgroups, name)));
        }
        workloads
    }

    /// The interfaces whose pods are not known, with the addresses that they had first.
    #[must_use]
    pub fn unknown(&self) -> Vec<UnknownInterface> {
        let known: BTreeSet<u32> = self
            .pods
            .values()
            .filter_map(|known| self.interface_of(&known.pod))
            .map(|(index, _)| index)
            .collect();
        let unknown = self.interfaces.iter().filter(|(index, _)| !known.contains(index));
        let shown = unknown.map(|(index, interface)| UnknownInterface {
            ifindex: *index,
            name: Arc::clone(&interface.name),
            since: interface.since,
            pod: interface.owner.clone(),
            addresses: self.addresses(interface),
        });
        shown.collect()
    }

    /// The addresses that each interface was first seen with, as far as nobody has a better claim to them.
    pub fn addresses_seen(&self) -> impl Iterator<Item = (u32, Vec<IpAddr>)> {
        self.interfaces.iter().map(|(index, interface)| (*index, self.addresses(interface)))
    }

    /// The newest of a pod's interfaces: an earlier sandbox's may still be there.
    fn interface_of(&self, pod: &Pod) -> Option<(u32, &Interface)> {
        if pod.host_network || !self.cgroups.contains_key(&pod.uid) {
            return None;
        }
        let own =
            self.interfaces.iter().filter(|(_, found)| found.owner.as_ref() == Some(&pod.uid));
        own.max_by_key(|(_, found)| found.order).map(|(index, found)| (*index, found))
    }

    fn addresses(&self, interface: &Interface) -> Vec<IpAddr> {
        let entitled = |address: &&IpAddr| self.is_entitled(interface, **address);
        interface.addresses.iter().filter(entitled).copied().collect()
    }

    /// Whether nobody else has a better claim to the address of an interface.
    fn is_entitled(&self, interface: &Interface, address: IpAddr) -> bool {
        let confirmed = self.is_confirmed(interface, address);
        let others = self.interfaces.values().filter(|other| other.order != interface.order);
        let mut rivals = others.filter(|other| other.addresses.contains(&address));
        let lost = rivals.any(|rival| match (confirmed, self.is_confirmed(rival, address)) {
            (true, false) => false,
            (false, true) => true,
            // Who had it first keeps it.
            (true, true) | (false, false) => rival.order < interface.order,
        });
        if lost {
            return false;
        }
        confirmed
            || !self.pods.iter().any(|(uid, known)| {
                interface.owner.as_ref() != Some(uid) && self.still_claims(&known.pod, address)
            })
    }

    /// Whether the API server says that the address is the owner's.
    fn is_confirmed(&self, interface: &Interface, address: IpAddr) -> bool {
        let owner = interface.owner.as_ref().and_then(|owner| self.pods.get(owner));
        owner.is_some_and(|known| claims(&known.pod, address))
    }

    /// Whether the API server says that the address is this pod's, and the kernel shows nothing else: a
    /// new sandbox has another address before the API server hears of it.
    fn still_claims(&self, pod: &Pod, address: IpAddr) -> bool {
        let own = self.interface_of(pod);
        claims(pod, address) && own.is_none_or(|(_, own)| own.addresses.contains(&address))
    }
}

/// Whether the API server gives the pod this address, and the pod may still have it.
fn claims(pod: &Pod, address: IpAddr) -> bool {
    let mut own = pod.addresses.iter().map(IpAddr::to_canonical);
    !pod.finished && !pod.host_network && own.any(|own| own == address)
}

impl Pod {
    /// The workload that it is.
    pub(super) fn workload(
        &self,
        addresses: Vec<IpAddr>,
        cgroups: Vec<PathBuf>,
        interface: Option<Arc<str>>,
    ) -> Workload {
        Workload {
            name: Arc::clone(&self.name),
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            addresses,
            cgroups,
            interface,
            node: self.node.clone(),
            service_account: Arc::clone(&self.service_account),
        }
    }
}

#[cfg(test)]
mod tests;
