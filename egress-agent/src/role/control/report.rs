//! What an agent tells of itself, on both ends of the socket.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{role::reload::Loaded, telemetry::rfc3339};

/// The answer to `GET /status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub(in crate::role) enum AgentReport {
    Node(NodeReport),
    Gateway(GatewayReport),
}

/// The process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct Process {
    pub(in crate::role) pid: u32,
    pub(in crate::role) version: String,
    #[serde(with = "rfc3339")]
    pub(in crate::role) since: SystemTime,
}

impl Process {
    /// This one. To be asked once, at the start.
    pub(in crate::role) fn this() -> Self {
        Self {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            since: SystemTime::now(),
        }
    }
}

/// The configuration, and what became of the last reload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct Configuration {
    /// Where it is read from.
    pub(in crate::role) directory: String,
    /// Whether any is in force.
    pub(in crate::role) in_force: bool,
    /// Whether that is what the files say.
    pub(in crate::role) current: bool,
    pub(in crate::role) accepted: u64,
    pub(in crate::role) rejected: u64,
    pub(in crate::role) last_reload: Option<ReloadReport>,
}

/// The last reload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct ReloadReport {
    #[serde(with = "rfc3339")]
    pub(in crate::role) at: SystemTime,
    pub(in crate::role) accepted: bool,
    /// Errors of a rejected one, warnings of an accepted one.
    pub(in crate::role) problems: Vec<String>,
}

impl Configuration {
    pub(in crate::role) fn new(directory: String, loaded: &Loaded) -> Self {
        Self {
            directory,
            in_force: loaded.snapshot.is_some(),
            current: loaded.current,
            accepted: loaded.accepted,
            rejected: loaded.rejected,
            last_reload: loaded.last.as_ref().map(|last| ReloadReport {
                at: last.at,
                accepted: last.accepted,
                problems: last.problems.clone(),
            }),
        }
    }
}

/// A node agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct NodeReport {
    pub(in crate::role) process: Process,
    /// The directory of its pins.
    pub(in crate::role) bpffs: String,
    pub(in crate::role) configuration: Configuration,
    /// Workload sets and their modes, as the kernel has them; the first one is everybody else.
    pub(in crate::role) enforcement: Vec<SetReport>,
    pub(in crate::role) gateways: Vec<GatewayHealth>,
    pub(in crate::role) events: EventsReport,
    /// Whether the maps don't hold the whole configuration.
    pub(in crate::role) maps_behind: bool,
    /// What is wrong now, a sentence each: maps, attachments, what the plan can't carry out.
    pub(in crate::role) problems: Vec<String>,
    /// What to know of a node that does all it can, a sentence each.
    pub(in crate::role) warnings: Vec<String>,
    /// The promises that don't hold on this node.
    #[serde(default)]
    pub(in crate::role) exposures: Vec<Exposure>,
    /// Attachments that were made again, or put first in their chain again.
    pub(in crate::role) repairs: u64,
    /// Sockets that were closed because they were open before the enforcement and aren't allowed.
    pub(in crate::role) sockets_destroyed: u64,
    /// The tunnel to gateways; `None` without a listener for it.
    pub(in crate::role) tunnel: Option<TunnelReport>,
}

/// A promise that doesn't hold on a node, though all that can be enforced is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct Exposure {
    /// Its name in metrics.
    pub(in crate::role) promise: String,
    /// What doesn't hold, why, and what to do about it.
    pub(in crate::role) text: String,
    /// How many workloads it doesn't hold for; zero for all of the node.
    pub(in crate::role) count: u64,
    /// Their names, not all where they are many.
    pub(in crate::role) workloads: Vec<String>,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        let Self { count, workloads, .. } = self;
        if workloads.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", workloads.join(", "))?;
        let named = u64::try_from(workloads.len()).unwrap_or(u64::MAX);
        match count.saturating_sub(named) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// One end of the tunnels between nodes and gateways.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct TunnelReport {
    /// The addresses (node) or the port (gateway) that it listens on.
    pub(in crate::role) listen: Vec<String>,
    /// TLS connections between node and gateway that are open.
    pub(in crate::role) connections: u64,
    /// Connections of workloads inside them.
    pub(in crate::role) streams: u64,
}

/// A set of workloads with a mode of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct SetReport {
    pub(in crate::role) name: String,
    /// `enforce`, `audit` or `exempt`.
    pub(in crate::role) mode: String,
}

/// One endpoint of a gateway service, as the node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct GatewayHealth {
    pub(in crate::role) service: String,
    pub(in crate::role) address: String,
    pub(in crate::role) healthy: bool,
}

/// Flow events that were lost, by cause, since the maps were made or the agent started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(in crate::role) struct EventsReport {
    /// How many a workload may cause in a second.
    pub(in crate::role) per_second: u32,
    /// Over that limit.
    pub(in crate::role) lost_rate: u64,
    /// The ring buffer was full.
    pub(in crate::role) lost_full: u64,
    /// Nobody read standard output in time.
    pub(in crate::role) lost_output: u64,
    /// Of a kind that the agent doesn't know.
    pub(in crate::role) lost_unknown: u64,
}

/// A gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct GatewayReport {
    pub(in crate::role) process: Process,
    /// As `/ready` has it: `LIVE`, `DRAINING`, …
    pub(in crate::role) state: String,
    pub(in crate::role) configuration: Configuration,
    /// `--capture`.
    pub(in crate::role) capture: String,
    /// Ports of the admin, health and metrics endpoints.
    pub(in crate::role) ports: [u16; 3],
    pub(in crate::role) workers: usize,
    /// Open connections to the outside, and requests under way.
    pub(in crate::role) connections: u64,
    pub(in crate::role) requests: u64,
    /// Tunnels of nodes; `None` with `--tunnel-port off`.
    pub(in crate::role) tunnel: Option<TunnelReport>,
    /// What its sources share.
    #[serde(default)]
    pub(in crate::role) limits: Vec<LimitReport>,
    /// What is wrong now.
    pub(in crate::role) problems: Vec<String>,
}

/// A resource that the sources of a gateway share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::role) struct LimitReport {
    pub(in crate::role) resource: String,
    pub(in crate::role) used: u64,
    /// Zero for none.
    pub(in crate::role) bound: u64,
    /// Refused because their source had its share.
    pub(in crate::role) refused: u64,
    /// Closed because their source had the most.
    pub(in crate::role) closed: u64,
}
