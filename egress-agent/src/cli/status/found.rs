//! What is in force on this host: asked of the agents, and read from the pins.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::units::Units;
use crate::{
    admin::control::{
        AgentReport, AskError, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET, GatewayReport, NODE_SOCKET,
        NodeReport, ask_status,
    },
    bpf::{self, DEFAULT_BPFFS, Inspection},
};

/// All that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StatusFindings {
    /// `None` where a gateway alone was asked for.
    pub(super) node: Option<Node>,
    pub(super) gateway: Option<GatewayReport>,
    /// What systemd says of the units; nothing where one agent was asked for.
    pub(super) units: Units,
}

/// What is known of the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) bpffs: PathBuf,
    pub(super) inspection: Inspection,
    pub(super) agent: Agent,
}

/// The node's agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Agent {
    /// It answered.
    Runs(Box<NodeReport>),
    /// None does, and nobody owns the pins.
    Dead,
    /// Somebody owns the pins, and doesn't answer.
    Mute {
        /// Who.
        pid: u32,
        /// Where it was asked.
        control: PathBuf,
    },
    /// The answer can't be used.
    Failed(String),
}

/// Asks this agent, or the usual ones, and reads the pins of the node: there, or where its agent says.
///
/// # Errors
/// The pins cannot be read, or a gateway answers something else.
pub(super) async fn find(
    control: Option<&Path>,
    bpffs: Option<&Path>,
) -> anyhow::Result<StatusFindings> {
    let Some(control) = control else {
        let mut gateway = None;
        for path in [GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET] {
            match ask_status(Path::new(path)).await {
                Ok(AgentReport::Gateway(report)) => gateway = Some(report),
                Ok(AgentReport::Node(_)) | Err(AskError::Nobody) => {}
                Err(error) => bail!("{path}: {error}"),
            }
        }
        let control = Path::new(NODE_SOCKET);
        let answer = ask_status(control).await;
        let node = Some(node(bpffs, control, answer)?);
        return Ok(StatusFindings { node, gateway, units: Units::find() });
    };
    match ask_status(control).await {
        Ok(AgentReport::Gateway(report)) => {
            Ok(StatusFindings { node: None, gateway: Some(report), units: Units::default() })
        }
        answer => {
            let node = Some(node(bpffs, control, answer)?);
            Ok(StatusFindings { node, gateway: None, units: Units::default() })
        }
    }
}

fn node(
    given: Option<&Path>,
    control: &Path,
    answer: Result<AgentReport, AskError>,
) -> anyhow::Result<Node> {
    let usual = || given.map_or_else(|| DEFAULT_BPFFS.into(), Path::to_owned);
    let (bpffs, agent) = match answer {
        Ok(AgentReport::Node(report)) => {
            let bpffs = given.map_or_else(|| report.bpffs.clone().into(), Path::to_owned);
            (bpffs, Agent::Runs(Box::new(report)))
        }
        Ok(AgentReport::Gateway(_)) => {
            (usual(), Agent::Failed(format!("{} is a gateway's", control.display())))
        }
        Err(AskError::Nobody) => {
            let bpffs = usual();
            let agent = match bpf::pins_owner(&bpffs) {
                Some(pid) => Agent::Mute { pid, control: control.to_owned() },
                None => Agent::Dead,
            };
            (bpffs, agent)
        }
        Err(error) => (usual(), Agent::Failed(format!("{}: {error}", control.display()))),
    };
    let inspection = bpf::inspect(&bpffs)?;
    Ok(Node { bpffs, inspection, agent })
}
