//! The phases of a flow: what moves an entry from one to the next, and how long it may idle in each.

pub(super) use self::idle::SECOND;
use crate::{
    abi::{FlowState, flow_phase},
    packet::Signal,
};

/// After this long without an inbound packet an entry counts no more, in nanoseconds.
pub mod idle {
    pub(in crate::inbound) const SECOND: u64 = 1_000_000_000;

    /// A connection that isn't established (`nf_conntrack_tcp_timeout_syn_recv`).
    pub const HALF_OPEN: u64 = 60 * SECOND;
    /// An established connection.
    pub const ESTABLISHED: u64 = 24 * 60 * 60 * SECOND;
    /// After the outside's FIN (`nf_conntrack_tcp_timeout_close_wait`).
    pub const CLOSING: u64 = 60 * SECOND;
    /// After both sides' FINs (`nf_conntrack_tcp_timeout_last_ack`).
    pub const CLOSED: u64 = 30 * SECOND;
    /// After the inside's RST (`nf_conntrack_tcp_timeout_close`).
    pub const RESET: u64 = 10 * SECOND;
    /// UDP, and that a remote was seen.
    pub const DATAGRAM: u64 = 180 * SECOND;
    /// ICMP echo (`nf_conntrack_icmp_timeout`).
    pub const ECHO: u64 = 30 * SECOND;
    /// How long a refused SYN is remembered (`nf_conntrack_tcp_timeout_syn_sent` is 120 s).
    pub const REFUSED_SYN: u64 = 180 * SECOND;
}

/// An entry that was refreshed less than this ago isn't written again.
const REFRESH: u64 = SECOND;

/// What an inbound packet makes of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observed {
    /// It stays as it is.
    Nothing,
    /// It is this from now on.
    Entry(FlowState),
    /// It is removed.
    End,
}

/// How long an entry lives without an inbound packet; an unknown phase doesn't.
#[inline(always)]
pub(super) const fn lifetime(phase: u32) -> u64 {
    match phase {
        flow_phase::SEEN => idle::DATAGRAM,
        flow_phase::ECHOED => idle::ECHO,
        flow_phase::ASKED | flow_phase::ANSWERED => idle::HALF_OPEN,
        flow_phase::ESTABLISHED | flow_phase::BEGUN => idle::ESTABLISHED,
        flow_phase::CLOSING => idle::CLOSING,
        flow_phase::CLOSED => idle::CLOSED,
        flow_phase::RESET => idle::RESET,
        _ => 0,
    }
}

/// Whether the entry still counts. Another CPU's clock may be a little ahead.
#[inline(always)]
pub(super) const fn lives(state: &FlowState, now: u64) -> bool {
    now.saturating_sub(state.last_inbound) < lifetime(state.phase)
}

/// What an inbound packet makes of its flow's entry.
#[inline(always)]
#[must_use]
pub fn observe(signal: Signal, before: Option<FlowState>, now: u64) -> Observed {
    let before = before.filter(|state| lives(state, now));
    let entry = |phase| Observed::Entry(FlowState { last_inbound: now, phase, reserved: 0 });
    let phase = match signal {
        Signal::Datagram => flow_phase::SEEN,
        Signal::EchoRequest => flow_phase::ECHOED,
        Signal::Syn => match before.map(|state| state.phase) {
            // Sent again, or forged. It prolongs nothing: connection tracking ignores it, too.
            Some(flow_phase::ANSWERED | flow_phase::ESTABLISHED) => return Observed::Nothing,
            _ => flow_phase::ASKED,
        },
        Signal::Ack | Signal::Fin => match (before.map(|state| state.phase), signal) {
            (None | Some(flow_phase::ASKED | flow_phase::RESET), _) => return Observed::Nothing,
            (Some(flow_phase::ANSWERED), Signal::Ack) => flow_phase::ESTABLISHED,
            (Some(flow_phase::ANSWERED | flow_phase::ESTABLISHED), Signal::Fin) => {
                flow_phase::CLOSING
            }
            (Some(same), _) => same,
        },
        Signal::Rst | Signal::RstAck => {
            return if before.is_some() { Observed::End } else { Observed::Nothing };
        }
        // The answer to something that the inside asked.
        Signal::SynAck | Signal::EchoReply | Signal::Error | Signal::FlowError | Signal::Other => {
            return Observed::Nothing;
        }
    };
    match before {
        Some(state) if state.phase == phase && now.saturating_sub(state.last_inbound) < REFRESH => {
            Observed::Nothing
        }
        _ => entry(phase),
    }
}

/// Whether the inside's packet answers the flow: if so, the entry from now on. `known` tells that
/// the one who sends it has seen the remote with its own address.
#[inline(always)]
#[must_use]
pub fn reply(signal: Signal, before: FlowState, now: u64, known: bool) -> Option<FlowState> {
    if !lives(&before, now) {
        return None;
    }
    let phase = match (before.phase, signal) {
        (flow_phase::SEEN, Signal::Datagram) if known => flow_phase::SEEN,
        (flow_phase::ECHOED, Signal::EchoReply) if known => flow_phase::ECHOED,
        (flow_phase::ASKED, Signal::SynAck) => flow_phase::ANSWERED,
        (flow_phase::ASKED, Signal::RstAck) if known => flow_phase::ASKED,
        (_, Signal::FlowError) if known => before.phase,
        (
            flow_phase::ANSWERED
            | flow_phase::ESTABLISHED
            | flow_phase::CLOSING
            | flow_phase::CLOSED
            | flow_phase::RESET,
            Signal::Rst | Signal::RstAck,
        ) => flow_phase::RESET,
        (flow_phase::CLOSING, Signal::Fin) => flow_phase::CLOSED,
        (
            flow_phase::ANSWERED
            | flow_phase::ESTABLISHED
            | flow_phase::CLOSING
            | flow_phase::CLOSED,
            Signal::SynAck | Signal::Ack | Signal::Fin,
        ) => before.phase,
        _ => return None,
    };
    Some(FlowState { phase, ..before })
}
