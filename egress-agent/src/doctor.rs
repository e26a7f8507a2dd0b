//! Whether a host is fit for the agents, before anything is installed. Nothing is changed: programs are
//! verified and let go of, ports are bound and closed.

mod checks;
mod dns;
mod facts;

pub use self::{
    checks::{Finding, Level, findings},
    facts::{HostFacts, Role},
};
