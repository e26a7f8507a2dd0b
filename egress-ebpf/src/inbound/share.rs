//! A share of the table of flows for each scope: whoever fills it makes room among its own.
//!
//! The entries of a scope are kept in the order in which they were made, in a ring of as many places as
//! its share has. A new entry takes the next place, and the entry that had it is forgotten. One of an
//! established connection is spared: it moves on to the place after that, and the entry there goes in
//! its stead. How often is bounded, since a scope may have nothing but established connections.
//!
//! An entry that was ended and made again has two places, so it may be forgotten when the older one is
//! taken. Then the answer that it stood for is refused.

use super::{FlowTable, lives};
use crate::abi::{FlowKey, FlowPlace, FlowState, capacity, flow_kind, flow_phase};

/// How many entries move on for a new one.
const SPARED: u32 = 4;

/// Adds an entry, and forgets one of the same scope where its share is used up.
#[inline(always)]
pub(super) fn insert(key: &FlowKey, state: FlowState, now: u64, view: &impl FlowTable) {
    let (class, places) = class(key);
    let mut moving = *key;
    for _ in 0..SPARED {
        let turn = view.next_turn(&FlowPlace { scope: key.scope, index: 0, class });
        let place = FlowPlace { scope: key.scope, index: turn % places, class };
        let before = view.place(&place, &moving);
        let Some(old) = before.filter(|old| *old != moving) else {
            moving = FlowKey::NONE;
            break;
        };
        moving = old;
        let spared =
            |state: FlowState| state.phase == flow_phase::ESTABLISHED && lives(&state, now);
        if !view.flow(&old).is_some_and(spared) {
            break;
        }
    }
    if moving != FlowKey::NONE && moving != *key {
        view.end_flow(&moving);
    }
    view.insert_flow(key, state);
}

/// Whose share an entry counts for, beside its scope, and how many places that has.
#[inline(always)]
const fn class(key: &FlowKey) -> (u32, u32) {
    match key.kind {
        flow_kind::UPLINK => (flow_kind::UPLINK as u32, capacity::FLOWS_OF_UPLINKS),
        flow_kind::CGROUP | flow_kind::CGROUP_REMOTE => {
            (flow_kind::CGROUP as u32, capacity::FLOWS_SHARE)
        }
        _ => (flow_kind::POD as u32, capacity::FLOWS_SHARE),
    }
}
