//! Values with a role. A bare `SocketAddr`, port or string doesn't cross a module's border.

mod asserted_workload;
mod config_map;
mod configuration_stamp;
mod duration;
mod host;
mod identity;
pub mod log;
mod namespace;
mod net;
mod peer;
mod printable;
mod revisions;
mod share;
mod spiffe;
pub(crate) mod steps;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod trace;

pub use asserted_workload::AssertedWorkload;
pub use config_map::ConfigMap;
pub use configuration_stamp::ConfigurationStamp;
pub use duration::{duration_within, parse_duration};
pub use host::{Host, HostError};
pub use identity::{
    DEFAULT_SERVICE_ACCOUNT, GatewayIdentity, Labels, Node, Selector, Source, Workload,
};
pub use namespace::Namespace;
pub use net::{ClientAddr, GatewayPort, LocalAddr, OriginalDst, OriginalPort, Port, UpstreamAddr};
pub use peer::{DownstreamTls, PeerCertificate};
pub use printable::{is_unseen, printable};
pub use revisions::{Revision, Revisions};
pub use share::{ShareOwner, within_share};
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
pub use text::Text;
pub use trace::TraceId;
