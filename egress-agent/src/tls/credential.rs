//! A certificate with its key, and the roots that the other side is held to: found, read, and
//! checked together.

mod fault;
mod find;
mod places;

use std::{path::Path, sync::Arc, time::SystemTime};

use rustls::{RootCertStore, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use webpki::OwnedCertRevocationList;

pub use self::{
    fault::CredentialFault,
    places::{CredentialLocations, CredentialStore, Located},
};
use super::{
    config::provider,
    workload_api::WorkloadMaterial,
    x509::{CertificateInfo, CrlInfo},
};
use crate::{
    source::FileContents,
    types::{SpiffeId, TrustDomain},
};

/// What a credential is needed for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Needs {
    /// The other side's certificates are verified.
    pub roots: bool,
    /// It is an identity in this trust domain.
    pub identity: Option<TrustDomain>,
}

/// A credential that can be used.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The chain and its key.
    pub key: Arc<CertifiedKey>,
    /// Roots for the other side; empty where none are needed.
    pub roots: Arc<RootCertStore>,
    /// End of validity of each of them.
    pub root_ends: Vec<SystemTime>,
    /// Revocation lists.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    /// The identity, where it is one.
    pub id: Option<SpiffeId>,
    /// Start of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
}

/// Everything that is known of a credential.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The chain, the leaf first.
    pub chain: Vec<CertificateInfo>,
    /// The roots.
    pub roots: Vec<CertificateInfo>,
    /// The revocation lists.
    pub crls: Vec<CrlInfo>,
    /// What is wrong, in the order in which it was found.
    pub faults: Vec<CredentialFault>,
    /// The credential, if none of the faults forbids it.
    pub credential: Option<Credential>,
}

/// Something that was read, and where.
type FoundFile<'a, T> = Option<(&'a Path, T)>;

impl Credential {
    /// The same without the roots whose time is over, if there are any: what has expired vouches for
    /// nobody, also while a credential stays in use because its successor is no good.
    #[must_use]
    pub fn without_expired_roots(&self, now: SystemTime) -> Option<Self> {
        if self.root_ends.iter().all(|end| *end > now) {
            return None;
        }
        let left = self.roots.roots.iter().zip(&self.root_ends).filter(|(_, end)| **end > now);
        let (roots, root_ends): (Vec<_>, _) = left.map(|(root, end)| (root.clone(), *end)).unzip();
        Some(Self { roots: Arc::new(RootCertStore { roots }), root_ends, ..self.clone() })
    }
}

impl Inspection {
    /// Checks what was read. `given` counts where the Workload API is the credential's source.
    #[must_use]
    pub fn of(
        files: &FileContents,
        given: &WorkloadMaterial,
        at: &Located,
        needs: &Needs,
        now: SystemTime,
    ) -> Self {
        let mut inspection = Self::default();
        let (chain, key, roots) = match &at.workload_api {
            Some(socket) => inspection.given(given, socket),
            None => (
                inspection.chain(files, at),
                inspection.key(files, at),
                if needs.roots { inspection.root_file(files, at) } else { None },
            ),
        };
        let chain = chain.and_then(|(path, chain)| inspection.ordered(path, chain));
        let (roots, root_ends) = match roots {
            Some((path, certificates)) if needs.roots => inspection.roots(path, certificates, now),
            _ => (RootCertStore::empty(), Vec::new()),
        };
        let crls = if needs.roots { inspection.revoked(files, at, now) } else { Vec::new() };
        if let Some((path, _)) = &chain {
            inspection.validity(path, now);
            if let Some(domain) = &needs.identity {
                inspection.identity(path, domain);
            }
        }
        let certified = match (chain, key) {
            (Some(chain), Some(key)) => inspection.matching(chain, key),
            _ => None,
        };
        let fatal = inspection.faults.iter().any(CredentialFault::is_fatal);
        if let (Some(key), Some(leaf), false) = (certified, inspection.chain.first(), fatal) {
            inspection.credential = Some(Credential {
                key: Arc::new(key),
                roots: Arc::new(roots),
                root_ends,
                crls,
                id: leaf.spiffe_id().ok(),
                not_before: leaf.not_before,
                not_after: leaf.not_after,
            });
        }
        inspection
    }

    fn ordered<'a>(
        &mut self,
        path: &'a Path,
        chain: Vec<CertificateDer<'static>>,
    ) -> FoundFile<'a, Vec<CertificateDer<'static>>> {
        self.chain = self.infos(path, &chain)?;
        let pairs = self.chain.windows(2).enumerate();
        let wrong = pairs.filter(|(_, pair)| pair[0].issuer != pair[1].subject);
        let wrong = wrong.map(|(index, pair)| CredentialFault::Order {
            path: path.to_owned(),
            number: index + 1,
            issuer: pair[0].issuer.clone(),
            next: pair[1].subject.clone(),
        });
        self.faults.extend(wrong.collect::<Vec<_>>());
        Some((path, chain))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
    fn matching(
        &mut self,
        (certificate, chain): (&Path, Vec<CertificateDer<'static>>),
        (path, key): (&Path, PrivateKeyDer<'static>),
    ) -> Option<CertifiedKey> {
        let error = match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(key) => return Some(key),
            Err(error) => error,
        };
        self.faults.push(match error {
            rustls::Error::InconsistentKeys(_) => CredentialFault::Mismatch {
                key: path.to_owned(),
                certificate: certificate.to_owned(),
            },
            error => CredentialFault::File {
                path: path.to_owned(),
                why: format!("this key can't be used: {error}"),
            },
        });
        None
    }

    fn roots(
        &mut self,
        path: &Path,
        certificates: Vec<CertificateDer<'static>>,
        now: SystemTime,
    ) -> (RootCertStore, Vec<SystemTime>) {
        let (mut roots, mut ends) = (RootCertStore::empty(), Vec::new());
        let Some(infos) = self.infos(path, &certificates) else { return (roots, ends) };
        self.roots = infos;
        for (certificate, info) in certificates.into_iter().zip(&self.roots) {
            // What has expired vouches for nobody; webpki wouldn't ask a root for its dates.
            if info.not_after <= now {
                self.faults.push(CredentialFault::RootExpired {
                    path: path.to_owned(),
                    subject: info.subject.clone(),
                    not_after: info.not_after,
                });
            } else if let Err(error) = roots.add(certificate) {
                let why = format!("holds a certificate that can't be a trust root: {error}");
                self.faults.push(CredentialFault::File { path: path.to_owned(), why });
            } else {
                ends.push(info.not_after);
            }
        }
        if roots.is_empty() {
            let why = "no root is left that could vouch for anybody; expected a CA's certificate";
            self.faults.push(CredentialFault::File { path: path.to_owned(), why: why.into() });
        }
        (roots, ends)
    }

    fn revoked(
        &mut self,
        files: &FileContents,
        at: &Located,
        now: SystemTime,
    ) -> Vec<CertificateRevocationListDer<'static>> {
        let Some((path, lists)) = self.lists(files, at) else { return Vec::new() };
        for list in &lists {
            let (Ok(_), Some(info)) =
                (OwnedCertRevocationList::from_der(list), CrlInfo::parse(list))
            else {
                let why = "holds a revocation list that can't be read; expected one of X.509 \
                           version 2 (RFC 5280 §5)";
                self.faults.push(CredentialFault::File { path: path.to_owned(), why: why.into() });
                continue;
            };
            if let Some(next_update) = info.next_update.filter(|due| *due <= now) {
                let (path, issuer) = (path.to_owned(), info.issuer.clone());
                self.faults.push(CredentialFault::CrlExpired { path, issuer, next_update });
            }
            self.crls.push(info);
        }
        lists
    }

    fn validity(&mut self, path: &Path, now: SystemTime) {
        let Some(leaf) = self.chain.first() else { return };
        let path = path.to_owned();
        if now < leaf.not_before {
            let not_before = leaf.not_before;
            self.faults.push(CredentialFault::NotYetValid { path, not_before });
        } else if now >= leaf.not_after {
            let not_after = leaf.not_after;
            self.faults.push(CredentialFault::Expired { path, not_after });
        }
    }

    fn identity(&mut self, path: &Path, expected: &TrustDomain) {
        let Some(leaf) = self.chain.first() else { return };
        let path = path.to_owned();
        match leaf.spiffe_id() {
            Ok(id) if id.trust_domain == *expected => {}
            Ok(id) => {
                let expected = expected.clone();
                self.faults.push(CredentialFault::TrustDomain { path, id, expected });
            }
            Err(why) => self.faults.push(CredentialFault::Identity { path, why }),
        }
    }

    fn infos(
        &mut self,
        path: &Path,
        certificates: &[CertificateDer<'static>],
    ) -> Option<Vec<CertificateInfo>> {
        let infos: Option<Vec<_>> =
            certificates.iter().map(|der| CertificateInfo::parse(der)).collect();
        let why = || "found something that is no X.509 certificate between the PEM markers".into();
        self.keep(path, infos.ok_or_else(why))
    }

    fn keep<T>(&mut self, path: &Path, result: Result<T, String>) -> Option<T> {
        let fault = |why| CredentialFault::File { path: path.to_owned(), why };
        result.map_err(|why| self.faults.push(fault(why))).ok()
    }
}

#[cfg(test)]
mod tests;
