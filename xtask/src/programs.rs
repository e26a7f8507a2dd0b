//! Test programs, two at a time: most end-to-end tests wait for something more than they compute.
//!
//! Every program has namespaces, cgroups and pins of its own, named after its process. A program in
//! [`ALONE`] measures or changes something that the machine has only once, and runs by itself.

use std::{
    collections::VecDeque,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

/// Programs that run at the same time.
const TOGETHER: usize = 2;

/// Programs that run by themselves, after the others: they measure time or memory, or boot a machine.
const ALONE: [&str; 10] = [
    "endurance",
    "fairness",
    "gateway_unit",
    "installation",
    "lifetime",
    "neighbours",
    "node_bpf",
    "sharing",
    "steady",
    "systemd",
];

/// A built test program.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Program {
    /// `package target`.
    name: String,
    path: PathBuf,
    /// Where cargo would run it: the package's directory.
    directory: PathBuf,
    alone: bool,
}

/// What became of several programs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Outcome {
    /// Tests that passed.
    passed: u64,
    /// Tests that failed.
    failed: u64,
    /// Programs with a test that failed, or that ended in another way than by their last test.
    failed_programs: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        let Self { passed, failed, failed_programs } = other;
        self.passed += passed;
        self.failed += failed;
        self.failed_programs.extend(failed_programs);
    }

    /// Counts a program that ended.
    fn program(&mut self, name: String, succeeded: bool, output: &str) {
        let counts = output.lines().rev().find_map(counts);
        let (passed, failed) = counts.unwrap_or_default();
        self.passed += passed;
        self.failed += failed;
        if !succeeded {
            self.failed_programs.push(name);
        }
    }
}

/// The tests that passed and that failed, where the line is the last one of a test program.
fn counts(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let passed = counts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = counts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

/// Builds the test programs of the workspace and runs all of them, with these in the environment.
///
/// # Errors
/// A program cannot be built, or a test failed. What failed has been printed.
pub(crate) fn run(env: &[(&str, &Path)]) -> Result<()> {
    let programs = build()?;
    let (alone, together): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| program.alone);
    let mut outcome = run_all(together, TOGETHER, env)?;
    outcome.add(run_all(alone, 1, env)?);
    println!("{} passed, {} failed", outcome.passed, outcome.failed);
    if !outcome.failed_programs.is_empty() {
        bail!("failed: {}", outcome.failed_programs.join(", "));
    }
    Ok(())
}

/// Builds them. Cargo says on standard output, one JSON object a line, what it built.
fn build() -> Result<Vec<Program>> {
    let mut cargo = run::command("cargo");
    cargo.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    println!("{}", run::text(&cargo));
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the test programs cannot be built: {}", output.status);
    }
    let programs: Vec<_> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(program).collect();
    if programs.is_empty() {
        bail!("cargo named no test program");
    }
    Ok(programs)
}

/// The program that a message of cargo names, if it names one that holds tests.
fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
    let package = directory.file_name()?.to_string_lossy();
    let target = message["target"]["name"].as_str()?;
    Some(Program {
        name: format!("{package} {target}"),
        path,
        directory: directory.to_owned(),
        alone: ALONE.contains(&target),
    })
}

/// Runs programs, so many at a time.
fn run_all(programs: Vec<Program>, together: usize, env: &[(&str, &Path)]) -> Result<Outcome> {
    let waiting = Mutex::new(VecDeque::from(programs));
    let outcome = Mutex::new(Outcome::default());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..together)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some(program) = next() {
                        let (passed, output, time) = run_one(&program, env)?;
                        // The lock keeps the output of one program together.
                        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                        let mark = if passed { "ok    " } else { "FAILED" };
                        println!("{mark}  {:<34} {:>6.1} s", program.name, time.as_secs_f64());
                        if !passed {
                            println!("{output}");
                        }
                        outcome.program(program.name, passed, &output);
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread that runs tests panicked"),
        })
    })?;
    Ok(outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Whether all tests of a program passed, what it wrote, and how long it took.
fn run_one(program: &Program, env: &[(&str, &Path)]) -> Result<(bool, String, Duration)> {
    let start = Instant::now();
    let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut command: Command = run::command(&program.path.to_string_lossy());
    command
        .current_dir(&program.directory)
        .env("CARGO_MANIFEST_DIR", &program.directory)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot copy a pipe")?)
        .stderr(writer);
    let mut child = command.spawn().with_context(|| program.path.display().to_string())?;
    // It holds the writing ends; reading would not end as long as they are open here.
    drop(command);
    let mut output = Vec::new();
    reader.read_to_end(&mut output).context("cannot read what a test program writes")?;
    let status = child.wait().with_context(|| program.path.display().to_string())?;
    Ok((status.success(), String::from_utf8_lossy(&output).into_owned(), start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_with_tests_are_run() {
        let message = |reason: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"{reason}","manifest_path":"/r/tests/Cargo.toml","target":{{"name":"fairness"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let found = program(&message("compiler-artifact", true, r#""/t/fairness-1""#));
        let expected = Program {
            name: "tests fairness".into(),
            path: "/t/fairness-1".into(),
            directory: "/r/tests".into(),
            alone: true,
        };
        assert_eq!(found, Some(expected));
        assert_eq!(program(&message("compiler-artifact", false, r#""/t/agent""#)), None);
        assert_eq!(program(&message("compiler-artifact", true, "null")), None);
        assert_eq!(program(&message("build-script-executed", true, r#""/t/b""#)), None);
        assert_eq!(program("not an object"), None);
    }

    #[test]
    fn a_failed_program_is_named_and_the_others_run() {
        let program = |path: &str| Program {
            name: path.into(),
            path: path.into(),
            directory: "/".into(),
            alone: false,
        };
        let programs = ["/bin/false", "/bin/true", "/bin/false", "/bin/true"].map(program).to_vec();
        let outcome = run_all(programs, TOGETHER, &[]).unwrap();
        assert_eq!(outcome.failed_programs, ["/bin/false", "/bin/false"]);
        let outcome = run_all(vec![program("/bin/true")], 1, &[]).unwrap();
        assert!(outcome.failed_programs.is_empty());
        assert!(run_all(vec![program("/no/such/program")], 1, &[]).is_err());
    }

    #[test]
    fn tests_are_counted_by_the_last_line_of_each_program() {
        let line = |passed, failed| {
            format!(
                "test a ... ok\n\ntest result: ok. {passed} passed; {failed} failed; 0 ignored\n"
            )
        };
        let mut outcome = Outcome::default();
        outcome.program("a".into(), true, &line(3, 0));
        outcome.program("b".into(), false, &line(2, 1));
        outcome.program("killed".into(), false, "test a ... ok\n");
        let failed_programs = vec!["b".into(), "killed".into()];
        assert_eq!(outcome, Outcome { passed: 5, failed: 1, failed_programs });
        assert_eq!(counts("test result: none"), None);
    }
}
