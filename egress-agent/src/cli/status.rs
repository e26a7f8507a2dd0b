//! The `status` command: what is in force on this host, and what is wrong with it.
//!
//! What is attached is read from the pins, so it is the truth whether an agent runs or not; the
//! rest is asked of the agents that run.

mod assess;
mod json;
mod text;

use std::{
    io::{self, IsTerminal, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context, bail};
use clap::ValueEnum;

use self::{
    assess::{Assessment, Verdict, assess},
    text::Paint,
};
use crate::{
    admin::control::{
        AgentReport, AskError, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET, GatewayReport, NODE_SOCKET,
        NodeReport, ask_status,
    },
    bpf::{self, DEFAULT_BPFFS, Inspection},
};

/// Exit code where nothing is attached.
const NOTHING: u8 = 3;
/// Exit code where all that can be enforced is, but not all that is promised.
const DEGRADED: u8 = 4;

/// Options of `status`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Asks the agents of this host, and reads what is attached from the pins, which needs no agent. Run it
as root.

Exit codes: 0 everything is enforced and healthy; 1 something is wrong, each thing is listed (no
agent, audit mode, a rejected configuration, a full map, a missing program, no healthy gateway, …);
2 wrong options; 3 nothing is attached; 4 all that can be enforced here is, but promises are listed
that don't hold on this node (no BPF security modules, workloads with CAP_NET_ADMIN, …).")]
pub(super) struct StatusArgs {
    /// Where the node agent pinned its programs and maps [default: where the running agent says,
    /// or /sys/fs/bpf/egress-agent].
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
    /// The control socket of a node agent or a gateway [default: both usual ones].
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// `--output`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// All that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Found {
    /// `None` where a gateway alone was asked for.
    node: Option<Node>,
    gateway: Option<GatewayReport>,
}

/// What is known of the node.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    bpffs: PathBuf,
    inspection: Inspection,
    agent: Agent,
}

/// The node's agent.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Agent {
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

/// Prints it.
///
/// # Errors
/// It can't be found out.
pub(super) fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let found = runtime.block_on(find(&args))?;
    let assessment = assess(&found, env!("CARGO_PKG_VERSION"));
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{:#}", json::value(&found, &assessment))?,
        Output::Text => {
            let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let now = SystemTime::now();
            write!(out, "{}", text::render(&found, &assessment, now, Paint(colour)))?;
        }
    }
    Ok(exit_code(&assessment))
}

fn exit_code(assessment: &Assessment) -> ExitCode {
    ExitCode::from(match assessment.verdict {
        Verdict::Healthy => 0,
        Verdict::Degraded => DEGRADED,
        Verdict::Wrong => 1,
        Verdict::NotAttached => NOTHING,
    })
}

async fn find(args: &StatusArgs) -> anyhow::Result<Found> {
    let Some(control) = &args.control else {
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
        return Ok(Found { node: Some(node(args, control, answer)?), gateway });
    };
    match ask_status(control).await {
        Ok(AgentReport::Gateway(report)) => Ok(Found { node: None, gateway: Some(report) }),
        answer => Ok(Found { node: Some(node(args, control, answer)?), gateway: None }),
    }
}

fn node(
    args: &StatusArgs,
    control: &Path,
    answer: Result<AgentReport, AskError>,
) -> anyhow::Result<Node> {
    let given = args.bpffs.clone();
    let usual = || given.clone().unwrap_or_else(|| DEFAULT_BPFFS.into());
    let (bpffs, agent) = match answer {
        Ok(AgentReport::Node(report)) => {
            let bpffs = given.unwrap_or_else(|| report.bpffs.clone().into());
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

#[cfg(test)]
mod tests;
