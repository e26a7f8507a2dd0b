//! The `certs` command: what is in the files of certificates, and what is wrong with it.

mod show;

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Subcommand, ValueEnum};

use super::cli::{FAILURE, USAGE};
use crate::{
    tls::{Places, WorkloadApi},
    types::TrustDomain,
};

/// Where the standard has workloads look for the socket (SPIFFE Workload Endpoint §4).
const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Where certificates are; the options of the gateway and the node too.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct CertificateArgs {
    /// The directory of credentials: one directory below it for each `credentialName`, with
    /// `tls.crt`, `tls.key`, `ca.crt` and `ca.crl` as Kubernetes mounts a Secret. Changes are
    /// noticed.
    #[arg(long, value_name = "DIR")]
    credentials_dir: Option<PathBuf>,
    /// The certificate of this process in the mesh, for `ISTIO_MUTUAL`: a directory with `tls.crt`,
    /// `tls.key`, `ca.crt` and `ca.crl`, or `cert-chain.pem`, `key.pem` and `root-cert.pem`.
    #[arg(long, value_name = "DIR")]
    identity_dir: Option<PathBuf>,
    /// The same from the SPIFFE Workload API, as SPIRE's agent serves it on a socket: certificate,
    /// key and roots, which it renews by itself [default: SPIFFE_ENDPOINT_SOCKET, where there is no
    /// --identity-dir].
    #[arg(long, value_name = "unix:PATH", conflicts_with = "identity_dir", value_parser = WorkloadApi::parse)]
    workload_api: Option<WorkloadApi>,
    /// Revocation lists for whoever shows a certificate of the mesh [default: ca.crl of
    /// --identity-dir; none with --workload-api].
    #[arg(long, value_name = "FILE")]
    identity_crl: Option<PathBuf>,
}

impl CertificateArgs {
    /// Where they are.
    ///
    /// # Errors
    /// `SPIFFE_ENDPOINT_SOCKET` counts, and names no socket.
    pub(super) fn places(&self) -> anyhow::Result<Places> {
        let Self { credentials_dir, identity_dir, workload_api, identity_crl } = self;
        let workload_api = match (workload_api, identity_dir, env::var(ENDPOINT)) {
            (Some(api), ..) => Some(api.clone()),
            (None, None, Ok(text)) if !text.is_empty() => Some(
                WorkloadApi::parse(&text).map_err(|why| anyhow::anyhow!("{ENDPOINT}: {why}"))?,
            ),
            (None, ..) => None,
        };
        Ok(Places {
            credentials: credentials_dir.clone(),
            identity: identity_dir.clone(),
            workload_api: workload_api.map(|api| api.socket().to_owned()),
            identity_crl: identity_crl.clone(),
        })
    }
}

/// Options of `certs`.
#[derive(clap::Args, Debug)]
pub struct CertsArgs {
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
pub struct ShowArgs {
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
pub fn run(args: CertsArgs) -> anyhow::Result<ExitCode> {
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
