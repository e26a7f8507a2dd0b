//! The `check` command.

use std::process::ExitCode;

/// Options of `check`.
#[derive(clap::Args, Debug)]
pub struct CheckArgs {}

/// Runs it.
///
/// # Errors
/// What the user has to know.
pub fn run(_args: CheckArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no `check` command yet")
}
