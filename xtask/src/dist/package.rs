//! The Debian package, made by `dpkg-deb`, which every Debian has.
//!
//! It installs both roles and starts neither. Its maintainer scripts are in `deploy/debian`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::describe_into;
use crate::run;

/// The workspace's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Below the repository's root.
const CONTROL: &str = "deploy/debian";
const UNITS: &str = "deploy/systemd";
/// Where the units are for those who install by hand, and where a package's program is (FHS).
const BY_HAND: &str = "/usr/local/bin/egress-agent";
const PACKAGED: &str = "/usr/bin/egress-agent";
/// Where examples go.
const EXAMPLES: &str = "usr/share/doc/egress-agent/examples";
/// Who is asked; a distributor names its own.
const MAINTAINER: &str = "Egress enforcer maintainers <egress-enforcer@localhost>";

/// Writes the package of a program. `native` is the same program for this machine: it writes the manual pages and
/// completion scripts, since a program for another architecture does not start here.
///
/// # Errors
/// A file is missing, or `dpkg-deb` fails.
pub(super) fn write(program: &Path, native: &Path, arch: &str, dist: &Path) -> Result<PathBuf> {
    let debian = match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no Debian package for {other}"),
    };
    let tree = tempfile::tempdir_in(dist).context("a directory for the package")?;
    let root = tree.path();
    install(root, program, native)?;
    control(root, debian)?;
    open(root)?;
    let package = dist.join(format!("egress-agent_{VERSION}_{debian}.deb"));
    let mut build = run::command("dpkg-deb");
    // The same sources make the same package: times are the commit's.
    build.env("SOURCE_DATE_EPOCH", time()).args(["--root-owner-group", "-Zgzip", "--build"]);
    run::show(build.arg(root).arg(&package))?;
    check(&package)?;
    Ok(package)
}

/// The last commit's time, in seconds since 1970.
fn time() -> String {
    let time = run::output("git", &["log", "-1", "--format=%ct"]);
    time.map(|time| time.trim().to_owned())
        .filter(|time| !time.is_empty())
        .unwrap_or_else(|| "0".into())
}

/// Every file of the package.
fn install(root: &Path, program: &Path, native: &Path) -> Result<()> {
    let source = |path: &str| run::root().join(path);
    put(&root.join("usr/bin/egress-agent"), &fs::read(program)?, 0o755)?;
    for unit in ["egress-node.service", "egress-gateway.service", "workloads.slice"] {
        let text = read(&source(UNITS).join(unit))?;
        if unit.ends_with(".service") && !text.contains(BY_HAND) {
            bail!("{unit} does not start {BY_HAND}");
        }
        let text = text.replace(BY_HAND, PACKAGED);
        put(&root.join("usr/lib/systemd/system").join(unit), text.as_bytes(), 0o644)?;
    }
    let drop_in = "workloads-.slice.d/egress.conf";
    let text = read(&source(UNITS).join(drop_in))?;
    put(&root.join("usr/lib/systemd/system").join(drop_in), text.as_bytes(), 0o644)?;
    for environment in ["egress-node.env", "egress-gateway.env"] {
        let text = read(&source(UNITS).join(environment))?;
        put(&root.join("etc/egress").join(environment), text.as_bytes(), 0o644)?;
    }
    for directory in ["etc/egress", "etc/egress/config"] {
        make(&root.join(directory))?;
    }
    let examples = root.join(EXAMPLES);
    copy(&source("deploy/hosts/config"), &examples.join("config"))?;
    copy(&source("deploy/crds"), &examples.join("crds"))?;
    copy(
        &source(UNITS).join("egress-gateway.service.d"),
        &examples.join("egress-gateway.service.d"),
    )?;
    let doc = root.join("usr/share/doc/egress-agent");
    put(&doc.join("copyright"), read(&source(CONTROL).join("copyright"))?.as_bytes(), 0o644)?;
    let changelog = doc.join("changelog");
    put(&changelog, read(&source("CHANGELOG.md"))?.as_bytes(), 0o644)?;
    compress(&[changelog])?;
    described(root, native)
}

/// Manual pages and completion scripts, where Debian has them.
fn described(root: &Path, native: &Path) -> Result<()> {
    let made = tempfile::tempdir().context("a directory for the manual pages")?;
    // The program for this machine has the same command line as the packaged one, and starts here.
    describe_into(made.path(), native)?;
    let man = root.join("usr/share/man/man1");
    copy(&made.path().join("man/man1"), &man)?;
    let pages: Vec<_> = files(&man)?;
    compress(&pages)?;
    for (from, to) in [
        ("egress-agent", "bash-completion/completions/egress-agent"),
        ("_egress-agent", "zsh/vendor-completions/_egress-agent"),
        ("egress-agent.fish", "fish/vendor_completions.d/egress-agent.fish"),
    ] {
        let bytes = fs::read(made.path().join("completions").join(from)).with_context(|| from)?;
        put(&root.join("usr/share").join(to), &bytes, 0o644)?;
    }
    Ok(())
}

fn control(root: &Path, architecture: &str) -> Result<()> {
    let source = run::root().join(CONTROL);
    let size: u64 = sizes(root)?;
    let control = read(&source.join("control"))?
        .replace("@VERSION@", VERSION)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@MAINTAINER@", MAINTAINER)
        .replace("@SIZE@", &size.div_ceil(1024).to_string());
    let debian = root.join("DEBIAN");
    put(&debian.join("control"), control.as_bytes(), 0o644)?;
    put(&debian.join("conffiles"), read(&source.join("conffiles"))?.as_bytes(), 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        put(&debian.join(script), read(&source.join(script))?.as_bytes(), 0o755)?;
    }
    Ok(())
}

/// Files that every package has, besides the manual page of each command.
const WANTED: [&str; 14] = [
    "./usr/bin/egress-agent",
    "./usr/lib/systemd/system/egress-node.service",
    "./usr/lib/systemd/system/egress-gateway.service",
    "./usr/lib/systemd/system/workloads.slice",
    "./usr/lib/systemd/system/workloads-.slice.d/egress.conf",
    "./etc/egress/egress-node.env",
    "./etc/egress/egress-gateway.env",
    "./usr/share/man/man1/egress-agent.1.gz",
    "./usr/share/man/man1/egress-agent-flows.1.gz",
    "./usr/share/bash-completion/completions/egress-agent",
    "./usr/share/zsh/vendor-completions/_egress-agent",
    "./usr/share/fish/vendor_completions.d/egress-agent.fish",
    "./usr/share/doc/egress-agent/copyright",
    "./usr/share/doc/egress-agent/changelog.gz",
];

/// Those that are not in a package with these contents, or are empty, as `dpkg-deb --contents` lists them.
fn missing(contents: &str) -> Vec<&'static str> {
    let is_there = |wanted: &str| {
        contents.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(
            |words| matches!(words[..], [_, _, size, .., path] if path == wanted && size != "0"),
        )
    };
    WANTED.into_iter().filter(|wanted| !is_there(wanted)).collect()
}

/// What `dpkg-deb` and, where it is installed, lintian say of it.
fn check(package: &Path) -> Result<()> {
    let contents = run::command("dpkg-deb").arg("--contents").arg(package).output()?;
    let contents = String::from_utf8_lossy(&contents.stdout).into_owned();
    let missing = missing(&contents);
    if !missing.is_empty() {
        bail!("{} has no {}:\n{contents}", package.display(), missing.join(", "));
    }
    let plain = |line: &str| {
        line.contains(" root/root ")
            && ["drwxr-xr-x ", "-rwxr-xr-x ", "-rw-r--r-- "]
                .iter()
                .any(|mode| line.starts_with(mode))
    };
    if !contents.lines().all(plain) {
        bail!("{} has files of others than root, or of odd modes:\n{contents}", package.display());
    }
    if run::has_program("lintian") {
        run::show(run::command("lintian").args(["--fail-on", "error"]).arg(package))?;
    }
    let files = contents.lines().filter(|line| !line.ends_with('/')).count();
    println!("{}: {files} files", package.display());
    Ok(())
}

/// Installs it into an empty directory, and removes and purges it there. The scripts run with `DPKG_ROOT`,
/// so that this machine's units are left alone.
///
/// # Errors
/// A step fails, removal does not stop while something is enforced, or something is left.
pub(super) fn try_out(package: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("a directory to install into")?;
    let root = scratch.path();
    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        make(&root.join(directory))?;
    }
    for file in ["status", "available"] {
        put(&root.join("var/lib/dpkg").join(file), b"", 0o644)?;
    }
    let dpkg = |args: &[&str]| {
        let mut dpkg = run::command("dpkg");
        dpkg.arg(format!("--root={}", root.display()));
        dpkg.args(["--force-script-chrootless", "--log=/dev/null", "--force-depends"]).args(args);
        dpkg
    };
    let deb = package.to_string_lossy();
    run::show(&mut dpkg(&["--install", &deb]))?;
    let program = root.join("usr/bin/egress-agent");
    run::show(run::command(&program.to_string_lossy()).arg("--version"))?;
    let enabled = root.join("etc/systemd");
    if enabled.exists() {
        bail!("the installation enables a unit: {}", enabled.display());
    }
    // Enforcement keeps the program.
    let pins = root.join("sys/fs/bpf/egress-agent");
    make(&pins.join("v1"))?;
    let kept = dpkg(&["--remove", "egress-agent"]).output()?;
    if kept.status.success() || !program.exists() {
        bail!("the package was removed while something was enforced");
    }
    let said = String::from_utf8_lossy(&kept.stderr);
    if !said.contains("egress-agent uninstall") {
        bail!("the removal does not say what to do: {said}");
    }
    fs::remove_dir_all(root.join("sys"))?;
    // The administrator's own file outlives both.
    let own = root.join("etc/egress/config/own.yaml");
    put(&own, b"", 0o644)?;
    run::show(&mut dpkg(&["--remove", "egress-agent"]))?;
    if program.exists() || !root.join("etc/egress/egress-node.env").exists() {
        bail!("removal keeps the program, or takes the settings");
    }
    run::show(&mut dpkg(&["--purge", "egress-agent"]))?;
    if !own.exists() {
        bail!("purging takes the administrator's configuration");
    }
    fs::remove_dir_all(root.join("etc/egress"))?;
    fs::remove_dir_all(root.join("var"))?;
    let left: Vec<_> = files(root)?;
    if !left.is_empty() {
        bail!("left behind: {left:?}");
    }
    println!("{}: installed, removed and purged in {}", package.display(), root.display());
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| path.display().to_string())
}

/// Lets everybody into the directories, whatever this process' umask is.
fn open(directory: &Path) -> Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            open(&path)?;
        }
    }
    Ok(())
}

/// A file with its directories, which everybody may read.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    make(path.parent().context("a file has a directory")?)?;
    fs::write(path, bytes).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// The files of a directory, without those further below, in order.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| from.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            put(&to.join(path.file_name().context("a name")?), &fs::read(&path)?, 0o644)?;
        }
    }
    Ok(())
}

/// All files below, in order.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

fn sizes(root: &Path) -> Result<u64> {
    files(root)?.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
}

/// As Debian wants manual pages and changelogs, without a time in them.
fn compress(paths: &[PathBuf]) -> Result<()> {
    run::show(run::command("gzip").args(["-9n"]).args(paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that enables or starts something would do so on every host that gets the package.
    #[test]
    fn no_script_enables_or_starts_anything() {
        for script in ["postinst", "prerm", "postrm"] {
            let text = read(&run::root().join(CONTROL).join(script)).expect(script);
            assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"), "{script}");
            for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
                let calls = line.contains("systemctl") && !line.contains("echo");
                for verb in [" enable", " start", " restart", " preset"] {
                    assert!(!calls || !line.contains(verb), "{script}: {line}");
                }
            }
        }
    }

    #[test]
    fn a_package_without_a_part_is_refused() {
        let line = |path: &str, size: u64| {
            format!("-rw-r--r-- root/root {size:>9} 2026-11-30 12:00 {path}\n")
        };
        let whole: String = WANTED.iter().map(|path| line(path, 7)).collect();
        assert_eq!(missing(&whole), Vec::<&str>::new());
        for path in WANTED {
            assert_eq!(missing(&whole.replace(&line(path, 7), "")), [path]);
            assert_eq!(missing(&whole.replace(&line(path, 7), &line(path, 0))), [path]);
        }
    }

    #[test]
    fn every_setting_is_a_conffile() {
        let listed = read(&run::root().join(CONTROL).join("conffiles")).expect("conffiles");
        let units = files(&run::root().join(UNITS)).expect("units");
        let settings = units.iter().filter(|path| path.extension().is_some_and(|end| end == "env"));
        let settings: Vec<_> = settings
            .filter_map(|path| Some(format!("/etc/egress/{}", path.file_name()?.to_str()?)))
            .collect();
        assert_eq!(listed.lines().collect::<Vec<_>>(), settings);
    }
}
