//! The kernel's maps of slots.

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use egress_ebpf::abi::{PodAddress, Slot};
use rustix::time::{ClockId, clock_gettime};

use super::{LeftBehind, SlotMaps};
use crate::bpf::{
    Error,
    handle::{absent, named, typed},
    pod::Raw,
};

const SLOTS: &str = "SLOTS";
const MOVED: &str = "MOVED_SLOTS";
const ADDRESSES: &str = "POD_ADDRESSES";

/// `SLOTS`, `MOVED_SLOTS` and `POD_ADDRESSES`.
pub(in crate::bpf) struct KernelMaps {
    slots: Array<MapData, Raw<Slot>>,
    moved: HashMap<MapData, u32, u32>,
    addresses: HashMap<MapData, Raw<PodAddress>, u32>,
}

impl KernelMaps {
    pub(in crate::bpf) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let (slots, moved) = (typed(ebpf, SLOTS)?, typed(ebpf, MOVED)?);
        Ok(Self { slots, moved, addresses: typed(ebpf, ADDRESSES)? })
    }

    /// What is in them.
    pub(in crate::bpf) fn read(&self) -> Result<LeftBehind, Error> {
        let mut left = LeftBehind::default();
        for (number, slot) in (0..).zip(self.slots.iter()) {
            let Raw(slot) = named(SLOTS, slot)?;
            if slot != Slot::FREE {
                left.slots.insert(number, slot);
            }
        }
        for entry in self.moved.iter() {
            let (ifindex, number) = named(MOVED, entry)?;
            left.moved.insert(ifindex, number);
        }
        for key in self.addresses.keys() {
            left.further.insert(named(ADDRESSES, key)?.0);
        }
        Ok(left)
    }
}

impl SlotMaps for KernelMaps {
    fn set(&mut self, number: u32, slot: &Slot) -> Result<(), Error> {
        named(SLOTS, self.slots.set(number, Raw(*slot), 0))
    }

    fn set_moved(&mut self, ifindex: u32, number: u32) -> Result<(), Error> {
        named(MOVED, self.moved.insert(ifindex, number, 0))
    }

    fn remove_moved(&mut self, ifindex: u32) -> Result<(), Error> {
        named(MOVED, absent(self.moved.remove(&ifindex)))
    }

    fn add_address(&mut self, address: &PodAddress) -> Result<(), Error> {
        named(ADDRESSES, self.addresses.insert(Raw(*address), 1, 0))
    }

    fn remove_address(&mut self, address: &PodAddress) -> Result<(), Error> {
        named(ADDRESSES, absent(self.addresses.remove(&Raw(*address))))
    }

    fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
    }
}
