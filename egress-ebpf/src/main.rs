//! The eBPF programs: thin shells around the library's verdicts. On the host they compile, so that
//! clippy and rust-analyzer see them, and do nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod programs;

/// Nothing here panics: the verifier refuses a program that could get to this loop.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
