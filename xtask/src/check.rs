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

    /// Installs what is missing. Nothing can run without it, so a failure ends the run.
    fn set_up(&mut self) -> Result<()> {
        let start = Instant::now();
        setup::run(setup::For::Everything)?;
        self.0.push(("set-up", start.elapsed(), Ok(())));
        Ok(())
    }

    fn cargo(&mut self, name: &'static str, command: &mut Command) {
        self.stage(name, || {
            println!("{}", run::text(command));
            run::show(command)
        });
    }

    fn summary(self) -> Result<()> {
        println!("\n=== summary");
        println!("{}", self.table());
        let mut failed = Vec::new();
        for (name, _, result) in self.0 {
            if result.is_err() {
                failed.push(name);
            }
        }
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }

    /// Every stage with its outcome and time, and the time of all.
    fn table(&self) -> String {
        let line = |mark: &str, name: &str, time: Duration| {
            format!("{mark:<6}  {name:<14} {:>7.1} s", time.as_secs_f64())
        };
        let stages = self.0.iter().map(|(name, time, result)| {
            line(if result.is_ok() { "ok" } else { "FAILED" }, name, *time)
        });
        let all = self.0.iter().map(|(_, time, _)| *time).sum();
        stages.chain([line("", "total", all)]).collect::<Vec<_>>().join("\n")
    }
}

/// Formatting, lints, documentation, licences, layers.
///
/// # Errors
/// One of them isn't clean.
pub(crate) fn check() -> Result<()> {
    let mut stages = Stages::default();
    stages.set_up()?;
    lints(&mut stages);
    stages.summary()
}

/// Everything `check` does, then all tests, and then those that ask the kernel on `kernels`.
///
/// # Errors
/// A check isn't clean, a test failed, or root is missing.
pub(crate) fn test(quick: bool, kernels: Option<&[String]>, args: &[String]) -> Result<()> {
    if !run::is_root() {
        return setup::needs_root(setup::For::Everything, "test");
    }
    let mut stages = Stages::default();
    stages.set_up()?;
    if !quick {
        lints(&mut stages);
    }
    // The end-to-end tests run the agent itself, and would build it unseen.
    stages.cargo("build", run::command("cargo").args(["build", "--workspace", "--bins"]));
    stages.stage("dist", || dist::run(Build::Quick).map(drop));
    stages.stage("package", dist::of_quick);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_time_of_every_stage_and_of_all() {
        let failed = Err(anyhow::anyhow!("no"));
        let stages = Stages(vec![
            ("build", Duration::from_millis(61_200), Ok(())),
            ("tests", Duration::from_millis(1_100), failed),
        ]);
        assert_eq!(
            stages.table(),
            "ok      build             61.2 s\n\
             FAILED  tests              1.1 s\n        \
             total             62.3 s"
        );
        assert_eq!(stages.summary().unwrap_err().to_string(), "failed: tests");
    }
}
