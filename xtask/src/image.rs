//! `cargo xtask image`: the agent as a container image, in the OCI image layout, without a container engine.
//!
//! The image holds one static program and the trusted authorities of the machine that made it. The same
//! program makes the same image, byte by byte.

mod layer;
mod layout;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use self::{
    layer::{AUTHORITIES, Entry, PROGRAM, layer},
    layout::{Config, Layout},
};
use crate::{
    dist::{self, Build},
    run,
};

/// Debian's package `ca-certificates` holds it.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Compressed, in bytes. A program that grows beyond it has taken something in that it should not have.
const MOST: u64 = 16 << 20;

/// Options of `image`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The image's name, which container runtimes show.
    #[arg(long, default_value = concat!("egress-enforcer:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// Where the layout is written; what is there is replaced [default: target/image].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Builds the program, makes the image, and reads it back.
///
/// # Errors
/// The build fails, the machine has no trusted authorities, or the image is not what it should be.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = dist::run(Build::Release)?;
    let output = options.output.clone().unwrap_or_else(|| run::target_dir().join("image"));
    from_program(&program, &output, &options.name)?;
    println!(
        "for example: skopeo copy oci:{} docker://REGISTRY/{}",
        output.display(),
        options.name
    );
    Ok(())
}

/// The image of the program that tests start, which is built already.
///
/// # Errors
/// As for [`run()`].
pub(crate) fn of_quick(output: &Path) -> Result<()> {
    from_program(&dist::path(Build::Quick), output, "egress-enforcer:quick")
}

fn from_program(program: &Path, output: &Path, name: &str) -> Result<()> {
    let stripped = strip(program)?;
    let authorities = fs::read(TRUSTED)
        .with_context(|| format!("{TRUSTED} (Debian: the package ca-certificates)"))?;
    make(output, name, &stripped, &authorities)?;
    println!("{}: {}", output.display(), layout::check(output, MOST)?);
    Ok(())
}

/// The program without symbols, as bytes.
fn strip(program: &Path) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir().context("a directory for the stripped program")?;
    let stripped = directory.path().join("egress-agent");
    let mut strip = run::command("strip");
    strip.args(["--strip-all", "-o"]).arg(&stripped).arg(program);
    run::show(&mut strip)?;
    fs::read(&stripped).with_context(|| stripped.display().to_string())
}

/// Writes the layout of an image of these files.
fn make(output: &Path, name: &str, program: &[u8], authorities: &[u8]) -> Result<()> {
    if program.get(..4) != Some(b"\x7fELF") {
        bail!("the program is no ELF file");
    }
    let files = [
        Entry { path: PROGRAM, mode: 0o755, bytes: program },
        Entry { path: AUTHORITIES, mode: 0o644, bytes: authorities },
    ];
    let layer = layer(&files)?;
    let config = Config {
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => bail!("no image for {other}"),
        },
        version: env!("CARGO_PKG_VERSION"),
        diff_id: &layer.diff_id,
    };
    let mut layout = Layout::new(output)?;
    layout.write(name, &config, &layer)
}

#[cfg(test)]
mod tests;
