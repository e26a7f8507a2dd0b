//! What a release consists of, besides the program: a Debian package, the SBOM, and checksums of all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{Build, package, path, sbom};
use crate::run;

/// Its version, which is the workspace's.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes the artefacts of the program that was built for this machine, and for ARM where that can be linked.
///
/// # Errors
/// One of them can't be made, or is not what it should be.
pub(crate) fn release() -> Result<()> {
    let program = super::run(Build::Release)?;
    let mut made = of(&program, std::env::consts::ARCH, &run::target_dir().join("dist"))?;
    match super::cross::run()? {
        Some(foreign) => {
            let dist = run::target_dir().join("dist");
            made.extend(one(&foreign, &program, super::cross::ARCH, &dist)?);
        }
        None => println!(
            "{}: not built, since {} or rustup's target {} is not there",
            super::cross::ARCH,
            super::cross::LINKER,
            super::cross::TARGET
        ),
    }
    sums(&run::target_dir().join("dist"), &made)
}

/// The artefacts of the program that tests start; then the package is installed into an empty directory, and
/// removed again.
///
/// # Errors
/// As for [`release()`], or the package does not install, or leaves something behind.
pub(crate) fn of_quick() -> Result<()> {
    let program = path(Build::Quick);
    let dist = program.parent().context("a program is in a directory")?.to_owned();
    super::describe(&dist, &program)?;
    let made = of(&program, std::env::consts::ARCH, &dist)?;
    sums(&dist, &made)?;
    let Some(deb) = made.iter().find(|path| path.extension().is_some_and(|end| end == "deb"))
    else {
        return Ok(());
    };
    if run::is_root() { package::try_out(deb) } else { Ok(()) }
}

/// The package of a program for this machine, in this directory.
///
/// # Errors
/// It can't be made.
pub(crate) fn package_of(program: &Path, directory: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("a directory for the program")?;
    let bare = scratch.path().join("egress-agent");
    strip(program, &bare, std::env::consts::ARCH)?;
    package::write(&bare, program, std::env::consts::ARCH, directory).map(drop)
}

fn of(program: &Path, arch: &str, dist: &Path) -> Result<Vec<PathBuf>> {
    let mut made = one(program, program, arch, dist)?;
    made.push(sbom::write(dist)?);
    Ok(made)
}

/// The artefacts of one architecture; `native` is the program for this machine.
fn one(program: &Path, native: &Path, arch: &str, dist: &Path) -> Result<Vec<PathBuf>> {
    let bare = dist.join(format!("egress-agent-{VERSION}-{arch}-linux"));
    strip(program, &bare, arch)?;
    if !super::is_static(&fs::read(&bare).with_context(|| bare.display().to_string())?)? {
        bail!("{} is not static", bare.display());
    }
    let mut made = vec![bare.clone()];
    if run::has_program("dpkg-deb") {
        made.push(package::write(&bare, native, arch, dist)?);
    } else {
        println!("no Debian package: dpkg-deb is not there");
    }
    Ok(made)
}

/// The program without symbols.
fn strip(program: &Path, bare: &Path, arch: &str) -> Result<()> {
    let native = arch == std::env::consts::ARCH;
    let name = if native { "strip".to_owned() } else { format!("{arch}-linux-gnu-strip") };
    run::show(run::command(&name).args(["--strip-all", "-o"]).arg(bare).arg(program))?;
    let bytes = fs::read(bare).with_context(|| bare.display().to_string())?;
    if !super::is_stripped(&bytes)? {
        bail!("{} has symbols", bare.display());
    }
    // Of another architecture, only such a machine can tell.
    if native { run::show(run::command(&bare.to_string_lossy()).arg("--version")) } else { Ok(()) }
}

/// `SHA256SUMS`, as `sha256sum --check` reads it.
fn sums(dist: &Path, made: &[PathBuf]) -> Result<()> {
    let names: Option<Vec<_>> = made.iter().map(|path| path.file_name()).collect();
    let names = names.context("an artefact is a file")?;
    let output = run::command("sha256sum").current_dir(dist).args(&names).output()?;
    if !output.status.success() {
        bail!("sha256sum: {}", String::from_utf8_lossy(&output.stderr));
    }
    let path = dist.join("SHA256SUMS");
    fs::write(&path, &output.stdout).with_context(|| path.display().to_string())?;
    let mut check = run::command("sha256sum");
    run::show(check.current_dir(dist).args(["--check", "--quiet", "SHA256SUMS"]))?;
    println!("{}: of {} files", path.display(), made.len());
    Ok(())
}
