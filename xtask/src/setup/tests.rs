use std::{collections::BTreeSet, path::Path};

use super::*;

/// In Debian's packages of the priority "required" and in apt, or what the README asks for.
const GIVEN: [&str; 50] = [
    "apt-cache",
    "apt-get",
    "awk",
    "base64",
    "bash",
    "cargo",
    "cat",
    "chgrp",
    "chmod",
    "chroot",
    "cp",
    "cut",
    "dd",
    "dpkg",
    "dpkg-deb",
    "dpkg-query",
    "env",
    "find",
    "git",
    "grep",
    "groupadd",
    "gzip",
    "head",
    "id",
    "ln",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mv",
    "readlink",
    "rm",
    "rmdir",
    "rustc",
    "rustup",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "sync",
    "tail",
    "tar",
    "taskset",
    "test",
    "timeout",
    "touch",
    "tr",
    "umount",
    "unshare",
    "wc",
];

/// The shell's own, before a command.
const BEFORE: [&str; 11] =
    ["!", "command", "do", "elif", "else", "eval", "exec", "if", "then", "until", "while"];
/// The shell's own, instead of one.
const SHELL: [&str; 22] = [
    ":", "[", "[[", "break", "case", "cd", "continue", "done", "echo", "esac", "exit", "export",
    "fi", "for", "kill", "printf", "read", "return", "set", "shift", "trap", "wait",
];

/// Built by this project or installed by the set-up's other steps, or run only where somebody installed it.
const OTHERS: [&str; 3] = ["bpf-linker", "egress-agent", "lintian"];

fn sources(dir: &Path, extension: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, extension, found);
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// Everything that tests, the demo, measurements and xtask run.
fn all_sources(extension: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for dir in ["xtask/src", "tests/src", "tests/tests", "tests/bench/src", "egress-agent/tests"] {
        sources(&run::root().join(dir), extension, &mut texts);
    }
    texts
}

fn is_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-_.".contains(&b));
    plain && !name.is_empty()
}

/// Programs that the sources name where something is run.
fn called(text: &str) -> Vec<String> {
    // What they are called by; an argument before the program, a name of the test's own, is skipped.
    let calls = [
        ("Command::new(", false),
        ("run::command(", false),
        ("= command(", false),
        ("run::output(", false),
        ("find_program(", false),
        ("Program(", false),
        (".run(", false),
        (" sh(", false),
        (".run_for(", true),
        (".start(&testbed.dir(), ", true),
        (".start(&dir, ", true),
        (".start(&out, ", true),
        (".start(dir, ", true),
    ];
    let mut found = Vec::new();
    for (call, skips) in calls {
        for rest in text.split(call).skip(1) {
            let rest =
                if skips { rest.split_once(", ").map_or("", |(_, rest)| rest) } else { rest };
            let Some(name) =
                rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            let bare = name.rsplit('/').next().unwrap_or(name);
            let is_system = name.starts_with("/usr/") || name.starts_with("/bin/");
            if is_name(bare) && (is_system || !name.contains('/')) {
                found.push(bare.to_owned());
            }
        }
    }
    found
}

/// The commands of the shell scripts in a source: literals with something that only a script has, whose first
/// word is a program that is known, or one that begins a script.
fn scripted(text: &str, is_known: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for literal in text.split('"').skip(1).step_by(2) {
        let script = literal.replace("\\n\\\n", "\n").replace("\\n", "\n").replace("\\\n", " ");
        let first = script.split_whitespace().next().unwrap_or_default();
        let begins = ["exec", "set", "trap", "until", "while"].contains(&first) || is_known(first);
        let only = [" | ", "$(", " && ", " || ", ">/dev/null", "; exec ", "; do "];
        if !begins || script.contains("import ") || !only.iter().any(|mark| script.contains(mark)) {
            continue;
        }
        let mut parts = vec![&*script];
        for mark in [" | ", "; ", " && ", " || ", "$(", "\n"] {
            parts = parts.into_iter().flat_map(|part| part.split(mark)).collect();
        }
        for part in parts {
            let command = part.split_whitespace().find(|word| !BEFORE.contains(word));
            let command = command.unwrap_or_default();
            if !SHELL.contains(&command)
                && is_name(command)
                && command.starts_with(|c: char| c.is_ascii_lowercase())
            {
                found.push(command.to_owned());
            }
        }
    }
    found
}

fn is_installed(name: &str) -> bool {
    let all = TOOLS.iter().chain(PEERS).chain(KERNEL_TOOLS).chain(FRESH_TOOLS);
    GIVEN.contains(&name)
        || OTHERS.contains(&name)
        || all.into_iter().any(|(program, _)| *program == name)
}

#[test]
fn every_program_that_is_run_is_installed() {
    let texts = all_sources("rs");
    let called: BTreeSet<String> = texts.iter().flat_map(|text| called(text)).collect();
    for known in
        ["ip", "bpftool", "curl", "openssl", "modprobe", "python3", "h2load", "nginx", "java"]
    {
        assert!(called.contains(known), "{known}: {called:?}");
    }
    let missing: Vec<_> = called.iter().filter(|name| !is_installed(name)).collect();
    assert!(missing.is_empty(), "no package of the set-up has {missing:?}");
}

#[test]
fn every_program_of_a_script_is_installed() {
    let texts = all_sources("rs");
    let all: BTreeSet<String> =
        texts.iter().flat_map(|text| scripted(text, &is_installed)).collect();
    assert!(all.contains("openssl") && all.len() > 5, "{all:?}");
    let missing: Vec<_> = all.iter().filter(|name| !is_installed(name)).collect();
    assert!(missing.is_empty(), "no package of the set-up has {missing:?}");
}

#[test]
fn a_program_that_is_missing_is_found() {
    let text = "Command::new(\"jq\").args([\"a\"]);\npod.start(&dir, \"name\", \"socat\", &args)\n\
                host.run(\"/usr/bin/perl\", &[])\nplace.run(&program, &[])\nrun(\"target/x\")\n";
    assert_eq!(called(text), ["jq", "perl", "socat"]);
    // In two parts, so that the tests above don't find it in this source.
    let script =
        ["let a = \"curl -s x |", "jq .a; exec sleep 3\"; let b = \"jq and", "more\";"].join(" ");
    assert_eq!(scripted(&script, &is_installed), ["curl", "jq", "sleep"]);
}

/// Python's modules that are no part of Python are in packages of the set-up.
#[test]
fn every_module_of_python_is_installed() {
    let own = run::output("python3", &["-c", "import sys; print(*sys.stdlib_module_names)"]);
    let own = own.expect("python3");
    let own: BTreeSet<&str> = own.split_whitespace().collect();
    let mut texts = all_sources("rs");
    texts.extend(all_sources("py"));
    let mut named = BTreeSet::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let line = line.trim().trim_start_matches('"').trim_end_matches("\\n\\");
        // Java's end with a semicolon.
        let Some(rest) = line.strip_prefix("import ").filter(|rest| !rest.ends_with(';')) else {
            continue;
        };
        let modules = rest
            .split(',')
            .map(|part| part.trim().split([' ', '.', ';']).next().unwrap_or_default());
        named.extend(modules.filter(|module| is_name(module)).map(str::to_owned));
    }
    assert!(named.contains("socket") && named.contains("grpc"), "{named:?}");
    let packaged = |module: &str| {
        let package = format!("python3-{}", if module == "grpc" { "grpcio" } else { module });
        PEER_LIBRARIES.contains(&&*package)
    };
    let missing: Vec<_> =
        named.iter().filter(|module| !(own.contains(&***module) || packaged(module))).collect();
    assert!(missing.is_empty(), "no package of the set-up has {missing:?}");
}

/// Without root the commands are printed, each as one can paste it.
#[test]
fn the_commands_are_shown_to_whoever_is_not_root() {
    let steps = packages(vec!["nginx-light", "curl", "curl"], true, false).expect("steps");
    let mut steps: Vec<Step> = steps;
    steps.push(Step::new("a tool", "a minute", false, "cargo install tool --version 1"));
    let lines: Vec<String> = by_hand(&steps).lines().skip(2).map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            "    sudo apt-get update",
            "    sudo DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install --yes --no-install-recommends \
             curl nginx-light",
            "    cargo install tool --version 1",
        ]
    );
}

/// What needs root says so to whoever is not, in every case, with the command itself as the last line.
#[test]
fn a_command_that_needs_root_is_shown_with_sudo() {
    for (purpose, command) in [(For::Demo, "demo"), (For::Everything, "test")] {
        let error = needs_root(purpose, command).expect_err("it never goes on").to_string();
        let last = error.lines().last().expect("a line").trim();
        assert_eq!(last, format!("sudo --preserve-env=PATH cargo xtask {command}"));
    }
}
