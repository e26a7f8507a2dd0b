//! What the node's own sockets are asked.

use super::{LOOPBACK, View};
use crate::{
    packet::Flow,
    reason::Reason,
    verdict::{Judgement, Mode, Verdict},
};

/// `sk_lookup` in the node's network namespace: the first packet of a TCP connection, and each datagram that no
/// connected socket takes. `came_in_on` is the interface, as IP sees it: the bridge, where the frame came by a port of
/// one. `None` where there is nothing to say against it.
///
/// A process of the node answers whoever asks, and nothing tells its answer from what it sends by itself. So nobody
/// asks in the name of an external address by an interface that the agent doesn't know: that of a pod which appeared
/// while no agent ran. What a known pod sends, its own interface's program has judged. The kernel also looks for a
/// socket to tell it of an ICMP error, so one packet may be judged more than once.
#[inline(always)]
#[must_use]
pub fn node(flow: Flow, came_in_on: u32, view: &impl View) -> Option<Judgement> {
    let globals = view.globals();
    // Without a configuration nobody knows what is inside.
    if came_in_on <= LOOPBACK || globals.generation == 0 {
        return None;
    }
    let policy = globals.uplink_policy;
    let mode = view.policy(policy).mode;
    if mode == Mode::Exempt
        || view.is_forwarder(came_in_on)
        || view.interface(came_in_on).is_some()
        || view.may_ask(&flow.source)
    {
        return None;
    }
    Some(Judgement::new(Verdict::deny(Reason::SpoofedSource), mode, policy, flow, 0))
}
