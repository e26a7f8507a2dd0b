//! Every command that is called in a wrong way says so with the exit code of the documentation, and what it
//! writes for programs is as the reference says.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use clap::CommandFactory as _;
use egress_agent::cli::{Cli, schema::schema_of};
use serde_json::Value;

use super::markdown::root;

/// Of the documentation's table.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOTHING: i32 = 3;

fn ran(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
    command.args(args).env("NO_COLOR", "1").output().expect("the agent")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("a code")
}

/// Paths of all commands, without `help`.
fn commands() -> Vec<Vec<String>> {
    fn add(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let path = [path, &[below.get_name().to_owned()]].concat();
            add(below, &path, all);
            all.push(path);
        }
    }
    let mut all = Vec::new();
    add(&Cli::command(), &[], &mut all);
    all
}

#[test]
fn a_wrong_command_line_is_2_of_every_command() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for path in &commands {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let output = ran(&[&words[..], &["--no-such-option"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(&output), USAGE, "{path:?}: {said}");
        assert!(said.contains("--no-such-option") && output.stdout.is_empty(), "{path:?}: {said}");
    }
    assert_eq!(code(&ran(&["no-such-command"])), USAGE);
    assert_eq!(code(&ran(&[])), USAGE);
}

#[test]
fn what_cannot_be_read_or_asked_has_the_code_of_the_table() {
    let dir = tempfile::tempdir().expect("a directory");
    let absent = dir.path().join("absent");
    let absent = absent.to_str().expect("UTF-8");
    let there = dir.path().join("there");
    fs::write(&there, "no flows\n").expect("a file");
    let there = there.to_str().expect("UTF-8");
    let wrong: &[(&[&str], i32)] = &[
        (&["node"], USAGE),
        (&["gateway", "--labels", "istio"], USAGE),
        (&["gateway", "--drain-timeout", "45"], USAGE),
        (&["check", absent], USAGE),
        (&["explain", "--from", "shop/web", "https://a.example/", absent], USAGE),
        (&["explain", "--from", "shop/web", "https://a.example/", "--control", absent], FAILED),
        (&["certs", "show", absent], FAILED),
        (&["status", "--control", absent, "--bpffs", absent], NOTHING),
        (&["flows", "--control", absent, "--bpffs", absent], FAILED),
        (&["flows", "--server", absent], FAILED),
        (&["flows", "--server", "-x"], USAGE),
        (&["flows", "--control", absent, "--server", "a"], USAGE),
        (&["flows", "--server", "a", "--remote-shell", "ssh"], USAGE),
        (&["flows", "--since", "yesterday"], USAGE),
        (&["suggest", "--flows", absent], USAGE),
        (&["suggest", "--flows", there], USAGE),
        (&["reasons", "no_rote"], USAGE),
        (&["bug-report", there], USAGE),
        (&["doctor", "--role", "pod"], USAGE),
        (&["probe"], USAGE),
        (&["probe", "192.0.2.1", "--timeout", "2"], USAGE),
        (&["completion", "tcsh"], USAGE),
        (&["man", there], FAILED),
        (&["kernel", "-o", "yaml"], USAGE),
        (&["version", "-o", "yaml"], USAGE),
    ];
    for (args, expected) in wrong {
        let output = ran(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(&output), *expected, "{args:?}: {said}");
        let is_told = !said.trim().is_empty() || !output.stdout.is_empty();
        assert!(is_told, "{args:?} says nothing");
    }
}

/// An error about a path or an address says once what was found and what was expected.
#[test]
fn what_was_found_and_what_was_expected_are_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (file, binary, link, plain) =
        (path("file"), path("binary.yaml"), path("link"), path("dir"));
    fs::write(&file, "").expect("a file");
    fs::write(&binary, [0xff, 0xfe]).expect("a file");
    fs::create_dir(&plain).expect("a directory");
    std::os::unix::fs::symlink("/nonexistent", &link).expect("a link");
    let wrong: &[(&[&str], &str)] = &[
        (&["check", &link], "link is a link to /nonexistent, which doesn't exist\n"),
        (
            &["check", "-"],
            "found `-`, expected a file or a directory; standard input is /dev/stdin\n",
        ),
        (&["check", &binary], "binary.yaml isn't UTF-8 text (byte 0 is wrong); expected YAML\n"),
        (&["check", "--mesh", &plain, &plain], "dir is a directory; expected a file\n"),
        (&["check", "--mesh", &link, &plain], "which doesn't exist\n"),
        (
            &["explain", "--from", "a/b/c", "https://a.example/", &plain],
            "found `a/b/c`, expected NAMESPACE/WORKLOAD, as in shop/web\n",
        ),
        (&["suggest", "--flows", &binary], "expected a line that `egress-agent flows -o json` has"),
        (&["man", &file], "file, expected a directory\n"),
        (&["bug-report", &file], "file exists already; name a file that does not\n"),
        (&["detach", "--bpffs", &file], "file, expected the directory of the pins\n"),
        (&["probe", "1.2.3"], "found `1.2.3`, expected an IP address"),
    ];
    for (args, told) in wrong {
        let output = ran(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(code(&output), 0, "{args:?}: {said}");
        assert!(said.contains(told), "{args:?}: {said}");
        assert_eq!(said.matches("error: ").count(), 1, "{args:?}: {said}");
    }
}

/// One line that begins with the same word, and no line of a log with a time. A program that asks for JSON has an
/// object.
#[test]
fn what_is_wrong_is_said_in_one_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let absent = dir.path().join("absent");
    let absent = absent.to_str().expect("UTF-8");
    let wrong: &[&[&str]] = &[
        &["check", absent],
        &["explain", "--from", "shop/web", "https://a.example/", "--control", absent],
        &["explain", "--from", "shop/web", "htp://a.example/", "--control", absent],
        &["flows", "--control", absent, "--bpffs", absent],
        &["suggest", "--control", absent, "--bpffs", absent],
        &["upgrade", "--control", absent],
        &["bug-report", "--config", absent, absent],
        &["certs", "show"],
        &["reasons", "no_rote"],
        &["man", "/dev/null"],
    ];
    for args in wrong {
        let output = ran(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(code(&output), 0, "{args:?}: {said}");
        assert!(said.starts_with("error: "), "{args:?}: {said}");
        assert!(!said.contains("ERROR") && output.stdout.is_empty(), "{args:?}: {said}");
    }
    let json = ran(&["--log-format", "json", "flows", "--control", absent, "--bpffs", absent]);
    let said: Value = serde_json::from_slice(&json.stderr).expect("an object");
    assert_eq!(said["level"], "ERROR", "{said}");
}

/// `| head`: whoever reads may leave at any time.
#[test]
fn a_reader_that_leaves_is_no_fault() {
    let config = root().join("deploy/hosts/config");
    let config = config.to_str().expect("UTF-8");
    let outputs: &[&[&str]] = &[
        &["--help"],
        &["reasons"],
        &["reasons", "no_route"],
        &["version"],
        &["version", "-o", "json"],
        &["check", config],
        &["check", "-o", "json", config],
        &["explain", "--from", "a/b", "--label", "x=y", "http://a.example/", config],
        &["explain", "-o", "json", "--from", "a/b", "--label", "x=y", "http://a.example/", config],
        &["certs", "show", "-o", "json", config],
        &["probe", "--list"],
        &["probe", "--list", "-o", "json"],
        &["doctor"],
        &["completion", "bash"],
    ];
    for args in outputs {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command.args(*args).stdout(writer).stderr(Stdio::piped()).output();
        let output = output.expect("the agent");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked") && !said.contains("roken pipe"), "{args:?}: {said}");
        assert!(output.status.code().is_some_and(|code| code < 100), "{args:?}: {output:?}");
    }
}

/// A verdict without a reader is no success, and a message without one is no fault.
#[test]
fn without_a_reader_the_exit_code_still_tells() {
    let config = root().join("deploy/hosts/config");
    let config = config.to_str().expect("UTF-8");
    let absent = "/nonexistent/egress-agent";
    let refused = ["explain", "--from", "a/b", "--label", "x=y", "http://a.example/", config];
    let unasked = ["flows", "--control", absent, "--bpffs", absent];
    for (args, is_verdict) in [(&refused[..], true), (&unasked[..], false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        command.args(args);
        if is_verdict {
            command.stdout(writer).stderr(Stdio::piped());
        } else {
            command.stdout(Stdio::piped()).stderr(writer);
        }
        let output = command.output().expect("the agent");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    }
}

/// The real outputs, of those commands that need no agent.
#[test]
fn json_is_as_the_reference_says() {
    let config = root().join("deploy/hosts/config");
    let config = config.to_str().expect("UTF-8");
    let dir = tempfile::tempdir().expect("a directory");
    let absent = dir.path().join("absent");
    let absent = absent.to_str().expect("UTF-8");
    let bad = dir.path().join("bad.yaml");
    fs::write(&bad, "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: x}\n")
        .expect("a file");
    let bad = bad.to_str().expect("UTF-8");
    let outputs: &[(&str, &[&str])] = &[
        ("version -o json", &["version"]),
        ("check -o json", &["check", config]),
        ("check -o json", &["check", bad]),
        ("doctor -o json", &["doctor"]),
        ("doctor -o json", &["doctor", "--role", "gateway"]),
        ("status -o json", &["status", "--control", absent, "--bpffs", absent]),
        (
            "explain -o json",
            &["explain", "--from", "a/b", "--label", "x=y", "http://a.example/", config],
        ),
    ];
    for (command, args) in outputs {
        let output = ran(&[args, &["-o", "json"][..]].concat());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"));
        let schema = schema_of(command).expect("a schema");
        assert_eq!(schema.faults(&value), Vec::<String>::new(), "{command}: {text}");
    }
}
