//! The `detach` command: remove enforcement, the only thing that does.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::bpf::{self, DEFAULT_BPFFS};

/// Options of `detach`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit codes: 0 nothing is enforced now, 1 something couldn't be removed, 3 an
agent runs; stop it first.")]
pub(super) struct DetachArgs {
    /// Where the agent pinned its programs and maps.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
    /// Then stay until SIGTERM or SIGINT: as a pod of a DaemonSet, which would be started again.
    #[arg(long)]
    stay: bool,
}

/// Removes everything below the pins' directory and says what it removed.
///
/// # Errors
/// What couldn't be removed.
pub(super) fn run(args: DetachArgs) -> anyhow::Result<ExitCode> {
    let removed = bpf::detach(&args.bpffs)?;
    let mut out = io::stdout().lock();
    if removed.is_empty() {
        writeln!(out, "nothing to detach: there is no {}", args.bpffs.display())?;
    }
    for line in removed {
        writeln!(out, "removed {line}")?;
    }
    drop(out);
    if args.stay {
        wait_for_the_end()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wait_for_the_end() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
