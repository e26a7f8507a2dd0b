//! The maps. Their layouts are [`egress_ebpf::abi`]'s; the names are the pins' names.
//!
//! Sized for 100,000 routes and 10,000 workloads. Hashes don't allocate before they are filled
//! (`BPF_F_NO_PREALLOC`); LPM tries never do. Policy is never kept in an LRU map: a full one must
//! refuse the newcomer, not forget a rule.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SockMap},
};
use egress_ebpf::{
    abi::{
        COUNTERS_ENTRIES, CachedVerdict, FlowKey, FlowPlace, FlowState, GatewayKey, Globals, Group,
        OriginalDst, PodAddress, Policy, PolicyId, Route, RouteKey, Share, ShareKey, Slot, Tunnel,
        Tunneled, TunneledKey, TunneledPlace, capacity, capture_socket, lost,
    },
    addr::{Addr, PortBe},
    inbound::REFUSED_SYNS as REFUSED_SYNS_ENTRIES,
};

/// Index 0: settings of the node.
#[map]
pub(crate) static GLOBALS: Array<Globals> = Array::with_max_entries(1, 0);

/// Index 0: which state of the policy maps this is: see [`cache`](egress_ebpf::cache).
#[map]
pub(crate) static EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// Verdicts that were found in that state, by [`Key::place`](egress_ebpf::cache::Key::place). Never pinned:
/// each load of the programs begins with none.
#[map]
pub(crate) static VERDICTS: PerCpuArray<CachedVerdict> =
    PerCpuArray::with_max_entries(capacity::VERDICTS, 0);

/// By [`PolicyId`].
#[map]
pub(crate) static POLICIES: Array<Policy> = Array::with_max_entries(capacity::POLICIES, 0);

/// The longest prefix of (table, protocol, port, address) wins.
#[map]
pub(crate) static ROUTES: LpmTrie<RouteKey, Route> =
    LpmTrie::with_max_entries(capacity::ROUTES, BPF_F_NO_PREALLOC);

/// By group.
#[map]
pub(crate) static GROUPS: Array<Group> = Array::with_max_entries(capacity::GROUPS, 0);

/// What is at a gateway's address. The value is not used.
#[map]
pub(crate) static GATEWAYS: HashMap<GatewayKey, u32> =
    HashMap::with_max_entries(capacity::GATEWAYS, BPF_F_NO_PREALLOC);

/// Prefixes in the cluster. The value is not used.
#[map]
pub(crate) static INTERNAL: LpmTrie<Addr, u32> =
    LpmTrie::with_max_entries(capacity::PREFIXES, BPF_F_NO_PREALLOC);

/// Prefixes denied whatever else allows them. The value is not used.
#[map]
pub(crate) static DENIED: LpmTrie<Addr, u32> =
    LpmTrie::with_max_entries(capacity::PREFIXES, BPF_F_NO_PREALLOC);

/// Which source addresses a pod's interface may send, beyond those in its slot; and those that a workload's socket
/// may have. The value is not used.
#[map]
pub(crate) static POD_ADDRESSES: HashMap<PodAddress, u32> =
    HashMap::with_max_entries(capacity::POD_ADDRESSES, BPF_F_NO_PREALLOC);

/// The pods behind host-side interfaces, by the slots that the agent gave to these: see [`Slot`].
#[map]
pub(crate) static SLOTS: Array<Slot> = Array::with_max_entries(capacity::SLOTS, 0);

/// The slot of an interface that could not have that of its home, by its index.
#[map]
pub(crate) static MOVED_SLOTS: HashMap<u32, u32> =
    HashMap::with_max_entries(capacity::SLOTS, BPF_F_NO_PREALLOC);

/// The policy of a workload, by cgroup id. A cgroup without an entry has its nearest ancestor's.
#[map]
pub(crate) static WORKLOADS: HashMap<u64, PolicyId> =
    HashMap::with_max_entries(capacity::WORKLOADS, BPF_F_NO_PREALLOC);

/// What a redirected socket asked for, by socket cookie.
#[map]
pub(crate) static ORIGINAL_DST: LruHashMap<u64, OriginalDst> =
    LruHashMap::with_max_entries(capacity::ORIGINAL_DST, 0);

/// Index 0: where the node's tunnel listener is.
#[map]
pub(crate) static TUNNEL: Array<Tunnel> = Array::with_max_entries(1, 0);

/// What connections to the tunnel listener were meant for, by the workload's end. LRU is right here,
/// too: a connection without an entry is reset.
#[map]
pub(crate) static TUNNELED: LruHashMap<TunneledKey, Tunneled> =
    LruHashMap::with_max_entries(capacity::TUNNELED, 0);

/// The records of `TUNNELED` by workload, in the order in which they were made.
#[map]
pub(crate) static TUNNELED_PLACES: LruHashMap<FlowPlace, TunneledPlace> =
    LruHashMap::with_max_entries(capacity::TUNNELED_PLACES, 0);

/// Flows that began outside. LRU is right here, though it never is for policy: an entry only lets
/// pass what answers it, so a forgotten one denies. Entries that are in use are spared as long as
/// there are others, so a flood of SYNs forgets its own.
#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, FlowState> =
    LruHashMap::with_max_entries(capacity::FLOWS, 0);

/// The entries of `FLOWS` by scope, in the order in which they were made.
#[map]
pub(crate) static FLOW_PLACES: LruHashMap<FlowPlace, FlowKey> =
    LruHashMap::with_max_entries(capacity::FLOW_PLACES, 0);

/// How many places of a scope were taken, from its first on.
#[map]
pub(crate) static FLOW_TURNS: LruHashMap<FlowPlace, u64> =
    LruHashMap::with_max_entries(capacity::FLOW_TURNS, 0);

/// When a SYN that was forwarded to the uplink was last refused, by
/// [`slot`](egress_ebpf::inbound::slot) of its remote.
#[map]
pub(crate) static REFUSED_SYNS: Array<u64> = Array::with_max_entries(REFUSED_SYNS_ENTRIES, 0);

/// [`FlowEvent`](egress_ebpf::abi::FlowEvent)s. Minimum kernel version: 5.8.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(capacity::EVENTS_BYTES, 0);

/// Who has caused how many of the `EVENTS`. LRU is right here, too: who is forgotten begins anew.
#[map]
pub(crate) static EVENT_SHARES: LruHashMap<ShareKey, Share> =
    LruHashMap::with_max_entries(capacity::EVENT_SHARES, 0);

/// Verdicts, by [`counter_index`](egress_ebpf::abi::counter_index).
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS_ENTRIES, 0);

/// Events that were not emitted, by [`lost`].
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(lost::COUNT, 0);

/// The gateway's capture listeners, by [`capture_socket`].
#[map]
pub(crate) static CAPTURE_SOCKETS: SockMap = SockMap::with_max_entries(capture_socket::COUNT, 0);

/// The local addresses whose ports are captured. The value is not used.
#[map]
pub(crate) static CAPTURE_ADDRESSES: HashMap<Addr, u32> =
    HashMap::with_max_entries(capacity::CAPTURE_ADDRESSES, BPF_F_NO_PREALLOC);

/// Local ports that are left to their own listeners. The value is not used.
#[map]
pub(crate) static CAPTURE_EXCLUDED: HashMap<PortBe, u32> =
    HashMap::with_max_entries(capacity::CAPTURE_EXCLUDED, BPF_F_NO_PREALLOC);
