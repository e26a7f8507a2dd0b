//! Where the files of a credential are.

use std::path::{Path, PathBuf};

use super::CredentialFault;
use crate::{
    policy::{CredentialFiles, CredentialSource, config_map_of},
    source::{FileSet, Secrets},
};

/// Where those that `credentialName` names are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CredentialStore {
    /// One directory below it for each.
    Directory(PathBuf),
    /// Secrets of the API server.
    Secrets(Secrets),
}

impl From<&Path> for CredentialStore {
    fn from(directory: &Path) -> Self {
        Self::Directory(directory.into())
    }
}

impl CredentialStore {
    /// The path that the files of a credential are below.
    fn directory(&self) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.clone(),
            Self::Secrets(secrets) => secrets.directory(),
        }
    }
}

/// Where credentials are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CredentialLocations {
    /// Those of `credentialName`.
    pub credentials: Option<CredentialStore>,
    /// The directory of the process's own identity in the mesh.
    pub identity: Option<PathBuf>,
    /// The socket of the SPIFFE Workload API, which gives the own identity instead.
    pub workload_api: Option<PathBuf>,
    /// Revocation lists for the peers of the own identity; instead of those in its directory.
    pub identity_crl: Option<PathBuf>,
}

/// After a credential's name: where its roots may be.
const ROOTS: &str = "-cacert";

/// The files of a credential. Of each list the first one that is there counts; what isn't needed may
/// be absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// The chain, the leaf first.
    pub certificate: Vec<PathBuf>,
    /// The leaf's key.
    pub private_key: Vec<PathBuf>,
    /// Roots for the other side's certificates.
    pub roots: Vec<PathBuf>,
    /// Revocation lists of these CAs.
    pub crl: Vec<PathBuf>,
    /// Whether a list that can't be read is an error: it was named.
    pub crl_named: bool,
    /// The Workload API's socket, if chain, key and roots come from there.
    pub workload_api: Option<PathBuf>,
}

impl CredentialLocations {
    /// Where the files of a credential are.
    ///
    /// # Errors
    /// The directory isn't known.
    pub fn locate(&self, source: &CredentialSource) -> Result<Located, CredentialFault> {
        match source {
            CredentialSource::Files(files) => {
                let CredentialFiles { certificate, private_key, ca_certificates, ca_crl } = files;
                Ok(Located {
                    certificate: vec![certificate.clone()],
                    private_key: vec![private_key.clone()],
                    roots: ca_certificates.iter().cloned().collect(),
                    crl: ca_crl.iter().cloned().collect(),
                    crl_named: true,
                    workload_api: None,
                })
            }
            CredentialSource::Named(name) => match &self.credentials {
                Some(store) => Ok(Located::named(&store.directory(), name)),
                None => Err(CredentialFault::NoDirectory {
                    what: format!("credentialName {name}"),
                    option: "--credentials-dir DIR",
                }),
            },
            CredentialSource::Own => {
                let mut located = match (&self.workload_api, &self.identity) {
                    (Some(socket), _) => Located::workload_api(socket),
                    (None, Some(dir)) => Located::directory(dir),
                    (None, None) => {
                        return Err(CredentialFault::NoDirectory {
                            what: "mode ISTIO_MUTUAL".into(),
                            option: "--identity-dir DIR or --workload-api unix:PATH",
                        });
                    }
                };
                if let Some(list) = &self.identity_crl {
                    (located.crl, located.crl_named) = (vec![list.clone()], true);
                }
                Ok(located)
            }
        }
    }
}

impl Located {
    /// A Secret that is mounted as a directory, by the names of its keys; those of the files that
    /// Istio gave to its proxies will do too.
    #[must_use]
    pub fn directory(dir: &Path) -> Self {
        let all = |names: &[&str]| names.iter().map(|name| dir.join(name)).collect();
        Self {
            certificate: all(&["tls.crt", "cert", "cert-chain.pem"]),
            private_key: all(&["tls.key", "key", "key.pem"]),
            roots: all(&["ca.crt", "cacert", "root-cert.pem"]),
            crl: all(&["ca.crl", "crl"]),
            crl_named: false,
            workload_api: None,
        }
    }

    /// What the Workload API gives.
    fn workload_api(socket: &Path) -> Self {
        Self {
            certificate: Vec::new(),
            private_key: Vec::new(),
            roots: Vec::new(),
            crl: Vec::new(),
            crl_named: false,
            workload_api: Some(socket.to_owned()),
        }
    }

    /// The directory of a credential; its roots may be in one of their own (`<name>-cacert`). A ConfigMap has no other.
    fn named(dir: &Path, name: &str) -> Self {
        let mut located = Self::directory(&dir.join(name));
        if config_map_of(name).is_some() {
            return located;
        }
        let other = dir.join(format!("{name}{ROOTS}"));
        located.roots.extend(["cacert", "ca.crt"].map(|name| other.join(name)));
        located.crl.extend(["ca.crl", "crl"].map(|name| other.join(name)));
        located
    }

    /// The Secrets of a credential; the second one may have its roots. Where it is a ConfigMap, that alone.
    #[must_use]
    pub fn secrets(name: &str) -> Vec<String> {
        match config_map_of(name) {
            Some(_) => vec![name.to_owned()],
            None => vec![name.to_owned(), format!("{name}{ROOTS}")],
        }
    }

    /// All of its files, those that stand for keys of Secrets too.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let Self { certificate, private_key, roots, crl, crl_named: _, workload_api: _ } = self;
        [certificate, private_key, roots, crl].into_iter().flatten()
    }

    /// All of its files. What stands for a Secret is none.
    #[must_use]
    pub fn files(&self) -> FileSet {
        self.paths().filter(|path| !Secrets::has(path)).cloned().collect()
    }
}
