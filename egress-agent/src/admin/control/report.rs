//! What an agent tells of itself, on both ends of the socket.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{enforcement::Exposure, source::Loaded, telemetry::rfc3339};

/// The answer to `GET /status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub(crate) enum AgentReport {
    Node(NodeReport),
    Gateway(GatewayReport),
}

/// The process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) version: String,
    #[serde(with = "rfc3339")]
    pub(crate) since: SystemTime,
}

impl Process {
    /// This one. To be asked once, at the start.
    pub(crate) fn this() -> Self {
        Self {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            since: SystemTime::now(),
        }
    }
}

/// The configuration, and what became of the last reload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Configuration {
    /// Where it is read from.
    pub(crate) directory: String,
    /// Whether any is in force.
    pub(crate) in_force: bool,
    /// Whether that is what the files say.
    pub(crate) current: bool,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) last_reload: Option<ReloadReport>,
}

/// The last reload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ReloadReport {
    #[serde(with = "rfc3339")]
    pub(crate) at: SystemTime,
    pub(crate) accepted: bool,
    /// Errors of a rejected one, warnings of an accepted one.
    pub(crate) problems: Vec<String>,
}

impl Configuration {
    pub(crate) fn new(directory: String, loaded: &Loaded) -> Self {
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
pub(crate) struct NodeReport {
    pub(crate) process: Process,
    /// The directory of its pins.
    pub(crate) bpffs: String,
    pub(crate) configuration: Configuration,
    /// Workload sets and their modes, as the kernel has them; the first one is everybody else.
    pub(crate) enforcement: Vec<SetReport>,
    pub(crate) gateways: Vec<GatewayHealth>,
    pub(crate) events: EventsReport,
    /// Whether what ran before the agent's first start is not under enforcement yet.
    #[serde(default)]
    pub(crate) first_start: bool,
    /// Whether the maps don't hold the whole configuration.
    pub(crate) maps_behind: bool,
    /// What is wrong now, a sentence each: maps, attachments, what the plan can't carry out.
    pub(crate) problems: Vec<String>,
    /// What to know of a node that does all it can, a sentence each.
    pub(crate) warnings: Vec<String>,
    /// What is exempt from enforcement, a sentence each.
    #[serde(default)]
    pub(crate) exemptions: Vec<String>,
    /// The promises that don't hold on this node.
    #[serde(default)]
    pub(crate) exposures: Vec<Exposure>,
    /// Attachments that were made again, or put first in their chain again.
    pub(crate) repairs: u64,
    /// Sockets that were closed because they were open before the enforcement and aren't allowed.
    pub(crate) sockets_destroyed: u64,
    /// The tunnel to gateways; `None` without a listener for it.
    pub(crate) tunnel: Option<TunnelReport>,
}

/// One end of the tunnels between nodes and gateways.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TunnelReport {
    /// The addresses (node) or the port (gateway) that it listens on.
    pub(crate) listen: Vec<String>,
    /// TLS connections between node and gateway that are open.
    pub(crate) connections: u64,
    /// Connections of workloads inside them.
    pub(crate) streams: u64,
}

/// A set of workloads with a mode of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SetReport {
    pub(crate) name: String,
    /// `enforce`, `audit`, `audit_redirect` or `exempt`.
    pub(crate) mode: String,
}

/// One endpoint of a gateway service, as the node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct GatewayHealth {
    pub(crate) service: String,
    pub(crate) address: String,
    pub(crate) healthy: bool,
}

/// Flow events that were lost, by cause, since the maps were made or the agent started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct EventsReport {
    /// How many a workload may cause in a second.
    pub(crate) per_second: u32,
    /// Over that limit.
    pub(crate) lost_rate: u64,
    /// The ring buffer was full.
    pub(crate) lost_full: u64,
    /// Nobody read standard output in time.
    pub(crate) lost_output: u64,
    /// Of a kind that the agent doesn't know.
    pub(crate) lost_unknown: u64,
}

/// A gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct GatewayReport {
    /// What to know of it, a sentence each.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    pub(crate) process: Process,
    /// As `/ready` has it: `LIVE`, `DRAINING`, …
    pub(crate) state: String,
    pub(crate) configuration: Configuration,
    /// `--capture`.
    pub(crate) capture: String,
    /// Ports of the admin, health and metrics endpoints.
    pub(crate) ports: [u16; 3],
    pub(crate) workers: usize,
    /// Open connections to external hosts, and requests under way.
    pub(crate) connections: u64,
    pub(crate) requests: u64,
    /// Tunnels of nodes; `None` with `--tunnel-port off`.
    pub(crate) tunnel: Option<TunnelReport>,
    /// What its sources share.
    #[serde(default)]
    pub(crate) limits: Vec<LimitReport>,
    /// What is wrong now.
    pub(crate) problems: Vec<String>,
}

/// A resource that the sources of a gateway share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LimitReport {
    pub(crate) resource: String,
    pub(crate) used: u64,
    /// Zero for none.
    pub(crate) bound: u64,
    /// Refused because their source had its share.
    pub(crate) refused: u64,
    /// Closed because their source had the most.
    pub(crate) closed: u64,
}
