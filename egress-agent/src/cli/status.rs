//! The `status` command: what is in force on this host, and what is wrong with it.
//!
//! What is attached is read from the pins, so it is the truth whether an agent runs or not; the
//! rest is asked of the agents that run.

mod assess;
mod found;
mod json;
mod paint;
mod text;
mod units;

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::Context as _;

use self::{
    assess::{Assessment, Verdict, assess},
    found::find,
    paint::ColorChoice,
};
use super::{
    output::{Output, stdout},
    wrap::WIDTH,
};

/// Exit code where nothing is attached.
const NOTHING: u8 = 3;
/// Exit code where all that can be enforced is, but not all that is promised.
const DEGRADED: u8 = 4;

/// Options of `status`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Asks the agents of this host, and reads what is attached from the pins, which
needs no agent. Run it as root.

Examples:
  # Is this host enforced and healthy? The exit code says so, too.
  egress-agent status

  # For a monitor: what is wrong, one cause a line.
  egress-agent status -o json | jq --raw-output '.problems[]'

Exit codes: 0 everything is enforced and healthy; 1 something is wrong, each
thing is listed (no agent, audit mode, a rejected configuration, a full map, a
missing program, no healthy gateway, …); 2 wrong options; 3 nothing is attached;
4 all that can be enforced here is, but promises are listed that don't hold on
this node (no BPF security modules, workloads with CAP_NET_ADMIN, …).")]
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

/// Prints it.
///
/// # Errors
/// It can't be found out.
pub(super) fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let found = runtime.block_on(find(args.control.as_deref(), args.bpffs.as_deref()))?;
    let assessment = assess(&found, env!("CARGO_PKG_VERSION"));
    let mut out = stdout();
    match args.output {
        Output::Json => writeln!(out, "{:#}", json::value(&found, &assessment))?,
        Output::Text => {
            let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let now = SystemTime::now();
            // What a program reads keeps its lines.
            let width = if out.is_terminal() { WIDTH } else { usize::MAX };
            write!(out, "{}", text::render(&found, &assessment, now, ColorChoice(colour), width))?;
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

#[cfg(test)]
mod tests;
