//! `/clusters`: Envoy's form, a line a fact.

use std::fmt::{self, Write as _};

use super::ConfigState;
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
