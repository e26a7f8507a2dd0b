//! What cannot be printed is said, by every command, and is no success.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    path::Path,
    process::{Command, Output, Stdio},
};

use clap::CommandFactory as _;
use egress_agent::cli::Cli;

use super::markdown::root;

/// What they end with on a disk that is full.
const FULL: &str = "cannot write to standard output: No space left on device (os error 28)";
/// They print for the container runtime or a peer, into files, or nothing before an agent, a cluster or a signal.
const OTHERS: [&str; 7] = ["node", "gateway", "cni", "man", "bug-report", "verify", "upgrade"];

/// Runs it with a standard output that takes nothing, or one that nothing reads.
fn run(args: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
    command.args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    command.output().expect("the agent")
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("the device").into()
}

fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// A command line of each command that prints, and more of those with several forms. Nothing is changed: no
/// agent is where they look for one.
fn lines(dir: &Path) -> Vec<Vec<String>> {
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let config = path(&root().join("deploy/hosts/config"));
    let (absent, flows) = (path(&dir.join("absent")), dir.join("flows.json"));
    fs::write(&flows, "{\"lost\":1}\n").expect("a file");
    let (flows, empty) = (path(&flows), path(&dir.join("empty.yaml")));
    fs::write(&empty, "").expect("a file");
    let request = format!("explain --from a/b --label x=y http://a.example/ {config}");
    let of_json = |line: &str| format!("{line} -o json");
    let shown = format!("certs show {config}");
    [
        format!("check {config}"),
        of_json(&format!("check {config}")),
        format!("check {empty}"),
        of_json(&request),
        request,
        of_json(&shown),
        shown,
        format!("status --bpffs {absent} --control {absent}"),
        of_json(&format!("status --bpffs {absent} --control {absent}")),
        format!("flows --server {flows}"),
        of_json(&format!("flows --server {flows}")),
        format!("flows --server {flows} --summary"),
        "reasons".into(),
        "reasons no_route".into(),
        format!("suggest --flows {flows} --config {config}"),
        "kernel".into(),
        "kernel -o json".into(),
        "doctor".into(),
        "doctor -o json".into(),
        format!("detach --bpffs {absent}"),
        format!("uninstall --dry-run --bpffs {absent} --units {absent}"),
        "probe --list".into(),
        "probe --list -o json".into(),
        "version".into(),
        "version -o json".into(),
        "completion bash".into(),
        "completion zsh".into(),
        "completion fish".into(),
    ]
    .iter()
    .map(|line| line.split(' ').map(str::to_owned).collect())
    .collect()
}

#[test]
fn every_command_says_that_its_page_was_not_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = lines(dir.path());
    for line in &lines {
        let args: Vec<&str> = line.iter().map(String::as_str).collect();
        let output = run(&args, full());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.ends_with(&format!("error: {FULL}\n")), "{args:?}: {said}");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        // Who has read enough gets no message.
        let output = run(&args, closed());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !said.contains("standard output") && !said.contains("panicked"),
            "{args:?}: {said}"
        );
    }
    let printing: BTreeSet<&str> = lines.iter().map(|line| line[0].as_str()).collect();
    let cli = Cli::command();
    let all: BTreeSet<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let both: BTreeSet<&str> = printing.iter().copied().chain(OTHERS).collect();
    assert_eq!(both, all, "each is tried or among the others");
    assert_eq!(printing.len() + OTHERS.len(), all.len());
}

#[test]
fn so_does_every_page_of_help() {
    let cli = Cli::command();
    let mut pages = vec![vec!["--help"], vec!["-h"], vec!["--version"], vec!["help"]];
    for command in cli.get_subcommands() {
        pages.push(vec![command.get_name(), "--help"]);
        pages.extend(
            command
                .get_subcommands()
                .map(|below| vec![command.get_name(), below.get_name(), "--help"]),
        );
    }
    assert!(pages.len() > 24, "{pages:?}");
    for args in &pages {
        let output = run(args, full());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, format!("error: {FULL}\n"), "{args:?}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let output = run(args, closed());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{args:?}: {said}");
    }
}
