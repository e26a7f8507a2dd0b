//! `netlink_send`: what a workload may ask of the kernel over netlink.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    Global, cty::c_int, helpers::generated::bpf_probe_read_kernel, macros::lsm,
    programs::LsmContext,
};
use egress_ebpf::{hooks, netlink::NETLINK_ROUTE, packet::Bytes};

use super::{
    context::{forget, zero},
    kernel::read,
    socket::{EPERM, conclude},
    view::{Maps, Workload},
};

/// Where the kernel keeps what: see `socket`.
#[unsafe(no_mangle)]
static SOCK_PROTOCOL: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_LENGTH: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_DATA: Global<u32> = Global::new(0);

/// Refuses workloads messages to rtnetlink that name a network namespace by its id. The kernel has
/// copied them before, and they are all in one piece. Minimum kernel version: 5.7, with BPF among the
/// active security modules (`lsm=…,bpf`).
#[lsm(hook = "netlink_send")]
fn netlink_send(context: LsmContext) -> i32 {
    // int netlink_send(struct sock *sk, struct sk_buff *skb), and what the module before said. Only
    // constants are returned, since the verifier wants to know the range.
    let before: c_int = context.arg(2);
    if before != 0 {
        return EPERM;
    }
    let (socket, packet): (*const c_void, *const c_void) = (context.arg(0), context.arg(1));
    let protocol = read::<u16>(socket as u64, SOCK_PROTOCOL.load());
    if protocol.is_some_and(|protocol| protocol != NETLINK_ROUTE) {
        return 0;
    }
    let workload = Workload::current();
    let Some(known) = workload.known() else { return 0 };
    let length = read(packet as u64, SKB_LENGTH.load());
    let data = read(packet as u64, SKB_DATA.load());
    let (Some(length), Some(data)) = (length, data) else { return EPERM };
    let judgement = hooks::netlink(&Sent { data, length }, known.policy, &Maps);
    judgement.map_or(0, |judgement| conclude(&workload, judgement))
}

/// What was sent.
struct Sent {
    data: u64,
    length: u32,
}

impl Bytes for Sent {
    #[inline(always)]
    fn verifier_barrier<T: Copy>(&self, value: T) -> T {
        forget(value, self.length)
    }

    #[inline(always)]
    fn forget_word(&self, value: u32) -> u32 {
        value ^ zero(self.length)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let length = u32::try_from(N).ok()?;
        if offset > self.length || self.length - offset < length {
            return None;
        }
        let from = self.data.wrapping_add(u64::from(offset)) as *const c_void;
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper fills all of the buffer or says that it didn't, and copies from any
        // address.
        let failed = unsafe { bpf_probe_read_kernel(bytes.as_mut_ptr().cast(), length, from) };
        // SAFETY: as above.
        (failed == 0).then(|| unsafe { bytes.assume_init() })
    }
}
