//! The layout of what is known of pods' interfaces: a slot for each, and further addresses.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{PolicyId, capacity::SLOTS};
use crate::addr::{Addr, MAPPED_PREFIX_BITS};

/// An address that may be a packet's source on an interface. Interface zero holds those that may be the source
/// of a workload's socket: the pods', and the node's own. Key of `POD_ADDRESSES` (hash), which has those of
/// interface zero, and of the others those that have no room in the interface's [`Slot`]. It also has
/// the interfaces that [forward](Self::forwarder).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PodAddress {
    /// Index of the host-side interface, or zero.
    pub ifindex: u32,
    /// The pod's address.
    pub addr: Addr,
}

impl PodAddress {
    /// That the agent knows the interface, and that it is no pod's: what it forwards may reach the gateways. It
    /// has no address, so it is no pod's address.
    #[inline(always)]
    #[must_use]
    pub const fn forwarder(ifindex: u32) -> Self {
        Self { ifindex, addr: Addr::UNSPECIFIED }
    }
}

/// The pod behind a host-side interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PodPort {
    /// The policy of its workload.
    pub policy: PolicyId,
    /// The hardware address that its frames come from, as the agent looked it up at the interface's
    /// other end.
    pub hardware: [u8; 6],
    /// Whether that counts: one of [`pod_hardware`].
    pub check: u16,
}

impl PodPort {
    /// Whether a frame with this source may be the pod's.
    #[inline(always)]
    #[must_use]
    pub fn sends_from(&self, hardware: [u8; 6]) -> bool {
        match self.check {
            pod_hardware::KNOWN => self.hardware == hardware,
            pod_hardware::ANY => true,
            _ => false,
        }
    }
}

/// Values of [`PodPort::check`]; an unknown one denies.
pub mod pod_hardware {
    /// It is not known yet, or another pod of the same bridge has it: no frame passes.
    pub const UNKNOWN: u16 = 0;
    /// Frames come from that address.
    pub const KNOWN: u16 = 1;
    /// The interface has no other end that could be asked: frames may come from any address.
    pub const ANY: u16 = 2;
}

/// Value of `SLOTS` (array by slot number): an interface whose packets our programs judge, and the pod behind it.
///
/// The agent numbers the interfaces. An interface has the slot of its [home](Self::home), as long as no other one
/// has it; otherwise `MOVED_SLOTS` (hash by index) has the number. A packet carries the number on the node as a
/// [`note`], because its own field for one holds 16 bits, and an index may be greater.
///
/// An array's value is written while programs read it. So what belongs together is in one aligned word of eight
/// bytes: the interface with its policy, and the hardware address with whether it counts. Words are written one by
/// one where their order counts.
///
/// **A slot that was given back is not used again for a while** ([`QUARANTINE`](Self::QUARANTINE)), except by the
/// same interface: a packet that its former holder sent may still be on its way to an uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Slot {
    /// Index of the interface; zero where the slot is free.
    pub ifindex: u32,
    /// The policy of the workload behind it.
    pub policy: PolicyId,
    /// The hardware address that its frames come from.
    pub hardware: [u8; 6],
    /// Whether that counts: one of [`pod_hardware`].
    pub check: u16,
    /// One of the pod's IPv4 addresses; zero for none.
    pub v4: [u8; 4],
    /// Whether `POD_ADDRESSES` has further addresses of the pod; zero for no.
    pub further: u32,
    /// One of the pod's IPv6 addresses; unspecified for none.
    pub v6: Addr,
    /// When its last holder gave it back, nanoseconds since boot; zero where it had none.
    pub freed_at: u64,
}

impl Slot {
    /// A slot that nobody has had.
    pub const FREE: Self = Self {
        ifindex: 0,
        policy: 0,
        hardware: [0; 6],
        check: 0,
        v4: [0; 4],
        further: 0,
        v6: Addr::UNSPECIFIED,
        freed_at: 0,
    };

    /// How long a slot that was given back is nobody else's, in nanoseconds. The node keeps a packet that is on
    /// its way for less: one whose neighbour is asked for, some seconds (`delay_first_probe_time`,
    /// `mcast_solicit`); a fragment, 60 seconds at most (`ip6frag_time`).
    pub const QUARANTINE: u64 = 300 * 1_000_000_000;

    /// The slot that an interface has, as long as no other one has it.
    #[inline(always)]
    #[must_use]
    pub const fn home(ifindex: u32) -> u32 {
        ifindex % SLOTS
    }

    /// The pod behind the interface.
    #[inline(always)]
    #[must_use]
    pub const fn port(&self) -> PodPort {
        PodPort { policy: self.policy, hardware: self.hardware, check: self.check }
    }

    /// Whether the slot itself has the address as one of the pod's.
    #[inline(always)]
    #[must_use]
    pub fn holds(&self, addr: &Addr) -> bool {
        let [.., last] = addr.words();
        if addr.is_v4() {
            last != 0 && last == u32::from_ne_bytes(self.v4)
        } else {
            !addr.is_unspecified() && *addr == self.v6
        }
    }

    /// The addresses that the slot itself has.
    pub fn addresses(&self) -> impl Iterator<Item = Addr> {
        let v4 = Addr::v4(self.v4);
        [v4, self.v6].into_iter().filter(|addr| self.holds(addr))
    }
}

const _: () = assert!(SLOTS.is_power_of_two() && note::UNKNOWN < 1 << 16);
const _: () = assert!(MAPPED_PREFIX_BITS == 96, "an IPv4 address is an address's last word");

/// What a packet carries on the node from a pod's interface to the uplink, in the 16 bits of `tc_index`: which slot
/// the interface has, or that it came to a bridge of pods from a port at which no program let it pass.
pub mod note {
    use crate::abi::capacity::SLOTS;

    /// The note of slot zero. Smaller values are none of ours: `sch_gred` writes any of the lower four bits
    /// (`GRED_VQ_MASK`, net/sched/sch_gred.c), and a pod may put that on an interface in its own namespace.
    pub const FIRST: u32 = 16;

    /// No note.
    pub const NONE: u32 = 0;

    /// It came to a bridge of pods, and from no pod that is known.
    pub const UNKNOWN: u32 = FIRST + SLOTS;

    /// The note of a slot.
    #[inline(always)]
    #[must_use]
    pub const fn of(slot: u32) -> u32 {
        FIRST + slot
    }

    /// The slot of a note.
    #[inline(always)]
    #[must_use]
    pub const fn slot(note: u32) -> Option<u32> {
        let slot = note.wrapping_sub(FIRST);
        if slot < SLOTS { Some(slot) } else { None }
    }
}

#[cfg(test)]
mod tests;
