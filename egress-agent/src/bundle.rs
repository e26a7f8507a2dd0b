//! One archive of what a report about a fault needs, without secrets.

mod redact;
mod tar;

pub use self::{redact::redacted, tar::Archive};
