//! From a cluster to a connection: resolve once, check every address, dial what was checked.

use std::{io, time::Duration};

use egress_ebpf::reason::Reason;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::{
    policy::{Cluster, GatewayPolicy},
    types::{Host, LocalAddr, UpstreamAddr},
};

/// Makes connections to clusters. One a worker; limits and health are shared by all workers.
#[derive(Debug)]
pub struct Dialer {}

/// A connection to an endpoint of a cluster, in clear: TLS is started on it by [`crate::tls`].
#[derive(Debug)]
pub struct Upstream {
    /// The connection, with `TCP_NODELAY`.
    pub stream: TcpStream,
    /// What was dialled.
    pub addr: UpstreamAddr,
    /// Our end.
    pub local: LocalAddr,
    /// Keep it as long as the connection: it holds the place under `maxConnections`.
    pub lease: Lease,
}

/// A connection's place in its cluster's limits and its endpoint's load; given back on drop.
#[derive(Debug)]
pub struct Lease {}

impl Lease {
    /// Tells outlier detection how an exchange with the endpoint ended: `false` for a `5xx`, a
    /// reset or failed TLS.
    pub fn report(&self, _good: bool) {}
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{host} could not be resolved: {why}")]
    Resolve {
        /// The name.
        host: Host,
        /// A sentence.
        why: String,
    },
    /// It has one that must not be dialled.
    #[error("{host} resolves to {}, which this gateway must not dial", addr.ip())]
    AddressRefused {
        /// The name.
        host: String,
        /// The address.
        addr: UpstreamAddr,
    },
    /// The cluster has no endpoint.
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
    /// Nothing answered in time.
    #[error("no answer within {} ms from {addr}", after.as_millis())]
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
            Self::Resolve { .. } => Reason::ResolveFailed,
            Self::AddressRefused { .. } => Reason::AddressRefused,
            Self::NoHealthyUpstream { .. } => Reason::NoHealthyUpstream,
            Self::Overflow { .. } => Reason::Overflow,
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
            | Self::Overflow { .. } => None,
        }
    }
}

impl Dialer {
    /// Connects to an endpoint of `cluster`, within its `connectTimeout` all in all. `host` is the
    /// request's host; a [`Discovery::Request`](crate::policy::Discovery::Request) cluster resolves
    /// it.
    ///
    /// # Errors
    /// [`DialError`]; nothing was sent.
    pub async fn dial(
        &self,
        _policy: &GatewayPolicy,
        cluster: &Cluster,
        _host: Option<&Host>,
    ) -> Result<Upstream, DialError> {
        Err(DialError::NoHealthyUpstream { cluster: cluster.name.to_string() })
    }
}
