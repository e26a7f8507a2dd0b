//! Who is who on this node: from the snapshot and what exists here to policies. Pure, but for the
//! look at the file system that [`find_cgroup`] makes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::ErrorKind,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aya::{Ebpf, maps::MapError};
use egress_ebpf::abi::{PodAddress, PolicyId, UNKNOWN_POLICY};

use super::{
    Error, host,
    plan::{Contents, NO_INTERFACE, POLICY, PlanProblem, PodHardware, PodInterface, policy_id},
};
use crate::{
    policy::{Enforcement, MeshConfig},
    types::Workload,
};

const MAP: &str = "WORKLOADS";
/// `BPF_NOEXIST`, include/uapi/linux/bpf.h.
const ONLY_NEW: u64 = 1;

/// Lists cgroups as workloads before programs are attached to them: the uplink's program meets the
/// sockets of the whole node, and takes those of a cgroup that isn't listed for the node's own. What
/// was said of them before stays: an earlier agent knew their sets. The others have the policy `unnamed`.
pub(super) fn claim(ebpf: &mut Ebpf, cgroups: &[u64], unnamed: PolicyId) -> Result<(), Error> {
    fill(ebpf, cgroups, unnamed).map_err(|error| Error::Map { map: MAP, error })
}

fn fill(ebpf: &mut Ebpf, ids: &[u64], unnamed: PolicyId) -> Result<(), MapError> {
    let Some(map) = ebpf.map_mut(MAP) else { return Err(MapError::ElementNotFound) };
    let mut map: aya::maps::HashMap<_, u64, PolicyId> = map.try_into()?;
    ids.iter().try_for_each(|id| match map.insert(id, unnamed, ONLY_NEW) {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::AlreadyExists => {
            Ok(())
        }
        result => result,
    })
}

/// A pod's host-side interface that our program is attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index now.
    pub ifindex: u32,
    /// The addresses that the options give it. Empty where they only give a pattern that its name
    /// fits: then a workload has to name it, and gives the addresses too.
    pub addresses: &'a [IpAddr],
    /// The addresses that its other end was first seen with. They count where no workload is known for the
    /// interface.
    pub seen: &'a [IpAddr],
}

/// The policies of pods behind interfaces. An interface whose pod is not known has no egress. One whose
/// addresses are not known either is left out, and so denied.
#[must_use]
pub fn pod_interfaces<'a>(
    mesh: &MeshConfig,
    found: impl IntoIterator<Item = Interface<'a>>,
) -> Vec<PodInterface> {
    let known = KnownWorkloads::new(mesh);
    let pods = found.into_iter().filter_map(|interface| {
        let workload = known.by_interface.get(interface.name).copied();
        let (addresses, set) = match (interface.addresses, workload) {
            ([], None) => return unknown(&interface),
            ([], Some(workload)) => (workload.addresses.clone(), mesh.set_of(workload)),
            (addresses, Some(workload)) => (addresses.to_vec(), mesh.set_of(workload)),
            (addresses, None) => (addresses.to_vec(), known.set_of_addresses(addresses)),
        };
        let (ifindex, policy) = (interface.ifindex, policy_id(set));
        Some(PodInterface { ifindex, addresses, hardware: PodHardware::Unknown, policy })
    });
    pods.collect()
}

/// An interface whose pod is not known: in-cluster traffic, under its own addresses.
fn unknown(interface: &Interface<'_>) -> Option<PodInterface> {
    (!interface.seen.is_empty()).then(|| PodInterface {
        ifindex: interface.ifindex,
        addresses: interface.seen.to_vec(),
        hardware: PodHardware::Unknown,
        policy: UNKNOWN_POLICY,
    })
}

/// The workloads by what they are known by.
struct KnownWorkloads<'a> {
    mesh: &'a MeshConfig,
    by_interface: HashMap<&'a str, &'a Workload>,
    by_address: HashMap<IpAddr, Vec<&'a Workload>>,
}

impl<'a> KnownWorkloads<'a> {
    fn new(mesh: &'a MeshConfig) -> Self {
        let mut by_address: HashMap<IpAddr, Vec<&Workload>> = HashMap::new();
        for workload in &mesh.workloads {
            for addr in &workload.addresses {
                by_address.entry(addr.to_canonical()).or_default().push(workload);
            }
        }
        let by_interface = mesh
            .workloads
            .iter()
            .filter_map(|workload| Some((workload.interface.as_deref()?, &**workload)))
            .collect();
        Self { mesh, by_interface, by_address }
    }

    /// The set of the workload that has these addresses. Where several claim them, one that enforces
    /// comes first: what is ambiguous must not be lenient.
    fn set_of_addresses(&self, addresses: &[IpAddr]) -> usize {
        let workloads =
            addresses.iter().filter_map(|addr| self.by_address.get(&addr.to_canonical())).flatten();
        let sets: BTreeSet<usize> = workloads.map(|workload| self.mesh.set_of(workload)).collect();
        let enforces = |set: usize| {
            let mode = self.mesh.sets().nth(set).map(|set| set.mode);
            mode.is_none_or(|mode| mode == Enforcement::Enforce)
        };
        sets.into_iter().max_by_key(|set| (enforces(*set), Reverse(*set))).unwrap_or(0)
    }
}

/// The policies of cgroups by their ids: of the `attached`, which have our programs, and of those
/// that workloads name and `find` finds. What is attached to and no workload names has the policy `unnamed`.
#[must_use]
pub fn cgroups(
    mesh: &MeshConfig,
    attached: &BTreeMap<u64, PathBuf>,
    unnamed: PolicyId,
    find: impl Fn(&Path) -> Option<u64>,
) -> BTreeMap<u64, PolicyId> {
    let mut policies: BTreeMap<u64, PolicyId> = attached.keys().map(|id| (*id, unnamed)).collect();
    for workload in mesh.workloads.iter().filter(|workload| !workload.cgroups.is_empty()) {
        let policy = policy_id(mesh.set_of(workload));
        let ids = workload.cgroups.iter().filter_map(|path| find(path));
        policies.extend(ids.map(|id| (id, policy)));
    }
    policies
}

/// Cgroups of workloads that no program of ours is attached to, or to a cgroup above: nothing but
/// the uplink judges their sockets.
pub fn not_attached(
    mesh: &MeshConfig,
    attached: &BTreeMap<u64, PathBuf>,
) -> impl Iterator<Item = PlanProblem> {
    let covered = |path: &Path| attached.values().any(|above| path.starts_with(above));
    let all = mesh
        .workloads
        .iter()
        .flat_map(|workload| workload.cgroups.iter().map(move |path| (workload, path)));
    all.filter(move |(_, path)| !covered(path)).map(|(workload, path)| PlanProblem::NotAttached {
        workload: format!("{}/{}", workload.namespace.0, workload.name),
        path: path.display().to_string(),
    })
}

/// Finds the id of the cgroup with a path below the cgroup2 mount, if it exists.
pub fn find_cgroup() -> impl Fn(&Path) -> Option<u64> {
    let mount = host::cgroup2_mount();
    move |path| {
        let below = path.strip_prefix("/").unwrap_or(path);
        let found = fs::metadata(mount.as_ref()?.join(below)).ok()?;
        found.is_dir().then(|| found.ino())
    }
}

/// What the maps should hold while no configuration was accepted yet: what an earlier agent left
/// there, but with the interfaces and cgroups that are attached now. Cgroups that it did not know have the
/// policy `unnamed`, as [`cgroups`] gives it to them. `learn` fills in what the pods' frames come from.
#[must_use]
pub fn adopted<'a>(
    left: &Contents,
    found: impl IntoIterator<Item = Interface<'a>>,
    attached: &BTreeMap<u64, PathBuf>,
    unnamed: PolicyId,
    learn: impl FnOnce(&mut [PodInterface]),
) -> Contents {
    let mut contents = left.clone();
    let mut pods: Vec<PodInterface> = found
        .into_iter()
        .filter_map(|interface| {
            let Interface { name: _, ifindex, addresses, seen: _ } = interface;
            let policy = left.pod_interfaces.get(&ifindex).map(|port| port.policy);
            let forwards = PodAddress::forwarder(ifindex);
            let of = left.pod_addresses.iter();
            let of = of.filter(|entry| entry.ifindex == ifindex && **entry != forwards);
            let addresses = match addresses {
                [] => of.map(|entry| entry.addr.into()).collect(),
                given => given.to_vec(),
            };
            let known = policy.is_some() || !addresses.is_empty();
            if !known && left.policies.contains_key(&UNKNOWN_POLICY) {
                return unknown(&interface);
            }
            let (policy, hardware) = (policy.unwrap_or(POLICY), PodHardware::Unknown);
            known.then_some(PodInterface { ifindex, addresses, hardware, policy })
        })
        .collect();
    learn(&mut pods);
    contents.set_pods(&pods);
    let own = left.pod_addresses.iter().filter(|entry| entry.ifindex == NO_INTERFACE);
    contents.pod_addresses.extend(own);
    for id in attached.keys() {
        contents.workloads.entry(*id).or_insert(unnamed);
    }
    contents
}

#[cfg(test)]
mod tests;
