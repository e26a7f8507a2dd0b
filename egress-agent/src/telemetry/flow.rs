//! Flows: what became of one connection, packet or request, in the form that both roles show it.

mod bounds;
mod causer;
mod decided;
mod log;
mod record;
pub mod rfc3339;
mod text;

pub(crate) use self::bounds::{cut, kept_labels};
pub(in crate::telemetry) use self::causer::FlowOrigin;
pub use self::{
    log::{FlowLog, FollowItem, Follower},
    record::{FlowRecord, FlowVerdict, GATEWAY_HOOK, TUNNEL_HOOK},
};

#[cfg(test)]
pub(crate) mod tests;
