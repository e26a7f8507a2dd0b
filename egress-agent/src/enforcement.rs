//! Enforcement on a node: the reconciler, which keeps the kernel equal to the configuration, and what
//! it needs to know: health of gateways, addresses of names, workloads, sockets that are stale.

mod behind;
mod changes;
mod cluster_routes;
mod condition;
mod counters;
pub(crate) mod dns;
mod enrichment;
mod exemptions;
mod exposure;
pub(crate) mod flows;
mod health;
mod inputs;
mod known;
mod modes;
pub(crate) mod notify;
mod observe;
mod own;
pub(crate) mod plan;
mod pods;
mod process;
mod reconcile;
mod sockets;
mod standing;
pub(crate) mod takeover;
pub(crate) mod tunnel;

pub(crate) use self::{
    condition::Condition,
    counters::Tally,
    enrichment::{Namer, Who},
    exposure::{Exposure, Promise},
    flows::{Format as EventFormat, Naming, Printer},
    health::{Checker, Introduction, Probing, ask_revisions},
    known::{KnownPods, unnamed_policy},
    modes::{Modes, SetMode, Shout, name as mode_name},
    notify::first_start,
    pods::Pod,
    reconcile::{Parts, Reconciler},
    standing::Standing,
    tunnel::NodeTunnel,
};
