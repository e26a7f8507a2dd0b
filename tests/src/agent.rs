//! The program under test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::site;

/// Path of `egress-agent`, built from this tree once in a test run, so that a plain `cargo test`
/// never tests an old one.
///
/// # Errors
/// The build fails.
pub fn built() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    path.as_deref().map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The whole workspace, so that features are the same as in the run that builds these tests.
    let mut command = Command::new(cargo);
    // Cargo sets these for the running test; build scripts that watch them would run again.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(["build", "--quiet", "--workspace", "--bins"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    beside()
}

/// `egress-agent` beside the demo's program.
///
/// # Errors
/// It isn't there.
pub fn beside() -> Result<PathBuf> {
    let path = site::demo_program()?.with_file_name("egress-agent");
    if !path.is_file() {
        bail!("{} isn't built: cargo build --workspace --bins", path.display());
    }
    Ok(path)
}
