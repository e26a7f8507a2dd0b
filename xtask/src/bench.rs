//! `cargo xtask bench`: what enforcement costs.

mod peers;

use anyhow::{Result, bail};
use clap::Args;

use crate::{run, setup};

/// What is measured.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these: wall, connect, throughput, compile, load, tunnel, gateway. Without names all but the last,
    /// which needs other proxies.
    names: Vec<String>,
    /// Put the table of `gateway` into docs/performance.md.
    #[arg(long)]
    write: bool,
}

/// Builds what is measured as it is released, then measures.
///
/// # Errors
/// No root, or something can't be built or run. A missed aim is none.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::For::Everything)?;
    if !run::is_root() {
        bail!("measuring makes network namespaces and loads eBPF programs: run this as root");
    }
    let with_peers = options.names.iter().any(|name| name == "gateway");
    let peers = if with_peers { peers::install() } else { peers::Peers::default() };
    // The tests' own program stays behind to clean up; what is measured beside it is the agent.
    let packages = ["egress-bench", "egress-tests", "egress-agent"];
    let packages = packages.iter().flat_map(|name| ["--package", name]);
    run::show(run::command("cargo").args(["build", "--release", "--bins"]).args(packages))?;
    let release = run::root().join("target/release");
    let mut bench = run::command("target/release/egress-bench");
    bench.args(&options.names).env("EGRESS_AGENT", release.join("egress-agent"));
    if options.write {
        bench.arg("--write");
    }
    if let Some(envoy) = peers.envoy {
        bench.env("EGRESS_BENCH_ENVOY", envoy);
    }
    run::show(&mut bench)
}
