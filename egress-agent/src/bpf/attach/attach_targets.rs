//! What there is now of what is to be under enforcement. Pure: what the host has is a parameter.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    attach_point::AttachPoint,
    table::{ProgramEntry, TargetKind, entries},
    targets::{Target, Targets},
};
use crate::sys::netlink::links::Link;

/// The interface that is never under enforcement: the node itself would stop working.
const LOOPBACK: &str = "lo";

/// One attachment that is wanted: which program, and where.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Hook {
    pub(super) entry: &'static ProgramEntry,
    pub(super) place: AttachPoint,
}

/// An interface that is under enforcement.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Interface {
    /// Its name now.
    name: String,
    /// Its name when it was found. What it is to us doesn't change with its name: its index stays.
    found_as: String,
    pod: bool,
    bridge: bool,
    uplink: bool,
}

/// Everything that is to be under enforcement and is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct AttachTargets {
    interfaces: BTreeMap<u32, Interface>,
    forwarders: BTreeSet<u32>,
    cgroups: BTreeMap<u64, PathBuf>,
    /// Whether the node's own sockets are.
    node: bool,
}

impl AttachTargets {
    /// What is there now, given what was before.
    pub(super) fn new(
        targets: &Targets,
        before: &Self,
        links: &[Link],
        cgroup_id: impl Fn(&Path) -> Option<u64>,
    ) -> Self {
        let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
        let bridges = bridges(targets, links);
        for link in links.iter().filter(|link| link.name != LOOPBACK) {
            let (uplink, pod) = (is_uplink(targets, link), is_pod(targets, link));
            let bridge = bridges.contains(&link.index);
            let interface = match before.interfaces.get(&link.index) {
                Some(known) => Interface {
                    name: link.name.clone(),
                    pod: known.pod || pod,
                    bridge: known.bridge || bridge,
                    uplink: known.uplink || uplink,
                    ..known.clone()
                },
                None => {
                    let name = link.name.clone();
                    Interface { found_as: name.clone(), name, pod, bridge, uplink }
                }
            };
            if interface.pod || interface.bridge || interface.uplink {
                interfaces.insert(link.index, interface);
            }
        }
        let ids = targets.cgroups.iter().filter_map(|path| Some((cgroup_id(path)?, path.clone())));
        let is_pod = |index: &u32| interfaces.get(index).is_some_and(|known| known.pod);
        let others = links.iter().filter(|link| forwards(targets, link));
        let forwarders = others.map(|link| link.index).filter(|index| !is_pod(index)).collect();
        let node = targets.node_sockets && !targets.uplinks.is_empty();
        Self { interfaces, forwarders, cgroups: ids.collect(), node }
    }

    /// The attachments that this asks for, the enforcement points first.
    pub(super) fn hooks(&self) -> Vec<(Hook, Target)> {
        let mut hooks = Vec::new();
        for (on, wanted) in [
            (TargetKind::Pod, (|interface| interface.pod) as fn(&Interface) -> bool),
            (TargetKind::Bridge, |interface| interface.bridge),
            (TargetKind::Uplink, |interface| interface.uplink),
        ] {
            for (index, interface) in self.interfaces.iter().filter(|(_, found)| wanted(found)) {
                let target = Target::Interface(interface.name.clone());
                let place = AttachPoint::Interface(*index);
                hooks.extend(entries(on).map(|entry| (Hook { entry, place }, target.clone())));
            }
        }
        if self.node {
            let place = AttachPoint::Node;
            hooks.extend(
                entries(TargetKind::Node).map(|entry| (Hook { entry, place }, Target::Host)),
            );
        }
        for (id, path) in &self.cgroups {
            let (target, place) = (Target::Cgroup(path.clone()), AttachPoint::Cgroup(*id));
            hooks.extend(
                entries(TargetKind::Cgroup).map(|entry| (Hook { entry, place }, target.clone())),
            );
        }
        hooks
    }

    /// All places, with what they are called.
    pub(super) fn places(&self) -> BTreeMap<AttachPoint, Target> {
        let interfaces = self.interfaces.iter().map(|(index, interface)| {
            (AttachPoint::Interface(*index), Target::Interface(interface.name.clone()))
        });
        let cgroups = self
            .cgroups
            .iter()
            .map(|(id, path)| (AttachPoint::Cgroup(*id), Target::Cgroup(path.clone())));
        let node = self.node.then_some((AttachPoint::Node, Target::Host));
        interfaces.chain(cgroups).chain(node).collect()
    }

    /// The index of an interface by its name; by the one that it was found under where nothing is
    /// called that now.
    pub(super) fn ifindex(&self, name: &str) -> Option<u32> {
        let by = |of: fn(&Interface) -> &String| {
            let mut all = self.interfaces.iter();
            all.find(|(_, interface)| of(interface) == name).map(|(index, _)| *index)
        };
        by(|interface| &interface.name).or_else(|| by(|interface| &interface.found_as))
    }

    /// The interfaces of pods: index, and the name that it was found under.
    pub(super) fn pods(&self) -> impl Iterator<Item = (u32, &str)> {
        let pods = self.interfaces.iter().filter(|(_, interface)| interface.pod);
        pods.map(|(index, interface)| (*index, interface.found_as.as_str()))
    }

    /// The interfaces that are no pod's, and may forward.
    pub(super) fn forwarders(&self) -> &BTreeSet<u32> {
        &self.forwarders
    }

    /// The cgroups by their ids.
    pub(super) fn cgroups(&self) -> &BTreeMap<u64, PathBuf> {
        &self.cgroups
    }

    /// The targets that were named one by one and that aren't there.
    pub(super) fn missing(&self, targets: &Targets) -> BTreeSet<Target> {
        let exact = targets.pod_interfaces.iter().filter_map(|pattern| pattern.exact());
        let names = exact.chain(targets.uplinks.iter().map(String::as_str));
        let interfaces = names
            .filter(|name| self.ifindex(name).is_none())
            .map(|name| Target::Interface(name.to_owned()));
        let present: BTreeSet<&PathBuf> = self.cgroups.values().collect();
        let gone = targets.cgroups.iter().filter(|path| !present.contains(path));
        interfaces.chain(gone.map(|path| Target::Cgroup(path.clone()))).collect()
    }
}

fn is_uplink(targets: &Targets, link: &Link) -> bool {
    targets.uplinks.contains(&link.name)
}

/// A pattern may match an uplink's name, and doesn't mean it.
fn is_pod(targets: &Targets, link: &Link) -> bool {
    targets.pod_interfaces.iter().any(|pattern| match pattern.exact() {
        Some(name) => name == link.name,
        None => !is_uplink(targets, link) && pattern.matches(&link.name),
    })
}

/// Whether what comes in there may be forwarded to the gateways, though it is of no pod that is known: from another
/// network, a tunnel, a bridge. The end of a pair whose other end is in another network namespace is a pod's,
/// whether anybody listed that or not.
fn forwards(targets: &Targets, link: &Link) -> bool {
    is_uplink(targets, link) || link.peer.is_none_or(|peer| peer.namespace.is_none())
}

/// The bridges that pods' interfaces are ports of. One with a port of another kind than pods have, or
/// that is an uplink, leads elsewhere too, so what comes in there may have any source.
fn bridges(targets: &Targets, links: &[Link]) -> BTreeSet<u32> {
    let of_pods: BTreeSet<u32> =
        links.iter().filter(|link| is_pod(targets, link)).filter_map(|link| link.master).collect();
    let is_ours = |bridge: &&Link| {
        let mut ports = links.iter().filter(|link| link.master == Some(bridge.index));
        bridge.kind == "bridge"
            && of_pods.contains(&bridge.index)
            && !is_uplink(targets, bridge)
            && !is_pod(targets, bridge)
            && ports.all(|port| port.kind == "veth" && !is_uplink(targets, port))
    };
    links.iter().filter(is_ours).map(|bridge| bridge.index).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::table::TABLE, *};
    use crate::sys::netlink::links::Peer;

    fn targets() -> Targets {
        Targets {
            cgroups: vec!["/a".into(), "/a".into()],
            pod_interfaces: vec!["pod0".into(), "v*".into()],
            uplinks: vec!["vlan5".into()],
            node_sockets: true,
            ..Targets::default()
        }
    }

    fn links(list: &[(u32, &str)]) -> Vec<Link> {
        list.iter()
            .map(|(index, name)| Link { index: *index, name: (*name).into(), ..Link::default() })
            .collect()
    }

    fn survey(before: &AttachTargets, list: &[(u32, &str)]) -> AttachTargets {
        AttachTargets::new(&targets(), before, &links(list), |_| Some(9))
    }

    fn on(survey: &AttachTargets, index: u32) -> Vec<&'static str> {
        let hooks = survey.hooks();
        let here = hooks.iter().filter(|(hook, _)| hook.place == AttachPoint::Interface(index));
        here.map(|(hook, _)| hook.entry.program).collect()
    }

    #[test]
    fn enforcement_points_come_first_and_nothing_twice() {
        let survey = survey(&AttachTargets::default(), &[(2, "pod0"), (3, "vlan5")]);
        let hooks = survey.hooks();
        let here = TABLE.iter().filter(|entry| entry.on != TargetKind::Bridge);
        assert_eq!(hooks.len(), here.count());
        assert_eq!(hooks[0].0.entry.on, TargetKind::Pod);
        assert_eq!(hooks[hooks.len() - 1].0.place, AttachPoint::Cgroup(9));
        assert!(survey.missing(&targets()).is_empty());
    }

    #[test]
    fn a_pattern_means_neither_loopback_nor_an_uplink() {
        let everything = Targets {
            pod_interfaces: vec!["*".into()],
            uplinks: vec!["up0".into()],
            ..Targets::default()
        };
        let list = links(&[(1, "lo"), (2, "up0"), (3, "veth1")]);
        let survey = AttachTargets::new(&everything, &AttachTargets::default(), &list, |_| None);
        assert_eq!(on(&survey, 1), Vec::<&str>::new());
        assert!(on(&survey, 2).iter().all(|program| program.starts_with("uplink")));
        assert!(on(&survey, 3).contains(&"pod_ingress"));
    }

    #[test]
    fn a_renamed_interface_stays_what_it_was_until_another_takes_its_name() {
        let first = survey(&AttachTargets::default(), &[(2, "pod0"), (3, "vlan5")]);
        let renamed = survey(&first, &[(2, "other"), (3, "gone5")]);
        assert_eq!(on(&renamed, 2), on(&first, 2));
        assert_eq!(on(&renamed, 3), on(&first, 3));
        assert_eq!(renamed.ifindex("pod0"), Some(2));
        assert!(renamed.missing(&targets()).is_empty());
        let replaced = survey(&renamed, &[(2, "other"), (7, "pod0")]);
        assert_eq!(replaced.ifindex("pod0"), Some(7));
        assert_eq!(on(&replaced, 2), on(&first, 2), "it keeps its program");
        assert!(replaced.missing(&targets()).contains(&Target::Interface("vlan5".into())));
    }

    #[test]
    fn a_bridge_of_pods_alone_is_under_enforcement() {
        let link = |index: u32, name: &str, kind: &str, master: Option<u32>| Link {
            index,
            name: name.into(),
            kind: kind.into(),
            master,
            ..Link::default()
        };
        let usual = vec![
            link(2, "pod0", "veth", Some(7)),
            link(3, "vlan5", "", None),
            link(4, "other", "veth", Some(7)),
            link(7, "cni0", "bridge", None),
            link(8, "docker0", "bridge", None),
            link(9, "else", "veth", Some(8)),
        ];
        let look = |links: &[Link]| {
            AttachTargets::new(&targets(), &AttachTargets::default(), links, |_| None)
        };
        assert_eq!(on(&look(&usual), 7), ["bridge_ingress"]);
        assert_eq!(on(&look(&usual), 8), Vec::<&str>::new(), "no pod of ours is there");
        let changed = |index: usize, change: fn(&mut Link)| {
            let mut links = usual.clone();
            change(&mut links[index]);
            on(&look(&links), 7)
        };
        let nothing = Vec::<&str>::new();
        assert_eq!(changed(1, |uplink| uplink.master = Some(7)), nothing, "it leads outside");
        assert_eq!(changed(2, |port| port.kind = String::new()), nothing, "a port of hardware");
        assert_eq!(changed(3, |master| master.kind = "bond".into()), nothing);
        assert_eq!(changed(0, |pod| pod.master = None), nothing);
        // Once found, it stays.
        let later = AttachTargets::new(&targets(), &look(&usual), &usual[2..], |_| None);
        assert_eq!(on(&later, 7), ["bridge_ingress"]);
    }

    #[test]
    fn what_is_no_pods_forwards() {
        let peer = |namespace| Some(Peer { index: 2, namespace });
        let link = |index: u32, name: &str, peer| Link {
            index,
            name: name.into(),
            peer,
            ..Link::default()
        };
        let links = [
            link(1, "lo", None),
            link(2, "pod0", None),
            link(3, "vlan5", peer(Some(0))),
            link(4, "late", peer(Some(1))),
            link(5, "between", peer(None)),
            link(6, "tun0", None),
            link(7, "veth7", peer(Some(2))),
        ];
        let survey = AttachTargets::new(&targets(), &AttachTargets::default(), &links, |_| None);
        assert_eq!(survey.forwarders(), &[1, 3, 5, 6].into_iter().collect());
    }

    #[test]
    fn what_is_gone_is_missed_by_name_only() {
        let first = survey(&AttachTargets::default(), &[(2, "pod0"), (4, "veth1"), (3, "vlan5")]);
        let later = AttachTargets::new(&targets(), &first, &links(&[(3, "vlan5")]), |_| None);
        let missing = later.missing(&targets());
        let expected =
            [Target::Cgroup("/a".into()), Target::Interface("pod0".into())].into_iter().collect();
        assert_eq!(missing, expected);
        assert!(later.places().contains_key(&AttachPoint::Interface(3)));
        assert!(!later.places().contains_key(&AttachPoint::Interface(4)));
    }
}
