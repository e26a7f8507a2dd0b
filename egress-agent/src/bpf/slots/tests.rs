use std::{cell::RefCell, io, rc::Rc};

use aya::maps::MapError;
use egress_ebpf::abi::{note, pod_hardware};
use proptest::{prelude::*, sample::select};

use super::*;

const SECOND: u64 = 1_000_000_000;
/// Two at the same home, and one whose index fits no 16 bits.
const INDICES: [u32; 5] = [7, 7 + capacity::SLOTS, 7 + 2 * capacity::SLOTS, 8, 70_000];

/// The maps, as the programs read them. It sees to it that no slot is handed over too soon.
#[derive(Default)]
struct Kernel {
    slots: BTreeMap<u32, Slot>,
    moved: BTreeMap<u32, u32>,
    further: BTreeSet<PodAddress>,
    /// Who had a slot last, and until when.
    last: BTreeMap<u32, (u32, u64)>,
    now: u64,
    /// Which write from now on fails.
    fails: Option<u32>,
}

type Shared = Rc<RefCell<Kernel>>;

impl Kernel {
    fn write(&mut self) -> Result<(), Error> {
        let fails = self.fails == Some(0);
        self.fails = self.fails.and_then(|writes| writes.checked_sub(1));
        if !fails {
            return Ok(());
        }
        let error = MapError::IoError(io::Error::other("the kernel has no memory"));
        Err(Error::Map { map: "SLOTS", error })
    }

    fn at(&self, number: u32) -> Slot {
        self.slots.get(&number).copied().unwrap_or(Slot::FREE)
    }

    /// The programs' way to a slot.
    fn slot(&self, ifindex: u32) -> Option<(u32, Slot)> {
        let home = Slot::home(ifindex);
        let number = if self.at(home).ifindex == ifindex { Some(home) } else { None };
        let number = number.or_else(|| self.moved.get(&ifindex).copied())?;
        let slot = self.at(number);
        (ifindex != 0 && slot.ifindex == ifindex).then_some((number, slot))
    }

    fn owns(&self, ifindex: u32, addr: Addr) -> bool {
        let further = self.further.contains(&PodAddress { ifindex, addr });
        match self.slot(ifindex) {
            _ if ifindex == NO_INTERFACE => further,
            Some((_, slot)) => slot.holds(&addr) || (slot.further != 0 && further),
            None => false,
        }
    }
}

impl SlotMaps for Shared {
    fn set(&mut self, number: u32, slot: &Slot) -> Result<(), Error> {
        let mut kernel = self.borrow_mut();
        kernel.write()?;
        let (before, now) = (kernel.at(number), kernel.now);
        if before.ifindex != slot.ifindex {
            if slot.ifindex != 0 {
                assert_eq!(before.ifindex, 0, "handed over while it was another's");
                if let Some((last, until)) = kernel.last.get(&number) {
                    let rested = now - until >= Slot::QUARANTINE;
                    assert!(*last == slot.ifindex || rested, "handed over too soon");
                }
                // All but this was written before.
                let whole = Slot { ifindex: 0, freed_at: before.freed_at, ..*slot };
                assert_eq!(before, whole, "handed over before it was whole");
            } else {
                kernel.last.insert(number, (before.ifindex, now));
            }
        }
        kernel.slots.insert(number, *slot);
        Ok(())
    }

    fn set_moved(&mut self, ifindex: u32, number: u32) -> Result<(), Error> {
        self.borrow_mut().write()?;
        self.borrow_mut().moved.insert(ifindex, number);
        Ok(())
    }

    fn remove_moved(&mut self, ifindex: u32) -> Result<(), Error> {
        self.borrow_mut().write()?;
        self.borrow_mut().moved.remove(&ifindex);
        Ok(())
    }

    fn add_address(&mut self, address: &PodAddress) -> Result<(), Error> {
        self.borrow_mut().write()?;
        self.borrow_mut().further.insert(*address);
        Ok(())
    }

    fn remove_address(&mut self, address: &PodAddress) -> Result<(), Error> {
        self.borrow_mut().write()?;
        self.borrow_mut().further.remove(address);
        Ok(())
    }

    fn now(&self) -> u64 {
        self.borrow().now
    }
}

fn kernel() -> Shared {
    Rc::new(RefCell::new(Kernel { now: 1000 * SECOND, ..Kernel::default() }))
}

fn take(kernel: &Shared) -> Slots<Shared> {
    let left = {
        let kernel = kernel.borrow();
        let (moved, further) = (kernel.moved.clone(), kernel.further.clone());
        LeftBehind { slots: kernel.slots.clone(), moved, further }
    };
    Slots::take(Rc::clone(kernel), left).unwrap()
}

fn port(policy: u32) -> PodPort {
    PodPort { policy, hardware: [2, 0, 0, 0, 0, 5], check: pod_hardware::KNOWN }
}

fn address(ifindex: u32, text: &str) -> PodAddress {
    let ip: std::net::IpAddr = text.parse().unwrap();
    PodAddress { ifindex, addr: ip.into() }
}

/// Which slot the programs find.
fn number(kernel: &Shared, ifindex: u32) -> Option<u32> {
    kernel.borrow().slot(ifindex).map(|(number, _)| number)
}

#[test]
fn an_index_of_any_size_has_a_note_that_fits() {
    let kernel = kernel();
    let mut slots = take(&kernel);
    for ifindex in INDICES {
        slots.put(ifindex, port(ifindex)).unwrap();
    }
    let numbers: BTreeSet<u32> =
        INDICES.into_iter().map(|ifindex| number(&kernel, ifindex).unwrap()).collect();
    assert_eq!(numbers.len(), INDICES.len());
    assert!(numbers.iter().all(|number| u16::try_from(note::of(*number)).is_ok()));
    assert_eq!(number(&kernel, 70_000), Some(Slot::home(70_000)));
    assert_eq!(slots.interfaces().len(), INDICES.len());
}

#[test]
fn a_slot_rests_before_another_interface_has_it() {
    let kernel = kernel();
    let mut slots = take(&kernel);
    let [first, second, ..] = INDICES;
    slots.put(first, port(1)).unwrap();
    let home = number(&kernel, first).unwrap();
    slots.remove(first).unwrap();
    assert_eq!(number(&kernel, first), None);
    // A new agent knows it, too.
    let mut slots = take(&kernel);
    slots.put(second, port(2)).unwrap();
    assert_ne!(number(&kernel, second), Some(home));
    slots.remove(second).unwrap();
    kernel.borrow_mut().now += Slot::QUARANTINE;
    let mut slots = take(&kernel);
    slots.put(second, port(2)).unwrap();
    assert_eq!(number(&kernel, second), Some(home));
    assert!(kernel.borrow().moved.is_empty());
}

#[test]
fn an_interface_may_have_its_own_slot_again_at_once() {
    let kernel = kernel();
    let mut slots = take(&kernel);
    let [first, second, ..] = INDICES;
    slots.put(first, port(1)).unwrap();
    slots.put(second, port(2)).unwrap();
    let moved = number(&kernel, second).unwrap();
    slots.remove(second).unwrap();
    slots.put(second, port(3)).unwrap();
    assert_eq!(number(&kernel, second), Some(moved));
}

#[test]
fn without_a_free_slot_an_interface_stays_unknown() {
    let kernel = kernel();
    let mut slots = take(&kernel);
    for ifindex in 1..=capacity::SLOTS {
        slots.put(ifindex, port(1)).unwrap();
    }
    let late = capacity::SLOTS + 5;
    let error = slots.put(late, port(1)).unwrap_err();
    assert_eq!(error.full_map(), Some("SLOTS"), "{error}");
    assert_eq!(number(&kernel, late), None);
    slots.remove(5).unwrap();
    slots.put(late, port(1)).unwrap_err();
    kernel.borrow_mut().now += Slot::QUARANTINE;
    slots.put(late, port(1)).unwrap();
    assert!(number(&kernel, late).is_some());
}

#[test]
fn addresses_beyond_one_of_each_family_are_found_elsewhere() {
    let kernel = kernel();
    let mut slots = take(&kernel);
    let texts = ["10.0.0.5", "10.0.0.6", "fd00::5", "fd00::6", "0.0.0.0"];
    // One of them before the interface is known.
    slots.add(&address(7, texts[1])).unwrap();
    assert!(!kernel.borrow().owns(7, address(7, texts[1]).addr));
    slots.put(7, port(1)).unwrap();
    for text in texts {
        slots.add(&address(7, text)).unwrap();
    }
    for text in texts {
        assert!(kernel.borrow().owns(7, address(7, text).addr), "{text}");
        assert!(!kernel.borrow().owns(8, address(7, text).addr), "{text}");
    }
    assert_eq!(slots.addresses().len(), texts.len());
    assert_eq!(take(&kernel).addresses(), slots.addresses());
    for text in texts {
        slots.remove_address(&address(7, text)).unwrap();
        assert!(!kernel.borrow().owns(7, address(7, text).addr), "{text}");
    }
    assert_eq!(slots.addresses(), BTreeSet::new());
    assert_eq!(kernel.borrow().slot(7).unwrap().1.further, 0);
}

#[test]
fn an_address_outlives_a_slot_that_its_interface_loses() {
    let kernel = kernel();
    let mut slots = take(&kernel);
    slots.put(7, port(1)).unwrap();
    slots.add(&address(7, "10.0.0.5")).unwrap();
    slots.remove(7).unwrap();
    assert!(!kernel.borrow().owns(7, address(7, "10.0.0.5").addr));
    slots.put(7, port(1)).unwrap();
    assert!(kernel.borrow().owns(7, address(7, "10.0.0.5").addr));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u32, u32),
    Remove(u32),
    Add(u32, u8),
    Drop(u32, u8),
    Wait(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<(Step, Option<u32>)>> {
    let index = || select(INDICES.to_vec());
    let step = prop_oneof![
        4 => (index(), 0..3_u32).prop_map(|(index, policy)| Step::Put(index, policy)),
        3 => index().prop_map(Step::Remove),
        3 => (index(), 0..4_u8).prop_map(|(index, address)| Step::Add(index, address)),
        2 => (index(), 0..4_u8).prop_map(|(index, address)| Step::Drop(index, address)),
        1 => select(vec![1, 299, 300]).prop_map(|seconds| Step::Wait(seconds * SECOND)),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec((step, prop::option::weighted(0.3, 0..5_u32)), 0..60)
}

fn some_address(ifindex: u32, number: u8) -> PodAddress {
    let text = ["10.0.0.5", "10.0.0.6", "fd00::5", "fd00::6"][usize::from(number)];
    address(ifindex, text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever comes and goes, and whichever write fails: the programs find what was said, or nothing.
    #[test]
    fn the_programs_find_what_was_said_or_nothing(steps in steps()) {
        let kernel = kernel();
        let mut slots = take(&kernel);
        let mut ports: BTreeMap<u32, PodPort> = BTreeMap::new();
        let mut addresses: BTreeSet<PodAddress> = BTreeSet::new();
        for (step, fails) in steps {
            kernel.borrow_mut().fails = fails;
            // What failed is done again: one failure each.
            let attempt = |slots: &mut Slots<Shared>| match step {
                Step::Put(ifindex, policy) => slots.put(ifindex, port(policy)),
                Step::Remove(ifindex) => slots.remove(ifindex),
                Step::Add(ifindex, number) => slots.add(&some_address(ifindex, number)),
                Step::Drop(ifindex, number) => slots.remove_address(&some_address(ifindex, number)),
                Step::Wait(_) | Step::Restart => Ok(()),
            };
            if attempt(&mut slots).is_err() {
                for ifindex in INDICES {
                    let found = kernel.borrow().slot(ifindex).map(|(_, slot)| slot.port());
                    prop_assert!(found.is_none() || found == ports.get(&ifindex).copied());
                }
                kernel.borrow_mut().fails = None;
                attempt(&mut slots).unwrap();
            }
            kernel.borrow_mut().fails = None;
            match step {
                Step::Put(ifindex, policy) => drop(ports.insert(ifindex, port(policy))),
                Step::Remove(ifindex) => drop(ports.remove(&ifindex)),
                Step::Add(ifindex, number) => drop(addresses.insert(some_address(ifindex, number))),
                Step::Drop(ifindex, number) => drop(addresses.remove(&some_address(ifindex, number))),
                Step::Wait(time) => kernel.borrow_mut().now += time,
                // Of an interface that is not known, an agent leaves what is in no slot.
                Step::Restart => {
                    slots = take(&kernel);
                    addresses = slots.addresses();
                }
            }
            prop_assert_eq!(&slots.interfaces(), &ports);
            prop_assert_eq!(&slots.addresses(), &addresses);
            for ifindex in INDICES {
                let found = kernel.borrow().slot(ifindex).map(|(_, slot)| slot.port());
                prop_assert_eq!(found, ports.get(&ifindex).copied());
                for number in 0..4 {
                    let PodAddress { addr, .. } = some_address(ifindex, number);
                    let said = addresses.contains(&some_address(ifindex, number));
                    let owns = kernel.borrow().owns(ifindex, addr);
                    prop_assert_eq!(owns, said && ports.contains_key(&ifindex));
                }
            }
        }
    }
}
