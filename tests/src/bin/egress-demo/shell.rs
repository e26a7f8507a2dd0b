//! A demo that stays up: a way in, and its end.

use std::{env, os::unix::process::CommandExt};

use anyhow::{Context, Result, bail};
use egress_tests::{plan, site, testbed::Testbed};

/// Removes everything of the demo.
pub(crate) fn down() -> Result<()> {
    if !site::exists(site::DEMO) {
        println!("no demo is up");
        return Ok(());
    }
    site::sweep(site::DEMO)?;
    println!("the demo is down; nothing is left of it");
    Ok(())
}

/// Becomes a shell in the pod.
pub(crate) fn enter() -> Result<()> {
    if !site::exists(site::DEMO) {
        bail!("no demo is up: `cargo xtask demo --keep` leaves one");
    }
    let shell = env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    println!("a shell in the pod; try: curl -sSL -o /dev/null -D - https://{}/", plan::HOST);
    Err(Testbed::demo_pod()?.command(&shell, &[]).exec()).context(shell)
}

/// Says what can be done after a demo that is gone.
pub(crate) fn next() {
    println!("\nWhat next:");
    for (what, command) in [
        ("look around in these hosts", "cargo xtask demo --keep"),
        ("mutual TLS between the nodes", "cargo xtask demo --mtls"),
        ("what was shown, step by step", "less docs/walkthrough.md"),
        ("on your own hosts", "less docs/operations.md"),
        ("in a cluster", "less docs/kubernetes.md"),
    ] {
        println!("   {what:<30}  {command}");
    }
}

/// Says what can be done with a demo that stays up.
pub(crate) fn explain() {
    let prefix = site::DEMO;
    println!("\nEverything stays up:");
    println!("   cargo xtask demo --shell                         a shell in the pod");
    println!("   ip netns exec {prefix}-gateway1 curl -s localhost:15000/stats");
    println!("   ls /run/{prefix}/config                     the resources; change them, and see");
    println!("   tail -f /run/{prefix}/node.out               flow events");
    println!("   tail -f /run/{prefix}/gateway1.out           access log");
    println!("   cargo xtask demo --down                          the end of it");
}
