//! The options that say where certificates are.

use std::{env, path::PathBuf};

use super::{CredentialLocations, CredentialStore, WorkloadApi};

/// Where the standard has workloads look for the socket (SPIFFE Workload Endpoint §4).
const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Where certificates are; the options of the gateway and the node too.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct CertificateArgs {
    /// The directory of credentials: one directory below it for each `credentialName`, with
    /// `tls.crt`, `tls.key`, `ca.crt` and `ca.crl` as Kubernetes mounts a Secret. Changes are
    /// noticed. [default with `gateway --source kubernetes`: the Secrets of these names in the
    /// gateway's namespace, as the API server has them]
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
    pub fn places(&self) -> anyhow::Result<CredentialLocations> {
        let Self { credentials_dir, identity_dir, workload_api, identity_crl } = self;
        let workload_api = match (workload_api, identity_dir, env::var(ENDPOINT)) {
            (Some(api), ..) => Some(api.clone()),
            (None, None, Ok(text)) if !text.is_empty() => Some(
                WorkloadApi::parse(&text).map_err(|why| anyhow::anyhow!("{ENDPOINT}: {why}"))?,
            ),
            (None, ..) => None,
        };
        Ok(CredentialLocations {
            credentials: credentials_dir.clone().map(CredentialStore::Directory),
            identity: identity_dir.clone(),
            workload_api: workload_api.map(|api| api.socket().to_owned()),
            identity_crl: identity_crl.clone(),
        })
    }
}
