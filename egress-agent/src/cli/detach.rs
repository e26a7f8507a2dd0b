//! The `detach` command: remove enforcement, the only thing that does.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    output::stdout,
    wrap::{fitted, width},
};
use crate::bpf::{self, DEFAULT_BPFFS};

/// Options of `detach`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  # Stop the agent first: one that runs would enforce again.
  systemctl stop egress-node && egress-agent detach

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
    if args.bpffs.exists() && !args.bpffs.is_dir() {
        bail!("found the file {}, expected the directory of the pins", args.bpffs.display());
    }
    let removed = bpf::detach(&args.bpffs)?;
    let mut out = stdout();
    let width = width(out.is_terminal());
    out.write_all(fitted(&text(&removed, &args.bpffs), width).as_bytes())?;
    drop(out);
    if args.stay {
        wait_for_the_end()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(removed: &[String], bpffs: &Path) -> String {
    if removed.is_empty() {
        return format!("nothing to detach: there is no {}\n", bpffs.display());
    }
    removed.iter().map(|line| format!("removed {line}\n")).collect()
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

#[cfg(test)]
mod tests {
    use super::{
        super::{testing::golden, wrap::WIDTH},
        *,
    };

    #[test]
    fn each_thing_that_was_removed_has_a_line() {
        let dir = Path::new(DEFAULT_BPFFS);
        let removed = [
            "pod_egress on interface veth0123456789a in /proc/123456/ns/net, of a workload's pod"
                .to_owned(),
            "connect4 on /sys/fs/cgroup".to_owned(),
            format!("71 pins and directories, {} among them", dir.display()),
        ];
        let all = [text(&removed, dir), text(&[], dir)].concat();
        golden("detach.txt", &fitted(&all, WIDTH));
    }
}
