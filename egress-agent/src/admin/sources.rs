//! Who may ask the health and the metrics endpoint.

use ipnet::IpNet;

/// Sources that the health and metrics endpoints serve besides nodes and loopback. With an empty
/// list an endpoint serves every source but the workloads under enforcement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdminSources {
    /// `/healthz/ready`.
    pub health: Vec<IpNet>,
    /// `/stats/prometheus`.
    pub metrics: Vec<IpNet>,
}
