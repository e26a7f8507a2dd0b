//! Compares what became of attempts with what is to become of them: the sender's view, the node's
//! events and counters, the canary, and a capture outside.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{
    capture::Capture,
    plan,
    probe::{Attempt, Canary, Run},
    process::Process,
    testbed::Testbed,
    wait,
    ways::{self, Event, Face, Open, Way},
};

/// What a kernel says of something that it was built without, or that it forbids everybody.
const MISSING: [&str; 10] = [
    "ENODEV, no hypervisor",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
    "EAFNOSUPPORT",
    "ENOPROTOOPT",
    "EOPNOTSUPP",
    "ENOSYS",
    "needs kernel",
    "io_uring_disabled",
    "this kernel drops the frame before it is sent",
];

/// Which hooks see the process that tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hooks {
    /// All: it is in the pod's cgroup, with sockets of its own.
    All,
    /// The enforcement point alone: its sockets belong to another cgroup.
    WallOnly,
}

/// What the node has counted and told before the attempts.
#[derive(Debug)]
pub struct Before {
    events: usize,
    counters: BTreeMap<String, u64>,
}

impl Before {
    /// Remembers where events and counters are.
    ///
    /// # Errors
    /// The metrics can't be read.
    pub fn now(testbed: &Testbed, node: &Process) -> Result<Self> {
        Ok(Self { events: node.stdout().len(), counters: denials(testbed)? })
    }
}

/// Checks that every attempt was refused as it is to be, everywhere.
///
/// # Errors
/// Something wasn't; all of it is in the message.
pub fn refused(
    testbed: &Testbed,
    node: &Process,
    before: &Before,
    (run, hooks): (&Run, Hooks),
    canary: &Canary,
    capture: &Capture,
) -> Result<()> {
    let mut faults = Vec::new();
    let mut least: BTreeMap<&str, u64> = BTreeMap::new();
    let mut missing = Vec::new();
    // The node tells if it can't refuse sockets by their family.
    let families = !node.stderr().contains("NOT refused");
    for attempt in &run.attempts {
        let Some(way) = ways::find(&attempt.attempt, &attempt.name) else {
            faults.push(format!("{}: nobody says what is to become of it", attempt.name));
            continue;
        };
        match not_made(attempt) {
            Some(Ok(())) => {}
            Some(Err(fault)) => faults.push(fault),
            None => {
                faults.extend(face(attempt, way, hooks));
                // What the own kernel refuses never gets to the enforcement point.
                let is_sent = attempt.layer.as_deref() != Some("kernel");
                let is_told = match way.event {
                    Event::None => false,
                    // The kernel asks about families before it looks for the family.
                    Event::Family => families && hooks == Hooks::All,
                    Event::Own
                    | Event::On(_)
                    | Event::Protocol(..)
                    | Event::EtherType(_)
                    | Event::Reason => is_sent,
                };
                if is_told && (way.face != Face::Gateway || hooks == Hooks::WallOnly) {
                    missing.push((attempt, way));
                }
                if let (true, Hooks::All, [reason]) = (is_told, hooks, way.reasons) {
                    *least.entry(reason).or_default() += 1;
                }
            }
        }
    }
    // Events come a moment later.
    let told = wait::until(wait::SOON, "an event for each attempt", || {
        let events = events(&node.stdout()[before.events..]);
        missing.retain(|(attempt, way)| !events.iter().any(|e| is_of(e, attempt, way, hooks)));
        missing.is_empty().then_some(())
    });
    if told.is_err() {
        faults.extend(missing.iter().map(|(attempt, way)| {
            format!("{}: no event with {:?}: {}", attempt.name, way.reasons, attempt.detail)
        }));
    }
    let counters = denials(testbed)?;
    for (reason, least) in least {
        let count = |of: &BTreeMap<String, u64>| of.get(reason).copied().unwrap_or_default();
        let counted = count(&counters) - count(&before.counters);
        if counted < least {
            faults.push(format!("{reason} was counted {counted} times, expected {least} at least"));
        }
    }
    let arrived = canary.arrived(&run.id);
    if !arrived.is_empty() {
        faults.push(format!("the canary saw {arrived:?}"));
    }
    let frames = capture.frames();
    if !frames.is_empty() {
        faults.push(format!("the capture outside saw {frames:#?}"));
    }
    print_not_made(run);
    if faults.is_empty() {
        return Ok(());
    }
    let table: Vec<String> = run.attempts.iter().map(Attempt::line).collect();
    let events = &node.stdout()[before.events..];
    bail!("{}\n\n{}\n\nevents:\n{events}", faults.join("\n"), table.join("\n"))
}

/// Checks that without enforcement each attempt gets out, as far as it can.
///
/// # Errors
/// One didn't; all of them are in the message.
pub fn open(run: &Run, canary: &Canary) -> Result<()> {
    let mut faults = Vec::new();
    let mut waited_for = Vec::new();
    for attempt in &run.attempts {
        let Some(way) = ways::find(&attempt.attempt, &attempt.name) else {
            faults.push(format!("{}: nobody says what is to become of it", attempt.name));
            continue;
        };
        match not_made(attempt) {
            Some(Ok(())) => continue,
            Some(Err(fault)) => faults.push(fault),
            None => {}
        }
        match way.open {
            Open::Answered if attempt.result != "answered" => {
                faults.push(format!("{}: {}, {}", attempt.name, attempt.result, attempt.detail));
            }
            Open::Answered => {}
            Open::Arrives => waited_for.push(&attempt.name),
            Open::Never(why) => {
                println!("{}: gets nowhere without enforcement either: {why}", attempt.name);
                if attempt.result == "answered" {
                    faults.push(format!("{} was answered, although {why}", attempt.name));
                }
            }
        }
    }
    let arrived = wait::until(wait::SOON, "the rest at the canary", || {
        let arrived = canary.arrived(&run.id);
        waited_for.iter().all(|name| arrived.contains(*name)).then_some(())
    });
    if arrived.is_err() {
        let arrived = canary.arrived(&run.id);
        let lost = waited_for.iter().filter(|name| !arrived.contains(**name));
        faults.extend(lost.map(|name| format!("{name} never arrived")));
    }
    print_not_made(run);
    if faults.is_empty() {
        return Ok(());
    }
    let table: Vec<String> = run.attempts.iter().map(Attempt::line).collect();
    bail!("{}\n\n{}", faults.join("\n"), table.join("\n"))
}

/// Whether an attempt couldn't be made, and if so, whether that is the kernel's fault.
fn not_made(attempt: &Attempt) -> Option<Result<(), String>> {
    let Attempt { name, result, detail, .. } = attempt;
    match &**result {
        "error" => Some(Err(format!("{name}: {detail}"))),
        "not_applicable" if MISSING.iter().any(|cause| detail.contains(cause)) => Some(Ok(())),
        "not_applicable" => Some(Err(format!("{name} wasn't made without need: {detail}"))),
        _ => None,
    }
}

/// Says a text aloud: past the test harness, which shows only the output of tests that fail.
pub fn say(text: &str) {
    // Nobody may be listening.
    io::stderr().write_all(text.as_bytes()).ok();
}

/// What this kernel can't make is said aloud.
fn print_not_made(run: &Run) {
    let not_made: Vec<_> =
        run.attempts.iter().filter(|attempt| attempt.result == "not_applicable").collect();
    let mut table = format!(
        "{} attempts, {} not applicable on this kernel:\n",
        run.attempts.len(),
        not_made.len()
    );
    for attempt in &not_made {
        table += &format!("  {:<22}{}\n", attempt.name, attempt.detail);
    }
    if !not_made.is_empty() {
        say(&table);
    }
}

/// What is wrong with the sender's view.
fn face(attempt: &Attempt, way: &Way, hooks: Hooks) -> Option<String> {
    let Attempt { name, result, detail, layer, .. } = attempt;
    let (result, layer) = (&**result, layer.as_deref().unwrap_or_default());
    let expected: &[(&str, &str)] = match (hooks, way.face) {
        (Hooks::All, Face::Socket) if chooses_errno() => &[("refused", "socket hook")],
        (Hooks::All, Face::Socket) => &[("refused", "socket hook"), ("refused", "packet hook")],
        (Hooks::All, Face::Packet) => &[("refused", "packet hook")],
        (Hooks::All, Face::Wire) => &[("no_answer", "after sending")],
        (Hooks::All, Face::Gateway) => &[("intercepted", "gateway")],
        (Hooks::All, Face::Any) => &[
            ("refused", "socket hook"),
            ("refused", "packet hook"),
            ("refused", "kernel"),
            ("no_answer", "after sending"),
        ],
        // Some the kernel refuses by itself.
        (Hooks::WallOnly, _) => &[("no_answer", "after sending"), ("refused", "kernel")],
    };
    let as_it_is_to_be = expected.contains(&(result, layer));
    (!as_it_is_to_be)
        .then(|| format!("{name}: {result} at {layer:?} ({detail}), expected one of {expected:?}"))
}

/// Whether a hook on sockets can choose the error (kernel 5.18). Before, a send that it refuses fails
/// as if the hook on packets had refused it.
fn chooses_errno() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 18),
        _ => true,
    }
}

fn events(text: &str) -> Vec<Value> {
    let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    events.filter(|event: &Value| event["verdict"] == "deny").collect()
}

/// Whether an event tells of an attempt.
fn is_of(event: &Value, attempt: &Attempt, way: &Way, hooks: Hooks) -> bool {
    let hook = event["hook"].as_str().unwrap_or_default();
    let reason = event["reason"].as_str().unwrap_or_default();
    let (mut kind, mut reasons) = (way.event, way.reasons.to_vec());
    let seen_by = match (hooks, way.face) {
        (Hooks::All, Face::Socket | Face::Gateway) => ["connect", "sendmsg"].contains(&hook),
        (Hooks::All, Face::Packet) => hook == "skb",
        (Hooks::All, Face::Wire) => ["skb", "pod"].contains(&hook),
        (Hooks::All, Face::Any) => true,
        (Hooks::WallOnly, _) => hook == "pod",
    };
    if hooks == Hooks::WallOnly {
        // The enforcement point looks at the source first, and knows nothing of redirects.
        reasons.extend(["not_redirected", "no_route", "spoofed_source"]);
        match &*attempt.attempt {
            "http" => kind = Event::On(80),
            "https" => kind = Event::On(443),
            // Here they are packets, whose ports aren't read.
            "udplite" | "udplite-mapped" | "held-udplite" => {
                kind = Event::Protocol("UDP-Lite", "UDP-Lite");
            }
            "udp-large" => (kind, reasons) = (Event::Reason, vec!["fragment"]),
            "ip-options" => (kind, reasons) = (Event::Reason, vec!["ip_options"]),
            _ => {}
        }
    }
    let of_kind = match kind {
        Event::Own => event["destination_port"] == attempt.port,
        Event::On(port) => event["destination_port"] == port,
        Event::Protocol(v4, v6) => event["protocol"] == if attempt.v6 { v6 } else { v4 },
        Event::EtherType(name) => event["protocol"] == name,
        Event::Reason | Event::Family | Event::None => true,
    };
    let of_family = match event["destination_address"].as_str() {
        Some(address) => address.contains(':') == attempt.v6,
        None => true,
    };
    seen_by && of_kind && of_family && reasons.contains(&reason)
}

/// What the node counted as denied, by reason.
fn denials(testbed: &Testbed) -> Result<BTreeMap<String, u64>> {
    let mut counters = BTreeMap::new();
    let metrics = testbed.node_metrics()?;
    for line in metrics.lines().filter(|line| line.contains("action=\"deny\"")) {
        let reason = line.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next());
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
        if let (Some(reason), Some(count)) = (reason, count) {
            *counters.entry(reason.to_owned()).or_default() += count;
        }
    }
    // Nothing may have been refused yet; but something has passed.
    if !metrics.contains("egress_verdicts_total{") {
        bail!("the node has no counters of verdicts; is it on {}?", plan::APP);
    }
    Ok(counters)
}
