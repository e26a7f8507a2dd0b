//! The bypass techniques, one module for each kind. Each attempt is a function from a [`RunningAttempt`](super::attempt::RunningAttempt)
//! to its outcome.

pub(super) mod family;
pub(super) mod frames;
pub(super) mod gateway;
pub(super) mod held;
pub(super) mod in_cluster;
pub(super) mod link;
pub(super) mod namespace;
pub(super) mod options;
pub(super) mod ping;
pub(super) mod raw;
pub(super) mod segments;
pub(super) mod service;
pub(super) mod stream;
pub(super) mod udp;
pub(super) mod unfinished;
pub(super) mod uring;
