//! Which slot each pod's interface has: the numbers that packets carry on the node.
//!
//! [`Contents`](super::plan::Contents) says what is to be known of interfaces, by their indices. This puts it where
//! the programs look: [`Slot`] says what is where, and in which order the words of a slot may be written. An interface
//! that finds no slot is unknown to the programs, so nothing of its pod passes.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};

use egress_ebpf::{
    abi::{PodAddress, PodPort, Slot, capacity},
    addr::Addr,
};

pub(super) use self::kernel::KernelMaps;
use super::{Error, plan::NO_INTERFACE};

/// The maps that slots are in, and the clock that they go by.
pub(super) trait SlotMaps {
    /// Writes a slot. Each of its aligned words of eight bytes is written at once, in any order.
    fn set(&mut self, number: u32, slot: &Slot) -> Result<(), Error>;
    /// Says which slot an interface has that has not that of its home.
    fn set_moved(&mut self, ifindex: u32, number: u32) -> Result<(), Error>;
    /// Takes that back, if it was said.
    fn remove_moved(&mut self, ifindex: u32) -> Result<(), Error>;
    /// Adds a further address.
    fn add_address(&mut self, address: &PodAddress) -> Result<(), Error>;
    /// Removes a further address, if it is there.
    fn remove_address(&mut self, address: &PodAddress) -> Result<(), Error>;
    /// Nanoseconds since boot.
    fn now(&self) -> u64;
}

/// What an earlier agent left in the maps.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    /// The slots that are not [`Slot::FREE`].
    pub(super) slots: BTreeMap<u32, Slot>,
    /// The slots of interfaces that have not those of their homes.
    pub(super) moved: BTreeMap<u32, u32>,
    /// The addresses that are in no slot.
    pub(super) further: BTreeSet<PodAddress>,
}

/// The slots, and who has them.
pub(super) struct Slots<M> {
    maps: M,
    /// Those that are not [`Slot::FREE`].
    slots: BTreeMap<u32, Slot>,
    /// Which one an interface has.
    held: BTreeMap<u32, u32>,
    /// Which one an interface had last, as long as it is free.
    former: BTreeMap<u32, u32>,
    /// The addresses of each interface, also of one without a slot.
    addresses: BTreeMap<u32, BTreeSet<Addr>>,
    /// Those of them that are in no slot.
    further: BTreeSet<PodAddress>,
}

impl<M: SlotMaps> Slots<M> {
    /// Takes over what an earlier agent left. What it left unfinished is undone before anything can find it.
    pub(super) fn take(maps: M, left: LeftBehind) -> Result<Self, Error> {
        let LeftBehind { slots, moved, further } = left;
        let mut all = Self {
            maps,
            slots: BTreeMap::new(),
            held: BTreeMap::new(),
            former: BTreeMap::new(),
            addresses: BTreeMap::new(),
            further: BTreeSet::new(),
        };
        // The programs look at an interface's home first.
        let at_home = |ifindex: u32| {
            let home = Slot::home(ifindex);
            slots.get(&home).is_some_and(|slot| slot.ifindex == ifindex)
        };
        for (number, slot) in &slots {
            let ifindex = slot.ifindex;
            let home = *number == Slot::home(ifindex);
            let is_found = home || (moved.get(&ifindex) == Some(number) && !at_home(ifindex));
            all.slots.insert(*number, *slot);
            if ifindex != NO_INTERFACE && is_found {
                all.held.insert(ifindex, *number);
                all.addresses.entry(ifindex).or_default().extend(slot.addresses());
            } else if ifindex != NO_INTERFACE {
                all.give_back(*number)?;
            }
        }
        for (ifindex, number) in &moved {
            if all.held.get(ifindex) != Some(number) {
                all.maps.remove_moved(*ifindex)?;
            }
        }
        for address in further {
            all.further.insert(address);
            all.addresses.entry(address.ifindex).or_default().insert(address.addr);
            all.set_further(address.ifindex)?;
        }
        Ok(all)
    }

    /// The pods behind the interfaces.
    pub(super) fn interfaces(&self) -> BTreeMap<u32, PodPort> {
        let port =
            |(ifindex, number): (&u32, &u32)| Some((*ifindex, self.slots.get(number)?.port()));
        self.held.iter().filter_map(port).collect()
    }

    /// The addresses of all interfaces, and those of none.
    pub(super) fn addresses(&self) -> BTreeSet<PodAddress> {
        let of = |(ifindex, addresses): (&u32, &BTreeSet<Addr>)| {
            let ifindex = *ifindex;
            addresses
                .iter()
                .map(move |addr| PodAddress { ifindex, addr: *addr })
                .collect::<Vec<_>>()
        };
        self.addresses.iter().flat_map(of).collect()
    }

    /// Says which pod is behind an interface.
    pub(super) fn put(&mut self, ifindex: u32, port: PodPort) -> Result<(), Error> {
        let PodPort { policy, hardware, check } = port;
        if let Some((number, slot)) = self.slot_of(ifindex) {
            return self.write(number, Slot { policy, hardware, check, ..slot });
        }
        let number = self.choose(ifindex)?;
        let before = self.slots.get(&number).copied().unwrap_or(Slot::FREE);
        let further = u32::from(self.further_of(ifindex).next().is_some());
        let mut slot =
            Slot { policy, hardware, check, further, freed_at: before.freed_at, ..Slot::FREE };
        for addr in self.addresses.get(&ifindex).into_iter().flatten() {
            if !self.further.contains(&PodAddress { ifindex, addr: *addr }) {
                // All of them had room in a slot before.
                let _had_room = take_in(&mut slot, addr);
            }
        }
        // Nobody has the slot as long as it isn't whole.
        self.write(number, slot)?;
        let result = self.write(number, Slot { ifindex, freed_at: 0, ..slot }).and_then(|()| {
            let moves = number != Slot::home(ifindex);
            if moves { self.maps.set_moved(ifindex, number) } else { Ok(()) }
        });
        if let Err(error) = result {
            if let Err(error) = self.give_back(number) {
                tracing::warn!("slot {number} isn't free, and nobody has it: {error}");
            }
            return Err(error);
        }
        self.former.remove(&ifindex);
        self.held.insert(ifindex, number);
        Ok(())
    }

    /// Says that nothing is known any more of what is behind an interface.
    pub(super) fn remove(&mut self, ifindex: u32) -> Result<(), Error> {
        let Some((number, _)) = self.slot_of(ifindex) else { return Ok(()) };
        if number != Slot::home(ifindex) {
            self.maps.remove_moved(ifindex)?;
        }
        self.give_back(number)?;
        self.held.remove(&ifindex);
        self.former.insert(ifindex, number);
        Ok(())
    }

    /// Adds an address of a pod behind an interface, or of a workload's sockets.
    pub(super) fn add(&mut self, address: &PodAddress) -> Result<(), Error> {
        let PodAddress { ifindex, addr } = *address;
        if let Some((number, mut slot)) = self.slot_of(ifindex)
            && (slot.holds(&addr) || take_in(&mut slot, &addr))
        {
            self.write(number, slot)?;
        } else {
            self.maps.add_address(address)?;
            self.further.insert(*address);
            self.set_further(ifindex)?;
        }
        self.addresses.entry(ifindex).or_default().insert(addr);
        Ok(())
    }

    /// Removes it.
    pub(super) fn remove_address(&mut self, address: &PodAddress) -> Result<(), Error> {
        let PodAddress { ifindex, addr } = *address;
        if let Some((number, slot)) = self.slot_of(ifindex)
            && slot.holds(&addr)
        {
            let without = if addr.is_v4() {
                Slot { v4: [0; 4], ..slot }
            } else {
                Slot { v6: Addr::UNSPECIFIED, ..slot }
            };
            self.write(number, without)?;
        }
        if self.further.contains(address) {
            self.maps.remove_address(address)?;
            self.further.remove(address);
            self.set_further(ifindex)?;
        }
        if let Some(addresses) = self.addresses.get_mut(&ifindex) {
            addresses.remove(&addr);
            if addresses.is_empty() {
                self.addresses.remove(&ifindex);
            }
        }
        Ok(())
    }

    fn slot_of(&self, ifindex: u32) -> Option<(u32, Slot)> {
        let number = *self.held.get(&ifindex)?;
        Some((number, *self.slots.get(&number)?))
    }

    fn further_of(&self, ifindex: u32) -> impl Iterator<Item = &PodAddress> {
        let first = PodAddress { ifindex, addr: Addr::UNSPECIFIED };
        self.further.range(first..).take_while(move |address| address.ifindex == ifindex)
    }

    /// Lets the slot say whether an interface has addresses elsewhere.
    fn set_further(&mut self, ifindex: u32) -> Result<(), Error> {
        let further = u32::from(self.further_of(ifindex).next().is_some());
        match self.slot_of(ifindex) {
            Some((number, slot)) if slot.further != further => {
                self.write(number, Slot { further, ..slot })
            }
            _ => Ok(()),
        }
    }

    /// A slot for an interface that has none: the one that it had, that of its home, or any that was free for long
    /// enough.
    fn choose(&self, ifindex: u32) -> Result<u32, Error> {
        let now = self.maps.now();
        let is_free = |number: &u32| self.slots.get(number).is_none_or(|slot| slot.ifindex == 0);
        let is_rested = |number: &u32| {
            let freed_at = self.slots.get(number).map_or(0, |slot| slot.freed_at);
            freed_at == 0 || now.saturating_sub(freed_at) >= Slot::QUARANTINE
        };
        let own = self.former.get(&ifindex).copied().filter(is_free);
        let home = Slot::home(ifindex);
        let all = (home..capacity::SLOTS).chain(0..home);
        own.or_else(|| all.into_iter().find(|number| is_free(number) && is_rested(number)))
            .ok_or(Error::NoSlot { ifindex, slots: capacity::SLOTS })
    }

    /// Frees a slot; from now on its time of rest counts.
    fn give_back(&mut self, number: u32) -> Result<(), Error> {
        let freed_at = self.maps.now().max(1);
        self.write(number, Slot { freed_at, ..Slot::FREE })
    }

    fn write(&mut self, number: u32, slot: Slot) -> Result<(), Error> {
        self.maps.set(number, &slot)?;
        self.slots.insert(number, slot);
        // Whoever had it last can't have it back.
        if slot.ifindex != 0 {
            self.former.retain(|_, former| *former != number);
        }
        Ok(())
    }
}

/// Takes an address into a slot that has room for it.
fn take_in(slot: &mut Slot, addr: &Addr) -> bool {
    let [.., last] = addr.words();
    let has_room = !addr.is_unspecified()
        && if addr.is_v4() { slot.v4 == [0; 4] } else { slot.v6.is_unspecified() };
    match (has_room, addr.is_v4()) {
        (false, _) => {}
        (true, true) => slot.v4 = last.to_ne_bytes(),
        (true, false) => slot.v6 = *addr,
    }
    has_room
}

#[cfg(test)]
mod tests;
