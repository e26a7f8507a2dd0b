//! From facts to findings: what is fine, what to know, and what prevents enforcement.

use super::facts::{HostFacts, Role};
use crate::bpf::{Kernel, MINIMUM_KERNEL, OLDEST_TESTED_KERNEL};

/// Names of other programs that a finding lists.
const SHOWN: usize = 5;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// As it should be.
    Good,
    /// The agent works, and something is to be known.
    Warning,
    /// The agent would not work.
    Failure,
}

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub what: &'static str,
    /// What was found, and what to do.
    pub text: String,
}

fn good(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Good, what, text: text.into() }
}

fn warning(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, what, text: text.into() }
}

fn failure(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Failure, what, text: text.into() }
}

/// Everything that was looked at, in order.
#[must_use]
pub fn findings(facts: &HostFacts) -> Vec<Finding> {
    let mut all = vec![kernel(&facts.release), programs(facts)];
    if facts.role == Role::Node {
        all.push(modules(facts));
        all.push(cgroups(facts));
        all.push(bpffs(facts));
        all.push(filters(&facts.filters));
    }
    all.extend(ports(facts));
    all.extend(servers(facts));
    all
}

fn kernel(release: &str) -> Finding {
    let named = |kernel: Kernel| format!("{}.{}", kernel.0, kernel.1);
    match Kernel::parse(release) {
        None => warning("kernel", format!("the release {release} can't be read")),
        Some(kernel) if kernel < MINIMUM_KERNEL => {
            let tested = named(OLDEST_TESTED_KERNEL);
            let text = format!("Linux {release}; {tested} or newer is needed");
            failure("kernel", text)
        }
        Some(kernel) if kernel < OLDEST_TESTED_KERNEL => {
            let tested = named(OLDEST_TESTED_KERNEL);
            let text = format!(
                "Linux {release}: older than what is tested ({tested}), so the agents refuse it without \
                 --allow-untested-kernel"
            );
            failure("kernel", text)
        }
        Some(_) => good("kernel", format!("Linux {release}")),
    }
}

fn programs(facts: &HostFacts) -> Finding {
    match &facts.programs {
        Ok((count, _)) => good("programs", format!("the kernel takes all {count} of them")),
        Err(error) if facts.role == Role::Gateway => {
            let text = format!("{error}. A gateway without them: --capture bind:80,443");
            warning("programs", text)
        }
        Err(error) => failure("programs", error.clone()),
    }
}

fn modules(facts: &HostFacts) -> Finding {
    let listed = facts.modules.as_ref().map(|all| all.trim().split(',').any(|name| name == "bpf"));
    let missing = "workloads on the host's network that have CAP_NET_RAW are not kept from packet \
                   sockets; add bpf to the kernel's parameter lsm=";
    match (listed, &facts.programs) {
        (Some(false), _) => {
            warning("security modules", format!("bpf is not among them: {missing}"))
        }
        (_, Ok((_, Some(why)))) => warning("security modules", format!("{why}: {missing}")),
        (Some(true), _) => good("security modules", "bpf is among them"),
        (None, _) => {
            let text = "not known: /sys/kernel/security is not mounted; `egress-agent status` says it \
                        once the agent runs";
            warning("security modules", text)
        }
    }
}

fn cgroups(facts: &HostFacts) -> Finding {
    match (&facts.cgroup2, facts.cgroup1) {
        (None, _) => {
            let text = "no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup";
            failure("cgroups", text)
        }
        (Some(_), true) => {
            let text = "net_cls or net_prio of cgroup1 is in use: before Linux 5.15 sockets lose \
                        their cgroup2 by it";
            warning("cgroups", text)
        }
        (Some(mount), false) => good("cgroups", format!("cgroup2 at {}", mount.display())),
    }
}

fn bpffs(facts: &HostFacts) -> Finding {
    match (facts.bpffs, facts.pinned.as_slice()) {
        (false, _) => failure("bpffs", "none is mounted: mount -t bpf bpf /sys/fs/bpf"),
        (true, []) => good("bpffs", "mounted, and nothing of ours is pinned"),
        (true, pinned) => {
            let text = format!(
                "an agent has pinned already ({}); a new one takes over without a gap",
                pinned.join(", ")
            );
            warning("bpffs", text)
        }
    }
}

fn filters(found: &[String]) -> Finding {
    if found.is_empty() {
        return good("other programs", "none at tc hooks");
    }
    let shown = found.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    let more = found.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let text = format!(
        "{shown}{more}. Ours come before them and are put back there; what they redirect past the \
         kernel's stack is not seen"
    );
    warning("other programs", text)
}

fn ports(facts: &HostFacts) -> Vec<Finding> {
    let ports: Vec<String> = facts.role.ports().iter().map(|(port, _)| port.to_string()).collect();
    if facts.ports.is_empty() {
        return vec![good("ports", format!("{} are free", ports.join(", ")))];
    }
    let each = facts.ports.iter();
    each.map(|(port, what, why)| failure("ports", format!("{port} ({what}): {why}"))).collect()
}

fn servers(facts: &HostFacts) -> Vec<Finding> {
    if facts.servers.is_empty() {
        let text = "/etc/resolv.conf names no server; give one with --resolver";
        return vec![failure("DNS", text)];
    }
    let each = facts.servers.iter().map(|(server, wrong)| match wrong {
        None => good("DNS", format!("{server} answers")),
        Some(why) => warning("DNS", format!("{server}: {why}")),
    });
    let all: Vec<Finding> = each.collect();
    if all.iter().any(|finding| finding.level == Level::Good) {
        return all;
    }
    all.into_iter().map(|finding| Finding { level: Level::Failure, ..finding }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(role: Role) -> HostFacts {
        HostFacts {
            role,
            release: "6.12.0-1-amd64".into(),
            programs: Ok((17, None)),
            modules: Some("capability,landlock,bpf\n".into()),
            cgroup2: Some("/sys/fs/cgroup".into()),
            cgroup1: false,
            bpffs: true,
            pinned: Vec::new(),
            filters: Vec::new(),
            ports: Vec::new(),
            servers: vec![("192.0.2.53".parse().unwrap(), None)],
        }
    }

    /// The findings that are not good.
    fn bad(facts: &HostFacts) -> Vec<(Level, &'static str)> {
        let all = findings(facts).into_iter().filter(|finding| finding.level != Level::Good);
        all.map(|finding| (finding.level, finding.what)).collect()
    }

    #[test]
    fn a_fit_host_is_fit_for_both_roles() {
        assert_eq!(bad(&fit(Role::Node)), []);
        assert_eq!(bad(&fit(Role::Gateway)), []);
    }

    #[test]
    fn each_lack_is_found_and_named() {
        use Level::{Failure, Warning};
        let node = || fit(Role::Node);
        for (facts, expected) in [
            (HostFacts { release: "5.4.0".into(), ..node() }, (Failure, "kernel")),
            (HostFacts { release: "5.15.0".into(), ..node() }, (Failure, "kernel")),
            (HostFacts { release: "odd".into(), ..node() }, (Warning, "kernel")),
            (HostFacts { programs: Err("no CAP_BPF".into()), ..node() }, (Failure, "programs")),
            (
                HostFacts { modules: Some("apparmor".into()), ..node() },
                (Warning, "security modules"),
            ),
            (HostFacts { modules: None, ..node() }, (Warning, "security modules")),
            (
                HostFacts { programs: Ok((15, Some("no BTF".into()))), ..node() },
                (Warning, "security modules"),
            ),
            (HostFacts { cgroup2: None, ..node() }, (Failure, "cgroups")),
            (HostFacts { cgroup1: true, ..node() }, (Warning, "cgroups")),
            (HostFacts { bpffs: false, ..node() }, (Failure, "bpffs")),
            (HostFacts { pinned: vec!["v5".into()], ..node() }, (Warning, "bpffs")),
            (
                HostFacts { filters: vec!["eth0 ingress: cil".into()], ..node() },
                (Warning, "other programs"),
            ),
            (
                HostFacts { ports: vec![(15020, "metrics", "taken".into())], ..node() },
                (Failure, "ports"),
            ),
            (HostFacts { servers: Vec::new(), ..node() }, (Failure, "DNS")),
        ] {
            assert_eq!(bad(&facts), [expected], "{facts:?}");
        }
        // A gateway can do without programs.
        let gateway = HostFacts { programs: Err("no CAP_BPF".into()), ..fit(Role::Gateway) };
        assert_eq!(bad(&gateway), [(Warning, "programs")]);
        // One name server that answers is enough.
        let mute = ("192.0.2.54".parse().unwrap(), Some("no answer".to_owned()));
        let mut servers = fit(Role::Node).servers;
        servers.push(mute.clone());
        assert_eq!(bad(&HostFacts { servers, ..node() }), [(Warning, "DNS")]);
        assert_eq!(bad(&HostFacts { servers: vec![mute], ..node() }), [(Failure, "DNS")]);
    }

    #[test]
    fn this_host_can_be_asked() {
        let facts = HostFacts::of(Role::Node);
        assert_eq!(findings(&facts)[0].what, "kernel");
        assert!(facts.cgroup2.is_some());
    }
}
