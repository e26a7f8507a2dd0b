//! What the control socket shows, given by the role.

use std::sync::Arc;

use super::{report::AgentReport, upgrade::UpgradeRequests};
use crate::{policy::Snapshot, telemetry::FlowLog};

/// See [`Serving::standing`].
pub(crate) type IsEnforcing = dyn Fn(&str, u64) -> Result<(), String> + Send + Sync;

/// What a role serves on its control socket.
pub(crate) struct Serving {
    /// The role's state, as of now.
    pub(crate) status: Box<dyn Fn() -> AgentReport + Send + Sync>,
    /// The configuration in force, for `explain`.
    pub(crate) snapshot: Box<dyn Fn() -> Option<Arc<Snapshot>> + Send + Sync>,
    /// Whether enforcement stands for the pod of this UID in the network namespace of this inode; if not, why.
    pub(crate) standing: Box<IsEnforcing>,
    /// Its flows.
    pub(crate) flows: Arc<FlowLog>,
    /// How many flows were lost before they got there.
    pub(crate) lost: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Has another process take over; `None` where the role cannot.
    pub(crate) upgrade: Option<UpgradeRequests>,
}
