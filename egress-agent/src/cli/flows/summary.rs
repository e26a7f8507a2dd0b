//! `flows --summary`: per workload, destination and reason, how often and when. It is what to read
//! before enforcement follows audit.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use jiff::Timestamp;
use serde_json::json;

use super::super::wrap::{WIDTH, wrap};
use crate::{
    bpf::Hook,
    telemetry::{FlowRecord, FlowVerdict, rfc3339},
};

/// Before what is said of a row below it.
const BELOW: &str = "       ";

/// What the flows of a row have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Key {
    workload: String,
    destination: String,
    protocol: String,
    verdict: &'static str,
    reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FlowCount {
    times: u64,
    first: SystemTime,
    last: SystemTime,
}

/// The rows, most frequent first.
#[derive(Debug)]
pub(super) struct Summary(Vec<(Key, FlowCount)>);

impl Summary {
    /// Of flows in any order.
    pub(super) fn of<'a>(flows: impl IntoIterator<Item = &'a FlowRecord>) -> Self {
        let flows: Vec<&FlowRecord> = flows.into_iter().collect();
        let at_pods: HashSet<_> = flows
            .iter()
            .filter(|flow| is_audited(flow, Hook::Pod))
            .map(|flow| ends(flow))
            .collect();
        let mut rows: HashMap<Key, FlowCount> = HashMap::new();
        for flow in flows {
            // What audit mode lets pass at the pod's interface is judged once more where it leaves the node.
            if is_audited(flow, Hook::Uplink) && at_pods.contains(&ends(flow)) {
                continue;
            }
            let FlowRecord { time, .. } = *flow;
            let tally =
                rows.entry(key(flow)).or_insert(FlowCount { times: 0, first: time, last: time });
            tally.times += 1;
            tally.first = tally.first.min(time);
            tally.last = tally.last.max(time);
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by(|(a, x), (b, y)| (Reverse(x.times), a).cmp(&(Reverse(y.times), b)));
        Self(rows)
    }

    /// As a table for people, in 80 columns: what does not fit goes on in lines below.
    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |head: &str, of: fn(&Key) -> &str, most: usize| {
            let widths = self.0.iter().map(|(key, _)| of(key).chars().count());
            widths.max().unwrap_or(0).clamp(head.len(), most)
        };
        let workloads = width("WORKLOAD", |key| &key.workload, 24);
        let protocols = width("PROTOCOL", |key| &key.protocol, 12);
        let row = |times: &str, workload: &str, protocol: &str, destination: &str| {
            format!("{times:<6} {workload:<workloads$}  {protocol:<protocols$}  {destination}")
        };
        writeln!(out, "{}", row("TIMES", "WORKLOAD", "PROTOCOL", "DESTINATION"))?;
        for (key, tally) in &self.0 {
            let times = tally.times.to_string();
            let line = row(&times, &key.workload, &key.protocol, &key.destination);
            if line.chars().count() <= WIDTH {
                writeln!(out, "{line}")?;
            } else {
                writeln!(out, "{}", row(&times, &key.workload, &key.protocol, "").trim_end())?;
                write!(out, "{}", wrap(&key.destination, BELOW, BELOW, WIDTH))?;
            }
            let verdict = match &*key.reason {
                "" => key.verdict.to_owned(),
                reason => format!("{} ({reason})", key.verdict),
            };
            let [first, last] = [tally.first, tally.last].map(seconds);
            let when = if first == last { first } else { format!("{first} to {last}") };
            write!(out, "{}", wrap(&format!("{verdict}, {when}"), BELOW, BELOW, WIDTH))?;
        }
        Ok(())
    }

    /// As a JSON object a row.
    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        for (key, tally) in &self.0 {
            let row = json!({
                "times": tally.times,
                "workload": key.workload,
                "destination": key.destination,
                "protocol": key.protocol,
                "verdict": key.verdict,
                "reason": key.reason,
                "first": rfc3339::text(tally.first),
                "last": rfc3339::text(tally.last),
            });
            writeln!(out, "{row}")?;
        }
        Ok(())
    }
}

/// `2026-11-30T12:00:00Z`: JSON has the fractions.
fn seconds(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether this hook would have refused it but for audit mode.
fn is_audited(flow: &FlowRecord, hook: Hook) -> bool {
    flow.audit && flow.verdict == FlowVerdict::Deny && flow.hook == hook.name()
}

/// Where a packet came from and went to.
type SourceAndDestination<'f> =
    (Option<IpAddr>, Option<u16>, Option<IpAddr>, Option<u16>, &'f str, Option<&'f String>);

fn ends(flow: &FlowRecord) -> SourceAndDestination<'_> {
    let FlowRecord { source_address, source_port, destination_address, destination_port, .. } =
        *flow;
    let (protocol, server) = (&*flow.protocol, flow.server.as_ref());
    (source_address, source_port, destination_address, destination_port, protocol, server)
}

fn key(flow: &FlowRecord) -> Key {
    Key {
        workload: workload(flow),
        destination: destination(flow),
        protocol: flow.protocol.clone(),
        verdict: verdict(flow),
        reason: flow.reason.as_deref().unwrap_or_default().to_owned(),
    }
}

/// The best name that the flow has.
fn workload(flow: &FlowRecord) -> String {
    if let (Some(namespace), Some(name)) = (&flow.namespace, &flow.workload) {
        return format!("{namespace}/{name}");
    }
    let place = flow.cgroup.as_ref().or(flow.interface.as_ref());
    match (place, flow.source_address) {
        (Some(place), _) => place.clone(),
        (None, Some(source)) => source.to_string(),
        (None, None) => "?".into(),
    }
}

/// With the name that is known. Names are the client's words and mustn't steer the terminal.
fn destination(flow: &FlowRecord) -> String {
    let port = flow.destination_port.unwrap_or(0);
    let address = flow.destination_address.map(|addr| match port {
        0 => addr.to_string(),
        port => SocketAddr::new(addr, port).to_string(),
    });
    let host = match address {
        Some(_) => flow.host.clone(),
        None => flow.host_with_port(),
    };
    let host = host.map(|host| host.escape_debug().to_string());
    match (host, address) {
        (Some(host), Some(address)) => format!("{host} ({address})"),
        (Some(host), None) => host,
        (None, Some(address)) => address,
        (None, None) if port != 0 => format!("?:{port}"),
        (None, None) => "?".into(),
    }
}

fn verdict(flow: &FlowRecord) -> &'static str {
    match (flow.verdict, flow.audit) {
        (FlowVerdict::Allow, _) => "allowed",
        (FlowVerdict::Redirect, false) => "redirected",
        (FlowVerdict::Redirect, true) => "would redirect",
        (FlowVerdict::Deny, false) => "denied",
        (FlowVerdict::Deny, true) => "would deny",
        (FlowVerdict::Fail, _) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cli::testing::{documented, golden},
        telemetry::flow_tests::{dropped, redirected},
    };

    fn text(flows: &[FlowRecord]) -> String {
        let mut text = Vec::new();
        Summary::of(flows).write_text(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Names are as long as workloads make them.
    #[test]
    fn no_row_is_wider_than_a_terminal() {
        let long = FlowRecord {
            namespace: Some("a-namespace-of-many-letters".into()),
            workload: Some("web-7d9f8c6b5d-x2lqz".into()),
            host: Some("a-rather-long-name.of.a.service.example.com".into()),
            destination_address: Some("2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap()),
            protocol: "protocol 253".into(),
            audit: true,
            ..dropped()
        };
        // At a gateway, which does not know what was dialled: each port is one row, and a port is shown once.
        let at_gateway = |host: Option<&str>, port: u16| FlowRecord {
            hook: "gateway".into(),
            host: host.map(Into::into),
            destination_address: None,
            destination_port: Some(port),
            ..dropped()
        };
        let named = [
            at_gateway(Some("www.example.com"), 80),
            at_gateway(Some("www.example.com"), 443),
            at_gateway(Some("www.example.com:8080"), 8080),
            at_gateway(None, 9),
        ];
        let all = [dropped(), redirected(), dropped(), long];
        golden("flows-summary.txt", &text(&[&all[..], &named].concat()));
        golden("flows-summary-empty.txt", &text(&[]));
    }

    #[test]
    fn flows_of_one_kind_are_one_row() {
        let later =
            |flow: FlowRecord| FlowRecord { time: flow.time + Duration::from_secs(9), ..flow };
        let audited = FlowRecord { audit: true, ..dropped() };
        let flows = [later(dropped()), redirected(), dropped(), audited];
        let text = text(&flows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        assert!(lines[1].starts_with("2      default/web"), "{text}");
        assert_eq!(
            lines[2].trim(),
            "denied (not_redirected), 1970-01-01T00:00:01Z to 1970-01-01T00:00:10Z"
        );
        assert_eq!(lines.iter().filter(|line| line.contains("would deny")).count(), 1);

        let mut json = Vec::new();
        Summary::of(&flows).write_json(&mut json).unwrap();
        let first = String::from_utf8(json).unwrap().lines().next().unwrap().to_owned();
        let first: serde_json::Value = serde_json::from_str(&first).unwrap();
        documented("flows --summary -o json", &first);
        assert_eq!((&first["times"], &first["workload"]), (&2.into(), &"default/web".into()));
        assert_eq!(first["destination"], "198.51.100.7:443");
    }

    #[test]
    fn a_packet_that_audit_lets_pass_counts_where_it_was_judged_first() {
        let unknown = FlowRecord { workload: None, namespace: None, audit: true, ..dropped() };
        let uplink = |flow: FlowRecord| FlowRecord {
            hook: "uplink".into(),
            interface: Some("eth0".into()),
            ..flow
        };
        let Summary(rows) = Summary::of(&[unknown.clone(), uplink(unknown.clone())]);
        let names: Vec<_> = rows.iter().map(|(key, _)| key.workload.as_str()).collect();
        assert_eq!((names, rows[0].1.times), (vec!["veth-web"], 1));
        // What only the uplink judged, and what was refused there, are rows of their own.
        let other = FlowRecord { destination_port: Some(22), ..unknown.clone() };
        let refused = FlowRecord { audit: false, ..unknown.clone() };
        let Summary(rows) = Summary::of(&[unknown, uplink(other), uplink(refused)]);
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn the_same_address_of_another_workload_is_another_row() {
        let other = FlowRecord { workload: Some("batch".into()), ..dropped() };
        let unknown = FlowRecord { workload: None, namespace: None, ..dropped() };
        let Summary(rows) = Summary::of(&[dropped(), other, unknown]);
        let names: Vec<_> = rows.iter().map(|(key, _)| key.workload.as_str()).collect();
        assert_eq!(names, ["default/batch", "default/web", "veth-web"]);
    }
}
