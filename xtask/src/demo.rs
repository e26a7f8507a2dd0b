//! `cargo xtask demo`: builds the workspace and hands over to the program `egress-demo`.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

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
    if !run::is_root() {
        return setup::needs_root(setup::For::Demo, "demo");
    }
    setup::run(setup::For::Demo)?;
    let mut demo = built()?;
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
    let program = demo.get_program().to_owned();
    Err(demo.exec()).with_context(|| format!("cannot start {}", program.display()))
}

/// The demo's program, built.
fn built() -> Result<Command> {
    println!(
        "building: the first time about 8 minutes, and 5 GB below {}",
        run::target_dir().display()
    );
    let build = ["build", "--package", "egress-agent", "--package", "egress-tests", "--bins"];
    run::show(run::command("cargo").args(build))?;
    let program = run::target_dir().join("debug/egress-demo");
    Ok(run::command(&program.to_string_lossy()))
}

/// Where the transcript is.
const PAGE: &str = "docs/transcript.md";
const HEAD: &str = "\
# Transcript

<!-- Made by `cargo xtask transcript`, which runs the demo. A test compares steps, commands and checks with a run. -->

What `cargo xtask demo` shows on a Debian 12 machine, after it has been built. [The walkthrough](walkthrough.md)
explains each step.

```text
";

/// Runs the demo, and writes what it shows into the documentation.
///
/// # Errors
/// As for [`run()`]; or the demo fails.
pub(crate) fn transcript() -> Result<()> {
    if !run::is_root() {
        return setup::needs_root(setup::For::Demo, "transcript");
    }
    setup::run(setup::For::Demo)?;
    let mut demo = built()?;
    let done = demo.stderr(Stdio::inherit()).output().context("cannot start the demo")?;
    let shown = String::from_utf8(done.stdout).context("the demo writes UTF-8")?;
    if !done.status.success() {
        bail!("the demo failed, so nothing is written: {}\n{shown}", done.status);
    }
    // Nothing of this machine's own paths.
    let target = format!("{}/", run::target_dir().display());
    let shown = shown.replace(&target, "target/");
    let path = run::root().join(PAGE);
    fs::write(&path, format!("{HEAD}{}\n```\n", shown.trim_end()))
        .with_context(|| path.display().to_string())?;
    println!("{} is renewed", path.display());
    Ok(())
}
