//! `cargo xtask kernels`: the suite on other kernels, emulated by QEMU.

mod cpio;
mod guest;
mod initramfs;
mod package;
mod qemu;
mod suite;

use std::{
    env, fs,
    num::NonZero,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{dist, run, setup};
use guest::{Job, Results};
use package::{Kernel, Offer};
use qemu::Guest;

/// Kernels that have to be there: what Debian 12 and its security suite offer.
const REQUIRED: [&str; 2] = ["6.1", "6.12"];
/// Kernels are tried from this one on.
const OLDEST: (u32, u32) = (6, 1);
/// Runs without BPF among the security modules, so that what then replaces it is tested too.
const WITHOUT_BPF_LSM: &str = "6.1";
/// Waits in the tests last as many times longer.
const PATIENCE: u32 = 10;
/// Names an agent that is taken as it is, instead of building one: for a try in between.
const RELEASED: &str = "EGRESS_AGENT_RELEASED";
/// For one test program, and for all of them.
const LIMIT: Duration = Duration::from_secs(40 * 60);
const GUEST_LIMIT: Duration = Duration::from_secs(150 * 60);

/// Which kernels, and which tests.
#[derive(Args)]
pub(crate) struct Options {
    /// Versions as 6.1, or files of Debian's kernel packages. Without: 6.1, 6.12, and every other
    /// from 6.1 on that apt's lists hold.
    kernels: Vec<String>,
    /// Only these test programs, e.g. walkthrough.
    #[arg(long)]
    test: Vec<String>,
    /// Handed to each test program, e.g. `-- --exact some::test`.
    #[arg(last = true)]
    args: Vec<String>,
}

impl Options {
    /// All tests on these kernels; none named means all there are.
    pub(crate) fn all_tests(kernels: &[String]) -> Self {
        Self { kernels: kernels.to_vec(), test: Vec::new(), args: Vec::new() }
    }
}

/// Runs the tests on each of the kernels.
///
/// # Errors
/// A test failed on one of them, or a kernel can't be had or run.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::For::Kernels)?;
    let kernels = kernels(&options.kernels)?;
    let released = released()?;
    let programs = suite::build()?;
    let jobs = suite::jobs(&programs, &options.test, &options.args)?;
    let all = each(&kernels, |kernel| {
        let start = Instant::now();
        println!("\n=== Linux {} ({} test programs)", kernel.release, jobs.len());
        // A run of some tests keeps the log of all of them.
        let name = [std::slice::from_ref(&kernel.version), &options.test[..]].concat().join("-");
        let results = boot(kernel, &name, &jobs, &released).unwrap_or_else(|error| {
            println!("Linux {}: {error:#}", kernel.release);
            Results::default()
        });
        (results, start.elapsed())
    });
    let mut failed_on = Vec::new();
    for (kernel, (results, time)) in kernels.iter().zip(all) {
        println!("\n=== Linux {}: {} s", kernel.release, time.as_secs());
        let mut good = results.done;
        for job in &jobs {
            let (outcome, ok) = results.outcome(job);
            println!("{:<16} {outcome}", job.name);
            good &= ok;
        }
        if !good {
            failed_on.push(kernel.version.as_str());
        }
    }
    if !failed_on.is_empty() {
        bail!("the suite failed on Linux {}", failed_on.join(", "));
    }
    Ok(())
}

/// The static release build, or what the environment names.
pub(crate) fn released() -> Result<PathBuf> {
    match env::var_os(RELEASED) {
        Some(path) => fs::canonicalize(&path).with_context(|| format!("{RELEASED}={path:?}")),
        None => dist::run(dist::Build::Release),
    }
}

/// Does something with every kernel, with as many at once as this machine has processors: a guest
/// waits most of its time.
fn each<T: Send>(kernels: &[Kernel], work: impl Fn(&Kernel) -> T + Sync) -> Vec<T> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    let mut all = Vec::new();
    for some in kernels.chunks(at_once) {
        thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> =
                some.iter().map(|kernel| scope.spawn(move || work(kernel))).collect();
            all.extend(running.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => resume_unwind(panic),
            }));
        });
    }
    all
}

/// What each agent says of each kernel (`egress-agent kernel -o json`).
///
/// # Errors
/// A kernel can't be had or run, or refuses a program.
pub(crate) fn reports(asked: &[String], agents: &[PathBuf]) -> Result<Vec<String>> {
    let mut reports = Vec::new();
    for kernel in &kernels(asked)? {
        let job = |(number, agent): (usize, &PathBuf)| Job {
            name: format!("agent{number}"),
            dir: "/".into(),
            command: [&*agent.to_string_lossy(), "kernel", "-o", "json"].map(str::to_owned).into(),
            tells: true,
        };
        let jobs: Vec<Job> = agents.iter().enumerate().map(job).collect();
        let results = boot(kernel, &format!("{}-verifier", kernel.version), &jobs, &agents[0])?;
        for job in &jobs {
            let (outcome, ok) = results.outcome(job);
            let report = results.told.iter().find(|(name, _)| *name == job.name);
            match report {
                Some((_, report)) if ok => reports.push(report.clone()),
                _ => bail!("Linux {}: `{}`: {outcome}", kernel.release, job.command.join(" ")),
            }
        }
    }
    Ok(reports)
}

/// Runs jobs in a guest. `name` is that of the files it leaves in `target/kernels`.
fn boot(kernel: &Kernel, name: &str, jobs: &[Job], released: &Path) -> Result<Results> {
    let files = dir()?.join(name);
    let script = files.with_file_name(format!("{name}.sh"));
    let released = released.to_string_lossy().into_owned();
    let env = [
        // There is no compiler in the guest's reach that could build anything in time.
        ("EGRESS_AGENT", released.clone()),
        ("EGRESS_AGENT_RELEASED", released),
        ("EGRESS_TEST_PATIENCE", PATIENCE.to_string()),
    ];
    let modules = kernel.modules.to_string_lossy();
    fs::write(&script, guest::script(&modules, &env, jobs, LIMIT))?;
    let lsm = if kernel.version == WITHOUT_BPF_LSM {
        "landlock,lockdown,yama"
    } else {
        "landlock,lockdown,yama,bpf"
    };
    Guest { kernel, lsm, script: &script, files: &files, limit: GUEST_LIMIT }.run()
}

fn dir() -> Result<PathBuf> {
    let dir = run::target_dir().join("kernels");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// Gets the kernels that are asked for.
fn kernels(asked: &[String]) -> Result<Vec<Kernel>> {
    if !cfg!(target_arch = "x86_64") {
        bail!("other kernels are only set up for x86-64");
    }
    let dir = dir()?;
    let offers = package::offers()?;
    let mut kernels = Vec::new();
    for asked in choose(asked, &offers)? {
        kernels.push(match asked {
            Choice::Offer(offer) => package::fetch(&offer, &dir)?,
            Choice::File(file) => {
                let file = fs::canonicalize(&file).with_context(|| file.display().to_string())?;
                package::given(&file, &dir)?
            }
        });
    }
    Ok(kernels)
}

#[derive(PartialEq, Eq, Debug)]
enum Choice {
    Offer(Offer),
    File(PathBuf),
}

fn choose(asked: &[String], offers: &[Offer]) -> Result<Vec<Choice>> {
    let offered =
        || offers.iter().map(|offer| offer.version.as_str()).collect::<Vec<_>>().join(", ");
    let find = |version: &str| {
        let found = offers.iter().find(|offer| offer.version == version).cloned();
        found.map(Choice::Offer).with_context(|| {
            format!(
                "no package linux-image-{version}.…-amd64 in apt's lists, which have {}; a package's \
                 file does as well",
                offered()
            )
        })
    };
    if !asked.is_empty() {
        let choice = |asked: &String| {
            if asked.ends_with(".deb") { Ok(Choice::File(asked.into())) } else { find(asked) }
        };
        return asked.iter().map(choice).collect();
    }
    for version in REQUIRED {
        find(version)?;
    }
    let new_enough = |offer: &&Offer| {
        let (major, minor) = offer.version.split_once('.').unwrap_or_default();
        major.parse().ok().zip(minor.parse().ok()).is_some_and(|version| version >= OLDEST)
    };
    println!("kernels in apt's lists: {}", offered());
    Ok(offers.iter().filter(new_enough).cloned().map(Choice::Offer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_must_be_there() {
        assert!(choose(&["6.1".into()], &[]).is_err());
        assert!(choose(&[], &[]).is_err(), "6.1 and 6.12 are no choice");
        let file = choose(&["a/linux-image-5.10.0-30-amd64.deb".into()], &[]);
        let path = "a/linux-image-5.10.0-30-amd64.deb".into();
        assert!(file.is_ok_and(|file| file == [Choice::File(path)]));
    }
}
