//! One module a kind of hook; what they share is in [`context`], [`maps`], [`view`]
//! and [`report`].
#![expect(
    unsafe_code,
    reason = "programs are exported by name, and reading a context or a map is unsafe"
)]

mod cache;
mod capture;
mod connect;
mod context;
mod judge;
mod kernel;
mod lookup;
mod maker;
mod maps;
mod message;
mod netlink;
mod offload;
mod packet;
mod peer;
mod read;
mod report;
mod slots;
mod sock_ops;
mod socket;
mod view;
