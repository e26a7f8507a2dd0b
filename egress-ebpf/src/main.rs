//! The eBPF programs. On the host this builds to nothing, so that clippy and rust-analyzer work.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}
