//! Which connections of pods may share a tunnel.

use std::{net::SocketAddr, sync::Arc};

use crate::{policy::TunnelTls, types::SpiffeId};

/// What streams must have in common to share a connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    /// The gateway's listener.
    pub(super) endpoint: SocketAddr,
    /// How it is secured.
    pub(super) tls: Arc<TunnelTls>,
    /// Whom it is for: one workload's stalled streams are no other's concern. `None` for those that
    /// no configuration knows.
    pub(super) identity: Option<SpiffeId>,
}
