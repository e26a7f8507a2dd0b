//! `/stats`: Envoy's text and JSON forms.

use egress_ebpf::reason::Reason;
use regex::Regex;
use serde_json::json;

use super::{State, Status};
use crate::telemetry::{ClusterCounter, LineFate, Resource, Telemetry};

/// Which values to show.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Only names that match.
    pub(super) name: Option<Regex>,
    /// Only what isn't zero.
    pub(super) used_only: bool,
}

impl Filter {
    fn takes(&self, (name, value): &(String, u64)) -> bool {
        (!self.used_only || *value != 0)
            && self.name.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

/// `name: value`, a line each, sorted by name.
pub(super) fn text(telemetry: &Telemetry, status: &Status, filter: &Filter) -> String {
    let mut text = String::new();
    for (name, value) in values(telemetry, status, filter) {
        text.push_str(&name);
        text.push_str(": ");
        text.push_str(&value.to_string());
        text.push('\n');
    }
    text
}

/// `{"stats":[{"name":…,"value":…}]}`.
pub(super) fn json(telemetry: &Telemetry, status: &Status, filter: &Filter) -> String {
    let stats: Vec<_> = values(telemetry, status, filter)
        .into_iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    json!({ "stats": stats }).to_string()
}

fn values(telemetry: &Telemetry, status: &Status, filter: &Filter) -> Vec<(String, u64)> {
    let mut all = all(telemetry, status);
    all.retain(|value| filter.takes(value));
    all.sort();
    all
}

fn all(telemetry: &Telemetry, status: &Status) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    let mut add = |name: String, value: u64| all.push((name, value));
    for (name, cluster) in telemetry.stats.clusters() {
        for counter in ClusterCounter::ALL {
            add(format!("cluster.{name}.{}", counter.name()), cluster.get(*counter));
        }
        for (gauge, value) in cluster.gauges() {
            add(format!("cluster.{name}.{gauge}"), value);
        }
    }
    for reason in denials(telemetry) {
        let value = telemetry.stats.denied_total(reason);
        add(format!("egress.denied.{}", reason.name()), value);
    }
    let limits = telemetry.stats.limits();
    for resource in Resource::ALL {
        let name = resource.name();
        add(format!("egress.limit.{name}.bound"), limits.limit(resource));
        add(format!("egress.limit.{name}.used"), limits.used(resource));
        add(format!("egress.limit.{name}.refused"), limits.refused_total(resource));
        add(format!("egress.limit.{name}.closed"), limits.closed_total(resource));
    }
    let config = status.config();
    add("egress.config.accepted".into(), config.accepted);
    add("egress.config.rejected".into(), config.rejected);
    add("egress.config.current".into(), config.current.into());
    let log = telemetry.access_log.counts();
    add("access_log.written".into(), log.lines);
    add("access_log.dropped".into(), log.dropped);
    let aggregated =
        telemetry.access_log.unwritten().into_iter().filter_map(|lines| {
            matches!(lines.fate, LineFate::Aggregated(_)).then_some(lines.count)
        });
    add("access_log.aggregated".into(), aggregated.sum());
    add("access_log.write_failed".into(), log.write_failed);
    add("access_log.reopened".into(), log.reopened);
    add("server.live".into(), (status.state() == State::Live).into());
    add("server.uptime".into(), telemetry.stats.uptime());
    all
}

/// The reasons that are shown: the gateway's, and any other that was counted.
pub(super) fn denials(telemetry: &Telemetry) -> impl Iterator<Item = Reason> {
    Reason::ALL
        .iter()
        .copied()
        .filter(|reason| *reason as u8 >= 64 || telemetry.stats.denied_total(*reason) != 0)
}
