//! The demo is what its table says: every check as it must be, with an uplink that fills checksums in, as real
//! devices do, and with one that leaves them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
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

/// The flow events that a run shows, each in one line again.
fn events(shown: &str) -> Vec<String> {
    const START: &str = "   flow event: ";
    const CONTINUED: &str = "     ";
    let mut events: Vec<String> = Vec::new();
    let mut open = false;
    for line in shown.lines() {
        if let Some(event) = line.strip_prefix(START) {
            events.push(event.to_owned());
            open = true;
        } else if let (Some(rest), true) = (line.strip_prefix(CONTINUED), open) {
            if let Some(event) = events.last_mut() {
                *event = format!("{event} {rest}");
            }
        } else {
            open = false;
        }
    }
    events
}

/// The workload of an event: the word after its time.
fn workload(event: &str) -> &str {
    let (_, flow) = event.split_once('.').expect("a time");
    flow.split_once(": ").and_then(|(_, flow)| flow.split(' ').next()).expect("a source")
}

/// Every attempt is one of the demo's pod, and every event says so.
fn all_events_name_the_workload(shown: &str) {
    let events = events(shown);
    assert!(events.len() >= 12, "{events:#?}");
    let unnamed: Vec<&String> =
        events.iter().filter(|event| workload(event) != "shop/web").collect();
    assert!(unnamed.is_empty(), "{unnamed:#?}");
}

#[test]
fn an_event_without_a_workload_is_found() {
    let event =
        "203.0.113.9:22 TCP\n     DENIED (no_route) at connect, cgroup /pod\n   \u{2713} x\n";
    let of =
        |source: &str| events(&format!("   flow event: Nov 30 02:43:52.533: {source} -> {event}"));
    let named = of("shop/web 10.244.1.10");
    assert_eq!(named.len(), 1);
    assert!(named[0].ends_with("TCP DENIED (no_route) at connect, cgroup /pod"), "{named:?}");
    assert_eq!(workload(&named[0]), "shop/web");
    for source in ["?", "10.244.1.10:40652", "unknown"] {
        assert_ne!(workload(&of(source)[0]), "shop/web");
    }
}

/// There is one demo at a time on a machine.
fn alone() -> MutexGuard<'static, ()> {
    static DEMOS: Mutex<()> = Mutex::new(());
    let alone = DEMOS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!site::exists(DEMO), "a demo is up: `cargo xtask demo --down` removes it");
    alone
}

/// Runs the demo's program, which ends within its limit.
fn run(args: &[&str]) -> std::process::Output {
    let program = site::demo_program().expect("the demo is built");
    let mut demo = Command::new("timeout");
    demo.arg((LIMIT * wait::patience()).to_string()).arg(&program).args(args);
    demo.stdin(Stdio::null()).output().expect("the demo runs")
}

/// `--keep` leaves the hosts up and `--down` removes them; with `--mtls` the same attempts are refused.
#[test]
fn the_demo_with_mutual_tls_stays_up_and_goes_when_it_is_told() {
    let _alone = alone();
    let done = run(&["--mtls", "--keep"]);
    let shown = String::from_utf8_lossy(&done.stdout);
    let was_up = site::exists(DEMO);
    let down = run(&["--down"]);
    assert!(done.status.success(), "{done:?}");
    assert!(shown.contains("checks were as they must be."), "{shown}");
    assert!(!shown.contains("LEAKED"), "{shown}");
    assert!(was_up, "the hosts stay up");
    assert!(down.status.success(), "{down:?}");
    assert!(!site::exists(DEMO), "something is left of the demo");
    // The twin: nothing is up any more, which is said.
    let again = run(&["--down"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("no demo is up"), "{again:?}");
}

#[test]
fn every_check_of_the_demo_is_as_it_must_be_whoever_fills_checksums_in() {
    let _alone = alone();
    for args in [&[][..], &["--left-checksums"]] {
        let done = run(args);
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{args:?}: {done:?}");
        assert!(shown.contains("checks were as they must be."), "{shown}");
        assert!(!shown.contains("LEAKED"), "{shown}");
        all_events_name_the_workload(&shown);
        let left = shown.contains("leaves checksums as they are");
        assert_eq!(left, !args.is_empty(), "{shown}");
        if args.is_empty() {
            compare(&shown);
        }
        assert!(!site::exists(DEMO), "something is left of the demo");
    }
}
