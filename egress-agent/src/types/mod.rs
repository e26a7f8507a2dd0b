//! Values with a role. A bare `SocketAddr`, port or string doesn't cross a module's border.

mod host;
mod identity;
mod net;
mod peer;
mod spiffe;

pub use host::{Host, HostError};
pub use identity::{GatewayIdentity, Labels, Namespace, Selector, Source, Workload};
pub use net::{ClientAddr, GatewayPort, LocalAddr, OriginalPort, Port, UpstreamAddr};
pub use peer::{DownstreamTls, PeerCertificate};
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
