//! Trust roots, origination, certificates and their reload.

mod config;
mod error;
mod origin;
mod verify;

pub use config::{Alpn, TrustRoots};
pub use error::TlsError;
pub use origin::Originator;
