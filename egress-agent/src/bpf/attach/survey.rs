//! What there is now of what is to be enforced on. Pure: what the host has is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use super::{
    Targets,
    place::Place,
    table::{Entry, On, entries},
};
use crate::sys::netlink::links::Link;

/// The interface that is never enforced on: the node itself would stop working.
const LOOPBACK: &str = "lo";

/// One attachment that is wanted: which program, and where.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Hook {
    pub(super) entry: &'static Entry,
    pub(super) place: Place,
}

/// What a place is called at the moment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// A cgroup2 directory.
    Cgroup(PathBuf),
    /// An interface's name.
    Interface(String),
    /// A pinned map.
    Map(&'static str),
    /// The whole host: what sockets workloads may make.
    Host,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Map(name) => write!(f, "map {name}"),
            Self::Host => f.write_str("the host"),
        }
    }
}

/// An interface that is enforced on.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Interface {
    /// Its name now.
    name: String,
    /// Its name when it was found. What it is to us doesn't change with its name: its index stays.
    found_as: String,
    pod: bool,
    uplink: bool,
}

/// Everything that is to be enforced on and is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Survey {
    interfaces: BTreeMap<u32, Interface>,
    /// The uplinks, and the hardware addresses that the node sends from over each.
    hardware: Hardware,
    cgroups: BTreeMap<u64, PathBuf>,
}

/// Hardware addresses that the node sends from, by the index of the uplink.
pub type Hardware = BTreeMap<u32, BTreeSet<[u8; 6]>>;

impl Survey {
    /// What is there now, given what was before.
    pub(super) fn new(
        targets: &Targets,
        before: &Self,
        links: &[Link],
        cgroup_id: impl Fn(&Path) -> Option<u64>,
    ) -> Self {
        let mut interfaces = BTreeMap::new();
        for link in links.iter().filter(|link| link.name != LOOPBACK) {
            let uplink = targets.uplinks.contains(&link.name);
            // A pattern may match an uplink's name, and doesn't mean it.
            let pod = targets.pod_interfaces.iter().any(|pattern| match pattern.exact() {
                Some(name) => name == link.name,
                None => !uplink && pattern.matches(&link.name),
            });
            let interface = match before.interfaces.get(&link.index) {
                Some(known) => Interface {
                    name: link.name.clone(),
                    pod: known.pod || pod,
                    uplink: known.uplink || uplink,
                    ..known.clone()
                },
                None => {
                    Interface { name: link.name.clone(), found_as: link.name.clone(), pod, uplink }
                }
            };
            if interface.pod || interface.uplink {
                interfaces.insert(link.index, interface);
            }
        }
        let ids = targets.cgroups.iter().filter_map(|path| Some((cgroup_id(path)?, path.clone())));
        let uplinks = interfaces.iter().filter(|(_, found)| found.uplink).map(|(index, _)| *index);
        let hardware = uplinks.filter_map(|uplink| hardware(uplink, links)).collect();
        Self { interfaces, hardware, cgroups: ids.collect() }
    }

    /// The attachments that this asks for, the walls first.
    pub(super) fn hooks(&self) -> Vec<(Hook, Target)> {
        let mut hooks = Vec::new();
        for (on, wanted) in [
            (On::Pod, (|interface| interface.pod) as fn(&Interface) -> bool),
            (On::Uplink, |interface| interface.uplink),
        ] {
            for (index, interface) in self.interfaces.iter().filter(|(_, found)| wanted(found)) {
                let target = Target::Interface(interface.name.clone());
                let place = Place::Interface(*index);
                hooks.extend(entries(on).map(|entry| (Hook { entry, place }, target.clone())));
            }
        }
        for (id, path) in &self.cgroups {
            let (target, place) = (Target::Cgroup(path.clone()), Place::Cgroup(*id));
            hooks.extend(entries(On::Cgroup).map(|entry| (Hook { entry, place }, target.clone())));
        }
        hooks
    }

    /// All places, with what they are called.
    pub(super) fn places(&self) -> BTreeMap<Place, Target> {
        let interfaces = self.interfaces.iter().map(|(index, interface)| {
            (Place::Interface(*index), Target::Interface(interface.name.clone()))
        });
        let cgroups = self
            .cgroups
            .iter()
            .map(|(id, path)| (Place::Cgroup(*id), Target::Cgroup(path.clone())));
        interfaces.chain(cgroups).collect()
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

    /// The uplinks, and the hardware addresses that the node sends from over each.
    pub(super) fn hardware(&self) -> &Hardware {
        &self.hardware
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

/// The hardware addresses of an uplink: its own, those of interfaces of this node that lie on it or
/// that it is a port of, and those of the other ports (a bond sends with any of them). An interface
/// that lies on it in a pod's namespace isn't listed here. `None` where it has no hardware address:
/// then there is nothing to tell the node from others by.
fn hardware(uplink: u32, links: &[Link]) -> Option<(u32, BTreeSet<[u8; 6]>)> {
    let own = links.iter().find(|link| link.index == uplink)?;
    own.hardware?;
    let master = own.master;
    let of_node = links.iter().filter(|link| {
        let above = |index| link.below == Some(index);
        link.index == uplink
            || above(uplink)
            || master.is_some_and(|master| {
                link.index == master || link.master == Some(master) || above(master)
            })
    });
    Some((uplink, of_node.filter_map(|link| link.hardware).collect()))
}

#[cfg(test)]
mod tests {
    use super::{super::table::TABLE, *};

    fn targets() -> Targets {
        Targets {
            cgroups: vec!["/a".into(), "/a".into()],
            pod_interfaces: vec!["pod0".into(), "v*".into()],
            uplinks: vec!["vlan5".into()],
        }
    }

    fn links(list: &[(u32, &str)]) -> Vec<Link> {
        list.iter()
            .map(|(index, name)| Link { index: *index, name: (*name).into(), ..Link::default() })
            .collect()
    }

    fn survey(before: &Survey, list: &[(u32, &str)]) -> Survey {
        Survey::new(&targets(), before, &links(list), |_| Some(9))
    }

    fn on(survey: &Survey, index: u32) -> Vec<&'static str> {
        let hooks = survey.hooks();
        let here = hooks.iter().filter(|(hook, _)| hook.place == Place::Interface(index));
        here.map(|(hook, _)| hook.entry.program).collect()
    }

    #[test]
    fn walls_come_first_and_nothing_twice() {
        let survey = survey(&Survey::default(), &[(2, "pod0"), (3, "vlan5")]);
        let hooks = survey.hooks();
        assert_eq!(hooks.len(), TABLE.len());
        assert_eq!(hooks[0].0.entry.on, On::Pod);
        assert_eq!(hooks[hooks.len() - 1].0.place, Place::Cgroup(9));
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
        let survey = Survey::new(&everything, &Survey::default(), &list, |_| None);
        assert_eq!(on(&survey, 1), Vec::<&str>::new());
        assert!(on(&survey, 2).iter().all(|program| program.starts_with("uplink")));
        assert!(on(&survey, 3).contains(&"pod_ingress"));
    }

    #[test]
    fn a_renamed_interface_stays_what_it_was_until_another_takes_its_name() {
        let first = survey(&Survey::default(), &[(2, "pod0"), (3, "vlan5")]);
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
    fn the_node_sends_from_the_uplink_and_what_is_stacked_on_it() {
        let mac = |last: u8| [2, 0, 0, 0, 0, last];
        let link = |index: u32, last: u8, below, master| Link {
            index,
            name: format!("i{index}"),
            hardware: Some(mac(last)),
            below,
            master,
        };
        let links = [
            link(2, 2, None, Some(5)),
            link(3, 3, None, Some(5)),
            link(4, 4, Some(2), None),
            link(5, 5, None, None),
            link(6, 6, Some(5), None),
            link(7, 7, None, None),
        ];
        let (_, found) = hardware(2, &links).unwrap();
        assert_eq!(found, [2, 3, 4, 5, 6].map(mac).into_iter().collect());
        let alone = hardware(7, &links).unwrap().1;
        assert_eq!(alone, [mac(7)].into_iter().collect());
        let bare = Link { index: 8, ..Link::default() };
        assert_eq!(hardware(8, &[bare]), None);
        assert_eq!(hardware(9, &links), None);
    }

    #[test]
    fn what_is_gone_is_missed_by_name_only() {
        let first = survey(&Survey::default(), &[(2, "pod0"), (4, "veth1"), (3, "vlan5")]);
        let later = Survey::new(&targets(), &first, &links(&[(3, "vlan5")]), |_| None);
        let missing = later.missing(&targets());
        let expected =
            [Target::Cgroup("/a".into()), Target::Interface("pod0".into())].into_iter().collect();
        assert_eq!(missing, expected);
        assert!(later.places().contains_key(&Place::Interface(3)));
        assert!(!later.places().contains_key(&Place::Interface(4)));
    }
}
