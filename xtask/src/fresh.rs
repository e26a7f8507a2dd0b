//! `cargo xtask fresh`: the README's two commands on a machine that has nothing but what the README
//! asks for.
//!
//! The machine is a root directory with a minimal Debian 12, git, gcc and rustup's toolchain, and a
//! fresh clone of this repository. It runs on this machine's kernel: namespaces, cgroups and eBPF are
//! the real ones. What the set-up forgets to install is missing there.

use std::{env, fs, path::Path, process::Command, time::Instant};

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

/// Which steps, and where the machine is.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The last step.
    #[arg(long, value_enum, default_value_t = Step::Test)]
    until: Step,
    /// These steps alone, on the machine of an earlier run. Its clone is brought to the last commit and
    /// keeps what it has built, so the whole can be run in parts.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "until")]
    only: Vec<Step>,
    /// Start from a new root directory, instead of the one of an earlier run.
    #[arg(long)]
    anew: bool,
    /// Handed to `cargo xtask test`, e.g. `-- --quick`.
    #[arg(last = true)]
    test: Vec<String>,
}

/// The steps, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
enum Step {
    /// The root directory and the clone.
    Root,
    /// `cargo xtask setup`, and every tool that it names.
    Setup,
    /// `cargo build --workspace --all-targets`. Where all steps are run, the next two build.
    Build,
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask test`.
    Test,
}

impl Step {
    /// What it runs in the clone. The root directory is made from outside.
    fn command(self) -> &'static [&'static str] {
        match self {
            Self::Root => &[],
            Self::Setup => &["cargo", "xtask", "setup"],
            Self::Build => &["cargo", "build", "--workspace", "--all-targets"],
            Self::Demo => &["cargo", "xtask", "demo"],
            Self::Test => &["cargo", "xtask", "test"],
        }
    }
}

impl Options {
    fn includes(&self, step: Step) -> bool {
        match self.only.as_slice() {
            [] if step == Step::Build => self.until == Step::Build,
            [] => step <= self.until,
            only => only.contains(&step),
        }
    }

    /// What has passed when all chosen steps have.
    fn outcome(&self) -> String {
        let steps = Step::value_variants().iter().filter(|step| self.includes(**step));
        let names: Vec<String> = steps.map(|step| format!("{step:?}").to_lowercase()).collect();
        match (self.only.is_empty() && self.until == Step::Test, self.test.is_empty()) {
            (true, true) => "everything passed".to_owned(),
            (_, true) => format!("only {} passed, and nothing else was run", names.join(", ")),
            (_, false) => format!(
                "only {} passed, with `{}`, and nothing else was run",
                names.join(", "),
                self.test.join(" ")
            ),
        }
    }
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
    if options.only.is_empty() || !root.join(CLONE).exists() {
        clone(&root)?;
    } else {
        update(&root)?;
    }
    let step = |step: Step, more: &[&str]| -> Result<()> {
        if !options.includes(step) {
            return Ok(());
        }
        let command = [step.command(), more].concat();
        println!("\nfresh: {}", command.join(" "));
        let start = Instant::now();
        run::show(&mut inside(&root, &command))?;
        println!("fresh: {step:?} passed in {} s", start.elapsed().as_secs());
        Ok(())
    };
    step(Step::Setup, &[])?;
    if options.includes(Step::Setup) {
        tools(&root)?;
    }
    step(Step::Build, &[])?;
    step(Step::Demo, &[])?;
    let test: Vec<&str> = options.test.iter().map(String::as_str).collect();
    step(Step::Test, &test)?;
    println!("fresh: {} in {}", options.outcome(), root.display());
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
    // As the installer writes it.
    fs::write(
        part.join("etc/hosts"),
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    )?;
    fs::rename(&part, root).with_context(|| root.display().to_string())
}

/// rustup with the toolchain that this run was compiled with: linked programs and one toolchain.
fn toolchain(root: &Path) -> Result<()> {
    let sysroot = run::output("rustc", &["--print", "sysroot"]).context("no rustc")?;
    let active = run::output("rustup", &["show", "active-toolchain"]).context("no rustup")?;
    let name = active.split_whitespace().next().context("rustup has no active toolchain")?;
    // The name may be a link to a toolchain of another name.
    let from = Path::new(sysroot.trim()).canonicalize().context("rustc's files")?;
    let (rustup, cargo) = (root.join("root/.rustup"), root.join("root/.cargo"));
    let to = rustup.join("toolchains").join(name);
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

/// Brings the clone of an earlier run to the last commit.
fn update(root: &Path) -> Result<()> {
    let clone = root.join(CLONE);
    let git = |args: &[&str]| {
        let mut git = run::command("git");
        run::show(git.arg("-C").arg(&clone).args(args))
    };
    let from = run::root().display().to_string();
    git(&["fetch", "--quiet", &from, "HEAD"])?;
    git(&["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"])?;
    // What is ignored stays: it is what was built.
    git(&["clean", "-d", "--force", "--quiet"])
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::docs::{markdown::Document, shell};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn steps(args: &[&str]) -> Vec<Step> {
        let line = Line::try_parse_from([&["fresh"], args].concat());
        let options = line.unwrap_or_else(|error| panic!("{error}")).options;
        Step::value_variants().iter().copied().filter(|step| options.includes(*step)).collect()
    }

    #[test]
    fn a_part_is_not_everything() {
        let outcome = |args: &[&str]| {
            let line = Line::try_parse_from([&["fresh"], args].concat());
            line.unwrap_or_else(|error| panic!("{error}")).options.outcome()
        };
        assert_eq!(outcome(&[]), "everything passed");
        for (args, steps) in [
            (&["--until", "setup"][..], "root, setup"),
            (&["--only", "demo"], "demo"),
            (&["--only", "build,test"], "build, test"),
        ] {
            assert_eq!(outcome(args), format!("only {steps} passed, and nothing else was run"));
        }
        let quick = outcome(&["--", "--quick"]);
        assert!(
            quick.starts_with("only root, setup, demo, test passed, with `--quick`"),
            "{quick}"
        );
    }

    /// The set-up, which `fresh` runs first, is part of both.
    #[test]
    fn the_readme_has_the_commands_that_fresh_runs() {
        let readme = fs::read_to_string(run::root().join("README.md")).expect("the README");
        let readme = Document::parse("README.md".into(), &readme);
        let blocks = readme.blocks.iter().filter(|block| block.language == "console");
        let typed: Vec<String> = blocks.flat_map(shell::commands).map(|(_, line)| line).collect();
        let steps = steps(&[]).into_iter().filter(|step| *step != Step::Setup);
        let run: Vec<String> = steps
            .map(|step| step.command().join(" "))
            .filter(|command| !command.is_empty())
            .collect();
        assert_eq!(typed, run);
        assert_eq!(run, ["cargo xtask demo", "cargo xtask test"]);
    }

    #[test]
    fn it_can_be_run_in_parts() {
        let all = [Step::Root, Step::Setup, Step::Demo, Step::Test];
        assert_eq!(steps(&[]), all, "the README's two commands, which build");
        assert_eq!(steps(&["--until", "setup"]), all[..2]);
        assert_eq!(steps(&["--until", "build"]), [Step::Root, Step::Setup, Step::Build]);
        assert_eq!(steps(&["--only", "demo"]), [Step::Demo]);
        assert_eq!(steps(&["--only", "build,test", "--", "--quick"]), [Step::Build, Step::Test]);
        assert!(Line::try_parse_from(["fresh", "--only", "demo", "--until", "test"]).is_err());
    }
}
