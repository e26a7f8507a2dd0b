//! Counters and flow events.

use aya_ebpf::{helpers::bpf_ktime_get_ns, maps::PerCpuArray};
use egress_ebpf::{
    abi::{FlowEvent, action, counter_index, event_class, hook, lost},
    decide::PolicyView as _,
    hooks,
    reason::Reason,
    verdict::Judgement,
};

use super::{
    maps::{COUNTERS, EVENTS, EVENTS_STATE, LOST},
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

/// Counts every judgement, and emits an event for a refusal or a connect.
#[inline(always)]
pub(crate) fn report(site: Site, judgement: &Judgement) {
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
    } else if site.hook == hook::CONNECT && reason != Reason::Loopback {
        event_class::PASSED
    } else {
        return;
    };
    emit(site, judgement, class);
}

#[inline(always)]
fn emit(site: Site, judgement: &Judgement, class: u32) {
    // SAFETY: the helper takes nothing.
    let time = unsafe { bpf_ktime_get_ns() };
    let Some(bucket) = EVENTS_STATE.get_ptr_mut(class) else { return };
    // SAFETY: the pointer is to this CPU's value. A softirq's program may interrupt this one on the
    // same CPU; then the bucket gives or keeps an event too many, which nothing depends on.
    let allowed = unsafe { (*bucket).take(time, Maps.globals().event_rate()) };
    if !allowed {
        return count(&LOST, lost::RATE);
    }
    let Some(mut entry) = EVENTS.reserve::<FlowEvent>(0) else {
        return count(&LOST, lost::FULL);
    };
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
        ether_type: judgement.ether_type(),
        protocol: flow.protocol,
        hook: site.hook,
        action: judgement.action_code(),
        reason: judgement.reason() as u8,
        audit: u8::from(judgement.audited()),
        reserved: [0; 5],
    });
    entry.submit(0);
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
