//! Loading, attaching and pinning the eBPF programs; keeping the maps equal to the snapshot.

pub mod object;
