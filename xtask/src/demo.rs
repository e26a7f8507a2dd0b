//! `cargo xtask demo`: builds the workspace and hands over to the program `egress-demo`.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{run, setup};

/// What the demo is to do.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave everything up at the end, and say how to get a shell in the pod.
    #[arg(long)]
    keep: bool,
    /// Remove what `--keep`, or a demo that was killed, left behind.
    #[arg(long, conflicts_with_all = ["keep", "shell"])]
    down: bool,
    /// A shell in the pod of a demo that `--keep` left up.
    #[arg(long, conflicts_with = "keep")]
    shell: bool,
}

/// Builds and runs it.
///
/// # Errors
/// Set-up or build failed, root is missing, or the demo can't be started. Otherwise this process
/// becomes the demo, and its exit code is the demo's.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !run::is_root() {
        bail!("the demo makes network namespaces and loads eBPF programs: run it as root");
    }
    setup::run(setup::For::Demo)?;
    println!("building (the first time a few minutes)");
    let build = ["build", "--package", "egress-agent", "--package", "egress-tests", "--bins"];
    run::show(run::command("cargo").args(build))?;
    let target = target_dir();
    let mut demo = run::command(&format!("{target}/debug/egress-demo"));
    for (flag, set) in
        [("--keep", options.keep), ("--down", options.down), ("--shell", options.shell)]
    {
        if set {
            demo.arg(flag);
        }
    }
    Err(demo.exec()).context(format!("cannot start {target}/debug/egress-demo"))
}

/// Where this very program was built: `<target>/debug/xtask`.
fn target_dir() -> String {
    std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "target".to_owned())
}
