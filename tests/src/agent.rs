//! The program under test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::site;

/// Names the program under test where it can't be built: on a machine without a compiler.
const AGENT: &str = "EGRESS_AGENT";
/// The same for [`released`].
const RELEASED: &str = "EGRESS_AGENT_RELEASED";

/// Path of `egress-agent`, built from this tree once in a test run, so that a plain `cargo test`
/// never tests an old one. `EGRESS_AGENT` names one that is taken as it is.
///
/// # Errors
/// The build fails.
pub fn built() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&BUILT, AGENT, || {
        // The whole workspace, so that features are the same as in the run that builds these tests.
        cargo(&["build", "--quiet", "--workspace", "--bins"])?;
        beside()
    })
}

/// Path of the same program built in another way: `cargo xtask dist`, the static release build. It
/// is brought up to date once in a test run, which takes minutes where it was never built.
/// `EGRESS_AGENT_RELEASED` names one that is taken as it is.
///
/// # Errors
/// The build fails.
pub fn released() -> Result<&'static Path> {
    static RELEASED_PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&RELEASED_PATH, RELEASED, || {
        cargo(&["run", "--quiet", "--package", "xtask", "--", "dist"])?;
        // target/debug/egress-demo
        let target = site::demo_program()?;
        let target = target.parent().and_then(Path::parent).context("no target directory")?;
        Ok(target.join("dist/egress-agent"))
    })
}

/// Makes the Debian package of the program under test in this directory, and gives its path.
///
/// # Errors
/// The build fails.
pub fn package(directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let (program, into) = (built()?.to_string_lossy(), directory.to_string_lossy());
    cargo(&["run", "--quiet", "--package", "xtask", "--", "package", &program, &into])?;
    let mut made = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    made.find(|path| path.extension().is_some_and(|end| end == "deb"))
        .with_context(|| format!("no package in {}", directory.display()))
}

fn once(
    place: &'static OnceLock<Result<PathBuf, String>>,
    variable: &str,
    build: impl FnOnce() -> Result<PathBuf>,
) -> Result<&'static Path> {
    let path = place.get_or_init(|| {
        let given = std::env::var_os(variable).map(PathBuf::from);
        let path = given.map_or_else(build, Ok).map_err(|error| format!("{error:#}"))?;
        let there = path.is_file();
        there.then(|| path.clone()).ok_or_else(|| format!("{}: no such program", path.display()))
    });
    path.as_deref().map_err(|error| anyhow!("{error}"))
}

fn cargo(args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Cargo sets these for the running test; build scripts that watch them would run again.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo {}:\n{}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
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
