//! `cargo xtask fuzz`: the targets of `tests/fuzz` under libFuzzer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{run, setup};

/// A binary of `tests/fuzz/libfuzzer`.
struct Target {
    name: &'static str,
    /// How many bytes of an input help.
    length: u32,
    /// How many inputs a brief run tries.
    runs: u32,
}

const TARGETS: [Target; 8] = [
    Target { name: "packet", length: 500, runs: 1_000_000 },
    Target { name: "client_hello", length: 1200, runs: 100_000 },
    Target { name: "snapshots", length: 600, runs: 6_000 },
    Target { name: "identity", length: 600, runs: 200_000 },
    Target { name: "request", length: 600, runs: 100_000 },
    Target { name: "response", length: 600, runs: 100_000 },
    Target { name: "hbone", length: 300, runs: 100_000 },
    Target { name: "trace_context", length: 700, runs: 100_000 },
];

/// What to fuzz and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// One target; without it all of them in turn.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// A fixed number of inputs from a fixed seed, about half a minute in all: what is tried then
    /// doesn't depend on how fast the machine is, and hardly on chance.
    #[arg(long, conflicts_with_all = ["seconds", "keep"])]
    brief: bool,
    /// Add what was found to be new to the committed corpus, as few and small files as reach it.
    #[arg(long)]
    keep: bool,
}

impl Options {
    /// All targets.
    pub(crate) const BRIEF: Self = Self { target: None, seconds: 0, brief: true, keep: false };
}

/// Sets up what is missing, then fuzzes.
///
/// # Errors
/// A target found something, or can't be built.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::For::Everything)?;
    fuzz(options)
}

/// Fuzzes; a stage of `cargo xtask test`.
///
/// # Errors
/// As [`run()`].
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    let chosen: Vec<_> = TARGETS
        .into_iter()
        .filter(|known| options.target.as_deref().is_none_or(|target| target == known.name))
        .collect();
    if chosen.is_empty() {
        let names = TARGETS.map(|target| target.name).join(", ");
        bail!("no target {}; there are {names}", options.target.as_deref().unwrap_or_default());
    }
    share_lock()?;
    let corpora = run::root().join("tests/fuzz/corpus");
    for Target { name, length, runs } in chosen {
        let committed = corpora.join(name);
        // What libFuzzer finds to be new stays below target/, unless it is to be kept.
        let corpus = if options.brief { "brief" } else { "corpus" };
        let fresh = work_dir().join(corpus).join(name);
        let finds = work_dir().join("finds");
        if options.brief && fresh.exists() {
            fs::remove_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
        }
        for dir in [&fresh, &finds] {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let mut fuzz = cargo_fuzz("run", name);
        fuzz.arg(&fresh);
        if options.brief {
            println!("{name}: {runs} inputs");
            // A list, because directories have no order.
            let seeds = format!("-seed_inputs=@{}", seeds(name, &committed)?.display());
            fuzz.args(["--", "-seed=1", "-shuffle=0", "-reload=0"])
                .args([format!("-runs={runs}"), seeds]);
        } else {
            println!("{name}: {} s", options.seconds);
            fuzz.arg(&committed).args(["--", &format!("-max_total_time={}", options.seconds)]);
        }
        fuzz.args([
            format!("-max_len={length}"),
            format!("-artifact_prefix={}/{name}-", finds.display()),
            "-timeout=20".to_owned(),
            "-print_final_stats=1".to_owned(),
            "-verbosity=0".to_owned(),
        ]);
        run::show(&mut fuzz).with_context(|| {
            format!(
                "{name} found something; the input is in {}. Copy it to {}, where a plain test \
                 runs it (`cargo test -p egress-fuzz`), and repair what is broken",
                finds.display(),
                committed.display()
            )
        })?;
        if options.keep {
            keep(name, &committed, &fresh)?;
        }
    }
    Ok(())
}

/// Lists the committed corpus in a file, in the order of names and with commas between.
fn seeds(name: &str, committed: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(committed).with_context(|| committed.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path().display().to_string());
    }
    files.sort_unstable();
    let list = work_dir().join(format!("{name}.seeds"));
    fs::write(&list, files.join(",")).with_context(|| list.display().to_string())?;
    Ok(list)
}

/// Replaces the committed corpus by the smallest one that reaches as much.
fn keep(name: &str, committed: &Path, fresh: &Path) -> Result<()> {
    let merged = work_dir().join("merged").join(name);
    if merged.exists() {
        fs::remove_dir_all(&merged)?;
    }
    fs::create_dir_all(&merged)?;
    let mut merge = cargo_fuzz("run", name);
    // Entry points of the counters alone, not how often each is passed: a few dozen files.
    merge.arg(&merged).args([committed, fresh]).args(["--", "-merge=1", "-use_counters=0"]);
    run::show(&mut merge)?;
    for file in fs::read_dir(&merged)? {
        let file = file?;
        fs::copy(file.path(), committed.join(file.file_name()))?;
    }
    Ok(())
}

/// cargo-fuzz without a sanitizer: those need a nightly compiler, and what is fuzzed is safe Rust.
fn cargo_fuzz(verb: &str, target: &str) -> Command {
    let mut command = run::command("cargo");
    command
        .args(["fuzz", verb, "--sanitizer", "none", "--fuzz-dir", "tests/fuzz/libfuzzer"])
        .arg("--target-dir")
        .arg(work_dir())
        .arg(target);
    command
}

/// Where instrumented builds and finds are.
fn work_dir() -> PathBuf {
    run::root().join("target/fuzz")
}

/// Gives the targets the workspace's lock file, so that they are built of the same versions. Cargo
/// adds libFuzzer to it, so it is written only when the workspace's is newer.
fn share_lock() -> Result<()> {
    let from = run::root().join("Cargo.lock");
    let to = run::root().join("tests/fuzz/libfuzzer/Cargo.lock");
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if changed(&to) < changed(&from) {
        fs::copy(&from, &to).with_context(|| to.display().to_string())?;
    }
    Ok(())
}
