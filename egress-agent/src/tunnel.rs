//! The node's end of the tunnel: pods' connections inside HTTP/2 CONNECT over mutual TLS 1.3 to a
//! gateway's port 15008 (HBONE, as Istio's ztunnel and waypoints speak it).
//!
//! A connection is served only if the kernel recorded where it was going. What can't be tunnelled
//! is reset and counted: nothing is ever sent in clear text, and nothing past the gateway.

mod client;
mod config;
mod connection;
mod credentials;
mod drain;
mod error;
mod key;
mod listener;
mod pool;
mod refusal_log;
mod relay;
mod request;
mod settings;
mod stats;
mod threads;
mod worker;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use self::{
    config::TunnelConfig,
    credentials::Credentials,
    drain::Drain,
    error::{DialError, Refusal},
    settings::{Group, Settings},
    stats::{Closed, Stats},
    threads::Tunnel,
};
use crate::{
    types::{ClientAddr, OriginalDst},
    wire::hbone,
};

/// What the kernel recorded of a connection that it redirected to the listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Where the application wanted to go.
    pub original: OriginalDst,
    /// The gateway group of the route that it took: an index in
    /// [`MeshConfig::gateways`](crate::policy::MeshConfig::gateways).
    pub group: usize,
    /// The cgroup that is listed for the workload; zero for none.
    pub cgroup: u64,
    /// The application's socket, as the kernel numbers them.
    pub socket: u64,
}

/// The process that asked for a connection, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CallingProcess {
    /// Its number in the first PID namespace.
    pub pid: Option<u32>,
    /// Its program; unknown once the process has ended.
    pub executable: Option<String>,
    /// The name that it has given itself.
    pub command: Option<String>,
    /// The path of its cgroup.
    pub cgroup: Option<String>,
    /// The container that the cgroup is of.
    pub container: Option<String>,
}

/// The kernel's records, by the application's address and port.
pub trait Origins: Send + Sync {
    /// Takes the record of this peer; there is one for each connection, so the second call finds
    /// none.
    fn take(&self, peer: ClientAddr) -> Option<Origin>;

    /// Who asked for it. Files are read for it: it is for refusals.
    fn process(&self, origin: &Origin) -> CallingProcess;
}

/// Deadlines and limits of a tunnel's thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For the node's certificate, where there is none yet.
    pub credentials: Duration,
    /// For the TCP connection to a gateway.
    pub connect: Duration,
    /// For TLS and HTTP/2 on it.
    pub handshake: Duration,
    /// For a gateway's answer to CONNECT.
    pub answer: Duration,
    /// Between two signs of life that a gateway is asked for.
    pub ping: Duration,
    /// For each of them.
    pub pong: Duration,
    /// A tunnel without a pod's connection is closed after this time.
    pub idle: Duration,
    /// After a failed dial the next one waits so long, and fails as the last one did.
    pub back_off: Duration,
    /// Connections of pods to one thread.
    pub connections: usize,
    /// Connections from one address to one thread: a pod mustn't take the places of all others.
    pub connections_per_source: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            credentials: Duration::from_millis(500),
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            ping: Duration::from_secs(10),
            pong: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            back_off: Duration::from_millis(200),
            connections: 50_000,
            connections_per_source: 10_000,
        }
    }
}

/// A gateway's listener for tunnels.
fn endpoint(gateway: IpAddr) -> SocketAddr {
    SocketAddr::new(gateway.to_canonical(), hbone::PORT)
}

#[cfg(test)]
mod tests;
