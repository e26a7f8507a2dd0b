//! Resolving, connecting, copying bytes, draining.

mod dial;

pub use dial::{DialError, Dialer, Lease, Upstream};
