//! The admin endpoints: `/stats`, `/clusters`, `/config_dump`, readiness, Prometheus.
//!
//! Those of the gateway's admin port can also change a little (`POST`): the log's level, readiness, and
//! whether the process drains. They run on threads of their own, health on one apart from the rest: neither
//! a slow scraper nor a long `/stats` disturbs the workers or a node's question whether this gateway
//! is ready. Who is served: [`Callers`](crate::policy::Callers). How many
//! connections a source may hold: [`places`].

mod certificate_metrics;
mod clusters;
pub(crate) mod control;
mod dump;
mod event_losses;
mod exposition;
mod info;
mod logging;
pub(crate) mod node_metrics;
mod otlp_metrics;
mod places;
mod process_metrics;
mod prometheus;
mod query;
mod rollout;
mod routes;
mod serve;
mod server;
mod sources;
mod stats;
mod status;
mod tunnel_metrics;
mod ui;

pub use server::{Admin, AdminError, AdminListeners, AdminPorts};
pub use sources::AdminSources;
pub use status::{ConfigState, DrainManner, Listener, State, Status};

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
