//! Which tests run in a guest: every test program of the workspace, as cargo built them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::guest::Job;
use crate::run;

/// Test programs that ask nothing of the kernel, or can't run without a compiler.
const LEFT_OUT: &[(&str, &str)] = &[
    ("corpus", "runs pure functions on the fuzzers' finds, whatever the kernel"),
    ("docs", "compares the documents with the source, whatever the kernel"),
    ("installation", "makes the Debian package, which takes a compiler"),
];

/// A test program.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    /// The package's directory, where cargo would run it.
    dir: PathBuf,
    path: PathBuf,
}

/// Builds all test programs.
///
/// # Errors
/// The build fails.
pub(crate) fn build() -> Result<Vec<Program>> {
    let mut command = run::command("cargo");
    command.args(["test", "--workspace", "--test", "*", "--no-run"]);
    command.arg("--message-format=json-render-diagnostics");
    println!("{}", run::text(&command));
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests don't build");
    }
    let programs = programs(&String::from_utf8_lossy(&output.stdout));
    if programs.is_empty() {
        bail!("cargo says nothing of any test program");
    }
    Ok(programs)
}

/// Cargo's messages are one JSON object a line. Unit tests aren't of kind `test`: they ask nothing
/// of the kernel that these don't ask too.
fn programs(messages: &str) -> Vec<Program> {
    let mut programs: Vec<Program> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact"
                && message["profile"]["test"] == true
                && message["target"]["kind"][0] == "test"
        })
        .filter_map(|message| {
            Some(Program {
                name: message["target"]["name"].as_str()?.to_owned(),
                dir: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
                path: message["executable"].as_str()?.into(),
            })
        })
        .collect();
    programs.sort();
    programs
}

/// The jobs for a guest; what is left out is said, with the cause.
///
/// # Errors
/// A name in `only` is no test program's.
pub(crate) fn jobs(programs: &[Program], only: &[String], args: &[String]) -> Result<Vec<Job>> {
    if let Some(unknown) =
        only.iter().find(|name| programs.iter().all(|program| program.name != **name))
    {
        let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
        bail!("there is no test program {unknown}; there are {}", names.join(", "));
    }
    let mut jobs = Vec::new();
    for program in programs {
        if !only.is_empty() && !only.contains(&program.name) {
            continue;
        }
        if let Some((name, cause)) = LEFT_OUT.iter().find(|(name, _)| *name == program.name) {
            println!("not run in the guest: {name}: {cause}");
            continue;
        }
        let mut command = vec![
            program.path.to_string_lossy().into_owned(),
            "--show-output".into(),
            "--color=never".into(),
        ];
        command.extend(args.iter().cloned());
        jobs.push(Job {
            name: program.name.clone(),
            dir: program.dir.clone(),
            command,
            tells: false,
        });
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/r/tests/Cargo.toml","target":{"kind":["test"],"name":"bypass"},"profile":{"test":true},"executable":"/r/target/debug/deps/bypass-1"}
{"reason":"compiler-artifact","manifest_path":"/r/agent/Cargo.toml","target":{"kind":["lib"],"name":"agent"},"profile":{"test":true},"executable":"/r/target/debug/deps/agent-1"}
{"reason":"compiler-artifact","manifest_path":"/r/agent/Cargo.toml","target":{"kind":["test"],"name":"docs"},"profile":{"test":true},"executable":"/r/target/debug/deps/docs-1"}
{"reason":"compiler-artifact","manifest_path":"/r/agent/Cargo.toml","target":{"kind":["bin"],"name":"agent"},"profile":{"test":false},"executable":"/r/target/debug/agent"}
no JSON
{"reason":"build-finished","success":true}"#;
        let programs = programs(messages);
        let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, ["bypass", "docs"]);
        let all = jobs(&programs, &[], &[]).unwrap_or_default();
        assert_eq!(all.len(), 1, "docs is left out");
        assert_eq!(all[0].command[0], "/r/target/debug/deps/bypass-1");
        assert_eq!(all[0].dir, Path::new("/r/tests"));
        assert!(jobs(&programs, &["bypas".into()], &[]).is_err());
    }
}
