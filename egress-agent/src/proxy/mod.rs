//! The proxy: accept → detect → decide → act.

pub mod http;

mod drain;
mod limits;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use egress_ebpf::reason::Reason;

pub use self::{drain::Drain, limits::Limits};
use crate::{
    net::Dialer,
    policy::{Denied, GatewayPolicy},
    tls::Originator,
    types::{ClientAddr, LocalAddr, OriginalPort, Source},
};

/// The policy in force, swapped whole; empty until a configuration was accepted.
pub type PolicyCell = Arc<ArcSwapOption<GatewayPolicy>>;

/// What all connections of one worker thread share.
#[derive(Debug)]
pub struct Worker {
    /// The policy in force; see [`Self::policy`].
    pub policy: PolicyCell,
    /// Connections to the outside.
    pub dialer: Dialer,
    /// TLS towards the outside.
    pub originator: Originator,
    /// HTTP's pool.
    pub http: http::Shared,
    /// Deadlines and limits.
    pub limits: Limits,
    /// The worker's end.
    pub drain: Drain,
}

impl Worker {
    /// The policy to decide by, now. Ask again for every decision.
    ///
    /// # Errors
    /// [`Reason::NotConfigured`] as long as no configuration was accepted.
    pub fn policy(&self) -> Result<Arc<GatewayPolicy>, Denied> {
        self.policy.load_full().ok_or_else(|| Denied {
            reason: Reason::NotConfigured,
            detail: "this gateway has no configuration yet".into(),
        })
    }
}

/// A connection from an application.
#[derive(Clone, Debug)]
pub struct Downstream {
    /// Its other end.
    pub peer: ClientAddr,
    /// Our end; its port is the one that the application dialled.
    pub local: LocalAddr,
    /// That port.
    pub port: OriginalPort,
    /// Who is there.
    pub source: Source,
    /// When it was accepted, for durations.
    pub start: Instant,
    /// When it was accepted, for people.
    pub start_time: SystemTime,
}
