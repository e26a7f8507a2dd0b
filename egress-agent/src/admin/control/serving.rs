//! What the control socket shows, given by the role.

use std::sync::Arc;

use super::{report::AgentReport, upgrade::UpgradeRequests};
use crate::{policy::Snapshot, telemetry::FlowLog};

/// What a role serves on its control socket.
pub(crate) struct Serving {
    /// The role's state, as of now.
    pub(crate) status: Box<dyn Fn() -> AgentReport + Send + Sync>,
    /// The configuration in force, for `explain`.
    pub(crate) snapshot: Box<dyn Fn() -> Option<Arc<Snapshot>> + Send + Sync>,
    /// Its flows.
    pub(crate) flows: Arc<FlowLog>,
    /// How many flows were lost before they got there.
    pub(crate) lost: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Has another process take over; `None` where the role cannot.
    pub(crate) upgrade: Option<UpgradeRequests>,
}
