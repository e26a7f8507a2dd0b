//! Looking at what is behind the pods' interfaces: which network namespace, whose processes are in it,
//! and which addresses the other end has. A thread looks; what it finds is judged elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    fs::{self, File},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    bpf::cgroup2_mount,
    pods::{Announced, ObservedInterface, ObservedInterfaces, PodCgroup, PodUid},
    sys::{
        netlink::{addresses, links, namespaces},
        netns,
    },
};

/// Between two looks, where everything that is there is known.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks as long as something new isn't known: less than a container takes to start.
const HURRY: Duration = Duration::from_millis(25);
/// For how long an interface is new.
const NEW: Duration = Duration::from_secs(10);
/// Cgroups that a look takes time for: thousands of pods, which no node has.
const MOST_CGROUPS: usize = 65_536;
/// Where container runtimes and `ip netns` keep namespaces by name.
const NAMED: &str = "/run/netns";

/// What is looked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ObservedTargets {
    /// Pods' interfaces by their indices, with their names.
    pub interfaces: BTreeMap<u32, Arc<str>>,
    /// Cgroups below which pods are looked for, below the cgroup2 mount.
    pub roots: Vec<PathBuf>,
}

/// Looks once a second, and at once where something else is wanted. Ends with its receivers. `None`
/// before the first look.
pub(super) fn spawn(
    first: ObservedTargets,
    announced: Announced,
) -> (watch::Sender<ObservedTargets>, watch::Receiver<Option<ObservedInterfaces>>) {
    let (wanted, mut receiver) = watch::channel(first);
    let (sender, sightings) = watch::channel(None);
    tokio::spawn(async move {
        let mut looker = Observer { announced, ..Observer::default() };
        let mut born: HashMap<u32, Instant> = HashMap::new();
        loop {
            let wanted = receiver.borrow_and_update().clone();
            let by_cgroup = !wanted.roots.is_empty();
            born.retain(|index, _| wanted.interfaces.contains_key(index));
            for index in wanted.interfaces.keys() {
                born.entry(*index).or_insert_with(Instant::now);
            }
            // File systems may hang; the runtime's thread mustn't.
            let look = tokio::task::spawn_blocking(move || {
                let seen = looker.look(&wanted);
                (looker, seen)
            });
            let Ok((back, seen)) = look.await else { return };
            looker = back;
            let open = |sighting: &ObservedInterface| {
                sighting.addresses.is_empty() || (by_cgroup && sighting.pods.is_empty())
            };
            let new = |index: u32| born.get(&index).is_some_and(|born| born.elapsed() < NEW);
            let hurry =
                seen.interfaces.iter().any(|sighting| open(sighting) && new(sighting.ifindex));
            sender.send_if_modified(|old| {
                let changed = old.as_ref() != Some(&seen);
                *old = Some(seen);
                changed
            });
            tokio::select! {
                changed = receiver.changed() => if changed.is_err() { return },
                () = sleep(if hurry { HURRY } else { PAUSE }) => {}
                () = sender.closed() => return,
            }
        }
    });
    (wanted, sightings)
}

/// What was found earlier and needn't be asked for again.
#[derive(Debug, Default)]
struct Observer {
    /// Namespaces by their inodes.
    namespaces: HashMap<u64, Namespace>,
    /// What a container runtime has said of namespaces without a process.
    announced: Announced,
}

/// A network namespace that interfaces of this one lead into.
#[derive(Debug)]
struct Namespace {
    /// Keeps the inode's number from being used again.
    file: File,
    /// Addresses by the index of this namespace's interface that leads there; asked for until there are
    /// some.
    addresses: HashMap<u32, Vec<IpAddr>>,
}

impl Observer {
    fn look(&mut self, wanted: &ObservedTargets) -> ObservedInterfaces {
        let (cgroups, mut processes) = pods(&wanted.roots);
        let mut behind: BTreeMap<u32, u64> = BTreeMap::new();
        let mut alive = BTreeSet::new();
        let Some(own) = inode("/proc/self/ns/net") else { return ObservedInterfaces::default() };
        let links = links::list()
            .inspect_err(|error| tracing::debug!("can't list the interfaces: {error}"))
            .unwrap_or_default();
        let known: Vec<(u64, PathBuf)> =
            processes.iter().map(|(inode, (_, path))| (*inode, path.clone())).collect();
        for (inode, path) in known {
            self.find(inode, &path, own, &links, &mut alive, &mut behind);
        }
        // Pods' processes are not all that may be behind an interface.
        if wanted.interfaces.keys().any(|index| !behind.contains_key(index)) {
            for (inode, path) in all_namespaces() {
                self.find(inode, &path, own, &links, &mut alive, &mut behind);
            }
        }
        self.namespaces.retain(|inode, _| alive.contains(inode));
        let mut interfaces = Vec::new();
        for (index, name) in &wanted.interfaces {
            let namespace = behind.get(index).copied();
            let addresses = namespace.map(|inode| self.addresses(inode, *index));
            let pods = namespace.and_then(|inode| processes.remove(&inode)).map(|(pods, _)| pods);
            let announced = || {
                let pod = self.announced.pod(std::time::Instant::now(), namespace?)?;
                Some(BTreeSet::from([pod]))
            };
            let pods = pods.or_else(announced);
            interfaces.push(ObservedInterface {
                ifindex: *index,
                name: Arc::clone(name),
                namespace,
                pods: pods.unwrap_or_default(),
                addresses: addresses.unwrap_or_default(),
            });
        }
        ObservedInterfaces { cgroups, interfaces }
    }

    /// Notes which of this namespace's interfaces lead into another one, once for each.
    fn find(
        &mut self,
        inode: u64,
        path: &Path,
        own: u64,
        links: &[links::Link],
        alive: &mut BTreeSet<u64>,
        behind: &mut BTreeMap<u32, u64>,
    ) {
        if inode != own && alive.insert(inode) {
            for index in self.interfaces_into(inode, path, links) {
                behind.entry(index).or_insert(inode);
            }
        }
    }

    /// The indices of this namespace's interfaces that have their other ends there.
    fn interfaces_into(&mut self, inode: u64, path: &Path, links: &[links::Link]) -> Vec<u32> {
        let namespace = match self.namespaces.entry(inode) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let Ok(file) = File::open(path) else { return Vec::new() };
                // The process may have ended, and its number may be another's.
                if file.metadata().map(|file| file.ino()).ok() != Some(inode) {
                    return Vec::new();
                }
                vacant.insert(Namespace { file, addresses: HashMap::new() })
            }
        };
        let number = namespaces::number_of(&namespace.file).ok().flatten();
        let leads_there = |link: &&links::Link| {
            number.is_some() && link.peer.is_some_and(|peer| peer.namespace == number)
        };
        links.iter().filter(leads_there).map(|link| link.index).collect()
    }

    fn addresses(&mut self, inode: u64, index: u32) -> Vec<IpAddr> {
        let Some(namespace) = self.namespaces.get_mut(&inode) else { return Vec::new() };
        let known = namespace.addresses.entry(index).or_default();
        if known.is_empty() {
            *known = other_end(&namespace.file, index)
                .inspect_err(|error| tracing::debug!("can't look behind an interface: {error}"))
                .unwrap_or_default();
        }
        known.clone()
    }
}

/// The addresses of the interface there whose other end is this one here. Link-local ones lead no
/// further than the link, and are not asked for.
fn other_end(namespace: &File, index: u32) -> std::io::Result<Vec<IpAddr>> {
    let here = File::open("/proc/self/ns/net")?;
    netns::inside(namespace, || {
        let number = namespaces::number_of(&here)?;
        let leads_here = |link: &links::Link| {
            number.is_some() && link.peer == Some(links::Peer { index, namespace: number })
        };
        let ends: Vec<u32> =
            links::list()?.iter().filter(|link| leads_here(link)).map(|link| link.index).collect();
        let all = addresses::all()?.into_iter().filter(|(index, _)| ends.contains(index));
        Ok(all.map(|(_, address)| address).filter(|address| !is_link_local(*address)).collect())
    })?
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Pods by the network namespaces that their processes are in, with a path to each namespace.
type Processes = HashMap<u64, (BTreeSet<PodUid>, PathBuf)>;

/// The pods' cgroups below these, and where their processes are.
fn pods(roots: &[PathBuf]) -> (BTreeMap<PodUid, PathBuf>, Processes) {
    let (mut cgroups, mut processes) = (BTreeMap::new(), Processes::new());
    let Some(mount) = cgroup2_mount() else { return (cgroups, processes) };
    let mut left: Vec<PathBuf> = roots.to_vec();
    let mut most = MOST_CGROUPS;
    while let Some(path) = left.pop() {
        let Some(rest) = most.checked_sub(1) else {
            tracing::warn!("more than {MOST_CGROUPS} cgroups; pods in the rest are not known");
            break;
        };
        most = rest;
        let directory = mount.join(path.strip_prefix("/").unwrap_or(&path));
        if let Some(pod) = PodCgroup::parse(&path) {
            for process in listed(&directory) {
                let namespace = PathBuf::from(format!("/proc/{process}/ns/net"));
                if let Some(inode) = inode(&namespace) {
                    let (pods, _) = processes.entry(inode).or_insert((BTreeSet::new(), namespace));
                    pods.insert(pod.pod.clone());
                }
            }
            cgroups.insert(pod.pod, pod.path);
        }
        left.extend(below(&directory).map(|child| path.join(child)));
    }
    (cgroups, processes)
}

/// The names of the cgroups in a cgroup.
fn below(directory: &Path) -> impl Iterator<Item = std::ffi::OsString> + use<> {
    let children = fs::read_dir(directory).into_iter().flatten().flatten();
    children
        .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|child| child.file_name())
}

/// The processes of a cgroup. One that is of another process namespace is listed as 0.
fn listed(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|process| *process != 0).collect()
}

/// Every network namespace that has a process or a name.
fn all_namespaces() -> BTreeMap<u64, PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let _number: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some(entry.path().join("ns/net"))
    });
    let named = fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
    processes.chain(named).filter_map(|path| Some((inode(&path)?, path))).collect()
}

fn inode(path: impl AsRef<Path>) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_behind_no_interface() {
        let own = inode("/proc/self/ns/net").unwrap();
        assert!(all_namespaces().contains_key(&own));
        let interfaces: BTreeMap<u32, Arc<str>> = [(1, "lo".into())].into();
        let seen = Observer::default()
            .look(&ObservedTargets { interfaces, roots: vec!["/no/such".into()] });
        assert_eq!(seen.interfaces.len(), 1);
        let lo = &seen.interfaces[0];
        assert!(lo.namespace.is_none() && lo.pods.is_empty() && lo.addresses.is_empty(), "{lo:?}");
        assert!(seen.cgroups.is_empty());
    }

    #[test]
    fn what_leads_no_further_than_the_link_is_left_out() {
        for (address, local) in
            [("169.254.1.1", true), ("fe80::1", true), ("10.0.0.1", false), ("fd00::1", false)]
        {
            assert_eq!(is_link_local(address.parse().unwrap()), local, "{address}");
        }
    }
}
