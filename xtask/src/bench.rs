//! `cargo xtask bench`: what enforcement costs.

use anyhow::{Result, bail};

use crate::{run, setup};

/// Builds what is measured as it is released, then measures.
///
/// # Errors
/// No root, or something can't be built or run. A missed aim is none.
pub(crate) fn run(names: &[String]) -> Result<()> {
    setup::run(setup::For::Everything)?;
    if !run::is_root() {
        bail!("measuring makes network namespaces and loads eBPF programs: run this as root");
    }
    // The tests' own program stays behind to clean up; what is measured beside it is the agent.
    let packages = ["egress-bench", "egress-tests", "egress-agent"];
    let packages = packages.iter().flat_map(|name| ["--package", name]);
    run::show(run::command("cargo").args(["build", "--release", "--bins"]).args(packages))?;
    let release = run::root().join("target/release");
    let mut bench = run::command("target/release/egress-bench");
    run::show(bench.args(names).env("EGRESS_AGENT", release.join("egress-agent")))
}
