//! What a plan is made of, and whether it is worth making again.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use egress_ebpf::abi::PolicyId;

use super::pods::Pod;
use crate::{
    bpf::{
        self, Attachments, Contents, Interface, NO_INTERFACE, PlanInputs, PodHardware,
        PodInterface, cgroup2_mount,
    },
    policy::Snapshot,
    sys::netlink::addresses,
};

/// What the maps hold was made of this. With a hundred thousand routes it is worth asking before
/// they are all laid out again.
#[derive(Debug, Default)]
pub(crate) struct Planned(Option<(Arc<Snapshot>, PlanInputs)>);

impl Planned {
    /// Whether a plan of these would be the same.
    pub(crate) fn is(&self, snapshot: &Arc<Snapshot>, facts: &PlanInputs) -> bool {
        let same =
            |(of, with): &(Arc<Snapshot>, PlanInputs)| Arc::ptr_eq(of, snapshot) && with == facts;
        self.0.as_ref().is_some_and(same)
    }

    /// The maps hold a plan of these now.
    pub(crate) fn set(&mut self, snapshot: Arc<Snapshot>, facts: PlanInputs) {
        self.0 = Some((snapshot, facts));
    }

    /// The last snapshot that the maps held as a whole.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.0.as_ref().map(|(snapshot, _)| &**snapshot)
    }
}

/// Gateways that an earlier agent found healthy. They are until a probe says otherwise: a restart
/// mustn't refuse connections for a moment.
pub(crate) fn inherited(contents: &Contents) -> HashSet<IpAddr> {
    let endpoints = contents.groups.values().flat_map(|group| {
        let used = usize::try_from(group.count).unwrap_or(0).min(group.endpoints.len());
        group.endpoints[..used].iter().map(|addr| IpAddr::from(*addr))
    });
    endpoints.collect()
}

/// The pods' interfaces that are enforced on, by index: names, and addresses of the options. Those
/// that only fit a pattern have none.
pub(crate) fn interfaces(
    pods: &[Pod],
    attachments: &Attachments,
) -> BTreeMap<u32, (String, Vec<IpAddr>)> {
    let mut found: BTreeMap<u32, (String, Vec<IpAddr>)> = attachments
        .pods()
        .map(|(ifindex, name)| (ifindex, (name.to_owned(), Vec::new())))
        .collect();
    for pod in pods {
        let ifindex = pod.name.exact().and_then(|name| attachments.ifindex(name));
        if let Some((_, addresses)) = ifindex.and_then(|ifindex| found.get_mut(&ifindex)) {
            addresses.extend(&pod.addresses);
        }
    }
    found
}

/// The same, as the plan wants them, with the addresses that interfaces were first seen with.
pub(crate) fn found<'a>(
    pods: &'a BTreeMap<u32, (String, Vec<IpAddr>)>,
    seen: &'a BTreeMap<u32, Vec<IpAddr>>,
) -> impl Iterator<Item = Interface<'a>> {
    pods.iter().map(|(ifindex, (name, addresses))| Interface {
        name,
        ifindex: *ifindex,
        addresses,
        seen: seen.get(ifindex).map(Vec::as_slice).unwrap_or_default(),
    })
}

/// The node's own addresses, which its workloads' sockets may have.
pub(crate) fn own() -> Option<PodInterface> {
    // Without them only sources in the cluster pass from workloads on the host's network.
    let addresses = addresses::list()
        .inspect_err(|error| tracing::warn!("can't ask for the node's addresses: {error}"));
    Some(PodInterface {
        ifindex: NO_INTERFACE,
        addresses: addresses.ok()?,
        hardware: PodHardware::Unknown,
        policy: 0,
    })
}

/// The listeners of `--tunnel-listen` that are at addresses of this node. What the kernel sends there
/// isn't encrypted yet, so it is sent nowhere else; without a listener it is refused.
pub(crate) fn listeners(wanted: &[SocketAddr], own: Option<&PodInterface>) -> Vec<SocketAddr> {
    let own = own.map(|own| &own.addresses[..]).unwrap_or_default();
    let here = |listener: &&SocketAddr| listener.ip().is_loopback() || own.contains(&listener.ip());
    wanted.iter().filter(here).copied().collect()
}

/// What the maps should hold while no configuration was accepted yet.
pub(crate) fn adopted(
    left: &Contents,
    pods: &BTreeMap<u32, (String, Vec<IpAddr>)>,
    seen: &BTreeMap<u32, Vec<IpAddr>>,
    cgroups: &BTreeMap<u64, PathBuf>,
    unnamed: PolicyId,
) -> Contents {
    let learn = |pods: &mut [PodInterface]| bpf::learn_hardware(pods, left);
    bpf::adopted(left, found(pods, seen), cgroups, unnamed, learn)
}

/// The cgroups that are enforced on, with their paths below the mount.
pub(crate) fn cgroups(
    strangers: &BTreeMap<u64, PathBuf>,
    attachments: &Attachments,
) -> BTreeMap<u64, PathBuf> {
    let mount = cgroup2_mount().unwrap_or_default();
    let below = |path: &PathBuf| match path.strip_prefix(&mount) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => path.clone(),
    };
    let ours = attachments.cgroups().iter().map(|(id, path)| (*id, below(path)));
    strangers.iter().map(|(id, path)| (*id, path.clone())).chain(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnel_listens_nowhere_but_here() {
        let wanted = ["10.0.0.7:15001", "[fd00::7]:15001"].map(|text| text.parse().unwrap());
        let own = |addresses: &[&str]| PodInterface {
            ifindex: NO_INTERFACE,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            hardware: PodHardware::Unknown,
            policy: 0,
        };
        assert_eq!(listeners(&wanted, Some(&own(&["10.0.0.7", "fd00::7"]))), wanted);
        assert_eq!(listeners(&wanted, Some(&own(&["10.0.0.7", "fd00::8"]))), wanted[..1]);
        assert_eq!(listeners(&wanted, None), []);
        let loopback = ["127.0.0.1:15001".parse().unwrap()];
        assert_eq!(listeners(&loopback, None), loopback);
    }

    #[test]
    fn a_plan_is_made_again_when_anything_is_new() {
        let (first, second) = (Arc::new(Snapshot::default()), Arc::new(Snapshot::default()));
        let facts = |generation| PlanInputs { generation, ..PlanInputs::default() };
        let mut planned = Planned::default();
        assert!(!planned.is(&first, &facts(1)) && planned.snapshot().is_none());
        planned.set(Arc::clone(&first), facts(1));
        assert!(planned.is(&first, &facts(1)) && planned.snapshot().is_some());
        assert!(!planned.is(&first, &facts(2)) && !planned.is(&second, &facts(1)));
    }
}
