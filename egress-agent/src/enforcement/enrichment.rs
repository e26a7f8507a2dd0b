//! Who is behind an event, and which name its destination has.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    dns::Resolved,
    interfaces_by_cgroup::InterfacesByCgroup,
    pods::Pod,
    process::{CgroupPaths, Programs, container_of, remembered},
};
use crate::{
    bpf::{Action, Flow, ifname},
    policy::MeshConfig,
    telemetry::{FlowRecord, FlowVerdict, kept_labels},
    types::{TraceId, Workload},
};

/// Workloads by all that an event may tell of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkloadIndex {
    addresses: HashMap<IpAddr, Arc<Workload>>,
    interfaces: HashMap<String, Arc<Workload>>,
    /// Paths below the cgroup2 mount.
    cgroups: HashMap<PathBuf, Arc<Workload>>,
    /// Addresses of pods, by interface.
    sources: HashMap<String, IpAddr>,
    /// Names of sets, by policy.
    sets: Vec<String>,
}

impl WorkloadIndex {
    /// `pods`: interfaces whose addresses the agent was told, and so their workloads.
    pub(crate) fn new(mesh: &MeshConfig, pods: &[Pod]) -> Self {
        let workloads = &mesh.workloads;
        let sets = mesh.sets().map(|set| set.name.to_owned()).collect();
        let mut who = Self { sets, ..Self::default() };
        for workload in workloads {
            for addr in &workload.addresses {
                who.addresses.insert(addr.to_canonical(), Arc::clone(workload));
            }
            for path in &workload.cgroups {
                who.cgroups.insert(path.clone(), Arc::clone(workload));
            }
        }
        for pod in pods {
            if let Some(first) = pod.addresses.first() {
                who.sources.insert(pod.name.to_string(), first.to_canonical());
            }
            let mut addresses = pod.addresses.iter();
            if let Some(workload) = addresses.find_map(|addr| who.addresses.get(addr)) {
                who.interfaces.insert(pod.name.to_string(), Arc::clone(workload));
            }
        }
        // What the configuration says counts more than what follows from addresses.
        for workload in workloads {
            if let Some(name) = &workload.interface {
                if let Some(first) = workload.addresses.first() {
                    who.sources.insert(name.to_string(), first.to_canonical());
                }
                who.interfaces.insert(name.to_string(), Arc::clone(workload));
            }
        }
        who
    }

    /// The cgroup tells best: a process can't choose its own. An interface is next. A source
    /// address is what the packet says, and is asked last.
    pub(crate) fn find(
        &self,
        cgroup: Option<&str>,
        interface: Option<&str>,
        source: Option<IpAddr>,
    ) -> Option<&Arc<Workload>> {
        let by_cgroup = cgroup.and_then(|cgroup| {
            // The nearest of its ancestors.
            Path::new(cgroup).ancestors().find_map(|path| self.cgroups.get(path))
        });
        by_cgroup
            .or_else(|| interface.and_then(|name| self.interfaces.get(name)))
            .or_else(|| source.and_then(|source| self.addresses.get(&source)))
    }
}

/// Makes flows of events: adds what people call things.
#[derive(Debug, Default)]
pub(crate) struct FlowEnricher {
    who: WorkloadIndex,
    hosts: HashMap<IpAddr, String>,
    cgroups: CgroupPaths,
    interfaces: HashMap<u32, Arc<str>>,
    behind: InterfacesByCgroup,
    programs: Programs,
}

impl FlowEnricher {
    /// Workloads changed.
    pub(crate) fn set_who(&mut self, who: WorkloadIndex) {
        self.who = who;
    }

    /// Names changed. Several may lead to one address: then all of them are shown.
    pub(crate) fn set_hosts(&mut self, resolved: &Resolved) {
        let mut hosts: HashMap<IpAddr, Vec<String>> = HashMap::new();
        for (host, addrs) in resolved {
            for addr in addrs {
                hosts.entry(*addr).or_default().push(host.to_string());
            }
        }
        self.hosts = hosts
            .into_iter()
            .map(|(addr, mut hosts)| {
                hosts.sort();
                (addr, hosts.join(","))
            })
            .collect();
    }

    /// The event with names.
    pub(crate) fn record(&mut self, flow: &Flow) -> FlowRecord {
        let cgroup = flow.cgroup.map(|id| self.cgroups.of(id));
        let interface = flow.ifindex.map(|index| remembered(&mut self.interfaces, index, ifname));
        // A system call is judged before there is a packet, which would tell both.
        let behind = match (flow.cgroup, cgroup.as_deref(), &interface) {
            (Some(id), Some(path), None) => self.behind.interface(id, path),
            _ => None,
        };
        let place = interface.as_deref().or(behind.as_deref());
        let source = flow.source.map(|source| source.ip());
        let destination = flow.destination.map(|destination| destination.ip());
        let of_its_family = |source: &IpAddr| {
            destination.is_none_or(|destination| destination.is_ipv4() == source.is_ipv4())
        };
        let known = behind.as_deref().and_then(|name| self.who.sources.get(name));
        let source = source.or_else(|| known.copied().filter(of_its_family));
        let workload = self.who.find(cgroup.as_deref(), place, source);
        FlowRecord {
            time: flow.time,
            hook: flow.hook.name().into(),
            verdict: verdict(flow.action),
            reason: Some(flow.reason.name().into()),
            audit: flow.audit,
            set: usize::try_from(flow.policy)
                .ok()
                .and_then(|index| self.who.sets.get(index).cloned()),
            workload: workload.map(|workload| workload.name.to_string()),
            namespace: workload.map(|workload| workload.namespace.0.to_string()),
            labels: workload.map(|workload| kept_labels(&workload.labels)).unwrap_or_default(),
            pid: flow.pid,
            executable: flow
                .pid
                .zip(flow.cgroup)
                .zip(cgroup.as_deref())
                .and_then(|((pid, id), path)| self.programs.of(flow.time, pid, (id, path))),
            command: flow.command.clone(),
            container: cgroup.as_deref().and_then(container_of),
            cgroup: cgroup.as_deref().map(str::to_owned),
            interface: interface.as_deref().map(str::to_owned),
            source_address: source,
            source_port: flow.source.map(|addr| addr.port()).filter(|port| *port != 0),
            destination_address: destination,
            destination_port: flow.destination.map(|addr| addr.port()).filter(|port| *port != 0),
            gateway: flow.gateway,
            trace_id: trace_id(flow).map(|id| id.to_string()),
            host: destination.and_then(|addr| self.hosts.get(&addr).cloned()),
            protocol: protocol(flow),
            ech: false,
            upstream: None,
            response_code: None,
            response_flags: None,
            detail: None,
            server: None,
        }
    }
}

/// Of what goes to a gateway: there, the port is the gateway's, and in a tunnel the one that was dialled.
fn trace_id(flow: &Flow) -> Option<TraceId> {
    let there = flow.gateway.or(flow.destination).filter(|_| flow.action == Action::Redirect)?;
    TraceId::of(flow.source?, there.port())
}

fn verdict(action: Action) -> FlowVerdict {
    match action {
        Action::Allow => FlowVerdict::Allow,
        Action::Deny => FlowVerdict::Deny,
        Action::Redirect => FlowVerdict::Redirect,
    }
}

/// IANA's names of protocols; the others by number.
fn protocol(flow: &Flow) -> String {
    if flow.destination.is_none() {
        return match flow.ether_type {
            0x0806 => "ARP".into(),
            other => format!("ethertype {other:#06x}"),
        };
    }
    match flow.protocol {
        1 => "ICMP".into(),
        2 => "IGMP".into(),
        4 => "IPIP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        33 => "DCCP".into(),
        41 => "SIT".into(),
        47 => "GRE".into(),
        50 => "ESP".into(),
        58 => "ICMPv6".into(),
        132 => "SCTP".into(),
        136 => "UDP-Lite".into(),
        other => format!("protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use egress_ebpf::reason::Reason;

    use super::*;
    use crate::{
        bpf::Hook,
        types::{Host, Namespace},
    };

    fn workload(name: &str, addr: &str) -> Arc<Workload> {
        Arc::new(Workload {
            name: name.into(),
            namespace: Namespace("default".into()),
            labels: [("app".into(), name.into())].into(),
            addresses: vec![addr.parse().unwrap()],
            cgroups: vec![format!("/pods/{name}").into()],
            interface: None,
            node: None,
            service_account: "default".into(),
        })
    }

    fn namer() -> FlowEnricher {
        let pods = [Pod { name: "veth-web".into(), addresses: vec!["10.0.0.5".parse().unwrap()] }];
        let workloads = vec![workload("web", "10.0.0.5"), workload("batch", "10.0.0.6")];
        let who = WorkloadIndex::new(&MeshConfig { workloads, ..MeshConfig::default() }, &pods);
        let mut namer = FlowEnricher {
            cgroups: CgroupPaths(
                [(42, "/pods/batch/1".into()), (43, "/pods/batches".into())].into(),
            ),
            interfaces: [(u32::MAX, "veth-web".into()), (u32::MAX - 1, "eth0".into())].into(),
            ..FlowEnricher::default()
        };
        namer.set_who(who);
        namer
    }

    fn dropped() -> Flow {
        Flow {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            hook: Hook::Pod,
            action: Action::Deny,
            reason: Reason::NotRedirected,
            audit: false,
            policy: 0,
            source: Some("10.0.0.6:40000".parse().unwrap()),
            destination: Some("198.51.100.7:443".parse().unwrap()),
            gateway: None,
            ether_type: 0x0800,
            protocol: 6,
            cgroup: None,
            ifindex: Some(u32::MAX),
            pid: None,
            command: None,
        }
    }

    fn name(namer: &mut FlowEnricher, flow: &Flow) -> Option<String> {
        namer.record(flow).workload
    }

    #[test]
    fn a_forged_source_names_no_other_workload() {
        let mut namer = namer();
        // The packet came out of web's interface, whatever it says.
        assert_eq!(name(&mut namer, &dropped()).as_deref(), Some("web"));
        // At the uplink there is only the address.
        let uplink = Flow { hook: Hook::Uplink, ifindex: Some(u32::MAX - 1), ..dropped() };
        assert_eq!(name(&mut namer, &uplink).as_deref(), Some("batch"));
        let stranger = Flow { source: Some("10.0.0.7:1".parse().unwrap()), ..uplink };
        assert_eq!(name(&mut namer, &stranger), None);
    }

    #[test]
    fn a_connect_has_its_cgroups_workload() {
        let mut namer = namer();
        let connect = Flow {
            hook: Hook::Connect,
            source: None,
            cgroup: Some(42),
            ifindex: None,
            ..dropped()
        };
        let record = namer.record(&connect);
        assert_eq!(record.workload.as_deref(), Some("batch"));
        assert_eq!(record.cgroup.as_deref(), Some("/pods/batch/1"));
        assert_eq!(record.set.as_deref(), Some("default"));
        // A path that only begins with the same letters is another cgroup.
        assert_eq!(name(&mut namer, &Flow { cgroup: Some(43), ..connect }), None);
    }

    /// What the gateway's log can be searched for.
    #[test]
    fn a_redirected_connect_names_its_gateway_and_its_trace() {
        let mut namer = namer();
        let connect = Flow {
            hook: Hook::Connect,
            action: Action::Redirect,
            reason: Reason::Routed,
            gateway: Some("192.0.2.10:8443".parse().unwrap()),
            ifindex: None,
            ..dropped()
        };
        let record = namer.record(&connect);
        assert_eq!((record.source_port, record.gateway), (Some(40000), connect.gateway));
        let id = |port| TraceId::of(connect.source.unwrap(), port).map(|id| id.to_string());
        assert_eq!(record.trace_id, id(8443));
        // The tunnel carries the port that was dialled.
        assert_eq!(namer.record(&Flow { gateway: None, ..connect.clone() }).trace_id, id(443));
        // What goes nowhere, and what would have been redirected, is in no gateway's log.
        assert_eq!(namer.record(&dropped()).trace_id, None);
        assert_eq!(namer.record(&Flow { source: None, ..connect }).trace_id, None);
    }

    #[test]
    fn a_connect_has_its_process_and_container() {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = crate::pods::unified_path(&own).unwrap().display().to_string();
        let mut namer = namer();
        namer.cgroups.0.insert(44, own.into());
        let id = "aa0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd";
        let pod = format!("/kubepods/pod0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab/{id}");
        namer.cgroups.0.insert(45, pod.into());
        let pid = Some(std::process::id());
        let connect =
            Flow { hook: Hook::Connect, cgroup: Some(44), ifindex: None, pid, ..dropped() };
        let record = namer.record(&connect);
        let exe = std::env::current_exe().unwrap();
        assert_eq!((record.pid, record.executable.as_deref()), (pid, exe.to_str()));
        assert_eq!(record.container, None);
        // A number that another cgroup's process has now does not name the one that connected, whose own
        // name is in the event.
        let command = Some("curl".to_owned());
        let record = namer.record(&Flow { cgroup: Some(45), command, ..connect.clone() });
        assert_eq!((record.pid, record.executable.as_deref()), (pid, None));
        assert_eq!(record.command.as_deref(), Some("curl"));
        assert_eq!(record.container.as_deref(), Some(id));
        let record = namer.record(&Flow { pid: None, ..connect });
        assert_eq!((record.pid, record.executable), (None, None));
    }

    #[test]
    fn a_workload_lends_its_labels() {
        let mut namer = namer();
        assert_eq!(namer.record(&dropped()).labels, [("app".into(), "web".into())].into());
        let uplink = Flow { hook: Hook::Uplink, ifindex: None, source: None, ..dropped() };
        assert!(namer.record(&uplink).labels.is_empty());
    }

    #[test]
    fn a_destination_has_the_names_that_resolve_to_it() {
        let mut namer = namer();
        assert_eq!(namer.record(&dropped()).host, None);
        let addrs: Vec<IpAddr> = vec!["198.51.100.7".parse().unwrap()];
        let names = ["b.example", "a.example"].map(|name| Host::parse(name).unwrap());
        namer.set_hosts(&names.map(|name| (name, addrs.clone())).into());
        assert_eq!(namer.record(&dropped()).host.as_deref(), Some("a.example,b.example"));
    }

    #[test]
    fn what_is_no_tcp_or_ip_is_named_too() {
        let mut namer = namer();
        let ping =
            Flow { destination: Some("198.51.100.7:0".parse().unwrap()), protocol: 1, ..dropped() };
        let record = namer.record(&ping);
        assert_eq!((record.protocol.as_str(), record.destination_port), ("ICMP", None));
        let arp = Flow { source: None, destination: None, ether_type: 0x0806, ..dropped() };
        assert_eq!(namer.record(&arp).protocol, "ARP");
    }
}
