//! What gateways serve.

use std::{fmt, sync::Arc};

use super::{HostPattern, InnerProtocol, Protocol, ResourcePath, ServerTls};
use crate::types::{GatewayPort, Labels, Namespace};

/// A `Gateway` of the Gateway API by its name, `default/cnn-egress-gateway`; absent for what Istio's resources and
/// egress policies route.
pub type Owner = Option<Arc<str>>;

/// One entry of `Gateway.spec.servers`.
#[derive(Clone, Debug)]
pub struct Server {
    /// The gateway: `default/istio-egressgateway`.
    pub gateway: Arc<str>,
    /// Labels of the processes that it is for; empty is for none.
    pub selector: Labels,
    /// The port.
    pub port: GatewayPort,
    /// Hosts, each with the namespace that routes for it must be in.
    pub hosts: Vec<(Option<Namespace>, HostPattern)>,
    /// What it does.
    pub protocol: ServerProtocol,
    /// The `Gateway` of the Gateway API that it belongs to, where that one shares the gateway's service with
    /// others: only what is routed to that `Gateway` reaches it.
    pub owner: Owner,
    /// Where it is written.
    pub place: ResourcePath,
}

/// `encryptedClientHello`: what becomes of a ClientHello that has, or pretends to have, an encrypted
/// one inside. The outer server name decides in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EncryptedHello {
    /// It is forwarded, and marked in the log.
    #[default]
    Allow,
    /// It is refused.
    Deny,
}

/// What a server does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerProtocol {
    /// HTTP, by host.
    Http {
        /// Answer with a redirect to `https`.
        https_redirect: bool,
    },
    /// TLS, untouched, by server name.
    Passthrough(EncryptedHello),
    /// TCP, by port.
    Tcp,
    /// TLS, terminated here, by server name.
    Terminate(Arc<ServerTls>),
}

impl ServerProtocol {
    /// Which rules of a virtual service are for it.
    #[must_use]
    pub fn carries(&self) -> Protocol {
        match self {
            Self::Http { .. } => Protocol::Http,
            Self::Passthrough(_) => Protocol::Tls,
            Self::Tcp => Protocol::Tcp,
            Self::Terminate(tls) => match tls.inside {
                InnerProtocol::Http => Protocol::Http,
                InnerProtocol::Tcp => Protocol::Tcp,
            },
        }
    }
}

impl fmt::Display for ServerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { .. } => f.write_str("HTTP"),
            Self::Passthrough(_) => f.write_str("TLS (PASSTHROUGH)"),
            Self::Tcp => f.write_str("TCP"),
            Self::Terminate(tls) => {
                write!(f, "TLS ({}): the client must speak TLS to the gateway itself", tls.mode)
            }
        }
    }
}
