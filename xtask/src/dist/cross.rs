//! The program for ARM machines, where a linker for them is installed.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::{commit, is_static};
use crate::run;

/// The other architecture.
pub(super) const ARCH: &str = "aarch64";
/// Rust's name of it.
pub(super) const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Debian: `gcc-aarch64-linux-gnu`.
pub(super) const LINKER: &str = "aarch64-linux-gnu-gcc";

/// Builds it; `None` where that is not possible here, or where this is such a machine.
///
/// # Errors
/// The build fails, or what came out isn't static. Whether it starts, only such a machine can tell.
pub(super) fn run() -> Result<Option<PathBuf>> {
    if std::env::consts::ARCH == ARCH || !run::has_program(LINKER) || !has_target()? {
        return Ok(None);
    }
    let mut build = run::command("cargo");
    build.args(["build", "--profile", "release", "--package", "egress-agent", "--bin"]);
    build.args(["egress-agent", "--target", TARGET]);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    build.env("CC_aarch64_unknown_linux_gnu", LINKER);
    if let Some(commit) = commit() {
        build.env("EGRESS_COMMIT", commit);
    }
    println!("{}", run::text(&build));
    run::show(&mut build)?;
    let program = run::target_dir().join(TARGET).join("release/egress-agent");
    if !is_static(&std::fs::read(&program)?)? {
        bail!("{} needs a dynamic linker", program.display());
    }
    Ok(Some(program))
}

/// Whether rustup has the target's standard library.
fn has_target() -> Result<bool> {
    if !run::has_program("rustup") {
        return Ok(false);
    }
    let output = run::command("rustup").args(["target", "list", "--installed"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().any(|line| line == TARGET))
}
