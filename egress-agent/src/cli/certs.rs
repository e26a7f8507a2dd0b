//! The `certs` command: what is in the files of certificates, and what is wrong with it.

mod show;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Subcommand, ValueEnum};

use super::exit::{FAILURE, USAGE};
use crate::{tls::CertificateArgs, types::TrustDomain};

/// Options of `certs`.
#[derive(clap::Args, Debug)]
pub(super) struct CertsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print chains, identities, validity, and what is wrong.
    Show(ShowArgs),
}

/// Options of `certs show`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit code: 0 where all is well, 1 where something is wrong, 2 where there \
                        is nothing to show."
)]
pub(super) struct ShowArgs {
    /// Directories with a certificate, its key and its roots, or files with certificates.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Show every certificate that the servers of this directory of resources use.
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// The mesh-wide settings [default: mesh.yaml in the directory of resources].
    #[arg(long, value_name = "FILE", requires = "config")]
    mesh: Option<PathBuf>,
    #[command(flatten)]
    certificates: CertificateArgs,
    /// The trust domain that identities must be in [default: trustDomain of the configuration; any
    /// without one].
    #[arg(long, value_name = "NAME", value_parser = trust_domain)]
    trust_domain: Option<TrustDomain>,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}

/// Runs a command on certificates.
///
/// # Errors
/// Standard output can't be written, or the configuration can't be read.
pub(super) fn run(args: CertsArgs) -> anyhow::Result<ExitCode> {
    let Command::Show(args) = args.command;
    let shown = show::show(&args)?;
    if shown.certificates.is_empty() {
        writeln!(
            io::stderr(),
            "error: nothing to show: name a directory or file of certificates, or give --config, \
             --credentials-dir, --identity-dir or --workload-api"
        )?;
        return Ok(ExitCode::from(USAGE));
    }
    let mut out = io::stdout().lock();
    match args.output {
        Output::Text => show::text(&shown, &mut out)?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &shown)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(if shown.is_good() { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

#[cfg(test)]
mod tests;
