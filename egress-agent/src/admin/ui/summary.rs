//! `/ui/summary`: what is in force, who talks to what, and what is refused most.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use serde_json::{Value, json};

use crate::{
    admin::Status,
    policy::OutboundMode,
    telemetry::{DURATION_BUCKETS, FlowRecord, RequestProtocol, Telemetry, rfc3339},
};

/// Rows of each table.
const ROWS: usize = 100;

/// As an object.
pub(super) fn json(telemetry: &Telemetry, status: &Status) -> String {
    let config = status.config();
    let snapshot = config.snapshot.as_deref();
    let outbound = snapshot.map_or("none is in force: everything is refused", |snapshot| {
        match snapshot.mesh.outbound {
            OutboundMode::RegistryOnly => "REGISTRY_ONLY",
            OutboundMode::AllowAny => "ALLOW_ANY",
        }
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": status.state().name(),
        "problems": status.faults(),
        "current": config.current,
        "accepted": config.accepted,
        "rejected": config.rejected,
        "outbound_policy": outbound,
        "services": snapshot.map_or(0, |snapshot| snapshot.rules.services.len()),
        "clusters": config.clusters.len(),
        "egress_policies": snapshot.map_or(0, |snapshot| snapshot.rules.egress.len()),
        "workloads": snapshot.map_or(0, |snapshot| snapshot.mesh.workloads.len()),
        "refusals": refusals(telemetry),
        "talks": talks(telemetry),
    })
    .to_string()
}

/// Refusals that are remembered, by workload, destination and reason; the most frequent first.
fn refusals(telemetry: &Telemetry) -> Vec<Value> {
    let history = telemetry.flows.history();
    let mut rows: HashMap<(String, String, &str), (u64, &FlowRecord)> = HashMap::new();
    for flow in history.iter().filter(|flow| flow.is_refusal()) {
        let flow: &FlowRecord = flow;
        let reason = flow.reason.as_deref().unwrap_or_default();
        let row = rows.entry((workload(flow), destination(flow), reason)).or_insert((0, flow));
        // Oldest first, so the last one stays.
        *row = (row.0 + 1, flow);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(a, (x, _)), (b, (y, _))| (Reverse(x), a).cmp(&(Reverse(y), b)));
    let row = |((workload, destination, reason), (times, last)): (
        (String, String, &str),
        (u64, &FlowRecord),
    )| {
        json!({
            "times": times,
            "workload": workload,
            "destination": destination,
            "reason": reason,
            "detail": last.detail,
            "audit": last.audit,
            "last": rfc3339::text(last.time),
        })
    };
    rows.into_iter().take(ROWS).map(row).collect()
}

fn workload(flow: &FlowRecord) -> String {
    match (&flow.namespace, &flow.workload, flow.source_address) {
        (Some(namespace), Some(name), _) => format!("{namespace}/{name}"),
        (_, _, Some(source)) => source.to_string(),
        _ => "unknown".into(),
    }
}

fn destination(flow: &FlowRecord) -> String {
    // ICMP and ARP have no port.
    let port = flow.destination_port.filter(|port| *port != 0);
    let address = |addr: IpAddr| match port {
        Some(port) => SocketAddr::new(addr, port).to_string(),
        None => addr.to_string(),
    };
    let unknown = || port.map_or_else(|| "?".to_owned(), |port| format!("?:{port}"));
    flow.host_with_port().or_else(|| flow.destination_address.map(address)).unwrap_or_else(unknown)
}

/// Requests and connections by workload and service, from the metrics; the most frequent first.
fn talks(telemetry: &Telemetry) -> Vec<Value> {
    let mut rows: HashMap<(String, String, &str), u64> = HashMap::new();
    for series in telemetry.stats.series() {
        let key = series.key();
        // `outbound|<port>|<subset>|<host>`; what has none was refused.
        let Some(cluster) = key.cluster.filter(|cluster| cluster.starts_with("outbound|")) else {
            continue;
        };
        let parts: Vec<&str> = cluster.split('|').collect();
        let [_, port, _, host] = parts[..] else { continue };
        let workload = key.source.map_or_else(
            || "unknown".to_owned(),
            |(workload, namespace)| format!("{namespace}/{workload}"),
        );
        let times = match key.protocol {
            RequestProtocol::Http | RequestProtocol::Grpc => {
                series.durations()[DURATION_BUCKETS.len()]
            }
            RequestProtocol::Tcp => series.connections_opened(),
        };
        *rows.entry((workload, format!("{host}:{port}"), key.protocol.name())).or_default() +=
            times;
    }
    let mut rows: Vec<_> = rows.into_iter().filter(|(_, times)| *times > 0).collect();
    rows.sort_by(|(a, x), (b, y)| (Reverse(x), a).cmp(&(Reverse(y), b)));
    let row = |((workload, service, protocol), times): ((String, String, &str), u64)| json!({ "times": times, "workload": workload, "service": service, "protocol": protocol });
    rows.into_iter().take(ROWS).map(row).collect()
}
