//! Flows that began outside: whom a workload may answer.
//!
//! Everything here is pure: packets, entries and the time go in, entries come out. An entry is made
//! by a packet *seen inbound* and by nothing else, and its idle time is counted from the last such
//! packet. So whatever the inside sends makes no entry and prolongs none.
//!
//! The adversary is a workload with an external collaborator. What that begins, the workload may
//! answer: that is what an inbound connection is. The table has to keep the collaborator from
//! blessing flows that *the workload* began, and there are only two kinds of those:
//!
//! - **At the pod's interface, before any address translation.** Tuples are what the pod sent. The
//!   pod can't send a SYN, nor anything to a tuple that the outside didn't begin. What is left is to
//!   answer, which is allowed.
//! - **At the uplink, after address translation.** A packet that the pod sent to a Service inside
//!   may have become one to the collaborator (an endpoint outside, an external IP), with a tuple
//!   that the collaborator can bless. For UDP and ICMP, where nothing tells a question from an
//!   answer, the pod's own interface must have seen the remote, too: a translated flow shows the
//!   pod the Service's address instead. A Service that hides its client from the pod
//!   (`externalTrafficPolicy: Cluster`) has no such mark, so its answers by UDP are refused. TCP
//!   needs none: the inside must answer with SYN and ACK before anything else of its passes, and
//!   connection tracking takes a SYN and ACK for invalid, and doesn't translate it, unless it saw
//!   the SYN come in (its mid-stream pick-up, which `nf_conntrack_tcp_loose` allows, is for bare
//!   ACKs). The one exception is a simultaneous open (RFC 9293 §3.5), where a SYN went out before
//!   one comes in. So a forwarded SYN that was refused is remembered by its remote, for longer than
//!   connection tracking remembers it, and a SYN from there makes no entry. A reset that answers a
//!   SYN proves nothing and needs the pod's mark.
//!
//! An entry also mustn't outlive the translation that it was made under, or the collaborator could
//! have another flow translated onto its tuple. Hence the idle times: none is longer than
//! connection tracking's own for that state (its defaults, and those of kube-proxy), which is
//! counted from the last packet of either side and so never ends sooner.

mod begun;
mod phases;
mod share;
mod table;

use self::phases::lives;
pub use self::{
    begun::{continues_begun, note_begun},
    phases::{Observed, idle, observe, reply},
    table::FlowTable,
};
use crate::{
    abi::{FlowKey, FlowState, flow_kind, flow_phase},
    addr::{Addr, PortBe},
    decide::{PolicyView, needs_entry},
    packet::{Flow, Packet, Signal, protocol},
};

/// Entries of `REFUSED_SYNS`; a power of two.
pub const REFUSED_SYNS: u32 = 65_536;

/// Where flows are kept apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A pod's host-side interface.
    Pod(u32),
    /// The uplinks, together.
    Uplink,
    /// The cgroup of a workload; zero is none.
    Cgroup(u64),
}

/// The key of a packet's flow: `remote` is the outside's end.
#[inline(always)]
fn key(scope: Scope, packet: &Packet, remote: End, local: End) -> FlowKey {
    let (kind, scope) = match scope {
        Scope::Pod(ifindex) => (flow_kind::POD, ifindex.into()),
        Scope::Uplink => (flow_kind::UPLINK, 0),
        Scope::Cgroup(id) => (flow_kind::CGROUP, id),
    };
    let is_echo = matches!(packet.signal, Signal::EchoRequest | Signal::EchoReply);
    let (remote_port, local_port) =
        if is_echo { (PortBe([0; 2]), packet.echo) } else { (remote.port, local.port) };
    FlowKey {
        scope,
        remote: remote.addr,
        local: local.addr,
        remote_port,
        local_port,
        protocol: packet.flow.protocol,
        kind,
        reserved: [0; 2],
    }
}

/// One end of a flow.
#[derive(Clone, Copy)]
struct End {
    addr: Addr,
    port: PortBe,
}

impl End {
    #[inline(always)]
    const fn source(flow: &Flow) -> Self {
        Self { addr: flow.source, port: flow.source_port }
    }

    #[inline(always)]
    const fn destination(flow: &Flow) -> Self {
        Self { addr: flow.destination, port: flow.destination_port }
    }
}

/// That this end was seen from the inside at all.
#[inline(always)]
const fn remote_seen_key(kind: u8, scope: u64, remote: Addr, remote_port: PortBe) -> FlowKey {
    FlowKey {
        scope,
        remote,
        local: Addr::UNSPECIFIED,
        remote_port,
        local_port: PortBe([0; 2]),
        protocol: 0,
        kind,
        reserved: [0; 2],
    }
}

/// Takes note of a packet on its way in.
#[inline(always)]
pub fn track_inbound(scope: Scope, packet: &Packet, view: &(impl PolicyView + FlowTable)) {
    let signal = packet.signal;
    let begins = matches!(signal, Signal::Syn | Signal::Datagram | Signal::EchoRequest);
    if packet.flaw.is_some() || !(begins || signal.continues()) {
        return;
    }
    let (remote, local) = (End::source(&packet.flow), End::destination(&packet.flow));
    let now = view.now();
    if begins {
        // Of the rest of the inside nobody asks for a table.
        if !needs_entry(&remote.addr, view) {
            return;
        }
        match scope {
            Scope::Uplink if signal == Signal::Syn => {
                let refused = view.refused_syn(slot(&remote.addr, remote.port));
                if refused != 0 && now.saturating_sub(refused) < idle::REFUSED_SYN {
                    return;
                }
            }
            Scope::Pod(ifindex) => {
                let any = PortBe([0; 2]);
                let mark = remote_seen_key(flow_kind::POD_REMOTE, ifindex.into(), remote.addr, any);
                update(&mark, Signal::Datagram, now, view);
            }
            Scope::Cgroup(id) if signal == Signal::Datagram => {
                let mark = remote_seen_key(flow_kind::CGROUP_REMOTE, id, remote.addr, remote.port);
                update(&mark, Signal::Datagram, now, view);
            }
            Scope::Uplink | Scope::Cgroup(_) => {}
        }
    }
    let key = key(scope, packet, remote, local);
    // Linux before 6.12 shows the socket's hook no SYN and ACK of IPv6 (`sk == skb->sk`). The
    // outside's ACK stands for it: here nothing is translated, and what leaves is judged once more.
    let unseen = matches!(scope, Scope::Cgroup(_)) && signal == Signal::Ack;
    let asked = |state: FlowState| state.phase == flow_phase::ASKED && lives(&state, now);
    if unseen && let Some(before) = view.flow(&key).filter(|state| asked(*state)) {
        view.change_flow(&key, before, FlowState { phase: flow_phase::ANSWERED, ..before });
    }
    update(&key, signal, now, view);
}

#[inline(always)]
fn update(key: &FlowKey, signal: Signal, now: u64, view: &impl FlowTable) {
    let before = view.flow(key);
    match (observe(signal, before, now), before) {
        (Observed::Nothing, _) => {}
        (Observed::Entry(after), Some(before)) => view.change_flow(key, before, after),
        (Observed::Entry(after), None) => share::insert(key, after, now, view),
        (Observed::End, _) => view.end_flow(key),
    }
}

/// Who sends a packet that may be a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// Whoever the scope says.
    Itself,
    /// A pod behind this interface, whose packet may have been translated on the way.
    Pod(u32),
    /// Somebody unknown, whose packet may have been translated on the way.
    Unknown,
}

/// Whether a packet on its way out may answer a flow at all. Fragments never do: the verdict refuses them
/// before.
#[inline(always)]
#[must_use]
pub const fn may_answer(packet: &Packet) -> bool {
    packet.flaw.is_none() && !packet.flow.fragment && packet.signal.answers()
}

/// Whether a packet on its way out answers a flow of this scope.
#[inline(always)]
pub fn answers(scope: Scope, sender: Sender, packet: &Packet, view: &impl FlowTable) -> bool {
    if !may_answer(packet) {
        return false;
    }
    let signal = packet.signal;
    let (remote, local) = (End::destination(&packet.flow), End::source(&packet.flow));
    let key = key(scope, packet, remote, local);
    let Some(before) = view.flow(&key) else { return false };
    let now = view.now();
    let known = match sender {
        Sender::Itself => true,
        // Asked for only where it counts.
        Sender::Pod(ifindex)
            if matches!(signal, Signal::Datagram | Signal::EchoReply | Signal::RstAck) =>
        {
            let any = PortBe([0; 2]);
            let mark = remote_seen_key(flow_kind::POD_REMOTE, ifindex.into(), remote.addr, any);
            view.flow(&mark).is_some_and(|state| lives(&state, now))
        }
        Sender::Pod(_) | Sender::Unknown => false,
    };
    let Some(after) = reply(signal, before, now, known) else { return false };
    if after != before {
        view.change_flow(&key, before, after);
    }
    true
}

/// Whether sockets of a cgroup were sent datagrams by this remote: then a system call may send one
/// there, and the packet that comes of it is judged by its whole tuple.
#[inline(always)]
pub fn may_send(cgroup: u64, flow: &Flow, view: &impl FlowTable) -> bool {
    if flow.protocol != protocol::UDP {
        return false;
    }
    let key =
        remote_seen_key(flow_kind::CGROUP_REMOTE, cgroup, flow.destination, flow.destination_port);
    view.flow(&key).is_some_and(|state| lives(&state, view.now()))
}

/// Remembers a forwarded packet that was refused, if it would have opened a connection.
#[inline(always)]
pub fn note_refused(packet: &Packet, view: &impl FlowTable) {
    if packet.signal == Signal::Syn {
        let remote = End::destination(&packet.flow);
        view.refuse_syn(slot(&remote.addr, remote.port), view.now());
    }
}

/// Where refused SYNs towards a remote are remembered. Two remotes may share a slot: then one may
/// suffer for the other, and nothing is allowed that wasn't. So an entry never has to make way.
#[inline(always)]
#[must_use]
pub const fn slot(remote: &Addr, port: PortBe) -> u32 {
    // FNV-1a (RFC draft-eastlake-fnv) by words; it only has to spread.
    const PRIME: u32 = 0x0100_0193;
    let [a, b, c, d] = remote.words();
    let hash = (0x811c_9dc5 ^ a).wrapping_mul(PRIME);
    let hash = (hash ^ b).wrapping_mul(PRIME);
    let hash = (hash ^ c).wrapping_mul(PRIME);
    let hash = (hash ^ d).wrapping_mul(PRIME);
    let hash = (hash ^ port.get() as u32).wrapping_mul(PRIME);
    (hash ^ hash >> 16) % REFUSED_SYNS
}

#[cfg(test)]
mod tests;
