//! The table of inbound flows of a world.

use egress_ebpf::{
    abi::{FlowKey, FlowPlace, FlowState},
    inbound::FlowTable,
};

use super::World;

impl FlowTable for World {
    fn now(&self) -> u64 {
        self.table.borrow().now
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowState> {
        self.table.borrow().flows.get(key).copied()
    }

    /// A world is too small for a share to be used up.
    fn next_turn(&self, _scope: &FlowPlace) -> u32 {
        0
    }

    fn place(&self, _place: &FlowPlace, _key: &FlowKey) -> Option<FlowKey> {
        None
    }

    fn insert_flow(&self, key: &FlowKey, state: FlowState) {
        self.table.borrow_mut().flows.insert(*key, state);
    }

    fn change_flow(&self, key: &FlowKey, before: FlowState, after: FlowState) {
        let old = self.table.borrow_mut().flows.insert(*key, after);
        assert_eq!(old, Some(before), "only an entry that is there is changed");
    }

    fn end_flow(&self, key: &FlowKey) {
        self.table.borrow_mut().flows.remove(key);
    }

    fn refused_syn(&self, slot: u32) -> u64 {
        self.table.borrow().refused_syns.get(&slot).copied().unwrap_or(0)
    }

    fn refuse_syn(&self, slot: u32, now: u64) {
        self.table.borrow_mut().refused_syns.insert(slot, now);
    }
}
