//! Which promises don't hold on this node, and for which workloads: from what the kernel can't
//! enforce and what processes of workloads may do. Pure; [`scan`] looks at the host.

pub(crate) mod scan;

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::bpf::LsmGaps;

/// Workloads that are named for each exposure; more are counted.
const MOST: usize = 32;

/// Capabilities, by their numbers (include/uapi/linux/capability.h).
mod capability {
    pub(crate) const NET_ADMIN: u32 = 12;
    pub(crate) const NET_RAW: u32 = 13;
    pub(crate) const SYS_MODULE: u32 = 16;
    pub(crate) const SYS_RAWIO: u32 = 17;
    pub(crate) const SYS_ADMIN: u32 = 21;
    pub(crate) const BPF: u32 = 39;
}

/// With one of these a process can change the node's kernel, or what is attached to it.
const PRIVILEGES: [u32; 4] =
    [capability::SYS_MODULE, capability::SYS_RAWIO, capability::SYS_ADMIN, capability::BPF];

/// What a process of a workload may do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Process {
    /// What its workload is called.
    pub(crate) workload: String,
    /// What it has or can get, one bit each, in the user namespace of the node; zero for one that has
    /// a user namespace of its own.
    pub(crate) capabilities: u64,
    /// It is in the node's network namespace.
    pub(crate) host_network: bool,
    /// It is in the node's process namespace.
    pub(crate) host_processes: bool,
}

impl Process {
    fn may(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 != 0
    }
}

/// What was found out about the processes of workloads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Processes {
    /// Each kind once.
    pub(crate) seen: BTreeSet<Process>,
    /// Workloads with processes that couldn't be looked at.
    pub(crate) unseen: BTreeSet<String>,
}

/// The kinds of exposures, by their names in metrics and JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExposureKind {
    /// Sockets that no packet hook sees are refused.
    Sockets,
    /// No workload acts in the node's network namespace.
    OtherNamespace,
    /// No workload on the node's network sends past the packet hooks.
    RawOnHost,
    /// No workload changes the node's network.
    AdminOnHost,
    /// No workload changes the node's kernel.
    Privileged,
    /// What workloads may do is known.
    Unseen,
}

impl ExposureKind {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Sockets,
        Self::OtherNamespace,
        Self::RawOnHost,
        Self::AdminOnHost,
        Self::Privileged,
        Self::Unseen,
    ];

    /// The name in metrics and JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::OtherNamespace => "net_admin",
            Self::RawOnHost => "net_raw_on_host",
            Self::AdminOnHost => "net_admin_on_host",
            Self::Privileged => "privileged",
            Self::Unseen => "unseen",
        }
    }
}

/// A promise that doesn't hold on a node, though all that can be enforced is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Exposure {
    /// Its name in metrics.
    pub(crate) promise: String,
    /// What doesn't hold, why, and what to do about it.
    pub(crate) text: String,
    /// How many workloads it doesn't hold for; zero for all of the node.
    pub(crate) count: u64,
    /// Their names, not all where they are many.
    pub(crate) workloads: Vec<String>,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        let Self { count, workloads, .. } = self;
        if workloads.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", workloads.join(", "))?;
        let named = u64::try_from(workloads.len()).unwrap_or(u64::MAX);
        match count.saturating_sub(named) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The promises that don't hold.
pub(crate) fn exposures(gaps: &LsmGaps, processes: &Processes) -> Vec<Exposure> {
    ExposureKind::ALL.into_iter().filter_map(|promise| exposure(promise, gaps, processes)).collect()
}

fn exposure(promise: ExposureKind, gaps: &LsmGaps, processes: &Processes) -> Option<Exposure> {
    let those = |exposed: &dyn Fn(&Process) -> bool| -> BTreeSet<String> {
        let found = processes.seen.iter().filter(|process| exposed(process));
        found.map(|process| process.workload.clone()).collect()
    };
    let unless_none = |workloads: BTreeSet<String>, text: String| {
        (!workloads.is_empty()).then_some((workloads, text))
    };
    let (workloads, text) = match promise {
        ExposureKind::Sockets => gaps.sockets.as_ref().map(|why| {
            let text = format!(
                "packet sockets of workloads on the host's network, and sockets of families that no \
                 hook judges, are NOT refused: {why}. Boot the kernel with bpf among its security \
                 modules (lsm=...,bpf)"
            );
            (BTreeSet::new(), text)
        }),
        ExposureKind::OtherNamespace => {
            let judged = gaps.messages.is_none();
            let found = those(&|process| {
                process.may(capability::NET_ADMIN)
                    && !process.host_network
                    && (!judged || process.host_processes)
            });
            let why = match &gaps.messages {
                Some(why) => format!("their messages to the kernel are not judged: {why}"),
                None => "they share the node's process namespace".to_owned(),
            };
            unless_none(
                found,
                format!(
                    "workloads with CAP_NET_ADMIN and without a user namespace of their own can act \
                     in the node's network, and {why}. Take CAP_NET_ADMIN from them, or give them a \
                     user namespace (hostUsers: false)"
                ),
            )
        }
        ExposureKind::RawOnHost => unless_none(
            those(&|process| {
                process.may(capability::NET_RAW) && process.host_network && gaps.sockets.is_some()
            }),
            "workloads on the host's network with CAP_NET_RAW can send past enforcement. Take \
             CAP_NET_RAW from them"
                .to_owned(),
        ),
        ExposureKind::AdminOnHost => unless_none(
            those(&|process| process.may(capability::NET_ADMIN) && process.host_network),
            "workloads with CAP_NET_ADMIN on the host's network can change the node's interfaces and \
             remove enforcement. Take CAP_NET_ADMIN from them, or count them as part of the node"
                .to_owned(),
        ),
        ExposureKind::Privileged => unless_none(
            those(&|process| PRIVILEGES.iter().any(|privilege| process.may(*privilege))),
            "privileged workloads (CAP_SYS_ADMIN, CAP_BPF, CAP_SYS_MODULE or CAP_SYS_RAWIO without a \
             user namespace of their own) can remove enforcement. Take these from them, or count them \
             as part of the node"
                .to_owned(),
        ),
        ExposureKind::Unseen => unless_none(
            processes.unseen.clone(),
            "the agent can't see what processes of these workloads may do. Run it in the node's \
             process namespace (hostPID: true)"
                .to_owned(),
        ),
    }?;
    let count = u64::try_from(workloads.len()).unwrap_or(u64::MAX);
    let workloads = workloads.into_iter().take(MOST).collect();
    Some(Exposure { promise: promise.name().into(), text, count, workloads })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIN: u64 = 1 << 12;
    const RAW: u64 = 1 << 13;
    const SYS_ADMIN: u64 = 1 << 21;

    fn process(workload: &str, capabilities: u64) -> Process {
        Process {
            workload: workload.into(),
            capabilities,
            host_network: false,
            host_processes: false,
        }
    }

    fn on_host(workload: &str, capabilities: u64) -> Process {
        Process { host_network: true, ..process(workload, capabilities) }
    }

    fn found(
        gaps: &LsmGaps,
        seen: impl IntoIterator<Item = Process>,
    ) -> Vec<(String, Vec<String>)> {
        let processes = Processes { seen: seen.into_iter().collect(), unseen: BTreeSet::new() };
        let found = exposures(gaps, &processes).into_iter();
        found.map(|exposure| (exposure.promise, exposure.workloads)).collect()
    }

    fn open() -> LsmGaps {
        let why = || Some("BPF is not among the kernel's active security modules".to_owned());
        LsmGaps { sockets: why(), messages: why() }
    }

    fn of(promise: &str, workloads: &[&str]) -> (String, Vec<String>) {
        (promise.into(), workloads.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn ordinary_workloads_on_a_kernel_that_judges_all_are_not_exposed() {
        assert_eq!(found(&LsmGaps::default(), []), []);
        // A pod has NET_RAW by default, behind its own interface.
        assert_eq!(found(&LsmGaps::default(), [process("shop/web", RAW | ADMIN)]), []);
        assert_eq!(found(&LsmGaps::default(), [on_host("shop/node", RAW)]), []);
    }

    #[test]
    fn a_kernel_without_bpf_security_modules_is_exposed_for_all_and_by_name() {
        assert_eq!(found(&open(), [process("shop/web", RAW)]), [of("sockets", &[])]);
        assert_eq!(
            found(
                &open(),
                [
                    process("shop/vpn", ADMIN),
                    process("shop/vpn", ADMIN | RAW),
                    process("shop/web", RAW),
                    on_host("shop/ping", RAW),
                ]
            ),
            [
                of("sockets", &[]),
                of("net_admin", &["shop/vpn"]),
                of("net_raw_on_host", &["shop/ping"])
            ]
        );
    }

    #[test]
    fn privileges_on_the_host_are_told_whatever_the_kernel_judges() {
        assert_eq!(
            found(
                &LsmGaps::default(),
                [on_host("shop/cni", ADMIN), process("shop/root", SYS_ADMIN | ADMIN)]
            ),
            [of("net_admin_on_host", &["shop/cni"]), of("privileged", &["shop/root"])]
        );
        let shared = Process { host_processes: true, ..process("shop/debug", ADMIN) };
        assert_eq!(found(&LsmGaps::default(), [shared]), [of("net_admin", &["shop/debug"])]);
    }

    #[test]
    fn what_cannot_be_seen_is_told_and_long_lists_are_cut() {
        let processes = Processes {
            seen: (0..100).map(|number| process(&format!("pods/{number:03}"), SYS_ADMIN)).collect(),
            unseen: BTreeSet::from(["shop/other".to_owned()]),
        };
        let [privileged, unseen] = &exposures(&LsmGaps::default(), &processes)[..] else {
            panic!()
        };
        assert_eq!((privileged.count, privileged.workloads.len()), (100, MOST));
        assert_eq!((unseen.promise.as_str(), unseen.count), ("unseen", 1));
    }

    #[test]
    fn every_promise_has_a_name_of_its_own() {
        let names: BTreeSet<_> = ExposureKind::ALL.map(ExposureKind::name).into_iter().collect();
        assert_eq!(names.len(), ExposureKind::ALL.len());
    }
}
