//! The `detach` command: remove enforcement, the only thing that does.

use std::{path::PathBuf, process::ExitCode};

use super::node::DEFAULT_BPFFS;

/// Options of `detach`.
#[derive(clap::Args, Debug)]
pub struct DetachArgs {
    /// Where the agent pinned its programs and maps.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
}

/// Removes everything below the pins' directory and says what it removed.
///
/// # Errors
/// What the user has to know.
pub fn run(_args: DetachArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no `detach` command yet")
}
