use std::{collections::BTreeSet, sync::Arc};

use egress_ebpf::{
    abi::{PodAddress, PodPort, Policy, UNKNOWN_TABLE, pod_hardware},
    addr::Addr,
};

use super::*;
use crate::{
    policy::EnforcementOverride,
    types::{Labels, Namespace, Selector},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn workload(namespace: &str, addresses: &[&str]) -> Workload {
    Workload {
        name: "some".into(),
        namespace: Namespace(namespace.into()),
        labels: Labels::new(),
        addresses: addresses.iter().map(|addr| ip(addr)).collect(),
        cgroups: Vec::new(),
        interface: None,
        node: None,
        service_account: "default".into(),
    }
}

/// Namespace `a` is in audit mode (policy 1), `b` enforces (policy 2).
fn mesh(workloads: Vec<Workload>) -> MeshConfig {
    let set = |name: &str, mode| EnforcementOverride {
        name: name.into(),
        selector: Selector { namespaces: vec![Namespace(name.into())], labels: Labels::new() },
        mode,
    };
    MeshConfig {
        overrides: vec![set("a", Enforcement::Audit), set("b", Enforcement::Enforce)],
        workloads: workloads.into_iter().map(Arc::new).collect(),
        ..MeshConfig::default()
    }
}

fn named(interface: &str, workload: Workload) -> Workload {
    Workload { interface: Some(interface.into()), ..workload }
}

fn policies(mesh: &MeshConfig, found: &[(&str, &[&str])]) -> Vec<(u32, usize, PolicyId)> {
    let addresses: Vec<Vec<IpAddr>> =
        found.iter().map(|(_, list)| list.iter().map(|addr| ip(addr)).collect()).collect();
    let found = found
        .iter()
        .zip(&addresses)
        .zip(1..)
        .map(|(((name, _), addresses), ifindex)| Interface { name, ifindex, addresses, seen: &[] });
    let pods = pod_interfaces(mesh, found);
    pods.into_iter().map(|pod| (pod.ifindex, pod.addresses.len(), pod.policy)).collect()
}

#[test]
fn an_interface_is_its_workloads_by_name_or_by_address() {
    let mesh = mesh(vec![
        named("veth-a", workload("a", &["10.0.0.1", "fd00::1"])),
        workload("b", &["10.0.0.2"]),
        workload("c", &["10.0.0.3"]),
        workload("a", &["10.0.0.4"]),
    ]);
    let found: &[(&str, &[&str])] = &[
        // Covered by a pattern alone: a workload has to name it.
        ("veth-a", &[]),
        ("veth-unknown", &[]),
        ("veth-b", &["10.0.0.2"]),
        ("veth-c", &["10.0.0.3"]),
        ("veth-d", &["10.0.0.9"]),
        ("veth-e", &["::ffff:10.0.0.4"]),
    ];
    assert_eq!(policies(&mesh, found), [(1, 2, 1), (3, 1, 2), (4, 1, 0), (5, 1, 0), (6, 1, 1)]);
    // The options' addresses are the ones that count.
    assert_eq!(policies(&mesh, &[("veth-a", &["10.0.0.77"])]), [(1, 1, 1)]);
}

#[test]
fn an_unknown_interface_has_its_own_addresses_and_no_egress() {
    let mesh = mesh(vec![named("veth-a", workload("a", &["10.0.0.1"]))]);
    let seen = [ip("10.0.0.7"), ip("fd00::7")];
    let interface = |ifindex, name| Interface { name, ifindex, addresses: &[], seen: &seen };
    let pods = pod_interfaces(&mesh, [interface(1, "veth-a"), interface(2, "veth-b")]);
    let own = |pod: &PodInterface| (pod.ifindex, pod.addresses.clone(), pod.policy);
    let known = (1, vec![ip("10.0.0.1")], 1);
    assert_eq!(own(&pods[0]), known, "who is known has the addresses of the configuration");
    assert_eq!(own(&pods[1]), (2, seen.to_vec(), UNKNOWN_POLICY));
    // Nor has it where an earlier agent's maps are all that there is.
    let found = [interface(2, "veth-b")];
    let mut left = Contents::default();
    let kept = |left: &Contents| {
        adopted(left, found, &BTreeMap::new(), UNKNOWN_POLICY, |_| {}).pod_interfaces
    };
    assert!(kept(&left).is_empty());
    left.policies.insert(UNKNOWN_POLICY, Policy { mode: 0, table: UNKNOWN_TABLE });
    assert_eq!(kept(&left).get(&2).map(|port| port.policy), Some(UNKNOWN_POLICY));
}

#[test]
fn an_ambiguous_address_is_not_lenient() {
    for order in [["a", "b"], ["b", "a"]] {
        let both = mesh(order.iter().map(|of| workload(of, &["10.0.0.1"])).collect());
        assert_eq!(policies(&both, &[("veth", &["10.0.0.1"])]), [(1, 1, 2)]);
    }
    let split = mesh(vec![workload("a", &["10.0.0.1"]), workload("c", &["10.0.0.2"])]);
    assert_eq!(policies(&split, &[("veth", &["10.0.0.1", "10.0.0.2"])]), [(1, 2, 0)]);
    // Twice the same set isn't ambiguous.
    let same = mesh(vec![workload("a", &["10.0.0.1"]), workload("a", &["10.0.0.1"])]);
    assert_eq!(policies(&same, &[("veth", &["10.0.0.1"])]), [(1, 1, 1)]);
}

#[test]
fn cgroups_are_their_workloads_and_the_attached_are_listed_in_any_case() {
    let with = |namespace: &str, paths: &[&str]| Workload {
        cgroups: paths.iter().map(PathBuf::from).collect(),
        ..workload(namespace, &[])
    };
    let mesh = mesh(vec![with("a", &["/pods/a", "/pods/gone"]), with("b", &["/pods", "/other"])]);
    let attached: BTreeMap<u64, PathBuf> = [(10, "/pods".into()), (20, "/more".into())].into();
    let find = |path: &Path| match path.to_str().unwrap() {
        "/pods" => Some(10),
        "/pods/a" => Some(11),
        "/other" => Some(30),
        _ => None,
    };
    let all = [(10, 2), (11, 1), (20, 0), (30, 2)].into();
    assert_eq!(cgroups(&mesh, &attached, POLICY, find), all);
    let nobody = MeshConfig::default();
    assert_eq!(cgroups(&nobody, &attached, POLICY, find), [(10, 0), (20, 0)].into());
    let unknown = [(10, UNKNOWN_POLICY), (20, UNKNOWN_POLICY)].into();
    assert_eq!(cgroups(&nobody, &attached, UNKNOWN_POLICY, find), unknown);
    let told: Vec<String> =
        not_attached(&mesh, &attached).map(|problem| problem.to_string()).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("the cgroup /other of workload b/some"), "{}", told[0]);
}

#[test]
fn without_a_configuration_what_was_there_stays() {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
    let port = |policy| PodPort { policy, hardware: MAC, check: pod_hardware::KNOWN };
    let address = |ifindex, addr: &str| PodAddress { ifindex, addr: Addr::from(ip(addr)) };
    let left = Contents {
        pod_interfaces: [(1, port(1)), (2, port(2)), (3, port(1))].into(),
        pod_addresses: [
            address(1, "10.0.0.1"),
            address(2, "10.0.0.2"),
            address(3, "10.0.0.3"),
            address(NO_INTERFACE, "192.0.2.1"),
        ]
        .into(),
        workloads: [(10, 1), (11, 2)].into(),
        ..Contents::default()
    };
    let (given, new) = ([ip("10.0.0.22")], [ip("10.0.0.4")]);
    let interface = |ifindex, addresses| Interface { name: "veth", ifindex, addresses, seen: &[] };
    let found =
        [interface(1, &[]), interface(2, &given[..]), interface(4, &new), interface(5, &[])];
    let attached = [(10, "/pods".into()), (20, "/more".into())].into();
    let learn = |pods: &mut [PodInterface]| {
        pods.iter_mut().for_each(|pod| pod.hardware = PodHardware::Known(MAC));
    };
    let contents = adopted(&left, found, &attached, POLICY, learn);
    assert_eq!(contents.pod_interfaces, [(1, port(1)), (2, port(2)), (4, port(0))].into());
    let pods = [(1, "10.0.0.1"), (2, "10.0.0.22"), (4, "10.0.0.4")];
    let mut addresses = BTreeSet::from([address(NO_INTERFACE, "192.0.2.1")]);
    for (ifindex, addr) in pods {
        addresses.extend([address(ifindex, addr), address(NO_INTERFACE, addr)]);
    }
    assert_eq!(contents.pod_addresses, addresses);
    assert_eq!(contents.workloads, [(10, 1), (11, 2), (20, 0)].into());
    // With an API server, a cgroup that nobody knew is of a pod that nobody knows yet.
    let contents = adopted(&left, [], &attached, UNKNOWN_POLICY, |_| {});
    assert_eq!(contents.workloads, [(10, 1), (11, 2), (20, UNKNOWN_POLICY)].into());
}

#[test]
fn a_cgroup_is_found_below_the_mount() {
    let find = find_cgroup();
    let mount = host::cgroup2_mount().expect("cgroup2 is mounted here");
    assert_eq!(find(Path::new("/")), host::cgroup_id(&mount).ok());
    assert_eq!(find(Path::new("/no/such/cgroup")), None);
}
