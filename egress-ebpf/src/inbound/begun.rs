//! Connections that processes of the node begin at an uplink.
//!
//! When such a connection is over, or its process is gone, the node's kernel still has to say so (a
//! reset, the last ACK), without a socket that would tell whose it was. So the node's SYN is noted in
//! the table of flows, in a phase that makes nothing an answer. Only sockets of the node's own
//! processes make such entries: a workload's SYN never comes here.

use super::{End, FlowTable, Scope, idle, key, lives};
use crate::{
    abi::{FlowState, flow_phase},
    packet::{Packet, Signal},
};

/// An entry that was made less than this ago isn't made again for a SYN that is sent again.
const AGAIN: u64 = idle::RESET;

/// Takes note of a SYN of one of the node's own processes.
#[inline(always)]
pub fn note_begun(packet: &Packet, view: &impl FlowTable) {
    if packet.signal != Signal::Syn || packet.flaw.is_some() {
        return;
    }
    let key = key(Scope::Uplink, packet, End::destination(&packet.flow), End::source(&packet.flow));
    let now = view.now();
    let is_known = view.flow(&key).is_some_and(|state| {
        let fresh = now.saturating_sub(state.last_inbound) < AGAIN;
        lives(&state, now) && (state.phase != flow_phase::BEGUN || fresh)
    });
    if !is_known {
        let phase = flow_phase::BEGUN;
        view.insert_flow(&key, FlowState { last_inbound: now, phase, reserved: 0 });
    }
}

/// Whether a packet of the node's kernel belongs to a connection that a process of the node began.
#[inline(always)]
pub fn continues_begun(packet: &Packet, view: &impl FlowTable) -> bool {
    if packet.flaw.is_some() || packet.flow.fragment || !packet.signal.continues() {
        return false;
    }
    let key = key(Scope::Uplink, packet, End::destination(&packet.flow), End::source(&packet.flow));
    view.flow(&key)
        .is_some_and(|state| state.phase == flow_phase::BEGUN && lives(&state, view.now()))
}
