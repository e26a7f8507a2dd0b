//! The admin endpoints: `/stats`, `/clusters`, `/config_dump`, readiness, Prometheus.
//!
//! All of them only read. They run on a thread of their own, so that neither a slow scraper nor a
//! long `/stats` disturbs the workers.

mod clusters;
mod dump;
mod prometheus;
mod query;
mod routes;
mod server;
mod stats;
mod status;

pub use server::{Admin, AdminError, AdminPorts};
pub use status::{ConfigState, State, Status};

#[cfg(test)]
mod tests;
