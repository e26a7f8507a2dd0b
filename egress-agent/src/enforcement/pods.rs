//! The pods that the command line names.

use std::net::IpAddr;

use crate::bpf::Pattern;

/// `--pod-interface`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pod {
    pub(crate) name: Pattern,
    /// None of a pattern.
    pub(crate) addresses: Vec<IpAddr>,
}
