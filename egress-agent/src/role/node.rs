//! The `node` command: enforce on this node.

use std::process::ExitCode;

/// Where pins are by default.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/egress-agent";

/// Options of `node`.
#[derive(clap::Args, Debug)]
pub struct NodeArgs {}

/// Runs it until SIGTERM or SIGINT.
///
/// # Errors
/// What the user has to know.
pub fn run(_args: NodeArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no `node` command yet")
}
