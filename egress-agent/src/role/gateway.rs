//! The `gateway` command.

use std::process::ExitCode;

/// Options of `gateway`.
#[derive(clap::Args, Debug)]
pub struct GatewayArgs {}

/// Runs it.
///
/// # Errors
/// What the user has to know.
pub fn run(_args: GatewayArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no `gateway` command yet")
}
