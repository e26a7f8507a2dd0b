//! What the canary saw arrive.

use tokio::sync::mpsc;

use crate::probe::token::Token;

/// Something with a token that arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Which attempt of which run.
    pub token: Token,
    /// The sender: an address, or a hardware address where there is none.
    pub from: String,
    /// What it came as: `TCP`, `UDP`, `protocol 47`, `ethertype 0x88cc`.
    pub protocol: String,
    /// The port that it came to, if there is one.
    pub port: Option<u16>,
}

/// Where arrivals are reported.
pub(super) type ReportArrival = mpsc::UnboundedSender<Arrival>;
