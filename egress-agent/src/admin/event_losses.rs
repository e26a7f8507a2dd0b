//! Flow events that nobody saw, by workload, as metrics.

use std::fmt;

use super::exposition::Exposition;
use crate::{
    bpf::{EventOrigin, Lost, cgroup_path, ifname},
    enforcement::WorkloadIndex,
    types::printable,
};

/// Series for workloads; the others are in the sum of all.
const MOST: usize = 100;

/// Writes the series: those with the most first.
pub(super) fn write(
    lost: &[(EventOrigin, Lost)],
    who: &WorkloadIndex,
    out: &mut Exposition,
) -> fmt::Result {
    let name = "egress_workload_events_lost_total";
    let help = "Flow events that were not printed, by the workload that caused them.";
    out.family(name, "counter", help)?;
    for (causer, lost) in lost.iter().take(MOST) {
        let (at, workload) = known_as(*causer, who);
        let (at, workload) = (printable(&at), printable(&workload));
        for (cause, count) in [("rate", lost.rate), ("full", lost.full)] {
            let labels = [("workload", &*workload), ("at", &*at), ("cause", cause)];
            out.sample(name, &labels, count)?;
        }
    }
    Ok(())
}

/// The cgroup or interface, and the workload, which may be unknown.
fn known_as(causer: EventOrigin, who: &WorkloadIndex) -> (String, String) {
    let (at, found) = match causer {
        EventOrigin::Cgroup(0) | EventOrigin::Interface(0) => {
            return ("unknown".into(), String::new());
        }
        EventOrigin::Cgroup(id) => match cgroup_path(id) {
            Some(path) => {
                let path = path.display().to_string();
                let found = who.find(Some(&path), None, None);
                (format!("cgroup {path}"), found)
            }
            None => (format!("cgroup #{id}"), None),
        },
        EventOrigin::Interface(index) => match ifname(index) {
            Some(name) => {
                let found = who.find(None, Some(&name), None);
                (format!("interface {name}"), found)
            }
            None => (format!("interface #{index}"), None),
        },
    };
    let workload = found.map(|found| format!("{}/{}", found.namespace.0, found.name));
    (at, workload.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workloads_losses_are_its_own() {
        let lost = [
            (EventOrigin::Cgroup(u64::MAX), Lost { rate: 7, full: 1 }),
            (EventOrigin::Interface(0), Lost { rate: 0, full: 2 }),
        ];
        let mut out = Exposition::default();
        write(&lost, &WorkloadIndex::default(), &mut out).unwrap();
        let text = out.into_text();
        let cgroup = format!("workload=\"\",at=\"cgroup #{}\"", u64::MAX);
        let name = "egress_workload_events_lost_total";
        assert_eq!(
            text,
            format!(
                "# HELP {name} Flow events that were not printed, by the workload that caused \
                 them.\n# TYPE {name} counter\n{name}{{{cgroup},cause=\"rate\"}} 7\n\
                 {name}{{{cgroup},cause=\"full\"}} 1\n\
                 {name}{{workload=\"\",at=\"unknown\",cause=\"rate\"}} 0\n\
                 {name}{{workload=\"\",at=\"unknown\",cause=\"full\"}} 2\n"
            )
        );
    }
}
