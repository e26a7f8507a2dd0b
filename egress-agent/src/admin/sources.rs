//! Who may ask the health and the metrics endpoint, and whether the admin port has a page for browsers.

use ipnet::IpNet;

/// Sources that the health and metrics endpoints serve besides nodes and loopback. With an empty
/// list an endpoint serves every source but the workloads under enforcement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdminSources {
    /// `/healthz/ready`.
    pub health: Vec<IpNet>,
    /// `/stats/prometheus`.
    pub metrics: Vec<IpNet>,
    /// Whether `/ui` is served on the admin port.
    pub ui: bool,
}
