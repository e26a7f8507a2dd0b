//! `egress-demo`: see `cargo xtask demo --help`.

mod bypass;
mod mutual;
mod screen;
mod shell;
mod stage;
mod two_hosts;
mod walkthrough;

use std::{process::ExitCode, thread};

use anyhow::Result;
use clap::Parser;
use egress_tests::{site, testbed, wiring::Checksums};

/// The egress-gateway walkthrough, live, on hosts in network namespaces.
#[derive(Parser)]
struct Cli {
    /// The walkthrough's other form: mutual TLS between node and gateway.
    #[arg(long, conflicts_with_all = ["down", "shell"])]
    mtls: bool,
    /// Leave checksums as the pod's kernel leaves them. Without it the app node's uplink fills them in, as
    /// a real device does.
    #[arg(long, conflicts_with_all = ["down", "shell"])]
    left_checksums: bool,
    /// The quick start on two hosts with systemd, every command of its page, instead of the walkthrough.
    #[arg(long, conflicts_with_all = ["mtls", "left_checksums", "keep", "down", "shell"])]
    two_hosts: bool,
    /// Leave everything up at the end, and say how to get a shell in the pod.
    #[arg(long)]
    keep: bool,
    /// Remove what `--keep`, or a demo that was killed, left behind.
    #[arg(long, conflicts_with_all = ["keep", "shell"])]
    down: bool,
    /// A shell in the pod of a demo that `--keep` left up.
    #[arg(long, conflicts_with = "keep")]
    shell: bool,
    /// Clean up after a process that ends.
    #[arg(long, hide = true, value_name = "PREFIX")]
    janitor: Option<String>,
    /// Serve the outside of a testbed until killed.
    #[arg(long, hide = true, value_name = "PREFIX")]
    serve: Option<String>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    if let Some(prefix) = &cli.janitor {
        site::janitor(prefix)?;
    } else if let Some(prefix) = &cli.serve {
        let _servers = testbed::serve(prefix, &site::dir(prefix))?;
        // Until the site's cgroup is killed.
        loop {
            thread::park();
        }
    } else if cli.down {
        shell::down()?;
    } else if cli.shell {
        shell::enter()?;
    } else if cli.two_hosts {
        return two_hosts::run();
    } else {
        return demo(cli);
    }
    Ok(ExitCode::SUCCESS)
}

fn demo(cli: &Cli) -> Result<ExitCode> {
    let checksums = if cli.left_checksums { Checksums::Left } else { Checksums::Filled };
    let mut stage = stage::Stage::set(cli.mtls, checksums)?;
    if cli.mtls {
        mutual::run(&mut stage)?;
    } else {
        walkthrough::run(&mut stage)?;
    }
    bypass::run(&mut stage)?;
    let good = stage.screen.table();
    if cli.keep {
        shell::explain();
        stage.keep();
    } else {
        shell::next();
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
