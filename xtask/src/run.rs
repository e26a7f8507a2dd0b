//! Running other programs, and what is known about this machine.

use std::{
    env,
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Where this very program was built: `TARGET/debug/xtask`.
pub(crate) fn target_dir() -> PathBuf {
    let own = env::current_exe().ok();
    let target = own.as_deref().and_then(|path| path.parent()?.parent());
    target.map_or_else(|| root().join("target"), Path::to_owned)
}

/// Whether this process is root: the owner of `/proc/self` is the effective user.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A command in the repository's root. Its `PATH` also holds the directories that a root shell
/// made by `su` or a service lacks, and cargo's own.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("PATH", search_path());
    // Cargo sets these for xtask; build scripts that watch them would run again.
    for (name, _) in env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    for dir in [cargo_bin(), "/usr/sbin".into(), "/sbin".into(), "/usr/bin".into(), "/bin".into()] {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    env::join_paths(dirs).unwrap_or(path)
}

/// Cargo's home, where `cargo install` notes what it installed.
pub(crate) fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    )
}

fn cargo_bin() -> PathBuf {
    cargo_home().join("bin")
}

/// Whether a program of this name is on the path.
pub(crate) fn has_program(name: &str) -> bool {
    find_program(name).is_some()
}

/// The program of this name on the path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Runs a command whose output goes to the terminal.
///
/// # Errors
/// It could not be started, or ended with another code than 0.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let text = text(command);
    let status = command.status().with_context(|| format!("cannot start `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed: {status}");
    }
    Ok(())
}

/// What a command prints, or nothing where it can't be run or fails.
pub(crate) fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = command(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub(crate) fn text(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
