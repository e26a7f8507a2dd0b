//! Bypass techniques, each tried for real.

use anyhow::Result;
use egress_tests::{
    plan,
    process::{Finished, Place},
};

use crate::stage::{Stage, last_line, url_v6};

/// Who tries.
#[derive(Clone, Copy)]
enum Who {
    /// A process of the pod.
    Pod,
    /// A process in the pod's network, but outside its cgroup: the socket hooks don't see it.
    OutsideCgroup,
}

enum With<'a> {
    /// A program with its arguments; success would be exit code 0.
    Program(&'a str, Vec<&'a str>),
    /// One of the attempts of `egress-agent probe`: its name, the address, perhaps the port.
    Probe(Vec<&'a str>),
}

struct Attempt<'a> {
    what: &'a str,
    who: Who,
    with: With<'a>,
    /// The reason that the counter and the event must give.
    reason: &'a str,
    /// Whether the gateway refuses it, not the node.
    at_gateway: bool,
}

/// Tries each, and watches what arrives outside.
pub(crate) fn run(stage: &mut Stage) -> Result<()> {
    stage.screen.step("Bypass techniques");
    stage
        .screen
        .say("edition.cnn.com over HTTPS is allowed, through the gateway. Nothing else is.");
    let udp = plan::UDP_PORT.to_string();
    let ipv6 = format!("https://{}:8443/", url_v6(plan::ATTACKER_V6));
    let curl = |args: &[&'static str]| {
        let mut all = vec!["-sSk", "--max-time", "3"];
        all.extend(args);
        With::Program("curl", all)
    };
    use Who::{OutsideCgroup, Pod};
    let node = |what, who, with, reason| Attempt { what, who, with, reason, at_gateway: false };
    let attempts = [
        Attempt {
            what: "an address instead of a name",
            who: Pod,
            with: curl(&["https://203.0.113.9/"]),
            reason: "no_server_name",
            at_gateway: true,
        },
        node("a port that no route names", Pod, curl(&["http://203.0.113.9:8443/"]), "no_route"),
        node(
            "a process outside the pod's cgroup",
            OutsideCgroup,
            curl(&["https://198.51.100.10/"]),
            "not_redirected",
        ),
        node("UDP", Pod, With::Probe(vec!["udp", plan::ATTACKER, &udp]), "protocol"),
        node(
            "DNS to an external server",
            Pod,
            With::Probe(vec!["udp", plan::OUTSIDE_DNS, "53"]),
            "protocol",
        ),
        node(
            "ping",
            Pod,
            With::Program("ping", vec!["-c", "1", "-W", "1", "-I", plan::POD, plan::ATTACKER]),
            "protocol",
        ),
        node(
            "IPv6",
            Pod,
            With::Program("curl", vec!["-sSk", "--max-time", "3", &ipv6]),
            "no_route",
        ),
        node(
            "an IPv4-mapped address",
            Pod,
            With::Probe(vec!["tcp-mapped", plan::ATTACKER, "22"]),
            "no_route",
        ),
        node("cloud metadata", Pod, curl(&["http://169.254.169.254/"]), "denied_prefix"),
        node("the gateway's own ports", Pod, curl(&["http://10.10.0.11:15021/"]), "gateway_port"),
        node("UDP-Lite", Pod, With::Probe(vec!["udplite", plan::ATTACKER, &udp]), "protocol"),
        node("a raw socket", Pod, With::Probe(vec!["raw-ip", plan::ATTACKER, &udp]), "protocol"),
        node(
            "a raw socket, with another's source address",
            OutsideCgroup,
            With::Probe(vec!["raw-spoofed", plan::ATTACKER, &udp]),
            "spoofed_source",
        ),
        node(
            "a packet socket, past every socket hook",
            Pod,
            With::Probe(vec!["packet", plan::ATTACKER, &udp]),
            "protocol",
        ),
        node("a VLAN tag", Pod, With::Probe(vec!["vlan", plan::ATTACKER, &udp]), "ether_type"),
    ];

    let capture = stage.testbed.capture()?;
    for attempt in &attempts {
        try_one(stage, attempt)?;
    }
    try_all(stage)?;
    let frames = capture.frames();
    for frame in &frames {
        stage.screen.fact("LEAKED", frame);
    }
    let seen = format!("{} packets of the pod", frames.len());
    stage.screen.check("a capture outside, over all attempts", &seen, frames.is_empty());
    Ok(())
}

/// Every attempt that `egress-agent probe` knows, with a canary at the attacker's.
fn try_all(stage: &mut Stage) -> Result<()> {
    let canary = stage.testbed.canary()?;
    stage.mark();
    let to = format!("{} {} --gateway {}", plan::ATTACKER, plan::ATTACKER_V6, plan::GATEWAYS[0]);
    stage.screen.command("pod", &format!("egress-agent probe {to}"));
    let mut skipped = Vec::new();
    if !stage.asks_security_module() {
        stage.screen.say(
            "Left out: `netlink`. The pod is root on this machine, and this kernel has no BPF among its \
             security modules to refuse what root asks; `egress-agent status` says DEGRADED for that.",
        );
        skipped.extend(["--skip", "netlink"]);
    }
    let run = stage.testbed.probe_all(stage.testbed.pod(), &skipped)?;
    let count = |result: &str| run.attempts.iter().filter(|made| made.result == result).count();
    let out: Vec<String> = run
        .attempts
        .iter()
        .filter(|made| ["answered", "error"].contains(&&*made.result))
        .map(egress_tests::probe::Attempt::line)
        .collect();
    stage.screen.output(&out.join("\n"));
    let arrived = canary.arrived(&run.id);
    let seen = format!(
        "{} attempts: {} answered, {} refused, {} dropped, {} taken by the gateway, {} not \
         possible here; {} arrived at the canary",
        run.attempts.len(),
        count("answered"),
        count("refused"),
        count("no_answer"),
        count("intercepted"),
        count("not_applicable"),
        arrived.len()
    );
    let held = run.code == 0 && out.is_empty() && arrived.is_empty();
    stage.screen.check("every way that `egress-agent probe` knows", &seen, held);
    Ok(())
}

fn try_one(stage: &mut Stage, attempt: &Attempt<'_>) -> Result<()> {
    let count = |stage: &Stage| -> Result<u64> {
        let denials = stage.denials()?;
        Ok(denials.iter().filter(|(reason, _)| reason == attempt.reason).map(|(_, n)| n).sum())
    };
    let place = match attempt.who {
        Who::Pod => stage.testbed.pod().clone(),
        Who::OutsideCgroup => stage.testbed.outside_cgroup(),
    };
    let before = count(stage)?;
    let done = perform(stage, &place, attempt)?;
    stage.screen.output(&done.stdout);
    stage.screen.output(&done.stderr);
    let after = count(stage)?;
    let event = if attempt.at_gateway {
        stage.log_line(&["\"- - -\" 0 NR"])
    } else {
        stage.event(attempt.reason)
    };
    let seen = format!("{}; {}: {before} → {after}", last_line(&done), attempt.reason);
    let refused = !done.ok() && after > before && event.is_some();
    stage.screen.check(attempt.what, &seen, refused);
    Ok(())
}

fn perform(stage: &mut Stage, place: &Place, attempt: &Attempt<'_>) -> Result<Finished> {
    let name = match attempt.who {
        Who::Pod => "pod",
        Who::OutsideCgroup => "pod's network, other cgroup",
    };
    stage.mark();
    match &attempt.with {
        With::Program(program, args) => {
            stage.screen.command(name, &format!("{program} {}", args.join(" ")));
            place.run(program, args)
        }
        With::Probe(args) => {
            stage.screen.command(name, &probe_command(args));
            stage.testbed.probe_from(place, args)
        }
    }
}

/// The command that an attempt is.
fn probe_command(args: &[&str]) -> String {
    let (way, rest) = args.split_first().unwrap_or((&"", &[]));
    let port = rest.get(1).map(|port| format!(" --ports {port}")).unwrap_or_default();
    let address = rest.first().unwrap_or(&"");
    format!("egress-agent probe {address} --only {way}{port}")
}
