//! What a tunnel is started with.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;

use super::{Credentials, Drain, Limits, Origins, Settings, Stats};
use crate::telemetry::FlowLog;

/// What all threads share.
#[derive(Clone)]
pub struct TunnelConfig {
    /// What is to be done, swapped whole.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The kernel's records.
    pub origins: Arc<dyn Origins>,
    /// Whom to trust.
    pub credentials: Arc<dyn Credentials>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Where refusals are shown.
    pub flows: Arc<FlowLog>,
    /// Deadlines and limits, of each thread.
    pub limits: Limits,
    /// Their end.
    pub drain: Drain,
}

impl fmt::Debug for TunnelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}
