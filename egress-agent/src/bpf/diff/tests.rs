use std::net::{IpAddr, Ipv4Addr};

use egress_ebpf::{
    abi::{
        PodAddress, PodPort, Policy, PolicyId, TableId, UNKNOWN_POLICY, UNKNOWN_TABLE, mode,
        pod_hardware,
    },
    addr::{Addr, PortBe},
    decide::{Place, PolicyRules, PolicyView, decide},
    packet::Flow,
    verdict::{Action, CGROUP_PASS, Judgement, Mode, TC_NEXT},
};
use ipnet::Ipv4Net;
use proptest::{prelude::*, sample::subsequence};
use zerocopy::IntoBytes;

use super::*;
use crate::{
    bpf::plan::{PlanInputs, PodHardware, PodInterface},
    policy::{
        DirectTarget, Enforcement, EnforcementOverride, ExemptDestination, Exemption, GatewayGroup,
        Hop, NodeAction, NodeRoute, Snapshot, Transport,
    },
    types::{Host, OriginalPort, Port},
};

/// Few addresses and ports, so that old and new contents meet in every way.
const ADDRESSES: [[u8; 4]; 5] =
    [[10, 0, 0, 1], [10, 0, 0, 129], [10, 0, 1, 1], [192, 0, 2, 10], [169, 254, 169, 254]];
const NETS: [&str; 6] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.128/25", "10.0.0.1/32", "192.0.2.0/24"];
const LISTENERS: [&str; 2] = ["10.0.0.129:443", "10.0.1.1:80"];
const PORTS: [u16; 3] = [80, 443, 15000];

/// Cgroups and the ones above them.
const CGROUPS: [u64; 4] = [1, 2, 3, 4];
const ABOVE: [(u64, &[u64]); 4] = [(1, &[]), (2, &[1]), (3, &[2, 1]), (4, &[])];
/// Interfaces of pods.
const INTERFACES: [u32; 3] = [1, 2, 3];

/// Makes a change, which has to be one.
fn apply(contents: &mut Contents, op: &Op) {
    let before = contents.clone();
    contents.apply(op);
    assert_ne!(normal(before), normal(contents.clone()), "{op:?} changed nothing");
}

/// Arrays have no absent entries: zero and absent are the same.
fn normal(mut contents: Contents) -> Contents {
    contents.groups.retain(|_, group| group.count != 0);
    contents.policies.retain(|_, policy| *policy != UNWRITTEN);
    contents
}

/// The maps as the programs see them.
impl PolicyView for Contents {
    fn globals(&self) -> Globals {
        self.globals.unwrap_or(Globals::NONE)
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

    fn interface(&self, ifindex: u32) -> Option<PodPort> {
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
        (0usize..3, prop::sample::select(vec![Hop::Plain, Hop::Tunnel]))
            .prop_map(|(group, hop)| NodeAction::Redirect { group, port: None, hop }),
    ];
    let port = prop::option::weighted(0.8, prop::sample::select(&PORTS[..]));
    (port, target(), action).prop_map(|(port, target, action)| NodeRoute {
        port: port.and_then(Port::new).map(OriginalPort),
        target,
        action,
    })
}

/// Policies that a workload may have; those of workloads that are known come first.
const POLICIES: [PolicyId; 4] = [0, 1, 2, UNKNOWN_POLICY];

/// Policies of these ids.
fn assigned<K: Copy + Ord + std::fmt::Debug + 'static>(
    ids: &'static [K],
) -> impl Strategy<Value = BTreeMap<K, PolicyId>> {
    let policies = prop::collection::vec(prop::sample::select(&POLICIES[..]), ids.len());
    (subsequence(ids, 0..=ids.len()), policies)
        .prop_map(|(ids, policies)| ids.into_iter().zip(policies).collect())
}

/// Modes of the policies, numbers that nobody knows among them.
fn modes() -> impl Strategy<Value = [u32; 4]> {
    let one = || {
        prop::sample::select(vec![
            mode::ENFORCE,
            mode::ENFORCE,
            mode::AUDIT,
            mode::AUDIT_REDIRECT,
            mode::EXEMPT,
            77,
        ])
    };
    let default = prop_oneof![8 => Just(mode::ENFORCE), 1 => Just(mode::AUDIT)];
    let all = (default, one(), one(), one());
    all.prop_map(|(default, first, second, unknown)| [default, first, second, unknown])
}

/// Sets the modes; tables stay.
fn set_modes(contents: &mut Contents, modes: [u32; 4]) {
    for (id, mode) in POLICIES.into_iter().zip(modes) {
        let table = if id == UNKNOWN_POLICY { UNKNOWN_TABLE } else { 0 };
        contents.policies.entry(id).or_insert(Policy { mode, table }).mode = mode;
    }
}

/// An exemption to these networks, over UDP.
fn exemption(nets: &[&str]) -> Exemption {
    let port = Port::new(PORTS[0]).unwrap();
    let to = |net: &&str| ExemptDestination {
        net: net.parse().unwrap(),
        port,
        transport: Transport::Udp,
    };
    Exemption {
        name: "exempt".into(),
        selector: Default::default(),
        service_accounts: Vec::new(),
        to: Some(nets.iter().map(to).collect()),
    }
}

prop_compose! {
    fn contents()(
        routes in prop::collection::vec(route(), 0..6),
        internal in subsequence(&NETS[1..], 0..3),
        denied in subsequence(&NETS[1..], 0..2),
        gateways in prop::collection::vec(subsequence(&ADDRESSES[..], 0..3), 0..3),
        healthy in subsequence(&ADDRESSES[..], 0..=5),
        modes in modes(),
        pods in assigned(&INTERFACES),
        workloads in assigned(&CGROUPS),
        generation in 0u64..3,
        tunnel in subsequence(&LISTENERS[..], 0..=2),
        exempt in prop::collection::vec(subsequence(&NETS[1..], 1..3), 0..=2),
    ) -> Contents {
        // Zero stands for maps that nobody has filled.
        if generation == 0 {
            return Contents::default();
        }
        let nets = |nets: Vec<&str>| nets.iter().map(|net| net.parse().unwrap()).collect();
        let mut snapshot = Snapshot::default();
        snapshot.mesh.cluster_cidrs = nets(internal);
        snapshot.mesh.denied_cidrs = nets(denied);
        snapshot.mesh.gateways = gateways
            .iter()
            .map(|endpoints| GatewayGroup {
                service: Host::parse("gw.example").unwrap(),
                labels: Default::default(),
                endpoints: endpoints.iter().map(|addr| IpAddr::from(*addr)).collect(),
                other_addresses: Vec::new(),
                principal: None,
                tunnel: None,
                hop: Hop::Plain,
            })
            .collect();
        snapshot.node.routes = routes;
        snapshot.mesh.exemptions = exempt.iter().map(|nets| exemption(nets)).collect();
        let facts = PlanInputs {
            healthy: healthy.into_iter().map(IpAddr::from).collect(),
            pods: pods
                .into_iter()
                .map(|(ifindex, policy)| PodInterface {
                    ifindex,
                    addresses: vec![ADDRESSES[0].into()],
                    hardware: PodHardware::Known([2, 0, 0, 0, 0, 5]),
                    policy,
                })
                .collect(),
            workloads,
            generation,
            tunnel: tunnel.iter().map(|listener| listener.parse().unwrap()).collect(),
            max_groups: 8,
            ..PlanInputs::default()
        };
        let mut contents = Contents::desired(&snapshot, &facts).0;
        set_modes(&mut contents, modes);
        contents
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

/// Who sends, which decides whose policy counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sender {
    /// A process at its cgroup's hooks.
    AtHooks(u64),
    /// The same one's socket at the uplink.
    AtUplink(u64),
    /// A pod at its interface.
    AtInterface(u32),
    /// A forwarded packet at the uplink.
    Forwarded,
}

fn senders() -> impl Iterator<Item = Sender> {
    // Cgroup 9 is unowned.
    let cgroups = || CGROUPS.into_iter().chain([9]);
    cgroups()
        .map(Sender::AtHooks)
        .chain(cgroups().map(Sender::AtUplink))
        .chain(INTERFACES.map(Sender::AtInterface))
        .chain([Sender::Forwarded])
}

/// The policy of a sender; where nobody judges, whether it passes.
fn treatment(contents: &Contents, sender: Sender) -> Result<PolicyRules, bool> {
    let listed = |cgroup: u64| {
        let above = ABOVE.into_iter().find(|(id, _)| *id == cgroup).map_or(&[][..], |(_, up)| up);
        let mut chain = std::iter::once(&cgroup).chain(above);
        chain.find_map(|id| contents.workloads.get(id)).copied()
    };
    let policy = match sender {
        Sender::AtHooks(cgroup) => {
            listed(cgroup).unwrap_or_else(|| contents.globals().default_policy)
        }
        Sender::AtUplink(cgroup) => listed(cgroup).ok_or(true)?,
        Sender::AtInterface(index) => contents.interface(index).ok_or(false)?.policy,
        Sender::Forwarded => contents.globals().uplink_policy,
    };
    Ok(contents.policy(policy))
}

/// What passes as it is: by table and flow where it is judged, and for each sender.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Passing {
    allowed: BTreeMap<TableId, Vec<bool>>,
    senders: Vec<Result<PolicyRules, bool>>,
}

impl Passing {
    fn of(contents: &Contents) -> Self {
        let tables = contents.policies.values().map(|policy| policy.table);
        let allowed = |table| {
            let mut strict = contents.clone();
            strict.policies.insert(NOBODYS, Policy { mode: mode::ENFORCE, table });
            let verdict = |(place, flow)| decide(place, &flow, NOBODYS, &strict).action;
            flows().map(|flow| matches!(verdict(flow), Action::Allow)).collect()
        };
        Self {
            allowed: tables
                .chain([0, UNKNOWN_TABLE])
                .map(|table| (table, allowed(table)))
                .collect(),
            senders: senders().map(|who| treatment(contents, who)).collect(),
        }
    }

    fn passes(&self, sender: usize, flow: usize) -> bool {
        match self.senders[sender] {
            Ok(PolicyRules { mode: Mode::Audit | Mode::AuditRedirect | Mode::Exempt, .. }) => true,
            Ok(PolicyRules { mode: Mode::Enforce, table }) => self.allowed[&table][flow],
            Err(passes) => passes,
        }
    }

    /// What passes here and neither before nor after.
    fn leak(&self, before: &Self, after: &Self) -> Option<String> {
        senders().enumerate().find_map(|(sender, who)| {
            flows().enumerate().find_map(|(flow, what)| {
                let leaks = self.passes(sender, flow)
                    && !before.passes(sender, flow)
                    && !after.passes(sender, flow);
                leaks.then(|| format!("{what:?} of {who:?}"))
            })
        })
    }
}

/// A policy that isn't there enforces, with the table that all share.
const NOBODYS: PolicyId = PolicyId::MAX;

fn verdict(contents: &Contents, place: Place, flow: &Flow) -> Action {
    decide(place, flow, NOBODYS, contents).action
}

/// Whether a packet of the flow may leave as it is, where it is enforced.
fn passes(contents: &Contents, place: Place, flow: &Flow) -> bool {
    matches!(verdict(contents, place, flow), Action::Allow)
}

/// Whether the flow may leave at all.
fn served(contents: &Contents, place: Place, flow: &Flow) -> bool {
    !matches!(verdict(contents, place, flow), Action::Deny)
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
            other_addresses: Vec::new(),
            principal: None,
            tunnel: None,
            hop: Hop::Plain,
        }];
        snapshot.node.routes = vec![NodeRoute {
            port: None,
            target: DirectTarget::Any,
            action: NodeAction::Redirect { group: 0, port: None, hop: Hop::Plain },
        }];
        snapshot
    };
    let facts = PlanInputs { generation: 1, max_groups: 1, ..PlanInputs::default() };
    for (contents, snapshot) in
        [(&mut old, snapshot(&[], &[])), (&mut new, snapshot(&["192.0.2.0/24"], &[ADDRESSES[3]]))]
    {
        *contents = Contents::desired(&snapshot, &facts).0;
    }
    let mut maps = old.clone();
    let failed = diff(&old, &new).make(|op| {
        if matches!(op, Op::Denied(Change::Put(..))) {
            return Err(());
        }
        apply(&mut maps, op);
        Ok(())
    });
    assert_eq!(failed.len(), 1);
    let gateway = |(_, flow): &(Place, Flow)| flow.destination == Addr::v4(ADDRESSES[3]);
    for (place, flow) in flows().filter(gateway) {
        assert!(!passes(&maps, place, &flow), "{place:?} {flow:?}");
    }
}

/// Contents that deny these networks.
fn denying(denied: &[&str]) -> Contents {
    let mut snapshot = Snapshot::default();
    snapshot.mesh.denied_cidrs = denied.iter().map(|net| net.parse().unwrap()).collect();
    let facts = PlanInputs { generation: 1, max_groups: 1, ..PlanInputs::default() };
    Contents::desired(&snapshot, &facts).0
}

/// Goes from one to the other with a map of denials that holds no more than `capacity`.
fn make_in(old: &Contents, new: &Contents, capacity: usize) -> (Contents, usize) {
    let mut maps = old.clone();
    let failed = diff(old, new).make(|op| {
        if matches!(op, Op::Denied(Change::Put(..))) && maps.denied.len() >= capacity {
            return Err(());
        }
        apply(&mut maps, op);
        Ok(())
    });
    (maps, failed.len())
}

#[test]
fn a_full_map_of_denials_can_be_emptied_again() {
    let (old, new) = (denying(&["198.51.100.0/24", "192.0.2.0/25"]), denying(&["203.0.113.0/24"]));
    // Full to the brim: the new one finds a place when the old ones have gone.
    let (maps, failed) = make_in(&old, &new, old.denied.len());
    assert_eq!(failed, 0);
    assert_eq!(normal(maps), normal(new));
}

#[test]
fn a_denial_stays_while_one_that_it_covers_is_missing() {
    let (old, new) = (denying(&["203.0.113.0/24"]), denying(&["203.0.113.0/25", "192.0.2.0/25"]));
    let (maps, failed) = make_in(&old, &new, old.denied.len());
    assert_eq!(failed, 2, "there is no place for either");
    assert_eq!(normal(maps), normal(old));
}

#[test]
fn a_denial_stays_while_one_that_covers_it_is_missing() {
    let (old, new) = (denying(&["203.0.113.7/32"]), denying(&["203.0.113.0/24"]));
    let (maps, failed) = make_in(&old, &new, old.denied.len());
    assert_eq!(failed, 1, "there is no place for it");
    assert_eq!(normal(maps), normal(old));
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
        let (before, after) = (Passing::of(&old), Passing::of(&new));
        let mut maps = old;
        make(&ops, |op| {
            apply(&mut maps, op);
            let leak = Passing::of(&maps).leak(&before, &after);
            prop_assert!(leak.is_none(), "{} passes after {op:?}", leak.unwrap());
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
        let (before, after) = (Passing::of(&old), Passing::of(&new));
        let mut maps = old;
        let mut index = 0..;
        ops.make(|op| {
            // Removing and overwriting don't fail because space is missing, but any may fail here.
            if index.next().is_some_and(|index| failing.contains(&index)) {
                return Err(());
            }
            apply(&mut maps, op);
            Ok(())
        });
        let leak = Passing::of(&maps).leak(&before, &after);
        prop_assert!(leak.is_none(), "{} passes", leak.unwrap());
    }

    /// Switching modes, and moving workloads between sets, disturbs nothing that needs no audit:
    /// what the rules allow passes at every moment, to a gateway or inside.
    #[test]
    fn switching_loses_nothing_that_is_allowed_in_both_modes(
        old in contents(), to in modes(), cgroups in prop::collection::vec(0u32..3, 4),
        interfaces in prop::collection::vec(0u32..3, 3),
    ) {
        let mut new = old.clone();
        set_modes(&mut new, to);
        for (policy, other) in new.workloads.values_mut().zip(cgroups) {
            *policy = other;
        }
        for (port, other) in new.pod_interfaces.values_mut().zip(interfaces) {
            port.policy = other;
        }
        let ops = diff(&old, &new);
        let before = Passing::of(&old);
        let mut maps = old;
        make(&ops, |op| {
            apply(&mut maps, op);
            let now = Passing::of(&maps);
            // The verdicts don't change, and nobody gets lost who was known.
            for (table, allowed) in &before.allowed {
                prop_assert_eq!(now.allowed.get(table).unwrap_or(allowed), allowed);
            }
            for (now, before) in now.senders.iter().zip(&before.senders) {
                prop_assert_eq!(now.err(), before.err(), "after {:?}", op);
            }
            Ok(())
        })?;
        prop_assert_eq!(normal(maps), normal(new));
    }

    /// Audit can't leak: whatever a policy's number and its mode's, where the mode is neither audit
    /// nor exempt a hook does exactly what the verdict says, and where it is, that is counted.
    #[test]
    fn a_hook_does_what_the_verdict_says_unless_the_policy_is_lenient(
        contents in contents(), policy in prop_oneof![0u32..4, any::<u32>()], raw in any::<u32>(),
    ) {
        let mut contents = contents;
        let raw = if policy % 2 == 0 { raw } else { raw % 4 };
        let there = policy < 3;
        if there {
            contents.policies.insert(policy, Policy { mode: raw, table: 0 });
        }
        let lenient =
            there && matches!(raw, mode::AUDIT | mode::AUDIT_REDIRECT | mode::EXEMPT);
        let redirects = !lenient || raw == mode::AUDIT_REDIRECT;
        for (_, flow) in flows().filter(|(place, _)| *place == Place::Socket) {
            let verdict = decide(Place::Socket, &flow, NOBODYS, &contents).action;
            let mode = contents.policy(policy).mode;
            let verdict_there = decide(Place::Socket, &flow, policy, &contents);
            let judgement = Judgement::new(verdict_there, mode, policy, flow, 0);
            let allowed = verdict != Action::Deny;
            prop_assert_eq!(judgement.system_call().is_ok(), allowed || lenient);
            prop_assert_eq!(judgement.tc() == TC_NEXT, allowed || lenient);
            prop_assert_eq!(judgement.cgroup_skb() == CGROUP_PASS, allowed || lenient);
            let targets = match verdict {
                Action::Redirect(target) if redirects => (Some(target), None),
                Action::Tunnel(target) if redirects => (None, Some(target)),
                Action::Redirect(_) | Action::Tunnel(_) | Action::Allow | Action::Deny => {
                    (None, None)
                }
            };
            prop_assert_eq!((judgement.redirect(), judgement.tunnel()), targets);
            let audited = match raw {
                mode::AUDIT => there && verdict != Action::Allow,
                mode::AUDIT_REDIRECT => there && verdict == Action::Deny,
                _ => false,
            };
            prop_assert_eq!(judgement.carried_out().audited(), audited);
        }
    }
}

const fn port(policy: PolicyId) -> PodPort {
    PodPort { policy, hardware: [2, 0, 0, 0, 0, 5], check: pod_hardware::KNOWN }
}

/// A pod that becomes known, and one that stops being it, while a gateway's port closes and another opens:
/// neither ever reaches a port that it may not.
#[test]
fn who_becomes_known_meets_nothing_old() {
    let of = |port: u16, known: bool| {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.gateways = vec![GatewayGroup {
            service: Host::parse("gw.example").unwrap(),
            labels: Default::default(),
            endpoints: vec![ADDRESSES[3].into()],
            other_addresses: Vec::new(),
            principal: None,
            tunnel: None,
            hop: Hop::Plain,
        }];
        snapshot.node.routes = vec![NodeRoute {
            port: Port::new(port).map(OriginalPort),
            target: DirectTarget::Any,
            action: NodeAction::Redirect { group: 0, port: None, hop: Hop::Plain },
        }];
        let policies = if known { [0, UNKNOWN_POLICY] } else { [UNKNOWN_POLICY, 0] };
        let pod = |(ifindex, policy)| PodInterface {
            ifindex,
            addresses: vec![ADDRESSES[0].into()],
            hardware: PodHardware::Known([2, 0, 0, 0, 0, 5]),
            policy,
        };
        let facts = PlanInputs {
            generation: 1,
            max_groups: 1,
            pods: [1, 2].into_iter().zip(policies).map(pod).collect(),
            workloads: [1, 4].into_iter().zip(policies).collect(),
            ..PlanInputs::default()
        };
        Contents::desired(&snapshot, &facts).0
    };
    let (old, new) = (of(443, false), of(80, true));
    let (before, after) = (Passing::of(&old), Passing::of(&new));
    assert!(after.leak(&before, &before).is_some(), "who is known reaches the gateway");
    let mut maps = old.clone();
    make(&diff(&old, &new), |op| {
        apply(&mut maps, op);
        assert_eq!(Passing::of(&maps).leak(&before, &after), None, "after {op:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(normal(maps), normal(new));
}

/// Two sets swap their numbers, and with them the policies of those that are in them.
#[test]
fn sets_that_change_places_are_never_mixed_up() {
    let of = |[default, one, two]: [u32; 3], first: PolicyId, second: PolicyId| {
        let mut contents = Contents {
            workloads: [(1, first), (4, second)].into(),
            pod_interfaces: [(1, port(first)), (2, port(second))].into(),
            ..Contents::default()
        };
        set_modes(&mut contents, [default, one, two, mode::ENFORCE]);
        contents
    };
    let mode = |maps: &Contents, sender| treatment(maps, sender).map(|policy| policy.mode);
    let old = of([mode::ENFORCE, mode::AUDIT, mode::ENFORCE], 1, 2);
    let new = of([mode::ENFORCE, mode::ENFORCE, mode::AUDIT], 2, 1);
    let mut maps = old.clone();
    let mut audited = Vec::new();
    make(&diff(&old, &new), |op| {
        apply(&mut maps, op);
        for sender in [Sender::AtHooks(4), Sender::AtUplink(4), Sender::AtInterface(2)] {
            assert_eq!(mode(&maps, sender), Ok(Mode::Enforce), "{sender:?} after {op:?}");
        }
        audited.push(mode(&maps, Sender::AtHooks(1)) == Ok(Mode::Audit));
        Ok(())
    })
    .unwrap();
    assert_eq!(normal(maps), normal(new));
    assert_eq!(audited.last(), Some(&true), "{audited:?}");
}

/// From audit to enforce is the first thing that happens, the way back the last but the globals.
#[test]
fn enforcing_comes_first_and_leniency_last() {
    let of = |mode, generation| {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.overrides =
            vec![EnforcementOverride { name: "batch".into(), selector: Default::default(), mode }];
        snapshot.mesh.cluster_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
        let workloads = [(generation, 1)].into();
        let facts = PlanInputs { generation, max_groups: 1, workloads, ..PlanInputs::default() };
        Contents::desired(&snapshot, &facts).0
    };
    let (audit, enforce) = (of(Enforcement::Audit, 1), of(Enforcement::Enforce, 2));
    let ops = diff(&audit, &enforce);
    assert!(matches!(ops.enforce[..], [Op::Policy(1, Policy { mode: mode::ENFORCE, table: 0 })]));
    let ops = diff(&enforce, &audit);
    assert!(ops.enforce.is_empty());
    let [.., before, last] = &ops.loosen[..] else { panic!("{ops:?}") };
    assert!(matches!(before, Op::Policy(1, Policy { mode: mode::AUDIT, table: 0 })), "{ops:?}");
    assert!(matches!(last, Op::Globals(_)), "{ops:?}");
}

#[test]
fn a_first_fill_takes_effect_as_a_whole() {
    let mut snapshot = Snapshot::default();
    snapshot.mesh.cluster_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
    let facts = PlanInputs { generation: 1, max_groups: 1, ..PlanInputs::default() };
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

/// The listener is there before the first route to it, and goes after the last one.
#[test]
fn the_tunnels_listener_comes_first_and_goes_last() {
    let with = |routes: bool| {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.gateways = vec![GatewayGroup {
            service: Host::parse("gw.example").unwrap(),
            labels: Default::default(),
            endpoints: vec![ADDRESSES[3].into()],
            other_addresses: Vec::new(),
            principal: None,
            tunnel: None,
            hop: Hop::Tunnel,
        }];
        let action = NodeAction::Redirect { group: 0, port: None, hop: Hop::Tunnel };
        let port = Port::new(443).map(OriginalPort);
        let route = NodeRoute { port, target: DirectTarget::Any, action };
        snapshot.node.routes = routes.then_some(route).into_iter().collect();
        let tunnel = routes.then(|| LISTENERS[0].parse().unwrap()).into_iter().collect();
        let healthy = [IpAddr::from(ADDRESSES[3])].into();
        let facts =
            PlanInputs { generation: 1, max_groups: 1, tunnel, healthy, ..PlanInputs::default() };
        Contents::desired(&snapshot, &facts).0
    };
    for (old, new) in [(with(false), with(true)), (with(true), with(false))] {
        let mut maps = old.clone();
        let mut seen = 0;
        make(&diff(&old, &new), |op| {
            apply(&mut maps, op);
            let routed = maps.routes.values().any(|route| route.action == route_action::TUNNEL);
            let open = maps.gateways.iter().any(|key| key.port == PortBe::new(443));
            prop_assert!(!routed || (maps.tunnel.is_some() && open), "after {op:?}");
            seen += usize::from(matches!(op, Op::Tunnel(_)));
            Ok(())
        })
        .unwrap();
        assert_eq!((normal(maps), seen), (normal(new), 1));
    }
}

#[test]
fn every_port_of_a_gateway_is_every_port_but_its_own() {
    let mut snapshot = Snapshot::default();
    snapshot.mesh.gateways = vec![GatewayGroup {
        service: Host::parse("gw.example").unwrap(),
        labels: Default::default(),
        endpoints: vec![ADDRESSES[3].into()],
        other_addresses: Vec::new(),
        principal: None,
        tunnel: None,
        hop: Hop::Plain,
    }];
    snapshot.node.routes = vec![NodeRoute {
        port: None,
        target: DirectTarget::Any,
        action: NodeAction::Redirect { group: 0, port: None, hop: Hop::Plain },
    }];
    let facts = PlanInputs { generation: 1, max_groups: 1, ..PlanInputs::default() };
    let (contents, _) = Contents::desired(&snapshot, &facts);
    for (place, flow) in flows().filter(|(_, flow)| flow.destination == Addr::v4(ADDRESSES[3])) {
        let allowed = flow.protocol == 6 && flow.destination_port.get() != 15000;
        assert_eq!(passes(&contents, place, &flow), allowed, "{place:?} {flow:?}");
    }
}

/// Two exemptions change places: neither pod ever reaches what is the other's.
#[test]
fn exemptions_that_change_places_are_never_mixed_up() {
    let (first, second) = ("10.0.0.1/32", "192.0.2.0/24");
    let of = |exemptions: [&str; 2], policies: [PolicyId; 2]| {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.exemptions = exemptions.map(|net| exemption(&[net])).into();
        let workloads = [(1, policies[0]), (4, policies[1])].into();
        let facts = PlanInputs { generation: 1, max_groups: 1, workloads, ..PlanInputs::default() };
        Contents::desired(&snapshot, &facts).0
    };
    let (old, new) = (of([first, second], [1, 2]), of([second, first], [2, 1]));
    let reaches = |contents: &Contents, sender, destination: [u8; 4]| {
        let rules = treatment(contents, sender).unwrap();
        let flow = flows().find(|(place, flow)| {
            *place == Place::Wire
                && flow.destination == Addr::v4(destination)
                && (flow.protocol, flow.destination_port) == (17, PortBe::new(PORTS[0]))
        });
        let mut strict = contents.clone();
        strict.policies.insert(NOBODYS, Policy { mode: mode::ENFORCE, table: rules.table });
        decide(Place::Wire, &flow.unwrap().1, NOBODYS, &strict).action == Action::Allow
    };
    let (of_first, of_second) = (ADDRESSES[0], ADDRESSES[3]);
    let mut maps = old.clone();
    make(&diff(&old, &new), |op| {
        apply(&mut maps, op);
        assert!(!reaches(&maps, Sender::AtHooks(1), of_second), "after {op:?}");
        assert!(!reaches(&maps, Sender::AtHooks(4), of_first), "after {op:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(normal(maps.clone()), normal(new));
    assert!(reaches(&maps, Sender::AtHooks(1), of_first));
    assert!(reaches(&maps, Sender::AtHooks(4), of_second));
}
