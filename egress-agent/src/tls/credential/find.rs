//! Finding the parts of a credential: in files, or in what the Workload API gave.

use std::path::{Path, PathBuf};

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};

use super::{CredentialFault, FoundFile, Inspection, Located};
use crate::{
    source::{FileContents, Unreadable},
    tls::{
        pem,
        workload_api::{Svid, WorkloadMaterial},
    },
};

type Chain<'a> = FoundFile<'a, Vec<CertificateDer<'static>>>;
type Key<'a> = FoundFile<'a, PrivateKeyDer<'static>>;

impl Inspection {
    /// Chain, key and roots of the last identity that the Workload API gave.
    pub(super) fn given<'a>(
        &mut self,
        given: &WorkloadMaterial,
        socket: &'a Path,
    ) -> (Chain<'a>, Key<'a>, Chain<'a>) {
        let WorkloadMaterial { svid, trouble } = given;
        match (svid, trouble) {
            (Some(_), None) => {}
            (Some(_), Some(why)) => self
                .faults
                .push(CredentialFault::NoNews { socket: socket.to_owned(), why: why.clone() }),
            (None, why) => self.faults.push(CredentialFault::NoIdentity {
                socket: socket.to_owned(),
                why: why.clone().unwrap_or_else(|| "it has not answered yet".into()),
            }),
        }
        let Some(Svid { chain, key, roots }) = svid else { return (None, None, None) };
        let certificates = |der: &[Vec<u8>]| {
            der.iter().map(|der| CertificateDer::from(der.clone())).collect::<Vec<_>>()
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone()));
        (
            Some((socket, certificates(chain))),
            Some((socket, key)),
            Some((socket, certificates(roots))),
        )
    }

    pub(super) fn chain<'a>(&mut self, files: &FileContents, at: &'a Located) -> Chain<'a> {
        let (path, bytes) = self.first(files, &at.certificate, "the certificate chain")?;
        Some((path, self.keep(path, pem::certificates(bytes))?))
    }

    pub(super) fn key<'a>(&mut self, files: &FileContents, at: &'a Located) -> Key<'a> {
        if at.private_key.is_empty() {
            // Certificates alone are looked at.
            return None;
        }
        let (path, bytes) = self.first(files, &at.private_key, "the private key")?;
        Some((path, self.keep(path, pem::private_key(bytes))?))
    }

    pub(super) fn root_file<'a>(&mut self, files: &FileContents, at: &'a Located) -> Chain<'a> {
        let (path, bytes) = self.first(files, &at.roots, "the CA's certificates")?;
        Some((path, self.keep(path, pem::certificates(bytes))?))
    }

    /// Revocation lists, where there are any.
    pub(super) fn lists<'a>(
        &mut self,
        files: &FileContents,
        at: &'a Located,
    ) -> FoundFile<'a, Vec<CertificateRevocationListDer<'static>>> {
        let there = at.crl.iter().any(|path| files.get(path) != Err(Unreadable::Absent));
        if at.crl.is_empty() || (!there && !at.crl_named) {
            return None;
        }
        let (path, bytes) = self.first(files, &at.crl, "the revocation lists")?;
        Some((path, self.keep(path, pem::crls(bytes))?))
    }

    /// The first of these files that is there.
    fn first<'f, 'p>(
        &mut self,
        files: &'f FileContents,
        paths: &'p [PathBuf],
        what: &'static str,
    ) -> Option<(&'p Path, &'f [u8])> {
        for path in paths {
            match files.get(path) {
                Ok(bytes) => return Some((path, bytes)),
                Err(Unreadable::Absent) if paths.len() > 1 => {}
                Err(error) => {
                    let why = format!("{error}; expected {what}");
                    self.faults.push(CredentialFault::File { path: path.clone(), why });
                    return None;
                }
            }
        }
        self.faults.push(CredentialFault::Missing { what, paths: paths.to_vec() });
        None
    }
}
