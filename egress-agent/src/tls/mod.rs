//! Trust roots, origination, termination, certificates and their reload.

mod accept;
mod accept_error;
mod args;
mod basic;
mod certificates;
mod client;
mod collector;
mod config;
mod credential;
mod credentials;
mod error;
mod gateway;
mod judged;
mod origin;
mod pem;
mod server;
mod signatures;
#[cfg(test)]
pub(crate) mod testing;
mod verify;
mod workload_api;
mod x509;

pub use accept::{Refused, Terminated, accept};
pub use accept_error::AcceptError;
pub use args::CertificateArgs;
pub use basic::basic_authorization;
pub use collector::CollectorTls;
pub use config::{Alpn, TrustRoots, negotiated_group};
pub use credential::{
    Credential, CredentialFault, CredentialStore, Inspection, Located, Needs, Places,
};
pub use credentials::{CredentialState, Credentials, Unusable};
pub use error::TlsError;
pub use judged::{Ending, Judged, PeerEnded};
pub use origin::Originator;
#[cfg(test)]
pub(crate) use workload_api::testing as workload_api_testing;
pub use workload_api::{Given, Svid, WorkloadApi};
pub use x509::{CertificateInfo, CrlInfo, date, days_left, unix_seconds};
