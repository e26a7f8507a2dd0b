//! The quick start on two hosts with systemd: every command of its page does what the page says, and the page's
//! transcript shows the same steps, commands and checks, on 80 columns.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use egress_tests::{site, wait};

/// Seconds that all steps take at most, on an ordinary machine.
const LIMIT: u32 = 240;
/// Columns of everything that is shown.
const COLUMNS: usize = 80;

/// What every run has in common: steps, files, commands, and the checks with their marks.
fn skeleton(shown: &str) -> Vec<&str> {
    let is_common = |line: &&str| {
        let hosts = ["   gateway # ", "   app # ", "   gateway: ", "   app: "];
        let marks = ["   ✓ ", "   ✗ ", "── "];
        hosts.iter().chain(&marks).any(|begin| line.starts_with(begin))
    };
    shown.lines().filter(is_common).collect()
}

#[test]
fn the_quick_start_does_what_its_page_says_and_its_transcript_is_of_a_run() {
    let program = site::demo_program().expect("the demo is built");
    let mut run = Command::new("timeout");
    run.arg((LIMIT * wait::patience()).to_string()).arg(&program).arg("--two-hosts");
    let done = run.stdin(Stdio::null()).output().expect("it runs");
    let shown = String::from_utf8_lossy(&done.stdout);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{shown}\n{said}");

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    let page = read("docs/quick-start-transcript.md");
    let (_, block) = page.split_once("```text\n").expect("a block");
    let block = block.split("\n```").next().expect("its end");
    for (name, text) in [("the page", block), ("the run", &*shown)] {
        let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > COLUMNS).collect();
        assert_eq!(wide, [""; 0], "{name} is wider than {COLUMNS} columns");
    }
    let (expected, found) = (skeleton(block), skeleton(&shown));
    assert_eq!(
        expected, found,
        "the transcript is of another quick start: `cargo xtask transcript` renews it"
    );
    // No command of the page is left out but the package's installation, whose files are there already.
    let quick_start = read("docs/quick-start.md");
    let blocks = quick_start.split("```console\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    let commands = blocks.flat_map(|block| block.lines().filter(|line| line.starts_with("# ")));
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() > 8, "{commands:?}");
    let joined = shown.replace(" \\\n      ", " ");
    for command in commands.iter().filter(|command| !command.contains("apt install")) {
        assert!(joined.contains(&format!(" {command}\n")), "{command} is not in\n{shown}");
    }
}
