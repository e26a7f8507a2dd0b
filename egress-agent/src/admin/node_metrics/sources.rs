//! Where the node's values come from.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use tokio::sync::watch;

use super::fills::MapFillCounter;
use crate::{
    bpf::{Counters, Shares},
    enforcement::{Condition, Modes, NodeCounters, Pod},
    pods::UnknownInterface,
    source::Loaded,
    telemetry::Exports,
    tls::Credentials,
    tunnel::Stats,
};

/// Where the values come from.
pub(crate) struct Sources {
    /// What the kernel counts.
    pub counters: Arc<Counters>,
    pub shares: Shares,
    pub agent: AgentSources,
}

/// Those of the agent itself.
pub(crate) struct AgentSources {
    pub pods: Vec<Pod>,
    pub tally: Arc<NodeCounters>,
    pub condition: Arc<Condition>,
    pub loaded: watch::Receiver<Loaded>,
    pub healthy: watch::Receiver<HashSet<IpAddr>>,
    pub modes: watch::Receiver<Modes>,
    pub credentials: Arc<Credentials>,
    pub tunnel: Arc<Stats>,
    /// How full the kernel's maps are.
    pub fills: MapFillCounter,
    /// Interfaces whose pods are not known.
    pub unknown: watch::Receiver<Vec<UnknownInterface>>,
    /// What is exported over OTLP.
    pub exports: Option<Arc<Exports>>,
}
