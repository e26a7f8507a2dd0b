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
mod origin;
mod pem;
mod revocable;
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
    Credential, CredentialFault, CredentialLocations, CredentialStore, Inspection, Located, Needs,
};
pub use credentials::{CredentialState, Credentials, Unusable};
pub use error::TlsError;
pub use origin::{ClientHandshake, Originator};
pub use revocable::{PeerEnded, RevocableStream, RevocationSignal};
#[cfg(test)]
pub(crate) use workload_api::testing as workload_api_testing;
pub use workload_api::{Svid, WorkloadApi, WorkloadMaterial};
pub use x509::{CertificateInfo, CrlInfo, date, days_left, unix_seconds};
