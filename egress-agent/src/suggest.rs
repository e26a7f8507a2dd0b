//! Suggested policy: from what was refused, or would have been but for audit mode, the smallest resources
//! that allow it and nothing else.
//!
//! What a workload asks for is its own word: a suggestion is to be read before it is applied. What cannot
//! be allowed by a resource (UDP, forged sources, unknown workloads) is left out and counted.

mod earlier_routes;
mod istio;
mod names;
mod observed_traffic;
mod policy;
mod suggestion;
mod yaml;

pub use self::{
    earlier_routes::EarlierRoutes,
    istio::{GatewayPlace, istio},
    observed_traffic::{Labelled, ObservedTraffic},
    policy::{applied, policies},
    suggestion::{InForce, Part, Suggestion},
};

#[cfg(test)]
mod tests;
