//! Verdicts in functions that the verifier checks by themselves, once for whatever they are called with.
//!
//! It follows a program on every path, so a verdict that is part of one is followed once for each way that
//! leads there, and what follows it once for each way out. Linux 6.1 does so for much more of them than
//! newer kernels: it forgets what it could leave out wherever a function is called that it does not check
//! by itself. Such functions take and give back numbers alone, which every kernel from 5.8 on knows.

use core::mem;

use aya_ebpf::maps::lpm_trie::Key;
use egress_ebpf::{
    abi::{GatewayKey, Globals, PodAddress, PodPort, Policy, PolicyId, Route, RouteKey},
    addr::{Addr, PortBe},
    cache::{Key as CacheKey, look_up},
    decide::{Place, PolicyRules, PolicyView, by_table, decide},
    hooks::{self, View},
    inbound::{self, Scope, Sender},
    packet::{Flow, Packet},
    reason::Reason,
    verdict::{Judgement, Mode, Number, Verdict},
};

use super::{
    cache::Verdicts,
    context::zero,
    maps::{DENIED, GATEWAYS, GLOBALS, INTERNAL, POLICIES, ROUTES},
    read::Words,
    slots,
    view::Maps,
};

impl PolicyView for Maps {
    #[inline(always)]
    fn globals(&self) -> Globals {
        match GLOBALS.get(0) {
            Some(globals) => *globals,
            None => Globals::NONE,
        }
    }

    #[inline(always)]
    fn policy(&self, policy: PolicyId) -> PolicyRules {
        POLICIES.get(policy).copied().unwrap_or(Policy { mode: 0, table: 0 }).into()
    }

    #[inline(always)]
    fn is_denied(&self, addr: &Addr) -> bool {
        DENIED.get(Key::new(128, *addr)).is_some()
    }

    #[inline(always)]
    fn is_internal(&self, addr: &Addr) -> bool {
        INTERNAL.get(Key::new(128, *addr)).is_some()
    }

    #[inline(always)]
    fn is_gateway(&self, key: &GatewayKey) -> bool {
        GATEWAYS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn route(&self, key: &RouteKey) -> Option<Route> {
        ROUTES.get(Key::new(RouteKey::BITS, *key)).copied()
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<PodPort> {
        slots::port(ifindex)
    }

    #[inline(always)]
    fn is_pod_address(&self, key: &PodAddress) -> bool {
        let [first, last] = Destination::address(&key.addr);
        slots::owns_address(first, last, key.ifindex) != 0
    }

    #[inline(always)]
    fn verdict(&self, place: Place, flow: &Flow, policy: PolicyId) -> Verdict {
        match place {
            // Part of a function of its own already.
            Place::Socket => decide(place, flow, policy, self),
            Place::Skb | Place::Wire => packet(place, flow, policy),
        }
    }
}

impl View for Maps {
    #[inline(always)]
    fn answers(&self, scope: Scope, sender: Sender, packet: &Packet) -> bool {
        let (scope, id) = match scope {
            Scope::Uplink => (UPLINK, 0),
            Scope::Pod(ifindex) => (INTERFACE, ifindex.into()),
            Scope::Cgroup(id) => (CGROUP, id),
        };
        let (kind, ifindex) = match sender {
            Sender::Itself => (ITSELF, 0),
            Sender::Pod(ifindex) => (POD, ifindex),
            Sender::Unknown => (UNKNOWN, 0),
        };
        let who = scope | kind << 8 | u64::from(ifindex) << 32;
        judge_answer(Words::of(packet), id, who) != 0
    }

    #[inline(always)]
    fn note_begun(&self, packet: &Packet) {
        let _always_noted = note_begun(Words::of(packet));
    }

    #[inline(always)]
    fn continues_begun(&self, packet: &Packet) -> bool {
        judge_begun(Words::of(packet)) != 0
    }

    #[inline(always)]
    fn is_forwarder(&self, ifindex: u32) -> bool {
        slots::is_forwarder(ifindex)
    }

    #[inline(always)]
    fn forwarded_policy(&self, came_in_on: u32, by_unknown_port: bool) -> PolicyId {
        judge_forwarder(came_in_on, by_unknown_port.into())
    }

    #[inline(always)]
    fn may_ask(&self, source: &Addr) -> bool {
        let [first, last] = Destination::address(source);
        judge_source(first, last) != 0
    }
}

// Who sends an answer, and which flows it may answer, as numbers.
const UNKNOWN: u64 = 0;
const ITSELF: u64 = 1;
const POD: u64 = 2;

const UPLINK: u64 = 0;
const INTERFACE: u64 = 1;
const CGROUP: u64 = 2;

#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the bits that were put there")]
extern "C" fn judge_answer(room: *const Words, id: u64, who: u64) -> u64 {
    let Some(packet) = Words::packet(room) else { return 0 };
    let scope = match who & 0xff {
        CGROUP => Scope::Cgroup(id),
        INTERFACE => Scope::Pod(id as u32),
        _ => Scope::Uplink,
    };
    let sender = match who >> 8 & 0xff {
        ITSELF => Sender::Itself,
        POD => Sender::Pod((who >> 32) as u32),
        _ => Sender::Unknown,
    };
    inbound::answers(scope, sender, packet, &Maps).into()
}

/// Functions that the verifier checks by themselves give back a number: this one always the same.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_begun(room: *const Words) -> u64 {
    if let Some(packet) = Words::packet(room) {
        inbound::note_begun(packet, &Maps);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_begun(room: *const Words) -> u64 {
    Words::packet(room).is_some_and(|packet| inbound::continues_begun(packet, &Maps)).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_source(first: u64, last: u64) -> u64 {
    let source = Destination { addr: [first, last], what: 0 }.flow().destination;
    hooks::may_ask(&source, &Maps).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_forwarder(came_in_on: u32, by_unknown_port: u32) -> u32 {
    hooks::forwarded_policy(came_in_on, by_unknown_port != 0, &Maps)
}

/// A destination as numbers.
#[derive(Clone, Copy)]
struct Destination {
    addr: [u64; 2],
    /// From the lowest bit on: the port (16 bits), the protocol (8), and a flag (8).
    what: u64,
}

impl Destination {
    #[inline(always)]
    fn new(flow: &Flow, flag: u8) -> Self {
        let port = u64::from(u16::from_ne_bytes(flow.destination_port.0));
        let what = port | u64::from(flow.protocol) << 16 | u64::from(flag) << 24;
        Self { addr: Self::address(&flow.destination), what }
    }

    #[inline(always)]
    fn address(addr: &Addr) -> [u64; 2] {
        let [a, b, c, d] = addr.words().map(u64::from);
        [a | b << 32, c | d << 32]
    }

    /// A flow that has nothing else.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits that were put there")]
    fn flow(self) -> Flow {
        let [first, last] = self.addr;
        let words = [first as u32, (first >> 32) as u32, last as u32, (last >> 32) as u32];
        Flow {
            destination: Addr::from_words(words),
            destination_port: PortBe((self.what as u16).to_ne_bytes()),
            protocol: (self.what >> 16) as u8,
            ..Flow::UNKNOWN
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits that were put there")]
    const fn flag(&self) -> u8 {
        (self.what >> 24) as u8
    }
}

/// Bits of a packet's flag.
const FRAGMENT: u8 = 1;
const WIRE: u8 = 2;

/// The verdict on a packet's destination, whose flag says which kind of packet.
#[inline(always)]
fn kept(place: Place, destination: Destination, policy: PolicyId) -> Number {
    // The policy is asked each time: it takes no time to speak of.
    let PolicyRules { mode, table } = Maps.policy(policy);
    if mode == Mode::Exempt {
        return Number::new(Verdict::allow(Reason::Exempt), Mode::Enforce);
    }
    let flow = Flow { fragment: destination.flag() & FRAGMENT != 0, ..destination.flow() };
    match look_up(CacheKey::new(place, &flow, table), &Verdicts) {
        Ok(number) => number,
        Err(missing) => {
            let verdict = by_table(place, &flow, table, &Maps);
            missing.keep(Number::new(verdict, Mode::Enforce))
        }
    }
}

/// The verdict on a packet by its destination.
#[inline(always)]
pub(crate) fn packet(place: Place, flow: &Flow, policy: PolicyId) -> Verdict {
    let fragment = if flow.fragment { FRAGMENT } else { 0 };
    let wire = if place == Place::Wire { WIRE } else { 0 };
    let Destination { addr: [first, last], what } = Destination::new(flow, fragment | wire);
    let number = Number(judge_packet(first, last, what, policy.into()));
    number.verdict(reason(number))
}

#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the policy's number")]
extern "C" fn judge_packet(first: u64, last: u64, what: u64, policy: u64) -> u64 {
    let destination = Destination { addr: [first, last], what };
    let place = if destination.flag() & WIRE != 0 { Place::Wire } else { Place::Skb };
    kept(place, destination, policy as PolicyId).0
}

/// What `connect` and `sendmsg` are to do with a system call: [`hooks::socket`].
#[inline(always)]
pub(crate) fn socket(flow: Flow, judges: bool, policy: PolicyId, cgroup: u64) -> Judgement {
    let Destination { addr: [first, last], what } = Destination::new(&flow, judges.into());
    let number = Number(judge_socket(first, last, what, policy.into(), cgroup));
    number.judgement(reason(number), policy, flow, 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the policy's number")]
extern "C" fn judge_socket(first: u64, last: u64, what: u64, policy: u64, cgroup: u64) -> u64 {
    let destination = Destination { addr: [first, last], what };
    let judges = destination.flag() != 0;
    hooks::socket(destination.flow(), judges, policy as PolicyId, cgroup, &Maps).number().0
}

/// The same judgement, of which the verifier knows nothing any more: what is done about it is done once,
/// and not once for each way that led to it.
#[inline(always)]
pub(crate) fn forget(judgement: &Judgement) -> Judgement {
    let any = judgement.flow().destination.words()[3];
    let number = Number(judgement.number().0 ^ u64::from(zero(any)));
    let ether_type = judgement.ether_type();
    number.judgement(reason(number), judgement.policy(), *judgement.flow(), ether_type)
}

/// The reason in a number that was made of a verdict.
#[inline(always)]
fn reason(number: Number) -> Reason {
    // SAFETY: a `Reason` is one byte, and `Number::new` has put that of one there.
    unsafe { mem::transmute::<u8, Reason>(number.reason()) }
}
