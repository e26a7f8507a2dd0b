//! Attaching the programs and keeping them attached.
//!
//! Every attachment outlives the process: links are pinned, and filters of kernels without tcx
//! belong to the interface. A newer program is attached before the older one is let go, so there
//! is no moment without one; and either all of a start's attachments are made or none.

mod place;
mod stage;
mod table;

use std::{collections::BTreeMap, path::PathBuf};

use aya::{Ebpf, programs::SchedClassifier};

pub(super) use self::{place::PinnedPlace, stage::remove_clsact};
use self::{
    place::{Place, pin_name, report_strangers},
    stage::{remove_pin, stage},
    table::{Entry, On, entries},
};
use super::{Error, host, load, pins::Pins};

/// How a program is attached to an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcMode {
    /// A tcx link (Linux 6.6), pinned, first in its chain.
    Tcx,
    /// A clsact filter of priority 1, which belongs to the interface.
    Clsact,
}

impl TcMode {
    /// The better one of those that the kernel has.
    #[must_use]
    pub fn detect() -> Self {
        if host::kernel_at_least(host::TCX) { Self::Tcx } else { Self::Clsact }
    }
}

/// What to enforce on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Targets {
    /// cgroup2 directories.
    pub cgroups: Vec<PathBuf>,
    /// Names of pods' host-side interfaces.
    pub pod_interfaces: Vec<String>,
    /// Names of uplinks.
    pub uplinks: Vec<String>,
}

/// One attachment that is wanted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Hook {
    Cgroup { entry: &'static Entry, path: PathBuf },
    Interface { entry: &'static Entry, name: String },
}

/// What became of an interface since the last look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is gone; nothing can pass it.
    Gone {
        /// Its name.
        interface: String,
    },
    /// It came back, or its program was gone: the program is attached again.
    Attached {
        /// Its name.
        interface: String,
        /// Its index now.
        ifindex: u32,
    },
    /// Another program had come before ours, or ours was removed; ours is first again.
    Repaired {
        /// Its name.
        interface: String,
    },
}

/// The loaded programs and where they are attached.
#[derive(Debug)]
pub struct Attachments {
    ebpf: Ebpf,
    tc: TcMode,
    /// Where each interface was attached; `None` while it is gone.
    interfaces: BTreeMap<Hook, Option<Attached>>,
}

/// An interface with our program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Attached {
    ifindex: u32,
    /// The program's id in the kernel.
    program: u32,
}

impl Attachments {
    /// Attaches everything or nothing. What an earlier agent attached stays until its replacement
    /// is in place.
    ///
    /// # Errors
    /// A target that doesn't exist, or the kernel's refusal; then all is as it was before.
    pub fn attach(
        mut ebpf: Ebpf,
        pins: &Pins,
        targets: &Targets,
        tc: TcMode,
    ) -> Result<Self, Error> {
        let hooks = hooks(targets);
        let links = pins.links();
        let mut staged = Vec::new();
        let mut interfaces = BTreeMap::new();
        for hook in hooks {
            let (stage, attached) = stage(&mut ebpf, &links, &hook, tc)?;
            staged.push(stage);
            if let Hook::Interface { .. } = hook {
                interfaces.insert(hook, attached);
            }
        }
        let ours: Vec<String> = staged.iter().map(|staged| staged.name.clone()).collect();
        for staged in staged {
            staged.commit(&links)?;
        }
        report_strangers(pins, &ours);
        Ok(Self { ebpf, tc, interfaces })
    }

    /// The index of an interface that is attached, by name.
    #[must_use]
    pub fn ifindex(&self, interface: &str) -> Option<u32> {
        let mut all = self.interfaces.iter();
        all.find_map(|(hook, attached)| match hook {
            Hook::Interface { name, .. } if name == interface => attached.map(|at| at.ifindex),
            Hook::Interface { .. } | Hook::Cgroup { .. } => None,
        })
    }

    /// Names of interfaces that are to be enforced on and aren't there.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let gone = self.interfaces.iter().filter(|(_, attached)| attached.is_none());
        let names = gone.filter_map(|(hook, _)| match hook {
            Hook::Interface { name, .. } => Some(name.clone()),
            Hook::Cgroup { .. } => None,
        });
        names.collect()
    }

    /// Looks at every interface: attaches to those that came back, and repairs what others did to
    /// our place in the chain.
    pub fn refresh(&mut self, pins: &Pins) -> Vec<Result<Change, Error>> {
        let hooks: Vec<(Hook, Option<Attached>)> =
            self.interfaces.iter().map(|(hook, attached)| (hook.clone(), *attached)).collect();
        let changes = hooks
            .into_iter()
            .filter_map(|(hook, attached)| self.refresh_one(pins, hook, attached).transpose());
        changes.collect()
    }

    fn refresh_one(
        &mut self,
        pins: &Pins,
        hook: Hook,
        attached: Option<Attached>,
    ) -> Result<Option<Change>, Error> {
        let Hook::Interface { entry, name } = &hook else { return Ok(None) };
        let interface = name.clone();
        let now = host::ifindex(name);
        let same = attached.filter(|attached| now == Some(attached.ifindex));
        if now == attached.map(|attached| attached.ifindex)
            && attached.is_none_or(|attached| self.in_place(entry, name, attached.program))
        {
            return Ok(None);
        }
        if let Some(before) = attached.filter(|_| same.is_none()) {
            // The link's interface is gone, and the link with it; only its name is left.
            let place = Place::Interface(before.ifindex);
            remove_pin(&pins.links().join(pin_name(entry.program, place, self.tc)));
            // Should attaching fail below, the next look tries again.
            self.interfaces.insert(hook.clone(), None);
        }
        let Some(ifindex) = now else { return Ok(Some(Change::Gone { interface })) };
        let (staged, attached) = if same.is_some() {
            // A chain takes no program twice, and ours is in it already: so a second copy comes
            // first, and the other one leaves.
            stage(&mut load::node(pins)?, &pins.links(), &hook, self.tc)?
        } else {
            stage(&mut self.ebpf, &pins.links(), &hook, self.tc)?
        };
        staged.commit(&pins.links())?;
        self.interfaces.insert(hook, attached);
        Ok(Some(match same {
            Some(_) => Change::Repaired { interface },
            None => Change::Attached { interface, ifindex },
        }))
    }

    /// Whether our program is the first of the interface's chain.
    fn in_place(&self, entry: &Entry, interface: &str, id: u32) -> bool {
        if self.tc == TcMode::Clsact {
            // Without tcx the chain can't be asked for programs by their ids.
            return true;
        }
        match SchedClassifier::query_tcx(interface, entry.direction.tc()) {
            Ok((_, chain)) => chain.first().is_some_and(|first| first.id() == id),
            // Not allowed to ask (that takes CAP_SYS_ADMIN), or the interface went this moment.
            Err(error) => {
                tracing::debug!("can't ask for the programs on {interface}: {error}");
                true
            }
        }
    }
}

fn hooks(targets: &Targets) -> Vec<Hook> {
    let interfaces = |on, names: &[String]| {
        let hook = |(entry, name): (_, &String)| Hook::Interface { entry, name: name.clone() };
        let pairs = entries(on).flat_map(|entry| names.iter().map(move |name| (entry, name)));
        pairs.map(hook).collect::<Vec<_>>()
    };
    let mut hooks = interfaces(On::Pod, &targets.pod_interfaces);
    hooks.extend(interfaces(On::Uplink, &targets.uplinks));
    for path in &targets.cgroups {
        hooks.extend(entries(On::Cgroup).map(|entry| Hook::Cgroup { entry, path: path.clone() }));
    }
    let mut seen = std::collections::BTreeSet::new();
    hooks.retain(|hook| seen.insert(hook.clone()));
    hooks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_come_first_and_nothing_twice() {
        let targets = Targets {
            cgroups: vec!["/a".into(), "/a".into()],
            pod_interfaces: vec!["p".into()],
            uplinks: vec!["u".into()],
        };
        let hooks = hooks(&targets);
        assert_eq!(hooks.len(), table::TABLE.len());
        assert!(matches!(&hooks[0], Hook::Interface { entry, .. } if entry.on == On::Pod));
    }
}
