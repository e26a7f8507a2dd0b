//! What can be wrong with a credential.

use std::{path::PathBuf, time::SystemTime};

use thiserror::Error;

use crate::{
    tls::x509::date,
    types::{SpiffeId, TrustDomain},
};

/// What is wrong with a credential.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CredentialFault {
    /// The option that says where it is wasn't given.
    #[error("{what} needs a certificate: start the agent with {option}")]
    NoDirectory {
        /// Who needs it.
        what: String,
        /// The option.
        option: &'static str,
    },
    /// The Workload API gave no identity yet.
    #[error("the Workload API at {} gave no identity: {why}", socket.display())]
    NoIdentity {
        /// Its socket.
        socket: PathBuf,
        /// What it said.
        why: String,
    },
    /// The Workload API doesn't tell of changes now.
    #[error(
        "the Workload API at {} tells no news ({why}); what it gave last stays in use while it is valid",
        socket.display()
    )]
    NoNews {
        /// Its socket.
        socket: PathBuf,
        /// What it said.
        why: String,
    },
    /// A file can't be read, or holds something else.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was found and what was expected.
        why: String,
    },
    /// None of several files is there.
    #[error("{what}: found none of {}", names(paths))]
    Missing {
        /// What should be there.
        what: &'static str,
        /// Where.
        paths: Vec<PathBuf>,
    },
    /// The key is another certificate's.
    #[error(
        "{}: this key is not the one of the certificate in {}; replace both together",
        key.display(),
        certificate.display()
    )]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate's time is over.
    #[error("{}: the certificate expired on {}; renew it", path.display(), date(*not_after))]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        not_after: SystemTime,
    },
    /// The certificate's time hasn't come.
    #[error(
        "{}: the certificate is not valid before {}; is this host's clock right?",
        path.display(),
        date(*not_before)
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When.
        not_before: SystemTime,
    },
    /// It has no SPIFFE ID, or too many.
    #[error("{}: {why}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        why: String,
    },
    /// Another mesh's.
    #[error(
        "{}: found the trust domain {found} ({id}), expected {expected}; issue the certificate in that trust domain, or set trustDomain in mesh.yaml",
        path.display(),
        found = id.trust_domain
    )]
    TrustDomain {
        /// The file.
        path: PathBuf,
        /// The identity.
        id: SpiffeId,
        /// Ours.
        expected: TrustDomain,
    },
    /// A certificate of the chain isn't signed by the one that follows.
    #[error(
        "{}: certificate {number} of the chain was issued by {issuer:?}, but is followed by {next:?}; put them in order, the leaf first",
        path.display()
    )]
    Order {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        number: usize,
        /// Who issued it.
        issuer: String,
        /// Who follows.
        next: String,
    },
    /// A root's time is over.
    #[error("{}: the root {subject:?} expired on {}", path.display(), date(*not_after))]
    RootExpired {
        /// The file.
        path: PathBuf,
        /// Which.
        subject: String,
        /// When.
        not_after: SystemTime,
    },
    /// A revocation list is out of date.
    #[error(
        "{}: the revocation list of {issuer:?} was to be replaced by {}; until then every certificate of that CA is refused",
        path.display(),
        date(*next_update)
    )]
    CrlExpired {
        /// The file.
        path: PathBuf,
        /// Whose.
        issuer: String,
        /// When.
        next_update: SystemTime,
    },
}

fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl CredentialFault {
    /// Whether the credential can't be used because of it. What is left may refuse clients, but
    /// never lets one in.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Order { .. }
            | Self::RootExpired { .. }
            | Self::CrlExpired { .. }
            | Self::NoNews { .. } => false,
            Self::NoDirectory { .. }
            | Self::NoIdentity { .. }
            | Self::File { .. }
            | Self::Missing { .. }
            | Self::Mismatch { .. }
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::Identity { .. }
            | Self::TrustDomain { .. } => true,
        }
    }
}
