//! `cargo xtask fresh`: the README's two commands on a machine that has nothing but what the README
//! asks for.
//!
//! The machine is a root directory with a minimal Debian 12, git, gcc and rustup's toolchain, and a
//! fresh clone of this repository. It runs on this machine's kernel: namespaces, cgroups and eBPF are
//! the real ones. What the set-up forgets to install is missing there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{run, setup};

/// Debian's release, and what the README asks for.
const SUITE: &str = "bookworm";
const GIVEN: &str = "ca-certificates,gcc,git,libc6-dev";
/// Where the clone is, on the fresh machine.
const CLONE: &str = "root/egress-enforcer";
/// What the fresh machine takes over from this one's environment: the way to the registries.
const ENVIRONMENT: [&str; 7] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "EGRESS_EBPF_TOOLCHAIN",
];

/// Where to stop, and where the machine is.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The last step.
    #[arg(long, value_enum, default_value_t = Until::Test)]
    until: Until,
    /// Start from a new root directory, instead of the one of an earlier run.
    #[arg(long)]
    anew: bool,
}

/// The steps, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
enum Until {
    /// The root directory and the clone.
    Root,
    /// `cargo xtask setup`, and every tool that it names.
    Setup,
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask test`.
    Test,
}

/// Runs the steps.
///
/// # Errors
/// One fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !run::is_root() {
        bail!("a fresh machine needs root: mounts, namespaces and eBPF");
    }
    setup::run(setup::For::Fresh)?;
    let dir = run::target_dir().join("fresh");
    let root = dir.join("root");
    if options.anew && root.exists() {
        fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
    }
    debian(&dir, &root)?;
    toolchain(&root)?;
    clone(&root)?;
    if options.until >= Until::Setup {
        run::show(&mut inside(&root, &["cargo", "xtask", "setup"]))?;
        tools(&root)?;
    }
    if options.until >= Until::Demo {
        run::show(&mut inside(&root, &["cargo", "xtask", "demo"]))?;
    }
    if options.until >= Until::Test {
        run::show(&mut inside(&root, &["cargo", "xtask", "test"]))?;
    }
    println!("fresh: {:?} passed in {}", options.until, root.display());
    Ok(())
}

/// A minimal Debian with the suites that an installed one has. It appears as a whole or not at all.
fn debian(dir: &Path, root: &Path) -> Result<()> {
    if root.exists() {
        println!("fresh: {} is there (--anew makes it again)", root.display());
        return Ok(());
    }
    let part = dir.join("root.part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| part.display().to_string())?;
    }
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut debootstrap = run::command("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={GIVEN}"), SUITE]);
    run::show(debootstrap.arg(&part).arg(mirror(SUITE)?))?;
    let sources = format!(
        "deb {mirror} {SUITE} main\ndeb {mirror} {SUITE}-updates main\n\
         deb {security} {SUITE}-security main\n",
        mirror = mirror(SUITE)?,
        security = mirror(&format!("{SUITE}-security"))?
    );
    fs::write(part.join("etc/apt/sources.list"), sources)?;
    fs::rename(&part, root).with_context(|| root.display().to_string())
}

/// rustup with the toolchain that this run was compiled with: linked programs and one toolchain.
fn toolchain(root: &Path) -> Result<()> {
    let sysroot = run::output("rustc", &["--print", "sysroot"]).context("no rustc")?;
    let from = PathBuf::from(sysroot.trim());
    let name = from.file_name().context("a toolchain has a name")?.to_string_lossy().into_owned();
    let (rustup, cargo) = (root.join("root/.rustup"), root.join("root/.cargo"));
    let to = rustup.join("toolchains").join(&name);
    if !to.exists() {
        fs::create_dir_all(rustup.join("toolchains"))?;
        run::show(run::command("cp").arg("--archive").args([&from, &to]))?;
        fs::create_dir_all(cargo.join("bin"))?;
        run::show(
            run::command("cp")
                .args(["--archive", "--dereference"])
                .args(RUSTUP.map(|program| run::cargo_home().join("bin").join(program)))
                .arg(cargo.join("bin")),
        )?;
        let settings =
            format!("version = \"12\"\ndefault_toolchain = \"{name}\"\nprofile = \"default\"\n");
        fs::write(rustup.join("settings.toml"), settings)?;
    }
    // The registries' certificates are those that this machine trusts.
    let trusted = "etc/ssl/certs/ca-certificates.crt";
    fs::copy(Path::new("/").join(trusted), root.join(trusted)).context(trusted)?;
    fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf")).context("resolv.conf")?;
    Ok(())
}

/// What rustup puts into cargo's directory of programs.
const RUSTUP: [&str; 8] = [
    "cargo",
    "cargo-clippy",
    "cargo-fmt",
    "clippy-driver",
    "rustc",
    "rustdoc",
    "rustfmt",
    "rustup",
];

/// The last commit, as a user gets it.
fn clone(root: &Path) -> Result<()> {
    let to = root.join(CLONE);
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| to.display().to_string())?;
    }
    if run::output("git", &["status", "--porcelain"]).is_some_and(|text| !text.is_empty()) {
        println!("fresh: what isn't committed isn't in the clone");
    }
    let mut git = run::command("git");
    run::show(git.args(["clone", "--quiet", "--no-hardlinks"]).arg(run::root()).arg(&to))
}

/// Every program that the set-up names is there after it.
fn tools(root: &Path) -> Result<()> {
    let missing: Vec<&str> = setup::tools()
        .filter(|program| {
            let find = ["sh", "-c", "command -v \"$1\" >/dev/null", "sh", program];
            !inside(root, &find).status().is_ok_and(|status| status.success())
        })
        .collect();
    if !missing.is_empty() {
        bail!("the set-up installs no {}", missing.join(", "));
    }
    Ok(())
}

/// Becomes the fresh machine: its root directory with this kernel's file systems, and a `/run` of
/// its own. Everything mounted here ends with the command.
const ENTER: &str = r#"
set -eu
root=$1; shift
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p run/old
pivot_root . run/old
umount --lazy /run/old
cd /"$CLONE"
exec "$@"
"#;

fn inside(root: &Path, command: &[&str]) -> Command {
    let mut full = run::command("unshare");
    full.args(["--mount", "--propagation", "private", "env", "--ignore-environment"]);
    full.arg("HOME=/root").arg("LANG=C.UTF-8").arg(format!("CLONE={CLONE}"));
    full.arg("PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for name in ENVIRONMENT {
        if let Ok(value) = env::var(name) {
            full.arg(format!("{name}={value}"));
        }
    }
    full.args(["sh", "-c", ENTER, "sh"]).arg(root).args(command);
    full
}

/// Where this machine's own apt gets a release from.
fn mirror(release: &str) -> Result<String> {
    let lines = run::output("apt-get", &["indextargets", "--format", "$(SITE) $(RELEASE)"]);
    let lines = lines.unwrap_or_default();
    let site = lines.lines().find_map(|line| line.strip_suffix(release)?.strip_suffix(' '));
    site.map(str::to_owned)
        .with_context(|| format!("apt's lists have no {release}: run apt-get update on Debian 12"))
}
