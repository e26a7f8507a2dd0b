use std::collections::HashMap;

use proptest::prelude::*;

use super::{
    super::testing::{pod, uid},
    *,
};

/// A veth pair whose other end is in the namespace of the pod with this number.
fn sighting(ifindex: u32, number: u32, addresses: &[&str]) -> ObservedInterface {
    ObservedInterface {
        ifindex,
        name: format!("veth{ifindex}").into(),
        namespace: Some(1000 + u64::from(ifindex)),
        pods: [uid(number)].into(),
        addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
    }
}

fn sightings(cgroups: &[u32], interfaces: &[ObservedInterface]) -> ObservedInterfaces {
    let cgroups = cgroups
        .iter()
        .map(|number| (uid(*number), format!("/kubepods/pod{}", uid(*number)).into()));
    ObservedInterfaces { cgroups: cgroups.collect(), interfaces: interfaces.to_vec() }
}

fn see(table: &mut Table, cgroups: &[u32], interfaces: &[ObservedInterface]) {
    table.see(SystemTime::now(), sightings(cgroups, interfaces));
}

/// Name, interface and addresses of each workload.
fn known(table: &Table) -> Vec<(String, Option<String>, Vec<String>)> {
    let shown = |workload: &Arc<Workload>| {
        let addresses = workload.addresses.iter().map(ToString::to_string).collect();
        (workload.name.to_string(), workload.interface.as_deref().map(str::to_owned), addresses)
    };
    table.workloads().iter().map(shown).collect()
}

fn unknown(table: &Table) -> Vec<(u32, Vec<String>)> {
    let shown = |interface: &UnknownInterface| {
        (interface.ifindex, interface.addresses.iter().map(ToString::to_string).collect())
    };
    table.unknown().iter().map(shown).collect()
}

fn on(name: &str, interface: &str, addresses: &[&str]) -> (String, Option<String>, Vec<String>) {
    let addresses = addresses.iter().map(|addr| (*addr).to_owned()).collect();
    (name.to_owned(), Some(interface.to_owned()), addresses)
}

#[test]
fn a_pod_is_known_before_the_api_server_gives_it_an_address() {
    let mut table = Table::default();
    table.list([pod(1, &[])]);
    assert!(known(&table).is_empty(), "it isn't here yet");
    see(&mut table, &[1], &[]);
    assert_eq!(known(&table), [("web-1".into(), None, vec![])], "by its cgroup");
    see(&mut table, &[1], &[sighting(7, 1, &["10.0.0.1", "fd00::1"])]);
    assert_eq!(known(&table), [on("web-1", "veth7", &["10.0.0.1", "fd00::1"])]);
    assert!(unknown(&table).is_empty());
}

#[test]
fn what_the_api_server_does_not_know_is_unknown_until_it_does() {
    let mut table = Table::default();
    let web = sighting(7, 1, &["10.0.0.1"]);
    see(&mut table, &[1], std::slice::from_ref(&web));
    assert_eq!((known(&table).len(), unknown(&table)), (0, vec![(7, vec!["10.0.0.1".into()])]));
    assert_eq!(table.unknown()[0].pod, Some(uid(1)));
    table.change(pod(1, &[]));
    assert_eq!(known(&table), [on("web-1", "veth7", &["10.0.0.1"])]);
    assert!(unknown(&table).is_empty());
    // Nobody is behind it, or nobody that can be told.
    let nobody = ObservedInterface { pods: BTreeSet::new(), ..sighting(8, 1, &["10.0.0.2"]) };
    let two = ObservedInterface { pods: [uid(1), uid(2)].into(), ..sighting(9, 1, &["10.0.0.3"]) };
    see(&mut table, &[1, 2], &[web, nobody, two]);
    assert_eq!(unknown(&table).len(), 2);
}

#[test]
fn an_identity_ends_with_its_cgroup_and_not_before() {
    let mut table = Table::default();
    table.list([pod(1, &["10.0.0.1"])]);
    let web = [sighting(7, 1, &["10.0.0.1"])];
    see(&mut table, &[1], &web);
    // A forced deletion: the pod goes on sending.
    table.remove(&uid(1));
    assert_eq!(known(&table), [on("web-1", "veth7", &["10.0.0.1"])]);
    table.list([]);
    assert_eq!(known(&table).len(), 1);
    see(&mut table, &[], &web);
    assert!(known(&table).is_empty(), "the cgroup is gone");
    assert_eq!(unknown(&table).len(), 1);
    // The usual order: the cgroup goes first.
    table.change(pod(2, &[]));
    see(&mut table, &[2], &[sighting(8, 2, &["10.0.0.2"])]);
    see(&mut table, &[], &[]);
    assert!(known(&table).is_empty());
    table.remove(&uid(2));
    see(&mut table, &[2], &[]);
    assert!(known(&table).is_empty(), "what was deleted isn't remembered");
}

#[test]
fn addresses_are_those_that_the_interface_had_first() {
    let mut table = Table::default();
    table.list([pod(1, &[])]);
    see(&mut table, &[1], &[sighting(7, 1, &[])]);
    assert_eq!(known(&table), [on("web-1", "veth7", &[])]);
    see(&mut table, &[1], &[sighting(7, 1, &["10.0.0.1"])]);
    // A process of the pod gives itself a neighbour's address.
    see(&mut table, &[1], &[sighting(7, 1, &["10.0.0.1", "10.0.0.9"])]);
    assert_eq!(known(&table), [on("web-1", "veth7", &["10.0.0.1"])]);
}

#[test]
fn a_new_sandbox_has_its_own_address_at_once() {
    let mut table = Table::default();
    table.list([pod(1, &["10.0.0.1"])]);
    let (old, new) = (sighting(7, 1, &["10.0.0.1"]), sighting(8, 1, &["10.0.0.2"]));
    see(&mut table, &[1], std::slice::from_ref(&old));
    // The API server still shows the old address.
    see(&mut table, &[1], &[old, new.clone()]);
    assert_eq!(known(&table), [on("web-1", "veth8", &["10.0.0.2"])]);
    assert_eq!(unknown(&table).len(), 1, "the old interface leads nowhere any more");
    see(&mut table, &[1], &[new]);
    // Its old address is another pod's already.
    table.change(pod(2, &[]));
    see(&mut table, &[1, 2], &[sighting(8, 1, &["10.0.0.2"]), sighting(9, 2, &["10.0.0.1"])]);
    let second = on("web-2", "veth9", &["10.0.0.1"]);
    assert_eq!(known(&table), [on("web-1", "veth8", &["10.0.0.2"]), second]);
}

#[test]
fn a_finished_pods_address_counts_for_nothing() {
    let mut table = Table::default();
    table.list([Pod { finished: true, ..pod(1, &["10.0.0.1"]) }, pod(2, &[])]);
    see(&mut table, &[2], &[sighting(8, 2, &["10.0.0.1"])]);
    assert_eq!(known(&table), [on("web-2", "veth8", &["10.0.0.1"])]);
    // The twin: one that lives elsewhere on the node keeps its address.
    table.list([pod(1, &["10.0.0.1"]), pod(2, &[])]);
    assert_eq!(known(&table), [on("web-2", "veth8", &[])]);
}

#[test]
fn of_two_that_show_an_address_the_confirmed_one_has_it() {
    let mut table = Table::default();
    table.list([pod(1, &[]), pod(2, &["10.0.0.1"])]);
    // The first has taken it before the agent came.
    see(&mut table, &[1, 2], &[sighting(7, 1, &["10.0.0.1"]), sighting(8, 2, &["10.0.0.1"])]);
    assert_eq!(known(&table), [on("web-1", "veth7", &[]), on("web-2", "veth8", &["10.0.0.1"])]);
    // Without a word from the API server, the pod that had it first keeps it.
    table.list([pod(1, &[]), pod(2, &[])]);
    assert_eq!(known(&table), [on("web-1", "veth7", &["10.0.0.1"]), on("web-2", "veth8", &[])]);
}

#[test]
fn an_index_that_comes_again_is_another_interface() {
    let mut table = Table::default();
    table.list([pod(1, &[]), pod(2, &[])]);
    see(&mut table, &[1], &[sighting(7, 1, &["10.0.0.1"])]);
    let again = ObservedInterface { namespace: Some(5), ..sighting(7, 2, &["10.0.0.2"]) };
    see(&mut table, &[1, 2], &[again]);
    assert_eq!(known(&table)[0], ("web-1".into(), None, vec![]));
    assert_eq!(known(&table)[1], on("web-2", "veth7", &["10.0.0.2"]));
}

#[test]
fn a_pod_on_the_hosts_network_is_its_cgroup_alone() {
    let mut table = Table::default();
    table.list([Pod { host_network: true, ..pod(1, &["192.0.2.1"]) }]);
    see(&mut table, &[1], &[]);
    assert_eq!(known(&table), [("web-1".into(), None, vec![])]);
}

const ADDRESSES: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];

#[derive(Clone, Debug)]
enum Event {
    List(Vec<(u32, usize, bool)>),
    Change(u32, usize, bool),
    Remove(u32),
    /// Cgroups; interfaces as index, pod, namespace, address.
    See(Vec<u32>, Vec<(u32, u32, u64, usize)>),
}

fn event() -> impl Strategy<Value = Event> {
    let of = || (0..4_u32, 0..4_usize, any::<bool>());
    let interface = (1..5_u32, 0..4_u32, 1..4_u64, 0..4_usize);
    prop_oneof![
        prop::collection::vec(of(), 0..4).prop_map(Event::List),
        of().prop_map(|(number, address, finished)| Event::Change(number, address, finished)),
        (0..4_u32).prop_map(Event::Remove),
        (prop::collection::vec(0..4_u32, 0..5), prop::collection::vec(interface, 0..5))
            .prop_map(|(cgroups, interfaces)| Event::See(cgroups, interfaces)),
    ]
}

fn api(number: u32, address: usize, finished: bool) -> Pod {
    let addresses: Vec<&str> = ADDRESSES.get(address).copied().into_iter().collect();
    Pod { finished, ..pod(number, &addresses) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_order_of_events_gives_a_pod_anothers_rights(events in prop::collection::vec(event(), 1..40)) {
        let mut table = Table::default();
        let mut cgroups: Vec<u32> = Vec::new();
        // What each interface showed first, and what is there now.
        let mut first: HashMap<u32, (u64, Option<IpAddr>)> = HashMap::new();
        let mut now: HashMap<String, u32> = HashMap::new();
        for event in events {
            match event {
                Event::List(pods) => table.list(pods.into_iter().map(|(number, address, finished)| api(number, address, finished))),
                Event::Change(number, address, finished) => table.change(api(number, address, finished)),
                Event::Remove(number) => table.remove(&uid(number)),
                Event::See(there, mut interfaces) => {
                    interfaces.sort_unstable();
                    interfaces.dedup_by_key(|(ifindex, ..)| *ifindex);
                    let seen: Vec<ObservedInterface> = interfaces.iter().map(|(ifindex, number, namespace, address)| {
                        let addresses: Vec<&str> = ADDRESSES.get(*address).copied().into_iter().collect();
                        ObservedInterface { namespace: Some(*namespace), ..sighting(*ifindex, *number, &addresses) }
                    }).collect();
                    first.retain(|ifindex, (namespace, _)| {
                        interfaces.iter().any(|(index, _, behind, _)| index == ifindex && behind == namespace)
                    });
                    for (ifindex, _, namespace, address) in &interfaces {
                        let address = ADDRESSES.get(*address).map(|addr| addr.parse().unwrap());
                        let entry = first.entry(*ifindex).or_insert((*namespace, None));
                        entry.1 = entry.1.or(address);
                    }
                    now = seen.iter().map(|sighting| (sighting.name.to_string(), sighting.ifindex)).collect();
                    cgroups.clone_from(&there);
                    see(&mut table, &there, &seen);
                }
            }
            let workloads = table.workloads();
            let mut addresses = BTreeSet::new();
            let mut interfaces = BTreeSet::new();
            for workload in &workloads {
                let number: u32 = workload.name.strip_prefix("web-").unwrap().parse().unwrap();
                prop_assert!(cgroups.contains(&number), "an identity without a cgroup");
                prop_assert_eq!(&workload.cgroups, &[PathBuf::from(format!("/kubepods/pod{}", uid(number)))]);
                if let Some(name) = workload.interface.as_deref() {
                    let index = now.get(name).expect("an interface that isn't there");
                    prop_assert!(interfaces.insert(*index), "two pods behind one interface");
                    for address in &workload.addresses {
                        prop_assert_eq!(first.get(index).and_then(|(_, first)| *first), Some(*address));
                    }
                } else {
                    prop_assert!(workload.addresses.is_empty());
                }
                for address in &workload.addresses {
                    prop_assert!(addresses.insert(*address), "an address of two pods");
                }
            }
            for interface in table.unknown() {
                prop_assert!(interfaces.insert(interface.ifindex), "known and unknown");
                for address in &interface.addresses {
                    prop_assert!(addresses.insert(*address), "an address of two interfaces");
                }
            }
            prop_assert_eq!(interfaces.len(), now.len(), "every interface is one or the other");
        }
    }
}
