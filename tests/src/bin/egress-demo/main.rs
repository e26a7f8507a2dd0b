//! `egress-demo`: see `cargo xtask demo --help`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use egress_tests::{site, testbed};

/// The egress-gateway walkthrough, live.
#[derive(Parser)]
struct Cli {
    /// Remove what `--keep`, or a demo that was killed, left behind.
    #[arg(long)]
    down: bool,
    /// Clean up after the process at the other end of standard input.
    #[arg(long, hide = true, value_name = "PREFIX")]
    janitor: Option<String>,
    /// Be the outside's servers of a site.
    #[arg(long, hide = true, value_name = "PREFIX")]
    serve: Option<String>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if let Some(prefix) = &cli.janitor {
        return site::janitor(prefix);
    }
    if let Some(prefix) = &cli.serve {
        let _servers = testbed::serve(prefix, &site::dir(prefix))?;
        // Until the site's cgroup is killed.
        loop {
            std::thread::park();
        }
    }
    if cli.down {
        return site::sweep(site::DEMO);
    }
    anyhow::bail!("the demo itself is still to come")
}
