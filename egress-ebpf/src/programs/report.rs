//! Counters and flow events.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_get_current_comm},
    maps::{PerCpuArray, ring_buf::RingBufEntry},
};
use egress_ebpf::{
    abi::{
        Command, FlowEvent, OriginalDst, Share, ShareKey, action, counter_index, event_class, hook,
        hop, lost, share_kind,
    },
    addr::{Addr, PortBe},
    decide::PolicyView as _,
    events::is_scarce,
    hooks,
    packet::protocol,
    reason::Reason,
    tunnel::End,
    verdict::Judgement,
};

use super::{
    maps::{COUNTERS, EVENT_SHARES, EVENTS, LOST},
    view::Maps,
};

/// Where a judgement was made.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    /// One of [`hook`].
    pub(crate) hook: u8,
    /// The workload's cgroup, or zero.
    pub(crate) cgroup: u64,
    /// The interface, or zero.
    pub(crate) ifindex: u32,
}

/// Who causes an event.
#[derive(Clone, Copy)]
pub(crate) struct Cause {
    share: ShareKey,
    /// Whether it is the current process.
    is_current: bool,
}

impl Cause {
    /// A packet: whichever process runs now need not have sent it.
    #[inline(always)]
    pub(crate) fn packet(share: ShareKey) -> Self {
        Self { share, is_current: false }
    }

    /// A system call of the current process.
    #[inline(always)]
    pub(crate) fn system_call(share: ShareKey) -> Self {
        Self { share, is_current: true }
    }
}

/// How much is in the ring buffer: `BPF_RB_AVAIL_DATA`, include/uapi/linux/bpf.h.
const AVAILABLE: u64 = 0;

/// Counts every judgement, and emits an event for a refusal or a connect. `cause` tells who causes it,
/// which is asked only then. A connect that is sent to a gateway has no source yet: [`redirected`] emits
/// its event.
#[inline(always)]
pub(crate) fn report(site: Site, judgement: &Judgement, cause: impl FnOnce() -> Cause) {
    let code = judgement.action_code();
    let reason = judgement.reason();
    let audited = judgement.audited();
    if audited && hooks::is_told_by_connect(judgement) {
        return;
    }
    if let Some(index) = counter_index(site.hook, code, reason as u8, audited) {
        // Nothing else counts for a hook of an interface while this runs: packets are classified with
        // softirqs off, and this CPU's counters of a hook are its own.
        if matches!(site.hook, hook::POD | hook::UPLINK) {
            count_alone(&COUNTERS, index);
        } else {
            count(&COUNTERS, index);
        }
    }
    let class = if code == action::DENY || audited {
        event_class::DENIED
    } else if site.hook == hook::CONNECT && code != action::REDIRECT && reason != Reason::Loopback {
        event_class::PASSED
    } else {
        return;
    };
    emit(site, judgement, class, cause());
}

/// Not on the stack, which is short.
static NEW: Share = Share::NEW;

/// A workload's share, which is made with its first event.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would take room on the stack, of which a program has 512 bytes"
)]
fn share_of(key: &ShareKey) -> Option<*mut Share> {
    if let Some(share) = EVENT_SHARES.get_ptr_mut(key) {
        return Some(share);
    }
    // On another CPU it may have been made this moment, which then begins anew.
    let _without = EVENT_SHARES.insert(key, &NEW, 0);
    EVENT_SHARES.get_ptr_mut(key)
}

/// Whether a workload may cause an event; what it may not is counted. A function with a stack of its own,
/// since its caller's is short of room, and one that the verifier checks by itself: see
/// [`judge`](super::judge).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admitted(id: u64, kind: u32, class: u32) -> bool {
    let key = ShareKey { id, kind, reserved: 0 };
    let Some(share) = share_of(&key) else {
        count(&LOST, lost::FULL);
        return false;
    };
    // The clock's last tick would do, but programs of security modules have no helper for it (since 5.16).
    // SAFETY: the helper takes nothing.
    let time = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the pointer is to the map's value, which stays memory of that kind even if the entry is
    // forgotten meanwhile. Programs on other CPUs may change the bucket, too; then it gives or keeps
    // some events too many, which nothing depends on.
    let (sparing, allowed) = unsafe {
        let bucket = match class {
            event_class::DENIED => &mut (*share).buckets[0],
            _ => &mut (*share).buckets[1],
        };
        (bucket.is_sparing(time), bucket.take(time, Maps.globals().event_rate()))
    };
    if !allowed {
        lose(share, lost::RATE);
        return false;
    }
    if is_scarce(EVENTS.query(AVAILABLE)) && !sparing {
        lose(share, lost::FULL);
        return false;
    }
    true
}

/// Counts an event that found the ring buffer full. As [`admitted`], a function that the verifier checks by
/// itself, and those give back a number; this one says whether the workload's own count has it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn found_no_room(id: u64, kind: u32) -> bool {
    let key = ShareKey { id, kind, reserved: 0 };
    let Some(share) = share_of(&key) else {
        count(&LOST, lost::FULL);
        return false;
    };
    lose(share, lost::FULL);
    true
}

#[inline(always)]
fn emit(site: Site, judgement: &Judgement, class: u32, cause: Cause) {
    let Cause { share, is_current } = cause;
    let Some((time, mut entry)) = reserve(share.id, share.kind, class) else { return };
    let flow = judgement.flow();
    entry.write(FlowEvent {
        time,
        cgroup: site.cgroup,
        ifindex: site.ifindex,
        policy: judgement.policy(),
        source: flow.source,
        destination: flow.destination,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        gateway: Addr::UNSPECIFIED,
        gateway_port: PortBe::new(0),
        ether_type: judgement.ether_type(),
        protocol: flow.protocol,
        hook: site.hook,
        action: judgement.action_code(),
        reason: judgement.reason() as u8,
        audit: u8::from(judgement.audited()),
        reserved: [0; 7],
        pid: 0,
        command: [0; _],
    });
    if is_current {
        let event = entry.as_mut_ptr();
        // SAFETY: the event was written just now.
        unsafe { name_process(&raw mut (*event).pid, &raw mut (*event).command) };
    }
    entry.submit(0);
}

#[expect(clippy::cast_possible_truncation, reason = "16 bytes, as the kernel has them")]
const COMMAND_BYTES: u32 = size_of::<Command>() as u32;

/// Says which process makes the system call that runs now. It writes where the names stay, and not on the
/// stack, which is short. Minimum kernel version: 5.7.
///
/// # Safety
/// Both pointers are to memory of a map or of the ring buffer.
#[inline(always)]
pub(crate) unsafe fn name_process(pid: *mut u32, command: *mut Command) {
    // The upper half is the thread group, which user space calls the process; the rest is the thread.
    let process = u32::try_from(bpf_get_current_pid_tgid() >> 32).unwrap_or(0);
    // SAFETY: as the caller says. The helper fills all of it, and can't fail with a size that is not zero.
    unsafe {
        pid.write_volatile(process);
        let _always_works = bpf_get_current_comm(command.cast(), COMMAND_BYTES);
    }
}

/// Room for an event, and the time, if the workload may cause one.
#[inline(always)]
fn reserve(id: u64, kind: u32, class: u32) -> Option<(u64, RingBufEntry<FlowEvent>)> {
    if !admitted(id, kind, class) {
        return None;
    }
    // SAFETY: the helper takes nothing.
    let time = unsafe { bpf_ktime_get_ns() };
    let Some(entry) = EVENTS.reserve::<FlowEvent>(0) else {
        let _is_counted = found_no_room(id, kind);
        return None;
    };
    Some((time, entry))
}

/// Emits the event of a connect that was sent to a gateway or the tunnel, once its source is chosen.
#[inline(always)]
pub(crate) fn redirected(asked: &OriginalDst, local: End) {
    let OriginalDst { caller, share, policy, addr, port, hop, pid, command, .. } = *asked;
    let room = reserve(share, share_kind::CGROUP, event_class::PASSED);
    let Some((time, mut entry)) = room else { return };
    let (reason, gateway, gateway_port) = match hop {
        hop::PLAIN => (Reason::Routed, asked.gateway, asked.gateway_port),
        _ => (Reason::Tunneled, Addr::UNSPECIFIED, PortBe::new(0)),
    };
    entry.write(FlowEvent {
        time,
        cgroup: caller,
        ifindex: 0,
        policy,
        source: local.addr,
        destination: addr,
        gateway,
        source_port: local.port,
        destination_port: port,
        gateway_port,
        ether_type: 0,
        protocol: protocol::TCP,
        hook: hook::CONNECT,
        action: action::REDIRECT,
        reason: reason as u8,
        audit: 0,
        reserved: [0; 7],
        pid,
        command,
    });
    entry.submit(0);
}

/// Counts an event that nobody will see, in all and for its workload.
#[inline(always)]
fn lose(share: *mut Share, cause: u32) {
    // SAFETY: as in `admitted`; the numbers are aligned to 8 bytes.
    unsafe {
        match cause {
            lost::RATE => add_one(&raw mut (*share).lost[0]),
            _ => add_one(&raw mut (*share).lost[1]),
        }
    }
    count(&LOST, cause);
}

#[inline(always)]
fn count(map: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = map.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's value, aligned to 8 bytes.
        unsafe { add_one(counter) };
    }
}

/// As [`count`], where nothing can come in between: an atomic addition takes a tenth of a verdict's
/// time.
#[inline(always)]
fn count_alone(map: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = map.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's value, aligned to 8 bytes.
        unsafe { *counter += 1 };
    }
}

/// Adds atomically, since another program may interrupt this one on the same CPU. The compiler has
/// no atomic operations for this target, though the machine has this one.
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn add_one(counter: *mut u64) {
    // SAFETY: the caller's pointer is valid for a write.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {one}",
            counter = in(reg) counter,
            one = in(reg) 1_u64,
        );
    }
}

/// On the host programs only compile.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
unsafe fn add_one(counter: *mut u64) {
    // SAFETY: the caller's pointer is valid for a write.
    unsafe { *counter += 1 };
}
