//! Why a pod's connection isn't tunnelled.

use std::{fmt, net::SocketAddr};

use egress_ebpf::reason::Reason;
use http::StatusCode;
use thiserror::Error;

use crate::tls::TlsError;

/// Why there is no tunnel to a gateway. Nothing of a pod's data was sent.
#[derive(Clone, Debug, Error)]
pub enum DialError {
    /// This node has no usable certificate, or no roots.
    #[error("this node can't show itself to gateways: {0}")]
    Credentials(String),
    /// No connection.
    #[error("can't connect to {to}: {why}")]
    Connect {
        /// The gateway.
        to: SocketAddr,
        /// What the kernel said.
        why: String,
    },
    /// Too slow.
    #[error("{to} did not answer in time: {during}")]
    Timeout {
        /// The gateway.
        to: SocketAddr,
        /// What was waited for.
        during: &'static str,
    },
    /// The handshake failed.
    #[error("TLS with {to}: {why}")]
    Tls {
        /// The gateway.
        to: SocketAddr,
        /// What went wrong, and whose fault it was.
        why: TlsError,
    },
    /// It isn't a gateway of tunnels.
    #[error("{to} is no tunnel's end: found {found}, expected {expected}")]
    Protocol {
        /// The gateway.
        to: SocketAddr,
        /// What it speaks.
        found: String,
        /// What it should.
        expected: &'static str,
    },
    /// The connection ended before it was of use.
    #[error("{to} ended the tunnel at once: {why}")]
    Ended {
        /// The gateway.
        to: SocketAddr,
        /// Its word on it.
        why: String,
    },
}

impl DialError {
    /// Who was dialled.
    fn gateway(&self) -> Option<SocketAddr> {
        match self {
            Self::Credentials(_) => None,
            Self::Connect { to, .. }
            | Self::Timeout { to, .. }
            | Self::Tls { to, .. }
            | Self::Protocol { to, .. }
            | Self::Ended { to, .. } => Some(*to),
        }
    }

    /// The label of the metric.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Credentials(_) => Refusal::Credentials,
            Self::Connect { .. } => Refusal::Connect,
            Self::Timeout { .. } => Refusal::Timeout,
            Self::Tls { .. } | Self::Protocol { .. } | Self::Ended { .. } => Refusal::Tls,
        }
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why a connection to the listener was reset, as it is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The label's value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// The kernel recorded nothing of it: somebody dialled the listener.
    NoRecord = "no_record";
    /// There are too many connections, or too many of this source.
    Overflow = "overflow";
    /// No configuration, or none that tunnels to this group.
    NotConfigured = "not_configured";
    /// No gateway of the group is healthy.
    NoHealthyGateway = "no_healthy_gateway";
    /// This node has no usable certificate.
    Credentials = "credentials";
    /// A gateway can't be connected to.
    Connect = "connect";
    /// A gateway didn't answer in time.
    Timeout = "timeout";
    /// A gateway isn't trusted, doesn't trust this node, or speaks something else.
    Tls = "tls";
    /// A gateway refused the stream.
    Gateway = "gateway";
    /// The tunnel broke before the gateway had answered, again.
    Broken = "broken";
}

impl Refusal {
    /// Its place in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// The reason that `flows` shows.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::NoRecord => Reason::NoRecord,
            Self::Overflow => Reason::Overflow,
            Self::NotConfigured => Reason::NoPolicy,
            Self::NoHealthyGateway => Reason::NoHealthyGateway,
            Self::Connect | Self::Timeout | Self::Broken => Reason::GatewayUnreachable,
            Self::Credentials | Self::Tls => Reason::GatewayTls,
            Self::Gateway => Reason::GatewayRefused,
        }
    }
}

/// A refusal with all that is known of it.
#[derive(Debug)]
pub(super) enum Refused {
    /// See [`Refusal::NoRecord`].
    NoRecord,
    /// See [`Refusal::Overflow`].
    Overflow,
    /// See [`Refusal::NotConfigured`].
    NotConfigured { group: usize },
    /// See [`Refusal::NoHealthyGateway`].
    NoHealthyGateway { service: String },
    /// Nobody could be asked for it.
    Request(String),
    /// No tunnel.
    Dial(DialError),
    /// The gateway answered.
    Status { by: SocketAddr, status: StatusCode },
    /// It reset the stream.
    Reset { by: SocketAddr, why: String },
    /// It didn't answer.
    Silent { by: SocketAddr },
    /// The tunnel broke.
    Broken { with: SocketAddr, why: String },
}

impl Refused {
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::NoRecord => Refusal::NoRecord,
            Self::Overflow => Refusal::Overflow,
            Self::NotConfigured { .. } | Self::Request(_) => Refusal::NotConfigured,
            Self::NoHealthyGateway { .. } => Refusal::NoHealthyGateway,
            Self::Dial(error) => error.refusal(),
            Self::Status { .. } | Self::Reset { .. } => Refusal::Gateway,
            Self::Silent { .. } => Refusal::Timeout,
            Self::Broken { .. } => Refusal::Broken,
        }
    }
}

impl Refused {
    /// Who was asked last.
    pub(super) fn gateway(&self) -> Option<SocketAddr> {
        match self {
            Self::NoRecord
            | Self::Overflow
            | Self::NotConfigured { .. }
            | Self::NoHealthyGateway { .. }
            | Self::Request(_) => None,
            Self::Dial(error) => error.gateway(),
            Self::Status { by: gateway, .. }
            | Self::Reset { by: gateway, .. }
            | Self::Silent { by: gateway }
            | Self::Broken { with: gateway, .. } => Some(*gateway),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecord => f.write_str(
                "the kernel did not redirect it here, so no original destination is recorded",
            ),
            Self::Overflow => f.write_str("too many connections, or too many of this source"),
            Self::NotConfigured { group } => {
                write!(f, "no accepted configuration has a tunnel to the gateway group {group}")
            }
            Self::NoHealthyGateway { service } => write!(f, "no gateway of {service} is healthy"),
            Self::Request(why) => write!(f, "its destination can't be asked for: {why}"),
            Self::Dial(error) => error.fmt(f),
            Self::Status { by, status } => {
                write!(f, "the gateway {by} refused it with {status}; its access log says why")
            }
            Self::Reset { by, why } => write!(f, "the gateway {by} reset it: {why}"),
            Self::Silent { by } => write!(f, "the gateway {by} did not answer CONNECT in time"),
            Self::Broken { with, why } => write!(f, "the tunnel to {with} broke: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_place_and_name() {
        for (place, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal.index(), place);
            let same = Refusal::ALL.iter().filter(|other| other.name() == refusal.name());
            assert_eq!(same.count(), 1, "{}", refusal.name());
            // None of them is a reason to let something pass.
            assert!(refusal.reason() as u8 >= 16);
        }
    }
}
