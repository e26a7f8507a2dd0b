//! `cargo xtask check` and `cargo xtask test`.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    dist::{self, Build},
    fuzz, image, kernels, layers, manifests, programs, run, setup,
};

/// What has been run so far: name, time, outcome.
#[derive(Default)]
struct Stages(Vec<(&'static str, Duration, Result<()>)>);

impl Stages {
    /// Runs a stage. A failed one doesn't end the run, so that one run shows everything.
    fn stage(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let result = work();
        if let Err(error) = &result {
            println!("{error:#}");
        }
        self.0.push((name, start.elapsed(), result));
    }

    fn cargo(&mut self, name: &'static str, command: &mut Command) {
        self.stage(name, || {
            println!("{}", run::text(command));
            run::show(command)
        });
    }

    fn summary(self) -> Result<()> {
        println!("\n=== summary");
        let mut failed = Vec::new();
        for (name, time, result) in self.0 {
            let mark = if result.is_ok() { "ok    " } else { "FAILED" };
            println!("{mark}  {name:<14} {:>6.1} s", time.as_secs_f64());
            if result.is_err() {
                failed.push(name);
            }
        }
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

/// Formatting, lints, documentation, licences, layers.
///
/// # Errors
/// One of them isn't clean.
pub(crate) fn check() -> Result<()> {
    setup::run(setup::For::Everything)?;
    let mut stages = Stages::default();
    lints(&mut stages);
    stages.summary()
}

/// Everything `check` does, then all tests, and then those that ask the kernel on `kernels`.
///
/// # Errors
/// A check isn't clean, a test failed, or root is missing.
pub(crate) fn test(quick: bool, kernels: Option<&[String]>, args: &[String]) -> Result<()> {
    setup::run(setup::For::Everything)?;
    if !run::is_root() {
        bail!(
            "the end-to-end tests make network namespaces and load eBPF programs: run this as root \
             (`cargo xtask check` needs none)"
        );
    }
    let mut stages = Stages::default();
    if !quick {
        lints(&mut stages);
    }
    // The end-to-end tests run the agent itself, and would build it unseen.
    stages.cargo("build", run::command("cargo").args(["build", "--workspace", "--bins"]));
    stages.stage("dist", || dist::run(Build::Quick).map(drop));
    stages.stage("image", || image::of_quick(&run::target_dir().join("image-quick")));
    // The programs that tests run are built: nothing is built again in between.
    let (agent, released) =
        (run::target_dir().join("debug/egress-agent"), dist::path(Build::Quick));
    let env = [("EGRESS_AGENT", &*agent), ("EGRESS_AGENT_RELEASED", &*released)];
    if args.is_empty() {
        stages.stage("tests", || programs::run(&env));
    } else {
        let mut cargo = run::command("cargo");
        cargo.args(["test", "--workspace", "--no-fail-fast"]).args(args).envs(env);
        stages.cargo("tests", &mut cargo);
    }
    if !quick {
        stages.stage("fuzz", || fuzz::fuzz(&fuzz::Options::BRIEF));
    }
    if let Some(kernels) = kernels {
        stages.stage("kernels", || kernels::run(&kernels::Options::all_tests(kernels)));
    }
    stages.summary()
}

fn lints(stages: &mut Stages) {
    stages.cargo("fmt", run::command("cargo").args(["fmt", "--all", "--check"]));
    stages.stage("layers", || layers::run(&layers::Options::CHECK));
    stages.stage("manifests", || manifests::run(&manifests::Options::CHECK));
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    stages.cargo("clippy", run::command("cargo").args(clippy));
    let mut doc = run::command("cargo");
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    stages.cargo("doc", doc.env("RUSTDOCFLAGS", "-D warnings"));
    // Advisories need the network and change by the day: they are no part of a repeatable test.
    let deny = ["deny", "--all-features", "check", "bans", "licenses", "sources"];
    stages.cargo("deny", run::command("cargo").args(deny));
}
