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
    println!("{}", building(&run::target_dir().display().to_string()));
    let build = ["build", "--package", "egress-agent", "--package", "egress-tests", "--bins"];
    run::show(run::command("cargo").args(build))?;
    let program = run::target_dir().join("debug/egress-demo");
    Ok(run::command(&program.to_string_lossy()))
}

/// What is said before a build that may take its time.
fn building(below: &str) -> String {
    format!("building: the first time about 8 minutes, and 5 GB below {below}")
}

/// What a new user types.
const QUICK_START: &str = "# cargo xtask demo";
/// Where the transcript is.
const PAGE: &str = "docs/transcript.md";
const HEAD: &str = "\
# Transcript

<!-- Made by `cargo xtask transcript`, which runs the demo. A test compares steps, commands and checks with a run. -->

The quick start on a Debian 12 machine that was set up and has built it before: one command, and what it shows. [The
walkthrough](walkthrough.md) explains each step of the demo.

```text
";

/// Where the transcript of the quick start on two hosts is.
const TWO_HOSTS_PAGE: &str = "docs/quick-start-transcript.md";
const TWO_HOSTS_HEAD: &str = "\
# Transcript of the quick start

<!-- Made by `cargo xtask transcript`, which runs every command of the page on two hosts in network namespaces, with
systemd. A test compares steps, commands and checks with a run. -->

[The quick start on two hosts](quick-start.md), command by command, and what each shows. The package is installed
already. The hosts are `gateway` at `10.10.0.11` and `app`; a kernel without BPF among its security modules shows in
`status`.

```text
";

/// Runs the demo and the quick start on two hosts, and writes what they show into the documentation.
///
/// # Errors
/// As for [`run()`]; or the demo fails.
pub(crate) fn transcript() -> Result<()> {
    if !run::is_root() {
        return setup::needs_root(setup::For::Demo, "transcript");
    }
    setup::run(setup::For::Demo)?;
    let hosts = shown(built()?.arg("--two-hosts"))?;
    write(TWO_HOSTS_PAGE, &format!("{TWO_HOSTS_HEAD}{hosts}"))?;
    let shown = shown(&mut built()?)?;
    let set_up = setup::complete(setup::For::Demo)?;
    let start = format!("{QUICK_START}\n{set_up}\n{}\n\n", building("target"));
    write(PAGE, &format!("{HEAD}{start}{shown}"))
}

/// What the demo's program shows, with nothing of this machine's own paths.
fn shown(demo: &mut Command) -> Result<String> {
    let done = demo.stderr(Stdio::inherit()).output().context("cannot start the demo")?;
    let shown = String::from_utf8(done.stdout).context("the demo writes UTF-8")?;
    if !done.status.success() {
        bail!("the demo failed, so its page stays as it is: {}\n{shown}", done.status);
    }
    let target = format!("{}/", run::target_dir().display());
    // Of the kernel the number, and not what this machine's builder put behind it.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
    let release = release.trim();
    let number = release.split('-').next().unwrap_or(release);
    Ok(shown.replace(&target, "target/").replace(release, number).trim_end().to_owned())
}

/// Writes a page, and ends its block.
fn write(page: &str, text: &str) -> Result<()> {
    let path = run::root().join(page);
    fs::write(&path, format!("{text}\n```\n")).with_context(|| path.display().to_string())?;
    println!("{} is renewed", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The demo itself is compared with a run of it, by its own test.
    #[test]
    fn the_transcript_begins_with_the_quick_start_and_fits_80_columns() {
        let read = |page: &str| fs::read_to_string(run::root().join(page)).expect(page);
        let page = read(PAGE);
        let block = page.strip_prefix(HEAD).expect("`cargo xtask transcript` renews it");
        let block = block.strip_suffix("\n```\n").expect("its end");
        let wide = block.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None);
        let (start, demo) = block.split_once("\n\n").expect("the quick start, then the demo");
        let begin = format!("{QUICK_START}\nset-up: everything was there; ");
        assert!(start.starts_with(&begin), "{start}");
        assert!(start.ends_with(&format!("\n{}", building("target"))), "{start}");
        assert!(demo.starts_with("Building hosts in network namespaces"), "{demo}");
        // It is what the README says.
        let readme = read("README.md");
        let (_, rest) = readme.split_once("## Try it\n").expect("how to try it");
        let (_, rest) = rest.split_once("```console\n").expect("a command");
        assert_eq!(rest.lines().next(), Some(QUICK_START));
    }
}
