//! Whose share a flow takes.

use std::net::IpAddr;

use super::FlowRecord;

/// Who caused a flow: the workload's name; else the cgroup, the interface or the address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::telemetry) enum FlowOrigin {
    Workload(Option<String>, String),
    Cgroup(String),
    Interface(String),
    Address(Option<IpAddr>),
}

impl FlowOrigin {
    pub(in crate::telemetry) fn of(flow: &FlowRecord) -> Self {
        match (&flow.workload, &flow.cgroup, &flow.interface) {
            (Some(name), _, _) => Self::Workload(flow.namespace.clone(), name.clone()),
            (None, Some(cgroup), _) => Self::Cgroup(cgroup.clone()),
            (None, None, Some(interface)) => Self::Interface(interface.clone()),
            (None, None, None) => Self::Address(flow.source_address),
        }
    }
}
