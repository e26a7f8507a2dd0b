//! `cargo xtask demo`: builds the workspace and hands over to the program `egress-demo`.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{run, setup};

/// What the demo is to do.
#[derive(Args)]
pub(crate) struct Options {
    /// The walkthrough's other form: mutual TLS between node and gateway, with a small authority.
    #[arg(long, conflicts_with_all = ["down", "shell"])]
    mtls: bool,
    /// Leave checksums as the pod's kernel leaves them. Without it the app node's uplink fills them in, as
    /// a real device does.
    #[arg(long, conflicts_with_all = ["down", "shell"])]
    left_checksums: bool,
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
    // Without root it prints the commands that install what is missing, and stops.
    setup::run(setup::For::Demo)?;
    if !run::is_root() {
        bail!(
            "the demo makes network namespaces and loads eBPF programs: run it as root, as in \
             `sudo --preserve-env=PATH cargo xtask demo`"
        );
    }
    println!("building (the first time a few minutes)");
    let build = ["build", "--package", "egress-agent", "--package", "egress-tests", "--bins"];
    run::show(run::command("cargo").args(build))?;
    let program = run::target_dir().join("debug/egress-demo");
    let mut demo = run::command(&program.to_string_lossy());
    for (flag, set) in [
        ("--mtls", options.mtls),
        ("--left-checksums", options.left_checksums),
        ("--keep", options.keep),
        ("--down", options.down),
        ("--shell", options.shell),
    ] {
        if set {
            demo.arg(flag);
        }
    }
    Err(demo.exec()).with_context(|| format!("cannot start {}", program.display()))
}
