//! A flow as one line: `Nov 23 05:06:45.123: default/web 10.0.0.5:40000 -> 198.51.100.7:443 TCP
//! REDIRECTED (routed) at connect, cgroup /pods/web`.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
};

use jiff::{Timestamp, tz::TimeZone};

use super::{FlowRecord, FlowVerdict};
use crate::{policy::DEFAULT_SET, types::printable};

impl FlowRecord {
    /// One line for people, in the form that the head of this file shows.
    #[must_use]
    pub fn text(&self) -> String {
        let time = Timestamp::try_from(self.time).unwrap_or_default().to_zoned(TimeZone::UTC);
        let mut text = time.strftime("%b %d %H:%M:%S%.3f: ").to_string();
        source(&mut text, self);
        destination(&mut text, self);
        push(&mut text, format_args!(" {} ", self.protocol));
        verdict(&mut text, self);
        push(&mut text, format_args!(" at {}", self.hook));
        if let Some(gateway) = self.gateway {
            push(&mut text, format_args!(", gateway {gateway}"));
        }
        if let Some(cgroup) = &self.cgroup {
            push(&mut text, format_args!(", cgroup {cgroup}"));
        }
        if let Some(container) = &self.container {
            // As `crictl ps` and `docker ps` cut it.
            push(&mut text, format_args!(", container {:.12}", container));
        }
        if let Some(pid) = self.pid {
            push(&mut text, format_args!(", process {pid}"));
            if let Some(executable) = &self.executable {
                push(&mut text, format_args!(" {executable}"));
            } else if let Some(command) = &self.command {
                push(&mut text, format_args!(" ({command})"));
            }
        }
        if let Some(interface) = &self.interface {
            push(&mut text, format_args!(", interface {interface}"));
        }
        // Everybody else's set goes without saying.
        if let Some(set) = self.set.as_ref().filter(|set| *set != DEFAULT_SET) {
            push(&mut text, format_args!(", set {set}"));
        }
        if let Some(code) = self.response_code {
            push(&mut text, format_args!(", {code}"));
        }
        if let Some(flags) = &self.response_flags {
            push(&mut text, format_args!(", {flags}"));
        }
        if self.ech {
            text.push_str(", ech");
        }
        if let Some(upstream) = self.upstream {
            push(&mut text, format_args!(", upstream {upstream}"));
        }
        if let Some(trace) = &self.trace_id {
            push(&mut text, format_args!(", trace {trace}"));
        }
        if let Some(detail) = &self.detail {
            push(&mut text, format_args!(": {detail}"));
        }
        // Hosts are the client's words, and cgroups a workload's.
        printable(&text).into_owned()
    }
}

impl FlowRecord {
    /// The host with the port, which a client may have said itself: `Host: a.example:8080`.
    #[must_use]
    pub fn host_with_port(&self) -> Option<String> {
        let host = self.host.as_deref()?;
        match self.destination_port.unwrap_or(0) {
            0 => Some(host.to_owned()),
            port if host.ends_with(&format!(":{port}")) => Some(host.to_owned()),
            port => Some(format!("{host}:{port}")),
        }
    }
}

fn source(text: &mut String, flow: &FlowRecord) {
    if let (Some(namespace), Some(workload)) = (&flow.namespace, &flow.workload) {
        push(text, format_args!("{namespace}/{workload}"));
    }
    match (flow.source_address, &flow.workload) {
        (Some(addr), workload) => {
            let space = if workload.is_some() { " " } else { "" };
            let port = flow.source_port.unwrap_or(0);
            push(text, format_args!("{space}{}", shown(SocketAddr::new(addr, port))));
        }
        (None, Some(_)) => {}
        (None, None) => text.push('?'),
    }
}

fn destination(text: &mut String, flow: &FlowRecord) {
    text.push_str(" -> ");
    let port = flow.destination_port.unwrap_or(0);
    match (flow.destination_address, &flow.host) {
        (Some(addr), host) => {
            text.push_str(&shown(SocketAddr::new(addr, port)));
            if let Some(host) = host {
                push(text, format_args!(" ({host})"));
            }
        }
        (None, Some(_)) => text.push_str(&flow.host_with_port().unwrap_or_default()),
        (None, None) if port != 0 => push(text, format_args!("?:{port}")),
        (None, None) => text.push('?'),
    }
}

fn verdict(text: &mut String, flow: &FlowRecord) {
    text.push_str(match (flow.verdict, flow.audit) {
        (FlowVerdict::Allow, false) => "ALLOWED",
        (FlowVerdict::Deny, false) => "DENIED",
        (FlowVerdict::Redirect, false) => "REDIRECTED",
        (FlowVerdict::Fail, false) => "FAILED",
        (FlowVerdict::Allow, true) => "AUDIT would allow",
        (FlowVerdict::Deny, true) => "AUDIT would deny",
        (FlowVerdict::Redirect, true) => "AUDIT would redirect",
        (FlowVerdict::Fail, true) => "AUDIT would fail",
    });
    if let Some(reason) = &flow.reason {
        push(text, format_args!(" ({reason})"));
    }
}

/// Without the port where there is none.
fn shown(addr: SocketAddr) -> String {
    if addr.port() == 0 { addr.ip().to_string() } else { addr.to_string() }
}

/// Writing to a string can't fail.
fn push(text: &mut String, args: fmt::Arguments<'_>) {
    text.write_fmt(args).ok();
}
