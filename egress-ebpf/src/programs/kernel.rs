//! Reading the kernel's own structures.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};

/// The offset of the number of a network namespace. Where the kernel keeps what, in bytes from the
/// start of each structure, the agent takes from the kernel's own description (BTF) before loading.
#[unsafe(no_mangle)]
pub(super) static NET_INUM: Global<u32> = Global::new(0);
/// The number of the host's network namespace.
#[unsafe(no_mangle)]
pub(super) static HOST_NETNS: Global<u32> = Global::new(0);

/// Reads a field of the kernel's.
#[inline(always)]
pub(super) fn read<T>(structure: u64, field: u32) -> Option<T> {
    let address = structure.wrapping_add(u64::from(field)) as *const T;
    // SAFETY: the helper copies from any address, and answers an error for one that can't be read.
    unsafe { bpf_probe_read_kernel(address) }.ok()
}
