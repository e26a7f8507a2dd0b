//! Enforcement on a node: the reconciler, which keeps the kernel equal to the configuration, and what
//! it needs to know: health of gateways, addresses of names, workloads, sockets that are stale.

mod changes;
mod cluster_routes;
mod condition;
mod counters;
pub(crate) mod dns;
mod enforced_interfaces;
mod enrichment;
mod exemptions;
mod exposure;
pub(crate) mod flows;
mod health;
mod inputs;
mod interfaces_by_cgroup;
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
pub(crate) mod takeover;
pub(crate) mod tunnel;

pub(crate) use self::{
    condition::Condition,
    counters::NodeCounters,
    enforced_interfaces::EnforcedInterfaces,
    enrichment::{FlowEnricher, WorkloadIndex},
    exposure::{Exposure, ExposureKind},
    flows::{Format as EventFormat, Naming, Printer},
    health::{Checker, ProbeIdentity, Probing, ask_revisions},
    known::{KnownPods, unnamed_policy},
    modes::{AuditReminder, Modes, SetMode, name as mode_name},
    notify::first_start,
    pods::Pod,
    reconcile::{Reconciler, ReconcilerInputs},
    tunnel::NodeTunnel,
};
