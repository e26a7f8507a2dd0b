//! Hosts in network namespaces, for the demo and the end-to-end tests.
//!
//! ```text
//!         pod ─── app node ──┬── gateway node 1
//!          ┊         ┊       ├── gateway node 2
//!   neighbour ┄┄┄┄┄┄┄┘       ├┄┄ remote node ┄┄ remote pod (with a DNS service)
//!                            └── outside (router, DNS, HTTP, HTTPS, a metadata service, an attacker)
//! ```
//!
//! What is dotted is there for those who ask for a [`cluster::Cluster`]: the app node's pods share a
//! bridge then, and Services are NAT rules on the app node, as kube-proxy makes them.
//!
//! The app node forwards for the pod, and the outside answers it: without enforcement everything
//! leaks, which the tests show first.

pub mod access_log;
pub mod agent;
mod agents;
pub mod between;
pub mod browser;
pub mod ca;
pub mod capture;
pub mod cgroup;
mod clients;
pub mod cluster;
pub mod collector;
pub mod container;
pub mod denied;
pub mod flood;
pub mod kubernetes;
pub mod machine;
pub mod manifests;
pub mod mtls;
pub mod netns;
pub mod outside;
mod packets;
pub mod page;
pub mod pair;
pub mod plan;
pub mod probe;
pub mod process;
pub mod resources;
pub mod services;
pub mod site;
pub mod testbed;
pub mod verdicts;
pub mod wait;
pub mod ways;
pub mod wiring;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// A command whose `PATH` holds what a service's or `su`'s lacks.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"));
    command
}

/// Runs a short command and gives its standard output.
///
/// # Errors
/// It can't be started or fails; the message holds what it wrote.
pub fn sh(program: &str, args: &[&str]) -> Result<String> {
    let text = || format!("{program} {}", args.join(" "));
    let output = command(program).args(args).output().with_context(text)?;
    if !output.status.success() {
        bail!("`{}`: {}", text(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies a program that is to be run. Another process does it: what this one has open for writing,
/// a child that another thread forks meanwhile may keep open, and then it can't be run (`ETXTBSY`).
///
/// # Errors
/// It can't be copied.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    sh("cp", &[&from.to_string_lossy(), &to.to_string_lossy()]).map(drop)
}
