//! The `detach` command: remove enforcement, the only thing that does.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::{
    cli,
    node::{DEFAULT_BPFFS, is_owned},
};
use crate::bpf;

/// Options of `detach`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit codes: 0 nothing is enforced any more, 1 something couldn't be removed, 3 an agent runs; stop it first.")]
pub struct DetachArgs {
    /// Where the agent pinned its programs and maps.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
}

/// Removes everything below the pins' directory and says what it removed.
///
/// # Errors
/// What couldn't be removed.
pub fn run(args: DetachArgs) -> anyhow::Result<ExitCode> {
    let removed = match bpf::detach(&args.bpffs) {
        Ok(removed) => removed,
        Err(error) if is_owned(&error) => {
            tracing::error!("{error}");
            return Ok(ExitCode::from(cli::OWNED));
        }
        Err(error) => return Err(error.into()),
    };
    let mut out = io::stdout().lock();
    if removed.is_empty() {
        writeln!(out, "nothing to detach: there is no {}", args.bpffs.display())?;
    }
    for line in removed {
        writeln!(out, "removed {line}")?;
    }
    Ok(ExitCode::SUCCESS)
}
