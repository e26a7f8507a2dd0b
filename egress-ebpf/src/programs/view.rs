//! The maps as the verdict reads them, and which workload a hook is about.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_ktime_get_coarse_ns,
        bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id,
    },
};
use egress_ebpf::{
    abi::{FlowKey, FlowPlace, FlowState, PolicyId, ShareKey, share_kind},
    cache::{Key, look_up},
    decide::PolicyView as _,
    hooks,
    inbound::FlowTable,
    verdict::Number,
};

use super::{
    cache::Verdicts,
    context::{Skb, forget, zero, zero_long},
    maps::{FLOW_PLACES, FLOW_TURNS, FLOWS, REFUSED_SYNS, WORKLOADS},
};

/// Levels below the root at which a workload's cgroup can be found. Kubernetes' pods are at three
/// or four; nested nodes add three.
const CGROUP_LEVELS: u8 = 16;

/// The maps.
pub(crate) struct Maps;

impl FlowTable for Maps {
    /// As of the last tick, which is what connection tracking goes by. Asking for more takes longer than a
    /// verdict. Minimum kernel version: 5.11.
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowState> {
        // SAFETY: an entry may be changed while it is read, its two numbers one by one. Then time
        // and phase are of two packets that crossed each other, either of which may come first.
        unsafe { FLOWS.get(key) }.copied()
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "whoever counts places needs no more")]
    fn next_turn(&self, scope: &FlowPlace) -> u32 {
        // Two CPUs may be given the same turn: then one place is taken twice.
        let turn = match FLOW_TURNS.get_ptr_mut(scope) {
            // SAFETY: the pointer is to the map's value, aligned to 8 bytes.
            Some(turns) => unsafe {
                let turn = turns.read_volatile();
                turns.write_volatile(turn.wrapping_add(1));
                turn
            },
            None => {
                let _full = FLOW_TURNS.insert(scope, 1, 0);
                0
            }
        };
        turn as u32
    }

    #[inline(always)]
    fn place(&self, place: &FlowPlace, key: &FlowKey) -> Option<FlowKey> {
        // SAFETY: an entry may be replaced while it is read; then what is read is either of the two.
        let before = unsafe { FLOW_PLACES.get(place) }.copied();
        let _full = FLOW_PLACES.insert(place, key, 0);
        before
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, state: FlowState) {
        // A failure leaves the flow without an entry, which is the safe side.
        let _forgotten = FLOWS.insert(key, state, 0);
    }

    /// In place, and only what differs: a packet on another CPU may be changing the rest.
    #[inline(always)]
    fn change_flow(&self, key: &FlowKey, before: FlowState, after: FlowState) {
        let Some(entry) = FLOWS.get_ptr_mut(key) else { return };
        // SAFETY: the pointer is to the map's value, which stays memory of that kind even if the
        // entry is forgotten meanwhile; each field is one aligned word.
        unsafe {
            if before.last_inbound != after.last_inbound {
                (&raw mut (*entry).last_inbound).write_volatile(after.last_inbound);
            }
            if before.phase != after.phase {
                (&raw mut (*entry).phase).write_volatile(after.phase);
            }
        }
    }

    #[inline(always)]
    fn end_flow(&self, key: &FlowKey) {
        // It may be gone already.
        let _gone = FLOWS.remove(key);
    }

    #[inline(always)]
    fn refused_syn(&self, slot: u32) -> u64 {
        REFUSED_SYNS.get(slot).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn refuse_syn(&self, slot: u32, now: u64) {
        let _always_there = REFUSED_SYNS.set(slot, now, 0);
    }
}

/// A cgroup and the policy of the workload that it belongs to.
pub(crate) struct Workload {
    /// The cgroup's id; zero where there is none.
    pub(crate) cgroup: u64,
    owner: Owner,
}

/// An `Option<PolicyId>` whose `None` has a number, too: the compiler leaves the number of an
/// ordinary one unset and may still copy it, which the verifier refuses.
#[derive(Clone, Copy)]
struct Owner {
    known: bool,
    policy: PolicyId,
    cgroup: u64,
    /// The listed cgroup's level, if it isn't the workload's very own and none above it is listed;
    /// otherwise [`EXACT`].
    level: u8,
}

/// In place of a level: there is none to count from.
const EXACT: u8 = u8::MAX;

impl Owner {
    const NOBODY: Self = Self { known: false, policy: 0, cgroup: 0, level: EXACT };

    /// The same, of which the verifier knows no number any more: what is asked about it may be long.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "any number that the verifier does not know"
    )]
    fn forgotten(self, any: u64) -> Self {
        let any = any as u32;
        let (policy, cgroup) = (self.policy ^ zero(any), self.cgroup ^ zero_long(any));
        Self { policy, cgroup, ..self }
    }

    /// Who causes events. A cgroup that is listed below another one is one workload's. One that is
    /// listed alone may hold many: then it is one of two levels below it, as a pod's below
    /// `kubepods.slice` is.
    #[inline(always)]
    fn share(&self, ancestor: impl Fn(i32) -> u64) -> ShareKey {
        let level = i32::from(self.level);
        let below = |levels| if self.level == EXACT { 0 } else { ancestor(level + levels) };
        let id = match (below(2), below(1)) {
            (0, 0) => self.cgroup,
            (0, id) | (id, _) => id,
        };
        share_of_cgroup(id)
    }
}

/// What a cgroup's processes cause.
#[inline(always)]
pub(crate) fn share_of_cgroup(id: u64) -> ShareKey {
    ShareKey { id, kind: share_kind::CGROUP, reserved: 0 }
}

/// What the packets on an interface cause.
#[inline(always)]
pub(crate) fn share_of_interface(ifindex: u32) -> ShareKey {
    ShareKey { id: ifindex.into(), kind: share_kind::INTERFACE, reserved: 0 }
}

impl Workload {
    /// Of the process that makes a system call, which may use a socket from elsewhere. Minimum
    /// kernel version: 5.7.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper takes nothing.
        let cgroup = unsafe { bpf_get_current_cgroup_id() };
        // SAFETY: the helper takes any level and answers 0 for one that isn't there.
        let ancestor = |level| unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        Self { cgroup, owner: owner(cgroup, ancestor).forgotten(cgroup) }
    }

    /// Of the socket that a packet comes from. Minimum kernel version: 4.19, in `cgroup_skb` 5.3.
    #[inline(always)]
    pub(crate) fn of(skb: Skb) -> Self {
        // SAFETY: the context is valid; the helper answers 0 where there is no socket.
        let cgroup = unsafe { bpf_skb_cgroup_id(skb.0) };
        if cgroup == 0 {
            return Self { cgroup, owner: Owner::NOBODY };
        }
        let found = Found(owner_of(skb.0, cgroup));
        // SAFETY: as above, and any level may be asked for.
        let ancestor = |level| unsafe { bpf_skb_ancestor_cgroup_id(skb.0, level) };
        Self { cgroup, owner: found.owner(cgroup, ancestor) }
    }

    /// Who causes events, of the process that makes a system call.
    #[inline(always)]
    pub(crate) fn share_of_current(&self) -> ShareKey {
        // SAFETY: as in `current`.
        self.owner.share(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
    }

    /// Who causes events, of the socket that a packet comes from.
    #[inline(always)]
    pub(crate) fn share_of(&self, skb: Skb) -> ShareKey {
        // SAFETY: as in `of`.
        self.owner.share(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb.0, level) })
    }

    /// The workload; `None` for what belongs to none.
    #[inline(always)]
    pub(crate) fn known(&self) -> Option<hooks::Workload> {
        let Owner { known, policy, cgroup, .. } = self.owner;
        known.then_some(hooks::Workload { policy, cgroup })
    }

    /// The cgroup that was listed as a workload, whose descendant this one may be; zero for none.
    #[inline(always)]
    pub(crate) fn listed(&self) -> u64 {
        self.owner.cgroup
    }

    /// The policy, or the node's default.
    #[inline(always)]
    pub(crate) fn policy_or_default(&self) -> PolicyId {
        if self.owner.known { self.owner.policy } else { Maps.globals().default_policy }
    }
}

/// An [`Owner`] as a number, which a CPU can keep: from the lowest bit on the policy (32 bits), the owner's level (8),
/// the level of the listed cgroup or [`ITSELF`] (8), and whether there is one.
#[derive(Clone, Copy)]
struct Found(u64);

/// In place of the listed cgroup's level: it is the workload's very own.
const ITSELF: u8 = u8::MAX;
const KNOWN: u64 = 1 << 48;

impl Found {
    /// The cgroup's own policy, or its nearest ancestor's.
    #[inline(always)]
    fn find(cgroup: u64, ancestor: impl Fn(i32) -> u64) -> Self {
        let own = listed(cgroup);
        let (owner, at) = if own.known { (own, ITSELF) } else { nearest(ancestor) };
        let known = if owner.known { KNOWN } else { 0 };
        Self(u64::from(owner.policy) | u64::from(owner.level) << 32 | u64::from(at) << 40 | known)
    }

    /// The same, with the id of the listed cgroup. What is kept until the end, the verifier follows along every path:
    /// so these are numbers of which nothing is known.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits that were put there")]
    fn owner(self, cgroup: u64, ancestor: impl Fn(i32) -> u64) -> Owner {
        let Self(number) = self;
        let (known, at) = (number & KNOWN != 0, (number >> 40) as u8);
        let listed = match (known, at) {
            (false, _) => 0,
            (true, ITSELF) => cgroup,
            (true, level) => ancestor(level.into()),
        };
        Owner {
            known: forget(known, cgroup as u32),
            policy: number as u32,
            cgroup: listed ^ zero_long(cgroup as u32),
            level: (number >> 32) as u8,
        }
    }
}

/// Whose a packet's cgroup is. A cgroup has the same ancestors as long as it lives, and its id is never another's. So
/// what was found is kept like a verdict, as long as no cgroup is listed anew or no more. A function that the verifier
/// checks by itself: see [`judge`](super::judge).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn owner_of(skb: *mut __sk_buff, cgroup: u64) -> u64 {
    match look_up(Key::owner(cgroup), &Verdicts) {
        Ok(Number(found)) => found,
        Err(missing) => {
            // SAFETY: the context is valid, and any level may be asked for; the answer is 0 for one that isn't there.
            let ancestor = |level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) };
            let Found(found) = Found::find(cgroup, ancestor);
            missing.keep(Number(found)).0
        }
    }
}

/// The cgroup's own policy, or its nearest ancestor's. What is kept until the end, the verifier follows
/// along every path: so these are bytes of which nothing is known.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "any number that the verifier does not know")]
fn owner(cgroup: u64, ancestor: impl Fn(i32) -> u64) -> Owner {
    let mut owner = listed(cgroup);
    if !owner.known {
        (owner, _) = nearest(ancestor);
    }
    let any = cgroup as u32;
    Owner { known: forget(owner.known, any), level: forget(owner.level, any), ..owner }
}

/// The nearest ancestor that is listed, and its level.
#[inline(always)]
fn nearest(ancestor: impl Fn(i32) -> u64) -> (Owner, u8) {
    let (mut nearest, mut at) = (Owner::NOBODY, 0);
    for level in 0..CGROUP_LEVELS {
        let id = ancestor(level.into());
        if id == 0 {
            break;
        }
        let found = listed(id);
        if found.known {
            nearest = Owner { level: if nearest.known { EXACT } else { level }, ..found };
            at = level;
        }
    }
    (nearest, at)
}

#[inline(always)]
fn listed(cgroup: u64) -> Owner {
    // SAFETY: values are one word, which the agent replaces as a whole.
    match unsafe { WORKLOADS.get(cgroup) } {
        Some(policy) => Owner { known: true, policy: *policy, cgroup, ..Owner::NOBODY },
        None => Owner::NOBODY,
    }
}
