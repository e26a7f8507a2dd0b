//! What all attempts of a run share.

use std::{net::IpAddr, time::Duration};

use rustix::thread::CapabilitySet;

use super::{network::Network, sockets::Sockets, token::ProbeId};

/// What all attempts of a run share.
#[derive(Debug)]
pub struct Settings {
    /// The run.
    pub id: ProbeId,
    /// The canary's addresses, at most one of each family.
    pub targets: Vec<IpAddr>,
    /// The canary's ports; attempts take them in turn.
    pub ports: Vec<u16>,
    /// How long an attempt waits for an answer.
    pub timeout: Duration,
    /// The gateway's address.
    pub gateway: Option<IpAddr>,
    /// Whether attempts are made that disturb others where nothing stops them.
    pub risky: bool,
    /// What the process may do.
    pub capabilities: CapabilitySet,
    /// Where it is, or why that can't be told.
    pub network: Result<Network, String>,
    /// Sockets from before.
    pub held: Option<Sockets>,
    /// Sockets of somebody else.
    pub passed: Option<Sockets>,
}
