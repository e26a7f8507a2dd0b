//! The compiled configuration: pure, no I/O.
//!
//! [`Snapshot`] is published whole on every change. The node derives its kernel plan from it, a
//! gateway its [`GatewayPolicy`]; so the two can't disagree.

mod cluster;
mod decision;
mod log_format;
mod snapshot;

pub use cluster::{
    ClientTls, ClientTlsMode, Cluster, ClusterName, ConnectionPool, Discovery, Endpoint,
    HttpVersion, LoadBalancer, OutlierDetection,
};
pub use decision::{
    Denied, HeaderOps, HttpAction, HttpRequest, HttpRoute, PortMode, RetryOn, RetryPolicy,
    TcpRoute, TlsConnection,
};
pub use log_format::{AddressPart, Field, JSON_OWN, LogFormat, LogFormatError, Segment};
pub use snapshot::{
    AccessLogEncoding, Direct, DirectTarget, Enforcement, GatewayGroup, GatewayPolicy, MeshConfig,
    NodeAction, NodePolicy, NodeRoute, OutboundMode, Snapshot,
};
