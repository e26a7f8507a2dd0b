//! What needs root, typed by somebody who is not: the commands are printed, nothing is changed, and the exit code
//! says so.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Output},
};

/// What would change the machine. In place of each stands a script that notes how it was called.
const CHANGERS: [&str; 6] = ["apt-get", "cargo", "ip", "mount", "nft", "rustup"];
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// Runs `cargo xtask COMMAND` without root, on a machine without bpf-linker, and says what it called.
fn unprivileged(words: &[&str]) -> (Output, String) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let (programs, calls) = (dir.path().join("bin"), dir.path().join("calls"));
    fs::create_dir(&programs).expect("a directory");
    fs::write(&calls, "").expect("a file");
    fs::set_permissions(&calls, fs::Permissions::from_mode(0o666)).expect("its mode");
    for name in CHANGERS {
        let text = format!("#!/bin/sh\necho \"{name} $*\" >>{}\n", calls.display());
        script(&programs.join(name), &text);
    }
    // Readable for that user, wherever it was built.
    let program = dir.path().join("xtask");
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &program).expect("a copy");
    let home = dir.path().join("home");
    fs::create_dir(&home).expect("a directory");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).expect("its mode");

    let is_root = fs::metadata("/proc/self").expect("this process").uid() == 0;
    let mut command = Command::new(if is_root { "setpriv".as_ref() } else { program.as_os_str() });
    if is_root {
        command.args(NOBODY).arg(&program);
    }
    command.args(words).env_remove("CARGO_HOME").env_remove("EGRESS_EBPF_TOOLCHAIN");
    command.env("HOME", &home).env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    let output = command.output().expect("the program");
    assert_eq!(fs::read_dir(&home).expect("its home").count(), 0, "{words:?} wrote a file");
    let called = fs::read_to_string(&calls).expect("the calls");
    (output, called)
}

#[test]
fn demo_and_test_print_the_commands_change_nothing_and_fail() {
    for command in ["demo", "test"] {
        for words in
            [&[command][..], &[command, if command == "demo" { "--keep" } else { "--quick" }]]
        {
            let (output, called) = unprivileged(words);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
            assert_eq!(called, "", "{words:?} changed something");
            let again = format!("sudo --preserve-env=PATH cargo xtask {command}");
            assert_eq!(said.lines().last().map(str::trim), Some(&*again), "{said}");
            // What is missing is there before it, as one types it.
            let commands: Vec<&str> = said.lines().map(str::trim).collect();
            let linker = |line: &&str| line.contains("cargo install bpf-linker --version ");
            assert!(commands.iter().any(linker), "{said}");
        }
    }
}
