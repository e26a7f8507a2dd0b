//! Why there is no connection, and what is logged for that.

use std::{io, net::IpAddr, time::Duration};

use egress_ebpf::reason::Reason;
use thiserror::Error;

use super::super::ResolveError;
use crate::types::{Host, UpstreamAddr};

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{host} could not be resolved: {why}")]
    Resolve {
        /// The name.
        host: Host,
        /// What the resolver found.
        why: ResolveError,
    },
    /// It has only ones that must not be dialled.
    #[error("{host} has the address {addr}, which this gateway must not dial")]
    AddressRefused {
        /// The name, or the cluster.
        host: String,
        /// The address.
        addr: IpAddr,
    },
    /// The cluster has no endpoint, or all are ejected.
    #[error("no endpoint of {cluster} is healthy")]
    NoHealthyUpstream {
        /// The cluster's key.
        cluster: String,
    },
    /// `maxConnections` is reached.
    #[error("{cluster} has its limit of {limit} connections")]
    Overflow {
        /// The cluster's key.
        cluster: String,
        /// `maxConnections`.
        limit: u32,
    },
    /// It was to be dialled from an address that this machine does not have.
    #[error("{what} for {cluster}")]
    From {
        /// What is missing.
        what: String,
        /// The cluster's key.
        cluster: String,
    },
    /// Nothing answered in time.
    #[error("no answer from {addr} within {} ms", after.as_millis())]
    Timeout {
        /// The last address tried.
        addr: UpstreamAddr,
        /// `connectTimeout`.
        after: Duration,
    },
    /// Refused or unreachable.
    #[error("{addr}: {source}")]
    Connect {
        /// The last address tried.
        addr: UpstreamAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DialError {
    /// The reason to log and count.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Resolve { why: ResolveError::Overflow, .. } => Reason::ResolveOverflow,
            Self::Resolve { .. } => Reason::ResolveFailed,
            Self::AddressRefused { .. } => Reason::AddressRefused,
            Self::NoHealthyUpstream { .. } => Reason::NoHealthyUpstream,
            Self::Overflow { .. } => Reason::Overflow,
            Self::From { .. } => Reason::EgressAddressUnavailable,
            Self::Timeout { .. } => Reason::Timeout,
            Self::Connect { .. } => Reason::ConnectFailed,
        }
    }

    /// What was dialled last, if anything was.
    #[must_use]
    pub fn upstream(&self) -> Option<UpstreamAddr> {
        match self {
            Self::Timeout { addr, .. } | Self::Connect { addr, .. } => Some(*addr),
            Self::Resolve { .. }
            | Self::AddressRefused { .. }
            | Self::NoHealthyUpstream { .. }
            | Self::From { .. }
            | Self::Overflow { .. } => None,
        }
    }
}
