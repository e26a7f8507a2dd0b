//! What enforcement costs on this machine, with the aims beside. `cargo xtask bench` builds and runs
//! it; docs/performance.md tells the method and has the numbers of one machine.
//!
//! What is compared is measured in one run, in turn, and the medians count: absolute times of
//! another day or machine say little. Nothing here fails because a time was long.

mod compile;
mod connect;
mod empty;
mod gateway;
mod load;
mod policy;
mod stream;
mod table;
mod throughput;
mod tunnel;
mod wall;

use anyhow::{Result, bail};
use clap::Parser;
use egress_tests::site::Site;

use crate::table::Row;

/// A measurement.
type Measure = fn(&Site) -> Result<Vec<Row>>;

const MEASURES: [(&str, &str, Measure); 6] = [
    ("wall", "A packet (BPF_PROG_TEST_RUN, 10,000 routes)", wall::run),
    ("connect", "connect()", connect::run),
    ("throughput", "An allowed flow", throughput::run),
    ("compile", "Compiling a configuration", compile::run),
    ("load", "Loading and changing policy", load::run),
    ("tunnel", "The tunnel beside the plain hop", tunnel::run),
];

/// Measures what enforcement costs. Needs root; makes namespaces and cgroups and removes them.
#[derive(Parser)]
struct Cli {
    /// Which to make: wall, connect, throughput, compile, load, tunnel; all of these by default. And
    /// gateway, which needs other proxies.
    names: Vec<String>,
    /// Put the table of `gateway` into docs/performance.md.
    #[arg(long)]
    write: bool,
}

/// The measurement that has a table of its own.
const GATEWAY: &str = "gateway";

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { names, write } = Cli::parse();
    let wants_gateway = names.iter().any(|name| name == GATEWAY);
    for name in &names {
        if name != GATEWAY && !MEASURES.iter().any(|(known, ..)| known == name) {
            let known = MEASURES.map(|(known, ..)| known).join(", ");
            bail!("there is no measurement {name:?}; there are {known}, {GATEWAY}");
        }
    }
    if write && !wants_gateway {
        bail!("--write is for {GATEWAY} alone");
    }
    for (name, title, measure) in MEASURES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            let site = Site::test()?;
            let rows = tokio::task::block_in_place(|| measure(&site))?;
            table::print(title, &rows);
        }
    }
    if wants_gateway {
        let site = Site::test()?;
        tokio::task::block_in_place(|| gateway::run(&site, write))?;
    }
    Ok(())
}
