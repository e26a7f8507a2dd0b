use std::net::{IpAddr, Ipv4Addr};

use egress_ebpf::{
    decide::{Place, PolicyRules, PolicyView, decide},
    packet::Flow,
    verdict::{Action, Mode},
};
use ipnet::Ipv4Net;
use proptest::{prelude::*, sample::subsequence};
use zerocopy::IntoBytes;

use super::*;
use crate::{
    bpf::plan::{Facts, PodInterface},
    policy::{DirectTarget, Enforcement, GatewayGroup, NodeAction, NodeRoute, Snapshot},
    types::{Host, OriginalPort, Port},
};

/// Few addresses and ports, so that old and new contents meet in every way.
const ADDRESSES: [[u8; 4]; 5] =
    [[10, 0, 0, 1], [10, 0, 0, 129], [10, 0, 1, 1], [192, 0, 2, 10], [169, 254, 169, 254]];
const NETS: [&str; 6] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.128/25", "10.0.0.1/32", "192.0.2.0/24"];
const PORTS: [u16; 3] = [80, 443, 15000];

/// What one change does to the maps.
fn apply(contents: &mut Contents, op: &Op) {
    fn set<K: Copy + Eq + Hash>(set: &mut HashSet<K>, change: &Change<K, ()>) {
        match change {
            Change::Put(key, ()) => assert!(set.insert(*key), "put what was there"),
            Change::Remove(key) => assert!(set.remove(key), "removed what wasn't there"),
        }
    }
    match op {
        Op::Globals(globals) => contents.globals = Some(*globals),
        Op::Policy(id, policy) => {
            contents.policies.insert(*id, *policy);
        }
        Op::Group(id, group) => {
            contents.groups.insert(*id, **group);
        }
        Op::Route(Change::Put(key, route)) => {
            contents.routes.insert(*key, *route);
        }
        Op::Route(Change::Remove(key)) => {
            assert!(contents.routes.remove(key).is_some());
        }
        Op::Gateway(change) => set(&mut contents.gateways, change),
        Op::Internal(change) => set(&mut contents.internal, change),
        Op::Denied(change) => set(&mut contents.denied, change),
        Op::PodAddress(change) => set(&mut contents.pod_addresses, change),
        Op::PodInterface(Change::Put(index, policy)) => {
            contents.pod_interfaces.insert(*index, *policy);
        }
        Op::PodInterface(Change::Remove(index)) => {
            contents.pod_interfaces.remove(index);
        }
    }
}

/// Arrays have no absent entries: zero and absent are the same.
fn normal(mut contents: Contents) -> Contents {
    contents.groups.retain(|_, group| group.count != 0);
    contents.policies.retain(|_, policy| *policy != Policy { mode: mode::ENFORCE, table: 0 });
    contents
}

/// The maps as the programs see them.
impl PolicyView for Contents {
    fn globals(&self) -> Globals {
        let zero = Globals {
            generation: 0,
            events_per_second: 0,
            default_policy: 0,
            uplink_policy: 0,
            reserved: 0,
        };
        self.globals.unwrap_or(zero)
    }

    fn policy(&self, policy: PolicyId) -> PolicyRules {
        let zero = Policy { mode: mode::ENFORCE, table: 0 };
        self.policies.get(&policy).copied().unwrap_or(zero).into()
    }

    fn is_denied(&self, addr: &Addr) -> bool {
        self.denied
            .iter()
            .any(|prefix| matches(prefix.bits, prefix.data.as_bytes(), addr.as_bytes()))
    }

    fn is_internal(&self, addr: &Addr) -> bool {
        self.internal
            .iter()
            .any(|prefix| matches(prefix.bits, prefix.data.as_bytes(), addr.as_bytes()))
    }

    fn is_gateway(&self, key: &GatewayKey) -> bool {
        self.gateways.contains(key)
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.routes
            .iter()
            .filter(|(prefix, _)| matches(prefix.bits, prefix.data.as_bytes(), key.as_bytes()))
            .max_by_key(|(prefix, _)| prefix.bits)
            .map(|(_, route)| *route)
    }

    fn interface(&self, ifindex: u32) -> Option<PolicyId> {
        self.pod_interfaces.get(&ifindex).copied()
    }

    fn is_pod_address(&self, key: &PodAddress) -> bool {
        self.pod_addresses.contains(key)
    }
}

/// Whether the first bits are equal, as an LPM trie compares them.
fn matches(bits: u32, prefix: &[u8], key: &[u8]) -> bool {
    let bit = |bytes: &[u8], at: u32| {
        let (byte, shift) = (usize::try_from(at / 8).unwrap(), 7 - at % 8);
        bytes[byte] >> shift & 1
    };
    (0..bits).all(|at| bit(prefix, at) == bit(key, at))
}

fn target() -> impl Strategy<Value = DirectTarget> {
    let net = prop::sample::select(&NETS[..])
        .prop_map(|net| DirectTarget::Net(net.parse::<Ipv4Net>().unwrap().into()));
    prop_oneof![Just(DirectTarget::Any), net]
}

fn route() -> impl Strategy<Value = NodeRoute> {
    let action = prop_oneof![
        Just(NodeAction::Direct),
        (0usize..3).prop_map(|group| NodeAction::Redirect { group, port: None }),
    ];
    let port = prop::option::weighted(0.8, prop::sample::select(&PORTS[..]));
    (port, target(), action).prop_map(|(port, target, action)| NodeRoute {
        port: port.and_then(Port::new).map(OriginalPort),
        target,
        action,
    })
}

prop_compose! {
    fn contents()(
        routes in prop::collection::vec(route(), 0..6),
        internal in subsequence(&NETS[1..], 0..3),
        denied in subsequence(&NETS[1..], 0..2),
        gateways in prop::collection::vec(subsequence(&ADDRESSES[..], 0..3), 0..3),
        healthy in subsequence(&ADDRESSES[..], 0..=5),
        audit in prop::bool::weighted(0.1),
        pods in subsequence(vec![1u32, 2, 3], 0..3),
        generation in 0u64..3,
    ) -> Contents {
        // Zero stands for maps that nobody has filled.
        if generation == 0 {
            return Contents::default();
        }
        let nets = |nets: Vec<&str>| nets.iter().map(|net| net.parse().unwrap()).collect();
        let mut snapshot = Snapshot::default();
        snapshot.mesh.cluster_cidrs = nets(internal);
        snapshot.mesh.denied_cidrs = nets(denied);
        snapshot.mesh.enforcement =
            if audit { Enforcement::Audit } else { Enforcement::Enforce };
        snapshot.mesh.gateways = gateways
            .iter()
            .map(|endpoints| GatewayGroup {
                service: Host::parse("gw.example").unwrap(),
                labels: Default::default(),
                endpoints: endpoints.iter().map(|addr| IpAddr::from(*addr)).collect(),
            })
            .collect();
        snapshot.node.routes = routes;
        let facts = Facts {
            healthy: healthy.into_iter().map(IpAddr::from).collect(),
            pods: pods
                .into_iter()
                .map(|ifindex| PodInterface { ifindex, addresses: vec![ADDRESSES[0].into()] })
                .collect(),
            generation,
            max_groups: 8,
            ..Facts::default()
        };
        Contents::desired(&snapshot, &facts).0
    }
}

fn flows() -> impl Iterator<Item = (Place, Flow)> {
    ADDRESSES.into_iter().flat_map(|addr| {
        PORTS.into_iter().flat_map(move |port| {
            [Place::Socket, Place::Skb, Place::Wire].into_iter().flat_map(move |place| {
                [6, 17].map(|protocol| {
                    let flow = Flow {
                        destination: Addr::from(IpAddr::from(Ipv4Addr::from(addr))),
                        destination_port: PortBe::new(port),
                        protocol,
                        ..Flow::UNKNOWN
                    };
                    (place, flow)
                })
            })
        })
    })
}

/// Whether a packet of the flow may leave as it is.
fn passes(contents: &Contents, place: Place, flow: &Flow) -> bool {
    contents.policy(0).mode != Mode::Enforce
        || matches!(decide(place, flow, 0, contents).action, Action::Allow)
}

/// Whether the flow gets a way out at all.
fn served(contents: &Contents, place: Place, flow: &Flow) -> bool {
    contents.policy(0).mode != Mode::Enforce
        || !matches!(decide(place, flow, 0, contents).action, Action::Deny)
}

/// Makes all changes; the first error of a check.
fn make(
    ops: &Ops,
    change: impl FnMut(&Op) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    ops.make(change).into_iter().next().map_or(Ok(()), Err)
}

/// A gateway inside a network that is denied from now on: where the denial can't be stored, the
/// gateway's port must stay shut, too.
#[test]
fn a_denial_that_fails_opens_no_port_of_a_gateway() {
    let (mut old, mut new) = (Contents::default(), Contents::default());
    let snapshot = |denied: &[&str], gateway: &[[u8; 4]]| {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.denied_cidrs = denied.iter().map(|net| net.parse().unwrap()).collect();
        snapshot.mesh.gateways = vec![GatewayGroup {
            service: Host::parse("gw.example").unwrap(),
            labels: Default::default(),
            endpoints: gateway.iter().map(|addr| IpAddr::from(*addr)).collect(),
        }];
        snapshot.node.routes = vec![NodeRoute {
            port: None,
            target: DirectTarget::Any,
            action: NodeAction::Redirect { group: 0, port: None },
        }];
        snapshot
    };
    let facts = Facts { generation: 1, max_groups: 1, ..Facts::default() };
    for (contents, snapshot) in
        [(&mut old, snapshot(&[], &[])), (&mut new, snapshot(&["192.0.2.0/24"], &[ADDRESSES[3]]))]
    {
        *contents = Contents::desired(&snapshot, &facts).0;
    }
    let mut maps = old.clone();
    let failed = diff(&old, &new).make(|op| match op {
        Op::Denied(Change::Put(..)) => Err(()),
        op => {
            apply(&mut maps, op);
            Ok(())
        }
    });
    assert_eq!(failed.len(), 1);
    let gateway = |(_, flow): &(Place, Flow)| flow.destination == Addr::v4(ADDRESSES[3]);
    for (place, flow) in flows().filter(gateway) {
        assert!(!passes(&maps, place, &flow), "{place:?} {flow:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_changes_lead_to_what_is_desired(old in contents(), new in contents()) {
        prop_assume!(new != Contents::default());
        let ops = diff(&old, &new);
        let mut maps = old;
        make(&ops, |op| {
            apply(&mut maps, op);
            Ok(())
        })?;
        prop_assert_eq!(normal(maps), normal(new.clone()));
        prop_assert_eq!(diff(&new, &new), Ops::default());
    }

    /// The promise of the order: whatever the moment, a flow that passes directly did so before or
    /// will do so afterwards.
    #[test]
    fn nothing_passes_on_the_way_that_neither_old_nor_new_let_pass(
        old in contents(), new in contents(),
    ) {
        prop_assume!(new != Contents::default());
        let ops = diff(&old, &new);
        let mut maps = old.clone();
        make(&ops, |op| {
            apply(&mut maps, op);
            for (place, flow) in flows() {
                if passes(&maps, place, &flow) {
                    prop_assert!(
                        passes(&old, place, &flow) || passes(&new, place, &flow),
                        "{:?} {:?} passes after {:?}", place, flow, op
                    );
                }
            }
            Ok(())
        })?;
    }

    /// The other half: where changes fail, nothing is left open.
    #[test]
    fn a_failure_on_the_way_opens_nothing(
        old in contents(), new in contents(), failing in subsequence((0..40).collect::<Vec<usize>>(), 1..20),
    ) {
        prop_assume!(new != Contents::default());
        let ops = diff(&old, &new);
        let mut maps = old.clone();
        let mut index = 0..;
        ops.make(|op| {
            // Removing and overwriting don't fail for want of space, but any may fail here.
            if index.next().is_some_and(|index| failing.contains(&index)) {
                return Err(());
            }
            apply(&mut maps, op);
            Ok(())
        });
        for (place, flow) in flows() {
            if passes(&maps, place, &flow) {
                prop_assert!(
                    passes(&old, place, &flow) || passes(&new, place, &flow),
                    "{:?} {:?} passes", place, flow
                );
            }
        }
    }
}

#[test]
fn a_first_fill_takes_effect_as_a_whole() {
    let mut snapshot = Snapshot::default();
    snapshot.mesh.cluster_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
    let facts = Facts { generation: 1, max_groups: 1, ..Facts::default() };
    let (new, _) = Contents::desired(&snapshot, &facts);
    let ops = diff(&Contents::default(), &new);
    assert!(matches!(ops.loosen.last(), Some(Op::Globals(_))));
    let mut maps = Contents::default();
    let inside = flows().find(|(place, _)| *place == Place::Socket).unwrap();
    make(&ops, |op| {
        assert!(!served(&maps, inside.0, &inside.1), "before {op:?}");
        apply(&mut maps, op);
        Ok(())
    })
    .unwrap();
    assert!(served(&maps, inside.0, &inside.1));
}

#[test]
fn every_port_of_a_gateway_is_every_port_but_its_own() {
    let mut snapshot = Snapshot::default();
    snapshot.mesh.gateways = vec![GatewayGroup {
        service: Host::parse("gw.example").unwrap(),
        labels: Default::default(),
        endpoints: vec![ADDRESSES[3].into()],
    }];
    snapshot.node.routes = vec![NodeRoute {
        port: None,
        target: DirectTarget::Any,
        action: NodeAction::Redirect { group: 0, port: None },
    }];
    let facts = Facts { generation: 1, max_groups: 1, ..Facts::default() };
    let (contents, _) = Contents::desired(&snapshot, &facts);
    for (place, flow) in flows().filter(|(_, flow)| flow.destination == Addr::v4(ADDRESSES[3])) {
        let allowed = flow.protocol == 6 && flow.destination_port.get() != 15000;
        assert_eq!(passes(&contents, place, &flow), allowed, "{place:?} {flow:?}");
    }
}
