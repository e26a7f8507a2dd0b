//! What is asked of the table of flows.

use crate::abi::{FlowKey, FlowPlace, FlowState};

/// The table of flows, and the clock.
pub trait FlowTable {
    /// Nanoseconds since boot, as of the last tick of the kernel's clock.
    fn now(&self) -> u64;
    /// The entry, whatever its age.
    fn flow(&self, key: &FlowKey) -> Option<FlowState>;
    /// How often this was asked for the scope before; its index is zero.
    fn next_turn(&self, scope: &FlowPlace) -> u32;
    /// Puts an entry in a place; the one that had it.
    fn place(&self, place: &FlowPlace, key: &FlowKey) -> Option<FlowKey>;
    /// Adds an entry, or overwrites one.
    fn insert_flow(&self, key: &FlowKey, state: FlowState);
    /// Changes an entry where it differs, if it is still there.
    fn change_flow(&self, key: &FlowKey, before: FlowState, after: FlowState);
    /// Removes an entry.
    fn end_flow(&self, key: &FlowKey);
    /// When the last SYN of this slot was refused; zero for never.
    fn refused_syn(&self, slot: u32) -> u64;
    /// Remembers a refused SYN.
    fn refuse_syn(&self, slot: u32, now: u64);
}
