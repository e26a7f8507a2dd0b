//! Flow events as lines: one verdict a line, as text or JSON, on standard output.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use clap::ValueEnum;
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::{
    bpf::{Action, Flow, cgroup_path, ifname},
    types::Workload,
};

/// Lines that may wait for a slow reader; more are dropped and counted.
const QUEUE: usize = 8192;
/// Names of cgroups and interfaces that are remembered.
const REMEMBERED: usize = 4096;

/// How flow events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Not at all; they are counted all the same.
    Off,
}

/// Writes flow events without ever holding up the one who hands them over.
pub(super) struct Printer {
    format: Format,
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
    workloads: HashMap<IpAddr, Arc<Workload>>,
    cgroups: HashMap<u64, Arc<str>>,
    interfaces: HashMap<u32, Arc<str>>,
}

/// One event as JSON.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    hook: &'static str,
    verdict: &'static str,
    reason: &'static str,
    audit: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<u16>,
    protocol: String,
}

impl Printer {
    /// Starts the thread that writes.
    pub(super) fn start(format: Format) -> io::Result<Self> {
        let (lines, receiver) = sync_channel(QUEUE);
        if format != Format::Off {
            thread::Builder::new().name("events".into()).spawn(move || write(&receiver))?;
        }
        Ok(Self {
            format,
            lines,
            dropped: Arc::default(),
            workloads: HashMap::new(),
            cgroups: HashMap::new(),
            interfaces: HashMap::new(),
        })
    }

    /// Lines that were dropped because nobody read them in time.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Who is behind which address.
    pub(super) fn set_workloads(&mut self, workloads: &[Arc<Workload>]) {
        self.workloads = workloads
            .iter()
            .flat_map(|workload| {
                workload.addresses.iter().map(|addr| (addr.to_canonical(), Arc::clone(workload)))
            })
            .collect();
    }

    /// Hands one event over.
    pub(super) fn print(&mut self, flow: &Flow) {
        if self.format == Format::Off {
            return;
        }
        let cgroup = flow.cgroup.map(|id| {
            remembered(&mut self.cgroups, id, |id| {
                cgroup_path(id).map(|path| path.display().to_string())
            })
        });
        let interface = flow.ifindex.map(|index| remembered(&mut self.interfaces, index, ifname));
        let workload = flow.source.and_then(|source| self.workloads.get(&source.ip()));
        let line = Line {
            time: Timestamp::try_from(flow.time).unwrap_or_default().to_string(),
            hook: flow.hook.name(),
            verdict: flow.action.name(),
            reason: flow.reason.name(),
            audit: flow.audit,
            workload: workload.map(|workload| &*workload.name),
            namespace: workload.map(|workload| &*workload.namespace.0),
            cgroup: cgroup.as_deref(),
            interface: interface.as_deref(),
            source_address: flow.source.map(|source| source.ip()),
            source_port: port(flow.source),
            destination_address: flow.destination.map(|destination| destination.ip()),
            destination_port: port(flow.destination),
            protocol: protocol(flow),
        };
        let text = match self.format {
            Format::Text => text(&line, flow),
            Format::Json => serde_json::to_string(&line).unwrap_or_default(),
            Format::Off => return,
        };
        match self.lines.try_send(text) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn port(addr: Option<SocketAddr>) -> Option<u16> {
    addr.map(|addr| addr.port()).filter(|port| *port != 0)
}

/// Looking a name up walks the file system or asks the kernel, so it is done once. What is gone
/// keeps its number as its name.
fn remembered<K: Copy + Eq + std::hash::Hash + std::fmt::Display>(
    names: &mut HashMap<K, Arc<str>>,
    key: K,
    find: impl FnOnce(K) -> Option<String>,
) -> Arc<str> {
    if let Some(name) = names.get(&key) {
        return Arc::clone(name);
    }
    let Some(name) = find(key) else { return format!("#{key}").into() };
    if names.len() >= REMEMBERED {
        names.clear();
    }
    let name: Arc<str> = name.into();
    names.insert(key, Arc::clone(&name));
    name
}

/// IANA's names of protocols; the others by number.
fn protocol(flow: &Flow) -> String {
    if flow.destination.is_none() {
        return match flow.ether_type {
            0x0806 => "ARP".into(),
            other => format!("ethertype {other:#06x}"),
        };
    }
    match flow.protocol {
        1 => "ICMP".into(),
        2 => "IGMP".into(),
        4 => "IPIP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        33 => "DCCP".into(),
        41 => "SIT".into(),
        47 => "GRE".into(),
        50 => "ESP".into(),
        58 => "ICMPv6".into(),
        132 => "SCTP".into(),
        136 => "UDP-Lite".into(),
        other => format!("protocol {other}"),
    }
}

/// `Nov 23 05:06:45.123: default/web 10.0.0.5:40000 -> 198.51.100.7:443 TCP REDIRECTED (routed) at connect, cgroup /pods/web`
fn text(line: &Line<'_>, flow: &Flow) -> String {
    let time = Timestamp::try_from(flow.time).unwrap_or_default().to_zoned(TimeZone::UTC);
    let mut text = time.strftime("%b %d %H:%M:%S%.3f: ").to_string();
    if let (Some(namespace), Some(workload)) = (line.namespace, line.workload) {
        push(&mut text, format_args!("{namespace}/{workload} "));
    }
    match flow.source {
        Some(source) => push(&mut text, format_args!("{}", shown(source))),
        None => text.push('?'),
    }
    match flow.destination {
        Some(destination) => push(&mut text, format_args!(" -> {}", shown(destination))),
        None => text.push_str(" -> ?"),
    }
    let verdict = match (flow.action, flow.audit) {
        (_, true) => "AUDIT",
        (Action::Allow, false) => "ALLOWED",
        (Action::Deny, false) => "DENIED",
        (Action::Redirect, false) => "REDIRECTED",
    };
    push(
        &mut text,
        format_args!(" {} {verdict} ({}) at {}", line.protocol, line.reason, line.hook),
    );
    if let Some(cgroup) = &line.cgroup {
        push(&mut text, format_args!(", cgroup {cgroup}"));
    }
    if let Some(interface) = &line.interface {
        push(&mut text, format_args!(", interface {interface}"));
    }
    text
}

/// Without the port where there is none.
fn shown(addr: SocketAddr) -> String {
    if addr.port() == 0 { addr.ip().to_string() } else { addr.to_string() }
}

/// Writing to a string can't fail.
fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).ok();
}

/// Writes until the printer is gone. Flushes whenever nothing waits, so that a reader sees an
/// event at once and a flood costs few system calls.
fn write(lines: &Receiver<String>) {
    let mut out = io::BufWriter::new(io::stdout());
    while let Ok(line) = lines.recv() {
        let mut result = writeln!(out, "{line}");
        while let Ok(line) = lines.try_recv() {
            result = result.and_then(|()| writeln!(out, "{line}"));
        }
        if let Err(error) = result.and_then(|()| out.flush()) {
            tracing::warn!("can't write flow events any more: {error}");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use egress_ebpf::reason::Reason;

    use super::*;
    use crate::{bpf::Hook, types::Namespace};

    fn printer(format: Format) -> (Printer, Receiver<String>) {
        let (lines, receiver) = sync_channel(1);
        let printer = Printer {
            format,
            lines,
            dropped: Arc::default(),
            workloads: HashMap::new(),
            cgroups: [(42, "/pods/web".into())].into(),
            interfaces: [(u32::MAX, "veth-web".into())].into(),
        };
        (printer, receiver)
    }

    fn flow() -> Flow {
        Flow {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            hook: Hook::Pod,
            action: Action::Deny,
            reason: Reason::NotRedirected,
            audit: false,
            source: Some("10.0.0.5:40000".parse().unwrap()),
            destination: Some("198.51.100.7:443".parse().unwrap()),
            ether_type: 0x0800,
            protocol: 6,
            cgroup: None,
            ifindex: Some(u32::MAX),
        }
    }

    #[test]
    fn text_reads_like_a_sentence() {
        let (mut printer, lines) = printer(Format::Text);
        let workload = Workload {
            name: "web".into(),
            namespace: Namespace("default".into()),
            labels: Default::default(),
            addresses: vec!["10.0.0.5".parse().unwrap()],
            cgroups: Vec::new(),
            interface: None,
        };
        printer.set_workloads(&[Arc::new(workload)]);
        printer.print(&flow());
        assert_eq!(
            lines.recv().unwrap(),
            "Jan 01 00:00:01.500: default/web 10.0.0.5:40000 -> 198.51.100.7:443 TCP DENIED \
             (not_redirected) at pod, interface veth-web"
        );
        let connect = Flow {
            hook: Hook::Connect,
            action: Action::Redirect,
            reason: Reason::Routed,
            source: None,
            cgroup: Some(42),
            ifindex: None,
            ..flow()
        };
        printer.print(&connect);
        assert_eq!(
            lines.recv().unwrap(),
            "Jan 01 00:00:01.500: ? -> 198.51.100.7:443 TCP REDIRECTED (routed) at connect, \
             cgroup /pods/web"
        );
    }

    #[test]
    fn json_holds_values_and_leaves_out_what_is_unknown() {
        let (mut printer, lines) = printer(Format::Json);
        let ping = Flow {
            destination: Some("198.51.100.7:0".parse().unwrap()),
            protocol: 1,
            reason: Reason::Protocol,
            ..flow()
        };
        printer.print(&ping);
        let value: serde_json::Value = serde_json::from_str(&lines.recv().unwrap()).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:01.5Z",
            "hook": "pod",
            "verdict": "deny",
            "reason": "protocol",
            "audit": false,
            "interface": "veth-web",
            "source_address": "10.0.0.5",
            "source_port": 40000,
            "destination_address": "198.51.100.7",
            "protocol": "ICMP",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_slow_reader_costs_lines_and_nothing_else() {
        let (mut printer, lines) = printer(Format::Text);
        for _ in 0..3 {
            printer.print(&flow());
        }
        assert_eq!(printer.dropped().load(Ordering::Relaxed), 2);
        assert!(lines.recv().is_ok());
        let (mut off, _lines) = self::printer(Format::Off);
        off.print(&flow());
        assert_eq!(off.dropped().load(Ordering::Relaxed), 0);
    }
}
