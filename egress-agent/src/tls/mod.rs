//! Trust roots, origination, certificates and their reload.

mod error;
mod origin;

pub use error::TlsError;
pub use origin::{Alpn, Originator};
