//! `egress-demo`: see `cargo xtask demo --help`.

use std::process::ExitCode;

use clap::Parser;
use egress_tests::site;

/// The egress-gateway walkthrough, live.
#[derive(Parser)]
struct Cli {
    /// Clean up after a process that ends.
    #[arg(long, hide = true)]
    janitor: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.janitor {
        Some(prefix) => site::janitor(&prefix),
        None => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
