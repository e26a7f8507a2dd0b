//! The kernel side's logic, free of the kernel.
//!
//! `no_std`, built for `bpfel-unknown-none` as part of the programs and for the host as part of the
//! agent and of the tests. [`abi`] is what both sides of a map agree on; everything else is pure.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod absent;
pub mod addr;
pub mod cache;
pub mod decide;
pub mod endpoint;
pub mod events;
pub mod hooks;
pub mod inbound;
pub mod netlink;
pub mod packet;
pub mod reason;
pub mod tunnel;
pub mod verdict;

#[cfg(test)]
mod testing;
