//! The `kernel` command: can this machine's kernel enforce, and what does it lack.

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use serde::Serialize;

use super::{
    output::{Output, stdout},
    wrap::{fitted, width},
};
use crate::bpf::{OLDEST_TESTED_KERNEL, TcMode, VerifierReport, allow_untested_kernel, object};

/// Options of `kernel`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  # Does this kernel take every program? Nothing stays loaded.
  egress-agent kernel

Exit code: 0 if the kernel takes every program, 1 otherwise.")]
pub(super) struct KernelArgs {
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    release: &'a str,
    build: &'static str,
    compiler: &'static str,
    tcx: bool,
    set_retval: bool,
    no_lsm: Option<&'a str>,
    programs: &'a BTreeMap<String, Option<u32>>,
}

impl<'a> Report<'a> {
    fn of(trial: &'a VerifierReport) -> Self {
        Self {
            release: &trial.release,
            build: VerifierReport::build(),
            compiler: object::TOOLCHAIN,
            tcx: trial.tc == TcMode::Tcx,
            set_retval: trial.set_retval,
            no_lsm: trial.no_lsm.as_deref(),
            programs: &trial.programs,
        }
    }
}

/// Hands every program to the kernel, attaches none, and prints what the kernel said.
///
/// # Errors
/// The kernel is too old or refuses a program, a privilege is missing, or standard output can't be
/// written.
pub(super) fn run(args: &KernelArgs) -> anyhow::Result<ExitCode> {
    // Nothing is enforced here, and what an untested kernel says is worth knowing.
    allow_untested_kernel();
    let trial = VerifierReport::run()?;
    let mut out = stdout();
    match args.output {
        Output::Text => {
            let width = width(out.is_terminal());
            out.write_all(fitted(&text(&trial), width).as_bytes())?;
        }
        Output::Json => {
            serde_json::to_writer(&mut out, &Report::of(&trial))?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn text(trial: &VerifierReport) -> String {
    let tested = OLDEST_TESTED_KERNEL;
    let age = match trial.is_tested() {
        Some(true) => format!("the tests run on {}.{} and later", tested.0, tested.1),
        Some(false) => {
            format!(
                "untested, and refused without --allow-untested-kernel: the tests run on {}.{} and later",
                tested.0, tested.1
            )
        }
        None => "its version can't be read".to_owned(),
    };
    let tcx = match trial.tc {
        TcMode::Tcx => "yes",
        TcMode::Clsact => "no: clsact filters are used",
    };
    let set_retval = if trial.set_retval { "yes" } else { "no: a refused connect says EPERM" };
    let lsm = match &trial.no_lsm {
        None => "yes, if bpf is among the active ones (lsm=...,bpf)".to_owned(),
        Some(why) => format!("no ({why}): workloads' packet sockets on the host's network pass"),
    };
    let mut text = format!(
        "Linux {}: {age}\ntcx links: {tcx}\nerror numbers of refused connects: {set_retval}\n\
         programs of security modules: {lsm}\n\
         The kernel takes {} programs. Instructions that it verified (it gives up at 1000000):\n",
        trial.release,
        trial.programs.len()
    );
    for (name, count) in &trial.programs {
        let count = count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        text.push_str(&format!("  {name:<16} {count:>8}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            testing::{documented, golden},
            wrap::WIDTH,
        },
        *,
    };

    #[test]
    fn what_the_kernel_lacks_is_said_with_what_replaces_it() {
        let mut trial = VerifierReport {
            release: "5.15.0-91-generic".into(),
            tc: TcMode::Clsact,
            set_retval: false,
            programs: [("connect4".to_owned(), None)].into(),
            no_lsm: Some("no such hook".to_owned()),
        };
        let old = text(&trial);
        for part in ["untested", "clsact", "EPERM", "connect4", "unknown", "no such hook"] {
            assert!(old.contains(part), "{part}: {old}");
        }
        golden("kernel-old.txt", &fitted(&old, WIDTH));
        trial = VerifierReport {
            release: "6.12.1".into(),
            tc: TcMode::Tcx,
            set_retval: true,
            no_lsm: None,
            ..trial
        };
        trial.programs.insert("connect4".into(), Some(1234));
        let new = text(&trial);
        for part in ["untested", "clsact", "EPERM", "unknown", "no such hook"] {
            assert!(!new.contains(part), "{part}: {new}");
        }
        assert!(new.contains("1234"), "{new}");
        golden("kernel.txt", &fitted(&new, WIDTH));
        documented("kernel -o json", &serde_json::to_value(Report::of(&trial)).unwrap());
    }
}
