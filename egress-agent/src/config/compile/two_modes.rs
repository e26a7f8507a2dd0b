//! Workloads for which two modes are in force at once.
//!
//! A packet is judged where it passes, at its workload's interface, and a system call by the cgroup of its process. The
//! kernel looks each up by itself: the interface by its name, the cgroup by the nearest one that a workload names.
//! Where both lead to sets that differ, an operator who reads the modes of the sets is wrong about one half. Nothing
//! is open by it, since each half is judged; it is said, with what is in force.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
};

use super::super::{decode::Cx, mesh::MeshWorkload};
use crate::{
    policy::{MeshConfig, WorkloadSet},
    types::Workload,
};

/// Warns of them. `named` is what the workloads of `mesh` were made of.
pub(super) fn warn(named: &[MeshWorkload], mesh: &MeshConfig, cx: &mut Cx<'_>) {
    let sets: Vec<WorkloadSet<'_>> = mesh.sets().collect();
    // One without a name is an error already, and no workload.
    let named = named.iter().filter(|one| one.name.is_some());
    let all: Vec<_> = named
        .zip(&mesh.workloads)
        .filter_map(|(given, workload)| {
            let set = sets.get(mesh.set_of(workload))?;
            Some(JudgedWorkload { given, workload, set })
        })
        .collect();
    let Some(default) = sets.first() else { return };
    let by_cgroup: BTreeMap<&Path, &JudgedWorkload<'_>> = all
        .iter()
        .flat_map(|one| one.workload.cgroups.iter().map(move |path| (path.as_path(), one)))
        .collect();
    let mut by_address = HashMap::new();
    for one in &all {
        one.without_cgroups(default, cx);
        one.inside(&by_cgroup, cx);
        one.shares_addresses(&mut by_address, cx);
    }
}

/// A workload and the set that its mode is of.
struct JudgedWorkload<'a> {
    given: &'a MeshWorkload,
    workload: &'a Workload,
    set: &'a WorkloadSet<'a>,
}

impl<'a> JudgedWorkload<'a> {
    fn name(&self) -> String {
        format!("{}/{}", self.workload.namespace.0, self.workload.name)
    }

    /// Its packets are known by the interface, and nothing is known of its processes.
    fn without_cgroups(&self, default: &WorkloadSet<'_>, cx: &mut Cx<'_>) {
        let Some(interface) = &self.given.interface else { return };
        if !self.given.cgroups.is_empty() || is_alike(self.set, default) {
            return;
        }
        let message = format!(
            "it has an interface and no cgroups, so two modes are in force: packets at {} are judged by {}, \
             and system calls of its processes (connect, sendmsg) by {}, or by the set of the workload that \
             names their cgroup. List its cgroups, so that one mode counts for both; a virtual machine has none, \
             and makes no system calls on this host",
            interface.value,
            shown(self.set),
            shown(default)
        );
        cx.warn(&self.given.at, message);
    }

    /// Its cgroup is below another workload's.
    fn inside(&self, by_cgroup: &BTreeMap<&Path, &JudgedWorkload<'_>>, cx: &mut Cx<'_>) {
        for text in self.given.cgroups.iter() {
            let path: std::path::PathBuf = Path::new(&text.value).components().collect();
            if !self.workload.cgroups.contains(&path) {
                continue;
            }
            let above = path.ancestors().skip(1).find_map(|above| by_cgroup.get_key_value(above));
            let Some((above, other)) = above else { continue };
            if is_alike(self.set, other.set) {
                continue;
            }
            let packets = match (&self.given.interface, &other.given.interface) {
                (None, Some(interface)) => format!(
                    ", and its packets by {} where they pass {}",
                    shown(other.set),
                    interface.value
                ),
                (Some(_), _) | (None, None) => String::new(),
            };
            let message = format!(
                "this cgroup is in {}, which the workload {} names, and their modes differ; the nearest \
                 cgroup counts: what is in here is judged by {}, not by {}{packets}. For one mode, put both \
                 workloads into one set or into sets of the same mode",
                above.display(),
                other.name(),
                shown(self.set),
                shown(other.set)
            );
            cx.warn(&text.at, message);
        }
    }

    /// An address of it is another's too.
    fn shares_addresses(&'a self, first: &mut HashMap<IpAddr, &'a Self>, cx: &mut Cx<'_>) {
        for text in self.given.addresses.iter() {
            let Ok(address) = text.value.parse::<IpAddr>() else { continue };
            let other = *first.entry(address.to_canonical()).or_insert(self);
            if is_alike(self.set, other.set) {
                continue;
            }
            let message = format!(
                "the workload {} has this address too, and their modes differ: at an interface that \
                 --pod-interface gives this address and no workload names, the set that enforces counts, or \
                 else the earlier one (of {} and {}). Give each workload addresses of its own, or \
                 name the interface of each",
                other.name(),
                shown(other.set),
                shown(self.set)
            );
            cx.warn(&text.at, message);
        }
    }
}

/// Whether it makes no difference in which of them a workload is.
fn is_alike(one: &WorkloadSet<'_>, other: &WorkloadSet<'_>) -> bool {
    one.mode == other.mode && one.to == other.to
}

/// `the set "batch" (audit)`.
fn shown(set: &WorkloadSet<'_>) -> String {
    let more = if set.to.is_some() { ", with destinations of its own" } else { "" };
    format!("the set {:?} ({}{more})", set.name, set.mode.name())
}

#[cfg(test)]
mod tests {
    use super::super::super::{RawFile, compile};

    const SETS: &str = "enforcementOverrides:\n- {name: batch, namespaces: [batch], mode: audit}\n";
    const EXEMPT: &str = "exemptions:\n- {name: backup, namespaces: [backup], labels: {app: backup}, to: \
                          [{cidrs: [203.0.113.0/24], ports: [{port: 443, protocol: TCP}]}]}\n";

    /// The warnings about workloads: where, and what.
    fn warned(sets: &str, workloads: &str) -> Vec<(String, String)> {
        let text = format!("{sets}workloads:\n{workloads}");
        let compiled = compile(&[], Some(&RawFile { path: "mesh.yaml".into(), text }));
        let warnings = compiled.unwrap_or_else(|problems| panic!("{problems}")).warnings;
        let about = warnings.into_iter().filter_map(|one| Some((one.field?, one.message)));
        about.filter(|(field, _)| field.starts_with("workloads[")).collect()
    }

    fn one(sets: &str, workloads: &str, field: &str, words: &[&str]) {
        let found = warned(sets, workloads);
        let [(at, message)] = &found[..] else { panic!("{workloads}: {found:?}") };
        assert_eq!(at, field, "{message}");
        for words in words {
            assert!(message.contains(words), "{words:?}: {message}");
        }
    }

    fn none(sets: &str, workloads: &str) {
        assert_eq!(warned(sets, workloads), [], "{workloads}");
    }

    #[test]
    fn an_interface_without_cgroups_has_two_modes_where_its_set_differs_from_the_default() {
        let job = "- {name: job, namespace: batch, addresses: [10.0.0.2], interface: ve-job}\n";
        one(
            SETS,
            job,
            "workloads[0]",
            &[
                "packets at ve-job are judged by the set \"batch\" (audit)",
                "(connect, sendmsg) by the set \"default\" (enforce)",
                "List its cgroups",
                "a virtual machine has none, and makes no system calls on this host",
            ],
        );
        let enforced = format!("enforcement: audit\n{}", SETS.replace("audit", "enforce"));
        one(&enforced, job, "workloads[0]", &["\"batch\" (enforce)", "\"default\" (audit)"]);
        let backup = "- {name: b, namespace: backup, labels: {app: backup}, addresses: [10.0.0.3], \
                      interface: ve-b}\n";
        one(
            EXEMPT,
            backup,
            "workloads[0]",
            &["\"backup\" (enforce, with destinations of its own)"],
        );
        // The twins: cgroups that are named, and one mode for everybody.
        none(SETS, &job.replace('}', ", cgroups: [/machine.slice/job]}"));
        none(&SETS.replace("audit", "enforce"), job);
        none(SETS, &job.replace("batch", "shop"));
    }

    #[test]
    fn the_nearest_cgroup_counts_and_a_packet_is_judged_at_the_interface() {
        let nested = "- {name: host, namespace: shop, cgroups: [/machine.slice/web/]}\n\
                      - {name: job, namespace: batch, cgroups: [/machine.slice//web/job]}\n";
        one(
            SETS,
            nested,
            "workloads[1].cgroups[0]",
            &[
                "is in /machine.slice/web, which the workload shop/host names",
                "is judged by the set \"batch\" (audit), not by the set \"default\" (enforce). For one mode",
            ],
        );
        let behind = nested.replace("shop,", "shop, addresses: [10.0.0.5], interface: ve-web,");
        one(
            SETS,
            &behind,
            "workloads[1].cgroups[0]",
            &["and its packets by the set \"default\" (enforce) where they pass ve-web"],
        );
        // The nearest one of two above it.
        let three =
            format!("- {{name: all, namespace: shop, cgroups: [/machine.slice]}}\n{nested}");
        one(SETS, &three, "workloads[2].cgroups[0]", &["shop/host"]);
        // The twins: beside each other, and of one mode.
        none(SETS, &nested.replace("/web/job", "/web-job"));
        none(SETS, &nested.replace("batch", "shop"));
        none(&SETS.replace("audit", "enforce"), nested);
    }

    #[test]
    fn an_address_of_two_workloads_has_the_stricter_mode() {
        let shared = "- {name: web, namespace: shop, addresses: [10.0.0.5]}\n\
                      - {name: job, namespace: batch, addresses: [10.0.0.6, '::ffff:10.0.0.5']}\n";
        one(
            SETS,
            shared,
            "workloads[1].addresses[1]",
            &["shop/web has this address too", "the set that enforces counts", "\"batch\" (audit)"],
        );
        // The twins: addresses of their own, and one mode.
        none(SETS, &shared.replace("::ffff:10.0.0.5", "10.0.0.7"));
        none(SETS, &shared.replace("batch", "shop"));
    }
}
