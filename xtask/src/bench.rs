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
    // The tests' own program stays behind to clean up.
    let build = ["build", "--release", "--package", "egress-bench", "--package", "egress-tests"];
    run::show(run::command("cargo").args(build).arg("--bins"))?;
    run::show(run::command("target/release/egress-bench").args(names))
}
