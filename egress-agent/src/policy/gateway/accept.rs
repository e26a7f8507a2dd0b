//! What becomes of a connection before a byte of it is read.

use super::GatewayPolicy;
use crate::{
    policy::{Denied, Hop, PortMode, TcpRoute},
    types::{OriginalDst, OriginalPort, Source},
};

/// A connection that is accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// Its first bytes say whether it speaks HTTP or TLS, and for which host.
    Detect,
    /// It is raw TCP, whose destination is known.
    Tcp(TcpRoute),
}

impl GatewayPolicy {
    /// Decides a connection by where it comes from and what was dialled.
    ///
    /// # Errors
    /// [`Denied`], with the reason.
    pub fn accept(
        &self,
        source: &Source,
        hop: Hop,
        port: OriginalPort,
        dialled: OriginalDst,
    ) -> Result<Accepted, Denied> {
        let mode = match hop {
            Hop::Plain => self.port_mode(port),
            Hop::Tunnel => self.tunnel_mode(source, dialled),
        };
        match (mode, hop) {
            (PortMode::Detect, _) => Ok(Accepted::Detect),
            (PortMode::Tcp, Hop::Plain) => self.tcp(source, port).map(Accepted::Tcp),
            (PortMode::Tcp, Hop::Tunnel) => self.tunnel_tcp(source, dialled).map(Accepted::Tcp),
            (PortMode::Closed(reason), _) => {
                Err(Denied { reason, detail: format!("no route for port {port}"), matched: None })
            }
        }
    }
}
