//! The loaded object and its maps, filled through the ABI's own bytes.

use std::net::IpAddr;

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, HashMap, MapData, PerCpuArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{CgroupSkb, SchedClassifier, TestRun, TestRunOptions},
};
use egress_agent::bpf::{object::PROGRAMS, tell_maker, tell_offload};
use egress_ebpf::{
    abi::{
        self, FlowEvent, FlowKey, FlowState, GatewayKey, Globals, Group, Policy, PolicyId, Route,
        RouteKey, Share, ShareKey, Slot, TableId, Tunnel, UNKNOWN_POLICY, UNKNOWN_TABLE,
        counter_index, pod_hardware, route_action, share_kind,
    },
    addr::{Addr, PortBe},
    reason::Reason,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) const TCP: u8 = 6;
/// The policy of what no workload is known for, and of what is forwarded.
pub(crate) const DEFAULT_POLICY: PolicyId = 3;
pub(crate) const AUDITED: PolicyId = 5;
pub(crate) const EXEMPT: PolicyId = 6;
pub(crate) const AUDITED_REDIRECT: PolicyId = 7;
/// The routes of all policies.
const TABLE: TableId = 13;
/// The pod's hardware address.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
/// Loopback's index, which `BPF_PROG_TEST_RUN` takes where it is told no other.
pub(crate) const IFINDEX: u32 = 1;

pub(crate) fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) struct Kernel {
    pub(crate) ebpf: Ebpf,
}

impl Kernel {
    pub(crate) fn load(set_retval: u8) -> Self {
        Self::load_with(set_retval, |_loader| {})
    }

    /// The same, where the programs know something else of the kernel than they would.
    pub(crate) fn load_with<'a>(set_retval: u8, know: impl FnOnce(&mut EbpfLoader<'a>)) -> Self {
        let mut loader = EbpfLoader::new();
        let set_retval: &'static u8 = if set_retval == 0 { &0 } else { &1 };
        loader.override_global("SET_RETVAL", set_retval, true);
        tell_maker(&mut loader).expect("the kernel describes its types");
        tell_offload(&mut loader).expect("the kernel describes its types");
        know(&mut loader);
        let ebpf = loader.load(PROGRAMS).expect("the object must load; this test needs root");
        Self { ebpf }
    }

    /// Loaded, and as an agent leaves it: a snapshot is there, a cluster, a gateway for 443.
    pub(crate) fn usual() -> Self {
        Self::load(1).filled()
    }

    /// As an agent leaves it.
    pub(crate) fn filled(mut self) -> Self {
        let kernel = &mut self;
        kernel.policy(AUDITED, abi::mode::AUDIT);
        kernel.policy(EXEMPT, abi::mode::EXEMPT);
        kernel.policy(AUDITED_REDIRECT, abi::mode::AUDIT_REDIRECT);
        kernel.prefix("INTERNAL", "10.0.0.0", 96 + 8);
        kernel.prefix("INTERNAL", "fd00::", 8);
        kernel.prefix("INTERNAL", "169.254.0.0", 96 + 16);
        kernel.prefix("DENIED", "169.254.169.254", 128);
        kernel.gateway("10.9.0.10", 443);
        kernel.put("GATEWAYS", GatewayKey::encapsulation(PortBe::new(6635)), 1_u32);
        kernel.policy(DEFAULT_POLICY, abi::mode::ENFORCE);
        kernel.route(443, None, route_action::REDIRECT, 0);
        kernel.route(9000, Some("203.0.113.80"), route_action::DIRECT, 0);
        kernel.pod_interface(IFINDEX, DEFAULT_POLICY);
        kernel.globals(1, 1_000_000);
        self
    }

    pub(crate) fn globals(&mut self, generation: u64, events_per_second: u32) {
        let globals = Globals {
            generation,
            events_per_second,
            default_policy: DEFAULT_POLICY,
            uplink_policy: DEFAULT_POLICY,
            ..Globals::NONE
        };
        self.set("GLOBALS", 0, globals);
    }

    pub(crate) fn policy(&mut self, policy: PolicyId, mode: u32) {
        self.set("POLICIES", policy, Policy { mode, table: TABLE });
    }

    /// How workloads are treated that are not known.
    pub(crate) fn unknown(&mut self, mode: u32) {
        self.set("POLICIES", UNKNOWN_POLICY, Policy { mode, table: UNKNOWN_TABLE });
    }

    pub(crate) fn group(&mut self, endpoints: &[&str]) {
        let endpoints: Vec<_> = endpoints.iter().map(|text| addr(text)).collect();
        self.set("GROUPS", 0, Group::new(&endpoints));
    }

    /// Where the tunnel listens.
    pub(crate) fn tunnel(&mut self, tunnel: Tunnel) {
        self.set("TUNNEL", 0, tunnel);
    }

    pub(crate) fn gateway(&mut self, at: &str, port: u16) {
        let any = GatewayKey { addr: addr(at), port: PortBe::new(0), protocol: 0, reserved: 0 };
        self.put("GATEWAYS", any, 1_u32);
        let port = GatewayKey { port: PortBe::new(port), protocol: TCP, ..any };
        self.put("GATEWAYS", port, 1_u32);
    }

    pub(crate) fn route(&mut self, port: u16, to: Option<&str>, action: u8, gateway_port: u16) {
        let key = route_key(port, to);
        let bits = if to.is_some() { RouteKey::BITS } else { RouteKey::FIXED_BITS };
        let value = Route { action, reserved: 0, port: PortBe::new(gateway_port), group: 0 };
        self.trie::<RouteKey, Route, { size_of::<RouteKey>() }, { size_of::<Route>() }>(
            "ROUTES", bits, key, value,
        );
    }

    /// Removes a route to one address.
    pub(crate) fn no_route(&mut self, port: u16, to: &str) {
        let key = route_key(port, Some(to));
        let key: [u8; size_of::<RouteKey>()] = key.as_bytes().try_into().unwrap();
        let mut trie: LpmTrie<_, [u8; size_of::<RouteKey>()], [u8; size_of::<Route>()]> =
            self.ebpf.map_mut("ROUTES").unwrap().try_into().unwrap();
        trie.remove(&Key::new(RouteKey::BITS, key)).unwrap();
    }

    /// Which epoch of the policy maps it is; zero at first, with which no verdict is kept.
    pub(crate) fn epoch(&mut self, epoch: u64) {
        self.set("EPOCH", 0, epoch);
    }

    pub(crate) fn prefix(&mut self, map: &str, net: &str, bits: u32) {
        self.trie::<Addr, u32, 16, 4>(map, bits, addr(net), 1);
    }

    /// Puts the pod behind an interface under a policy.
    pub(crate) fn pod_interface(&mut self, ifindex: u32, policy: PolicyId) {
        let slot = Slot {
            ifindex,
            policy,
            hardware: MAC,
            check: pod_hardware::KNOWN,
            v4: [10, 0, 0, 5],
            v6: addr("fd00::5"),
            ..Slot::FREE
        };
        self.set("SLOTS", Slot::home(ifindex), slot);
    }

    /// Puts a process's cgroup under a policy.
    pub(crate) fn workload(&mut self, cgroup: u64, policy: PolicyId) {
        self.put::<u64, u32>("WORKLOADS", cgroup, policy);
    }

    fn set<T: IntoBytes + Immutable>(&mut self, map: &str, index: u32, value: T) {
        // aya checks the size against the map's, so every size has its own type.
        let map = self.ebpf.map_mut(map).unwrap();
        let bytes = value.as_bytes();
        match bytes.len() {
            8 => set_bytes::<8>(map, index, bytes),
            24 => set_bytes::<24>(map, index, bytes),
            36 => set_bytes::<36>(map, index, bytes),
            48 => set_bytes::<48>(map, index, bytes),
            520 => set_bytes::<520>(map, index, bytes),
            other => panic!("no array has values of {other} bytes"),
        }
    }

    fn put<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
        &mut self,
        map: &str,
        key: K,
        value: V,
    ) {
        let map = self.ebpf.map_mut(map).unwrap();
        let value: [u8; 4] = value.as_bytes().try_into().unwrap();
        let key = key.as_bytes();
        match key.len() {
            4 => put_bytes::<4>(map, key, value),
            8 => put_bytes::<8>(map, key, value),
            20 => put_bytes::<20>(map, key, value),
            other => panic!("no hash has keys of {other} bytes"),
        }
    }

    fn trie<K, V, const KEY: usize, const VALUE: usize>(
        &mut self,
        map: &str,
        bits: u32,
        key: K,
        value: V,
    ) where
        K: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        let key: [u8; KEY] = key.as_bytes().try_into().unwrap();
        let value: [u8; VALUE] = value.as_bytes().try_into().unwrap();
        let mut trie: LpmTrie<_, [u8; KEY], [u8; VALUE]> =
            self.ebpf.map_mut(map).unwrap().try_into().unwrap();
        trie.insert(&Key::new(bits, key), value, 0).unwrap();
    }

    /// Runs a frame through a tc program; `came_in_on` is the interface that it was forwarded from.
    pub(crate) fn classify(&mut self, program: &str, frame: &[u8], came_in_on: u32) -> i32 {
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(program).unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap();
        }
        run(program, frame, came_in_on)
    }

    /// Runs a frame's packet through `cgroup_egress`, as sent by this process.
    pub(crate) fn cgroup_egress(&mut self, frame: &[u8]) -> i32 {
        self.cgroup_skb("cgroup_egress", frame)
    }

    /// Runs a frame's packet through a program of the cgroup, with a socket of this process that is
    /// neither TCP's nor UDP's.
    pub(crate) fn cgroup_skb(&mut self, program: &str, frame: &[u8]) -> i32 {
        let program: &mut CgroupSkb = self.ebpf.program_mut(program).unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap();
        }
        run(program, frame, 0)
    }

    /// How many inbound flows are known.
    pub(crate) fn flows(&self) -> usize {
        let flows: HashMap<&MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<FlowState>()]> =
            self.ebpf.map("FLOWS").unwrap().try_into().unwrap();
        flows.keys().map(Result::unwrap).count()
    }

    /// How often a verdict was given, over all CPUs.
    pub(crate) fn count(&self, hook: u8, action: u8, reason: Reason, audit: bool) -> u64 {
        let index = counter_index(hook, action, reason as u8, audit).unwrap();
        self.per_cpu_sum("COUNTERS", index)
    }

    pub(crate) fn lost(&self, index: u32) -> u64 {
        self.per_cpu_sum("LOST", index)
    }

    /// How many events of a cgroup were lost; `None` where it has caused none.
    pub(crate) fn lost_of(&self, cgroup: u64) -> Option<u64> {
        let shares: HashMap<&MapData, [u8; size_of::<ShareKey>()], [u8; size_of::<Share>()]> =
            self.ebpf.map("EVENT_SHARES").unwrap().try_into().unwrap();
        let key = ShareKey { id: cgroup, kind: share_kind::CGROUP, reserved: 0 };
        let share = shares.get(&key.as_bytes().try_into().unwrap(), 0).ok()?;
        Some(Share::read_from_bytes(&share).unwrap().lost.iter().sum())
    }

    fn per_cpu_sum(&self, map: &str, index: u32) -> u64 {
        let counters: PerCpuArray<&MapData, u64> = self.ebpf.map(map).unwrap().try_into().unwrap();
        counters.get(&index, 0).unwrap().iter().sum()
    }

    /// The events since the last call.
    pub(crate) fn events(&mut self) -> Vec<FlowEvent> {
        let mut ring = RingBuf::try_from(self.ebpf.map_mut("EVENTS").unwrap()).unwrap();
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(FlowEvent::read_from_bytes(&item).unwrap());
        }
        events
    }
}

fn route_key(port: u16, to: Option<&str>) -> RouteKey {
    RouteKey {
        table: TABLE,
        protocol: TCP,
        reserved: 0,
        port: PortBe::new(port),
        addr: to.map_or(Addr::UNSPECIFIED, addr),
    }
}

fn set_bytes<const N: usize>(map: &mut aya::maps::Map, index: u32, value: &[u8]) {
    let value: [u8; N] = value.try_into().unwrap();
    Array::<_, [u8; N]>::try_from(map).unwrap().set(index, value, 0).unwrap();
}

fn put_bytes<const N: usize>(map: &mut aya::maps::Map, key: &[u8], value: [u8; 4]) {
    let key: [u8; N] = key.try_into().unwrap();
    HashMap::<_, [u8; N], [u8; 4]>::try_from(map).unwrap().insert(key, value, 0).unwrap();
}

fn run<P>(program: &P, frame: &[u8], came_in_on: u32) -> i32
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::TestRunResult>,
{
    // `struct __sk_buff`: its tenth word is `ingress_ifindex`; what isn't given must be zero.
    let mut context = [0; 192];
    context[36..40].copy_from_slice(&came_in_on.to_ne_bytes());
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    program.test_run(options).unwrap().return_value.cast_signed()
}
