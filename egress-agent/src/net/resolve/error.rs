//! Why a name has no address.

use thiserror::Error;

/// Why a name has no address.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ResolveError {
    /// The name doesn't exist (NXDOMAIN).
    #[error("no such name (NXDOMAIN)")]
    NoSuchName,
    /// It exists, but has neither an A nor an AAAA record.
    #[error("the name has no address")]
    NoAddress,
    /// No answer from the server.
    #[error("the DNS server did not answer in time")]
    Timeout,
    /// The server refused or failed.
    #[error("the DNS server answered {0}")]
    Server(String),
    /// The asking workload has as many look-ups waiting as its share allows.
    #[error("too many look-ups of this workload are waiting for an answer")]
    Overflow,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl ResolveError {
    /// Whether the name server said something about the name, rather than failing.
    pub(super) fn is_about_the_name(&self) -> bool {
        match self {
            Self::NoSuchName | Self::NoAddress => true,
            Self::Timeout | Self::Server(_) | Self::Overflow | Self::Failed(_) => false,
        }
    }
}
