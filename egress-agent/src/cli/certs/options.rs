//! The options of `certs show`.

use std::path::PathBuf;

use crate::{cli::output::Output, tls::CertificateArgs, types::TrustDomain};

/// Options of `certs show`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  # Those that a gateway uses: whom are they for, and when do they expire?
  egress-agent certs show --config /etc/egress/config \\
      --credentials-dir /etc/egress/credentials

  # One directory with a certificate, its key and its roots.
  egress-agent certs show /etc/egress/identity

Exit code: 0 where all is well, 1 where something is wrong, 2 where there is
nothing to show.")]
pub(super) struct ShowArgs {
    /// Directories with a certificate, its key and its roots, or files with certificates.
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Show every certificate that the servers of this directory of resources use.
    #[arg(long, value_name = "DIR")]
    pub(super) config: Option<PathBuf>,
    /// The mesh-wide settings [default: mesh.yaml in the directory of resources].
    #[arg(long, value_name = "FILE", requires = "config")]
    pub(super) mesh: Option<PathBuf>,
    #[command(flatten)]
    pub(super) certificates: CertificateArgs,
    /// The trust domain that identities must be in [default: trustDomain of the configuration; any
    /// without one].
    #[arg(long, value_name = "NAME", value_parser = trust_domain)]
    pub(super) trust_domain: Option<TrustDomain>,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}
