//! The demo is what its table says: every check as it must be, with an uplink that fills checksums in, as real
//! devices do, and with one that leaves them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use egress_tests::{
    site::{self, DEMO},
    wait,
};

/// Seconds that all steps take at most, on an ordinary machine.
const LIMIT: u32 = 300;

/// Columns of everything that the demo writes.
const COLUMNS: usize = 80;

/// What every run has in common: steps, commands, and the checks with their marks.
fn skeleton(shown: &str) -> Vec<String> {
    let lines = shown.lines().map(str::trim_end);
    let lines = lines.filter(|line| {
        let text = line.trim_start();
        text.starts_with("── ") || text.contains(" $ ") || text.starts_with(['✓', '✗'])
    });
    // After a check's name is what was seen, in the summary behind two spaces.
    let name = |line: &str| {
        let line = line.trim_start();
        let parts =
            if line.starts_with(['✓', '✗']) { line.split(": ").next() } else { Some(line) };
        let name = parts.unwrap_or_default();
        let in_summary = name.chars().nth(2).is_some_and(|c| c == ' ' || c.is_ascii_digit());
        let words: Vec<&str> = name.split("  ").filter(|part| !part.is_empty()).collect();
        // A step of one digit stands apart from the mark.
        let kept = if ["✓", "✗"].contains(words.first().unwrap_or(&"")) { 3 } else { 2 };
        if in_summary { words[..words.len().min(kept)].join("  ") } else { name.to_owned() }
    };
    lines.map(name).collect()
}

/// The page has what a run shows, and neither is wider than a terminal.
fn compare(shown: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/transcript.md");
    let page = fs::read_to_string(page).expect("docs/transcript.md");
    let (_, block) = page.split_once("```text\n").expect("a block");
    let block = block.split("\n```").next().expect("its end");
    for (name, text) in [("the page", block), ("the demo", shown)] {
        let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > COLUMNS).collect();
        assert_eq!(wide, [""; 0], "{name} is wider than {COLUMNS} columns");
    }
    let (expected, found) = (skeleton(block), skeleton(shown));
    assert!(expected.len() > 60, "{expected:#?}");
    assert_eq!(
        expected, found,
        "docs/transcript.md is another demo's: `cargo xtask transcript` renews it"
    );
}

#[test]
fn every_check_of_the_demo_is_as_it_must_be_whoever_fills_checksums_in() {
    assert!(!site::exists(DEMO), "a demo is up: `cargo xtask demo --down` removes it");
    let program = site::demo_program().expect("the demo is built");
    for args in [&[][..], &["--left-checksums"]] {
        let mut demo = Command::new("timeout");
        demo.arg((LIMIT * wait::patience()).to_string()).arg(&program).args(args);
        let done = demo.stdin(Stdio::null()).output().expect("the demo runs");
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{args:?}: {done:?}");
        assert!(shown.contains("checks were as they must be."), "{shown}");
        assert!(!shown.contains("LEAKED"), "{shown}");
        let left = shown.contains("leaves checksums as they are");
        assert_eq!(left, !args.is_empty(), "{shown}");
        if args.is_empty() {
            compare(&shown);
        }
        assert!(!site::exists(DEMO), "something is left of the demo");
    }
}
