//! `cargo xtask setup`: what the build, the demo and the tests need.

mod needed;

use std::{env, fs, process::Command, time::Instant};

use anyhow::{Result, bail};

use self::needed::{FRESH_TOOLS, KERNEL_TOOLS, PEER_LIBRARIES, PEERS, TOOLS};
use crate::{run, tools};

/// The bpf-linker that was tested with this project's versions of aya.
const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";
const CARGO_FUZZ: &str = "0.13.2";

/// Debian packages of the eBPF compiler: rustc 1.96 with a prebuilt `core` for BPF, and the LLVM of
/// the same version that bpf-linker is linked with.
const EBPF_PACKAGES: &[&str] =
    &["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libzstd-dev", "zlib1g-dev", "g++"];

/// What the set-up is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Build and demo.
    Demo,
    /// Build, demo, tests and checks.
    Everything,
    /// All of it, and other kernels in an emulator.
    Kernels,
    /// A fresh machine, which has a set-up of its own.
    Fresh,
}

/// How the eBPF programs are compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Toolchain {
    /// Debian's rustc-web.
    Debian,
    /// rustup's nightly with rust-src.
    Nightly,
}

/// Something missing, and how it gets here.
struct Step {
    what: String,
    takes: &'static str,
    root: bool,
    command: Vec<String>,
    env: Vec<(&'static str, &'static str)>,
}

impl Step {
    fn new(what: impl Into<String>, takes: &'static str, root: bool, command: &str) -> Self {
        let command = command.split_whitespace().map(str::to_owned).collect();
        Self { what: what.into(), takes, root, command, env: Vec::new() }
    }

    fn text(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name}={value} "));
        env.collect::<String>() + &self.command.join(" ")
    }

    fn command(&self) -> Command {
        let mut command = run::command(&self.command[0]);
        command.args(&self.command[1..]).envs(self.env.iter().copied());
        command
    }
}

/// Installs what is missing.
///
/// # Errors
/// A step failed, or needs root and there is none; the message holds the commands.
pub(crate) fn run(purpose: For) -> Result<()> {
    if purpose == For::Fresh {
        let apt = run::has_program("apt-get") && run::has_program("dpkg-query");
        return perform(&packages(missing_tools(FRESH_TOOLS), apt, false)?);
    }
    let (toolchain, steps) = planned(purpose)?;
    perform(&steps)?;
    println!("{}", summary(&steps, toolchain));
    Ok(())
}

/// What the set-up says on a machine that has everything. Installs nothing.
///
/// # Errors
/// As for [`run()`]; or something is missing.
pub(crate) fn complete(purpose: For) -> Result<String> {
    let (toolchain, steps) = planned(purpose)?;
    if let Some(step) = steps.first() {
        bail!("{} is missing", step.what);
    }
    Ok(summary(&steps, toolchain))
}

/// What was done, on lines that fit 80 columns.
fn summary(steps: &[Step], toolchain: Toolchain) -> String {
    format!("set-up: {}; eBPF programs are built\n{}", done(steps), describe(toolchain))
}

/// For whoever is not root: prints the commands that prepare this machine for `cargo xtask COMMAND`, and then
/// that command. Changes nothing.
///
/// # Errors
/// Always: the command needs root.
pub(crate) fn needs_root(purpose: For, command: &str) -> Result<()> {
    let (_, steps) = planned(purpose)?;
    if !steps.is_empty() {
        eprint!("{}", by_hand(&steps));
    }
    bail!(
        "`cargo xtask {command}` makes network namespaces and loads eBPF programs: run it as root, as in\n\n    \
         sudo --preserve-env=PATH cargo xtask {command}"
    )
}

/// How eBPF programs are compiled here, and what is missing for it and for everything else.
fn planned(purpose: For) -> Result<(Toolchain, Vec<Step>)> {
    let asked = asked_toolchain()?;
    let apt = run::has_program("apt-get") && run::has_program("dpkg-query");
    let there = apt && has_packages(EBPF_PACKAGES);
    // What Debian offers is asked of fresh lists: old ones may lack the packages, or name versions
    // that are no longer there. Without root the lists have to do as they are.
    let updated = apt && !there && asked != Some(Toolchain::Nightly) && run::is_root();
    if updated {
        perform(&[update_lists()])?;
    }
    let toolchain = match asked {
        Some(Toolchain::Debian) if !apt => bail!(
            "EGRESS_EBPF_TOOLCHAIN=debian, but there is no apt-get here: use EGRESS_EBPF_TOOLCHAIN=nightly"
        ),
        Some(toolchain) => toolchain,
        None if there || (apt && debian_offers_ebpf()) => Toolchain::Debian,
        None => Toolchain::Nightly,
    };

    Ok((toolchain, missing(toolchain, purpose, apt, updated)?))
}

fn done(steps: &[Step]) -> &'static str {
    if steps.is_empty() { "everything was there" } else { "done" }
}

fn describe(toolchain: Toolchain) -> String {
    match toolchain {
        Toolchain::Debian => {
            let version = run::output("/usr/bin/rustc", &["--version"]).unwrap_or_default();
            format!("Debian's way (bpf-linker {BPF_LINKER} on LLVM 22,\n{})", version.trim())
        }
        Toolchain::Nightly => {
            format!("rustup's way (nightly with rust-src, bpf-linker {BPF_LINKER})")
        }
    }
}

fn asked_toolchain() -> Result<Option<Toolchain>> {
    match env::var("EGRESS_EBPF_TOOLCHAIN").as_deref() {
        Ok("debian") => Ok(Some(Toolchain::Debian)),
        Ok("nightly") => Ok(Some(Toolchain::Nightly)),
        Ok(other) => {
            bail!("EGRESS_EBPF_TOOLCHAIN is {other:?}; expected \"debian\" or \"nightly\"")
        }
        Err(_) => Ok(None),
    }
}

fn missing(toolchain: Toolchain, purpose: For, apt: bool, updated: bool) -> Result<Vec<Step>> {
    let kernels: &[_] = if purpose == For::Kernels { KERNEL_TOOLS } else { &[] };
    let mut names = missing_tools(TOOLS);
    names.extend(missing_tools(kernels));
    if purpose != For::Demo {
        names.extend(missing_tools(PEERS));
        if apt {
            names.extend(PEER_LIBRARIES.iter().filter(|package| !has_packages(&[package])));
        }
        if !tools::has_pip() {
            names.push("python3-pip");
        }
    }
    if toolchain == Toolchain::Debian {
        names.extend(EBPF_PACKAGES.iter().filter(|package| !has_packages(&[package])));
    }
    let mut steps = packages(names, apt, updated)?;
    if toolchain == Toolchain::Nightly && !nightly_has_source() {
        steps.push(Step::new(
            "rustup's nightly compiler with the standard library's source",
            "about a minute",
            false,
            "rustup toolchain install nightly --profile minimal --component rust-src",
        ));
    }
    if !has_bpf_linker(toolchain) {
        steps.push(bpf_linker(toolchain));
    }
    if purpose != For::Demo {
        for (program, component) in [("cargo-clippy", "clippy"), ("cargo-fmt", "rustfmt")] {
            if !run::has_program(program) {
                let command = format!("rustup component add {component}");
                steps.push(Step::new(component, "some seconds", false, &command));
            }
        }
        if !tools::are_there() {
            let what = "kubectl, helm and the schemas of Kubernetes' API";
            steps.push(Step::new(what, "about a minute", false, &tools::command()));
        }
        if !run::has_program("cargo-deny") {
            steps.push(cargo_deny());
        }
        if !run::has_program("cargo-fuzz") {
            let command =
                format!("cargo install cargo-fuzz --version {CARGO_FUZZ} --locked --debug");
            steps.push(Step::new("cargo-fuzz", "about a minute", false, &command));
        }
    }
    Ok(steps)
}

/// The programs of the demo and the tests.
pub(crate) fn tools() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().chain(PEERS).map(|(program, _)| *program)
}

/// Packages of the programs that aren't there.
fn missing_tools(tools: &[(&str, &'static str)]) -> Vec<&'static str> {
    let missing = tools.iter().filter(|(program, _)| !run::has_program(program));
    missing.map(|(_, package)| *package).collect()
}

/// The steps that install these packages.
fn packages(mut names: Vec<&str>, apt: bool, updated: bool) -> Result<Vec<Step>> {
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names = names.join(" ");
    if !apt {
        bail!("missing on this machine: {names}. Install them with its package manager");
    }
    let mut install = Step::new(
        format!("Debian packages: {names}"),
        "up to two minutes",
        true,
        &format!("apt-get install --yes --no-install-recommends {names}"),
    );
    install.env.push(("DEBIAN_FRONTEND", "noninteractive"));
    // In the single-user runlevel a server's package starts no server (invoke-rc.d(8)).
    install.env.push(("RUNLEVEL", "1"));
    let lists = (!updated).then(update_lists);
    Ok(lists.into_iter().chain([install]).collect())
}

fn update_lists() -> Step {
    Step::new("Debian's package lists", "some seconds", true, "apt-get update")
}

fn bpf_linker(toolchain: Toolchain) -> Step {
    let install = format!("cargo install bpf-linker --version {BPF_LINKER} --locked --force");
    match toolchain {
        Toolchain::Debian => {
            let command = format!("{install} --no-default-features --features llvm-22");
            let mut step = Step::new("bpf-linker on LLVM 22", "about a minute", false, &command);
            step.env.push(("LLVM_PREFIX", "/usr/lib/llvm-22"));
            step
        }
        Toolchain::Nightly => Step::new("bpf-linker", "one to three minutes", false, &install),
    }
}

/// A debug build without debug information: it checks this tree in seconds either way, and takes a
/// fraction of the time to build.
fn cargo_deny() -> Step {
    let command = format!("cargo install cargo-deny --version {CARGO_DENY} --locked --debug");
    let mut step = Step::new("cargo-deny (licences)", "about a minute", false, &command);
    step.env.push(("CARGO_PROFILE_DEV_DEBUG", "0"));
    step
}

/// Performs the steps, or prints them where root is missing.
fn perform(steps: &[Step]) -> Result<()> {
    if steps.iter().any(|step| step.root) && !run::is_root() {
        eprint!("{}", by_hand(steps));
        bail!("set-up needs root: run the commands above, or this command as root");
    }
    for (number, step) in steps.iter().enumerate() {
        println!("set-up {}/{}: {} ({})", number + 1, steps.len(), step.what, step.takes);
        println!("    {}", step.text());
        let start = Instant::now();
        run::show(&mut step.command())?;
        println!("    done in {} s", start.elapsed().as_secs());
    }
    Ok(())
}

/// The commands, for whoever runs them without this program.
fn by_hand(steps: &[Step]) -> String {
    let mut text =
        "These commands prepare this machine, the ones with sudo as root:\n\n".to_owned();
    for step in steps {
        let sudo = if step.root { "sudo " } else { "" };
        text.push_str(&format!("    {sudo}{}\n", step.text()));
    }
    text
}

fn has_packages(packages: &[&str]) -> bool {
    let mut args = vec!["--show", "--showformat", "${db:Status-Status}\n"];
    args.extend(packages);
    run::output("dpkg-query", &args).is_some_and(|text| {
        text.lines().filter(|line| *line == "installed").count() >= packages.len()
    })
}

/// Whether apt could install the eBPF compiler. Only Debian 12's security suite and later releases
/// have these packages.
fn debian_offers_ebpf() -> bool {
    EBPF_PACKAGES.iter().all(|package| {
        run::output("apt-cache", &["policy", package]).is_some_and(|text| {
            text.lines()
                .filter_map(|line| line.trim().strip_prefix("Candidate: "))
                .any(|candidate| candidate != "(none)")
        })
    })
}

fn nightly_has_source() -> bool {
    run::output("rustc", &["+nightly", "--print", "sysroot"]).is_some_and(|sysroot| {
        let source = format!("{}/lib/rustlib/src/rust/library/core", sysroot.trim());
        fs::metadata(source).is_ok()
    })
}

/// Whether the bpf-linker on the path is the tested version and, for Debian's compiler, was linked
/// with the same LLVM: one that is older refuses the compiler's bitcode.
fn has_bpf_linker(toolchain: Toolchain) -> bool {
    let version = run::output("bpf-linker", &["--version"]);
    if !version.is_some_and(|text| text.contains(BPF_LINKER)) {
        return false;
    }
    // Cargo's own notes: {"installs":{"bpf-linker 0.13.0 (…)":{…,"features":["llvm-22"],…
    let notes = fs::read_to_string(run::cargo_home().join(".crates2.json")).unwrap_or_default();
    let Some((_, entry)) = notes.split_once("\"bpf-linker ") else {
        // Installed by other means: the build will tell.
        return true;
    };
    let entry = entry.split('}').next().unwrap_or_default();
    entry.contains("\"llvm-22\"") == (toolchain == Toolchain::Debian)
}

#[cfg(test)]
mod tests;
