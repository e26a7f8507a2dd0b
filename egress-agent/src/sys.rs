//! Sockets, namespaces, cgroups, splice: the only `unsafe` besides `bpf::pod`.

#[cfg(test)]
pub(crate) mod allocations;
pub mod interface;
pub mod listening;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod packet_pair;
pub mod process;
pub mod raw;
pub mod retire;
pub mod service;
pub mod socket;
pub mod spare;
pub mod splice;
pub mod tx_ring;
pub mod uring;
pub mod usage;
pub mod xdp;
