//! Sockets, namespaces, cgroups, splice: the only `unsafe` besides `bpf::pod`.

pub mod netlink;
pub mod process;
pub mod socket;
pub mod splice;
