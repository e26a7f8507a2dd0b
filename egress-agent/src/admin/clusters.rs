//! `/clusters`: Envoy's forms, a line a fact or JSON.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::{ConfigState, info::socket_address};
use crate::{
    policy::{Cluster, Discovery},
    telemetry::{EndpointCounter, Telemetry},
};

/// `<cluster>::<address>::<name>::<value>`, sorted.
pub(super) fn text(telemetry: &Telemetry, config: &ConfigState) -> String {
    let mut text = String::new();
    let written = write_all(telemetry, config, &mut text);
    debug_assert!(written.is_ok(), "a text in memory takes everything");
    text
}

fn write_all(telemetry: &Telemetry, config: &ConfigState, text: &mut String) -> fmt::Result {
    for (name, stats) in telemetry.stats.clusters() {
        let cluster = config.clusters.iter().find(|cluster| cluster.name == name);
        writeln!(text, "{name}::observability_name::{name}")?;
        if let Some(cluster) = cluster {
            let pool = &cluster.pool;
            writeln!(text, "{name}::default_priority::max_connections::{}", pool.max_connections)?;
            writeln!(text, "{name}::default_priority::max_requests::{}", pool.max_requests)?;
        }
        writeln!(text, "{name}::added_via_api::{}", cluster.is_some())?;
        for (addr, endpoint) in stats.endpoints() {
            for counter in EndpointCounter::ALL {
                writeln!(text, "{name}::{addr}::{}::{}", counter.name(), endpoint.get(*counter))?;
            }
            if let Some(host) = cluster.and_then(|cluster| hostname(cluster)) {
                writeln!(text, "{name}::{addr}::hostname::{host}")?;
            }
        }
    }
    Ok(())
}

/// The same in Envoy's JSON form.
pub(super) fn json(telemetry: &Telemetry, config: &ConfigState) -> String {
    let all: Vec<Value> = telemetry
        .stats
        .clusters()
        .iter()
        .map(|(name, stats)| {
            let cluster = config.clusters.iter().find(|cluster| cluster.name == *name);
            let hosts: Vec<Value> = stats
                .endpoints()
                .iter()
                .map(|(addr, endpoint)| {
                    let stats: Vec<Value> = EndpointCounter::ALL
                        .iter()
                        .map(|counter| {
                            let value = endpoint.get(*counter).to_string();
                            json!({ "name": counter.name(), "value": value })
                        })
                        .collect();
                    json!({
                        "address": { "socket_address": socket_address(addr.0) },
                        "stats": stats,
                        "hostname": cluster.and_then(|cluster| hostname(cluster)),
                    })
                })
                .collect();
            json!({
                "name": name.to_string(),
                "added_via_api": cluster.is_some(),
                "observability_name": name.to_string(),
                "host_statuses": hosts,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "cluster_statuses": all }))
}

/// The one name that its endpoints are resolved from.
fn hostname(cluster: &Cluster) -> Option<String> {
    match &cluster.discovery {
        Discovery::Dns(names) => match &names[..] {
            [(host, _)] => Some(host.to_string()),
            _ => None,
        },
        Discovery::Static(_) | Discovery::Request(_) => None,
    }
}
